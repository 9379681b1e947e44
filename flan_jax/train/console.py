"""The progress of a run: a live bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable
from typing import Self, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flan_jax.train.writers import Values, Writer

QUIET = Console(quiet=True)


def console_writer(console: Console, *, total_steps: int, step: int = 0) -> Writer:
    """Returns a progress bar when the console is a terminal, plain lines when it is a file or a pipe.

    Args:
      console: Where to print. Everything else that is printed meanwhile must use it too, and appears above the bar.
      total_steps: The last step of the run.
      step: The first step of the bar.
    """
    if console.is_terminal:
        return ProgressBar(console, total_steps=total_steps, step=step)
    # One line per training line at any width, so that a log can be searched.
    return PlainLines(lambda text: console.print(text, soft_wrap=True, highlight=False), total_steps=total_steps)


def summary(values: Values, *, characters: int = 1000) -> str:
    """Returns the most important numbers of a training line as text, as many as fit.

    >>> summary({"loss": 2.25, "accuracy": 0.5, "tokens_per_second": 5312.7, "data_wait_share": 0.01})
    'loss 2.250  accuracy 50.0%  5,313 tokens/s  wait 1%'
    >>> summary({"loss": 2.25, "accuracy": 0.5, "tokens_per_second": 5312.7}, characters=30)
    'loss 2.250  accuracy 50.0%'
    """
    formats = {
        "loss": "loss {:.3f}",
        "accuracy": "accuracy {:.1%}",
        "learning_rate": "rate {:.2e}",
        "seconds_per_step": "{:.3g} s/step",
        "tokens_per_second": "{:,.0f} tokens/s",
        "data_wait_share": "wait {:.0%}",
        "padding_share": "padding {:.0%}",
    }
    shown = [text.format(values[name]) for name, text in formats.items() if values.get(name) is not None]
    if values.get("skipped_steps"):
        shown.insert(1, f"skipped {values['skipped_steps']:.0f}")
    while len(shown) > 1 and len("  ".join(shown)) > characters:
        shown.pop()
    return "  ".join(shown)


def duration(seconds: float) -> str:
    """Returns a time as hours, minutes and seconds.

    >>> duration(75), duration(3725)
    ('1:15', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@final
class PlainLines(Writer):
    """Prints one line per training line; evaluations print their own tables."""

    def __init__(self, print_line: Callable[[str], None], *, total_steps: int):
        """Stores the function that prints a line, and the last step of the run."""
        self._print_line = print_line
        self._total_steps = total_steps

    def __enter__(self) -> Self:
        self._print_line("compiling the training step ...")
        return self

    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Prints a training line with the estimated remaining time."""
        if kind != "train":
            return
        left = (self._total_steps - step) * (values.get("seconds_per_step") or 0.0)
        eta = f"  {duration(left)} left" if left else ""
        self._print_line(f"step {step:,}/{self._total_steps:,}  {summary(values)}{eta}")


@final
class ProgressBar(Writer):
    """A live bar below everything else that is printed, and a history of the training lines above it.

    Step, remaining time and loss always fit; the bar takes what is left of the width.
    """

    def __init__(self, console: Console, *, total_steps: int, step: int):
        """Creates the bar; it appears on entering."""
        self._console, self._total_steps = console, total_steps
        self._progress = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            # In less width the bar would push out the loss.
            *([BarColumn(bar_width=None)] if console.width >= 60 else []),
            TimeRemainingColumn(compact=True),
            TextColumn("left  {task.fields[loss]}"),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("compiling", total=total_steps, completed=step, loss="", start=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Prints a training line above the bar, and its loss in the bar."""
        if kind != "train":
            return
        counter = f"step {step:,}/{self._total_steps:,}  "
        line = counter + summary(values, characters=self._console.width - len(counter))
        self._console.print(line, highlight=False, no_wrap=True)
        self._progress.update(self._task, completed=step, loss=summary({"loss": values.get("loss")}))

    def advance(self, step: int) -> None:
        """Moves the bar; the remaining time is measured from the end of the first step, without its compilation."""
        if not self._progress.tasks[0].started:
            self._progress.start_task(self._task)
        self._progress.update(self._task, completed=step, description="training")
