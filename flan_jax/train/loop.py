"""The training loop. Network, checkpoints and evaluation are passed in as callables."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.errors import UserError
from flan_jax.optim.selection import path_names
from flan_jax.shapes import Batch
from flan_jax.train.early_stopping import EarlyStopping, Memory
from flan_jax.train.metrics import Meter
from flan_jax.train.placed_feed import Feed, Placed, PlacedFeed
from flan_jax.train.soundness import DivergedError
from flan_jax.train.start_up import StartUp
from flan_jax.train.state import TrainState
from flan_jax.train.step import TrainStep
from flan_jax.train.telemetry import Telemetry
from flan_jax.train.writers import Writer

# Increased when the fields of a saved position change.
POSITION_VERSION = 1
STOP_REQUESTED = "stop requested"

Evaluate = Callable[[int, TrainState], Mapping[str, Any]]
Save = Callable[[int, TrainState, dict[str, Any], Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
    """When a run logs, evaluates, saves and ends; in steps since its beginning.

    Attributes:
      total_steps: The step after which the run ends.
      log_every_steps: Logs a line of metrics at every multiple, and at the end.
      evaluate_every_steps: Evaluates at every multiple, and at the end; None only at the end.
      save_every_steps: Saves at every multiple, and at the end; None only at the end.
      evaluate_at_start: Whether to evaluate before the first step, for comparison.
      max_skipped_steps: The number of consecutive steps with non-finite numbers that ends the run.

    Raises:
      UserError: A number is below 1.
    """

    total_steps: PositiveInt
    log_every_steps: PositiveInt = 10
    evaluate_every_steps: PositiveInt | None = None
    save_every_steps: PositiveInt | None = None
    evaluate_at_start: bool = False
    max_skipped_steps: PositiveInt = 10

    def __post_init__(self) -> None:
        check_fields(self)

    def logs(self, step: int) -> bool:
        """Returns whether a step is logged."""
        return step >= self.total_steps or _is_multiple(step, self.log_every_steps)

    def evaluates(self, step: int) -> bool:
        """Returns whether a step is evaluated."""
        if step == 0:
            return self.evaluate_at_start
        return step >= self.total_steps or _is_multiple(step, self.evaluate_every_steps)

    def saves(self, step: int) -> bool:
        """Returns whether a step is saved."""
        return step >= self.total_steps or _is_multiple(step, self.save_every_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """Functions that the loop calls at step boundaries, unless they are None.

    Attributes:
      evaluate: Maps step and state to metrics by name.
      save: Receives step, state, position (JSON) and the metrics of the evaluation at this step, if any. The state's
        arrays are donated to the next step, so that it must copy them before it returns.
      check: Called at every boundary; raises the error of a save in the background.
    """

    evaluate: Evaluate | None = None
    save: Save | None = None
    check: Callable[[], None] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """How a run ended.

    Attributes:
      state: The last state.
      step: The number of steps done.
      reason: "all steps", "early stopping" or "stop requested".
      metrics: The metrics of the last evaluation in this process.
      best: The best evaluation, as early stopping remembers it.
      saved_step: The step of the newest save in this process; None when there was none.
    """

    state: TrainState
    step: int
    reason: str
    metrics: Mapping[str, Any]
    best: Memory
    saved_step: int | None = None


def run(
    state: TrainState,
    *,
    step_fn: TrainStep,
    feed: Feed,
    place_batch: Callable[[Mapping[str, Any]], Batch],
    cadence: Cadence,
    hooks: Hooks,
    writers: Sequence[Writer],
    early_stopping: EarlyStopping | None = None,
    position: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
    total: Callable[[Mapping[str, int]], Mapping[str, int]] = lambda counts: counts,
    start_up: StartUp | None = None,
    print_line: Callable[[str], None] = print,
) -> Finished:
    """Trains from a state to the end.

    The order at every step boundary is a contract: **evaluate, save, read a batch, step**. A save therefore has the
    position after the batches that the state has seen, and the evaluation at its own step; a run resumed from it
    repeats neither and misses none. When a stop is requested, the loop saves and ends without an evaluation. A state is
    not saved while steps are skipped, and at the end only if it differs from the one saved before.

    Args:
      state: The initial state, new or restored; its arrays are donated to the first step.
      step_fn: The compiled step, `(state, batch) -> (state, metrics)`.
      feed: An endless feed at its beginning; read in a thread, a few batches ahead.
      place_batch: Transfers this process's rows of a batch to the devices; called in that thread.
      cadence: When to log, evaluate, save and end.
      hooks: Evaluation and saving.
      writers: Writers of metrics, opened and closed here.
      early_stopping: Ends the run early; needs an evaluation.
      position: The position that was saved with the state; None for a new run.
      stop: Returns whether a stop was requested; called at every boundary. See `stopping.StopRequest`.
      total: Maps counts of this process's rows to those of all processes; called at the same steps in each.
      start_up: Measures the time until the first step is done.
      print_line: Prints one line of text.

    Returns:
      The last state, and why it is the last.

    Raises:
      DivergedError: Too many consecutive steps are not finite.
      UnknownNameError: Early stopping watches a metric that the evaluation does not have.
    """
    assert early_stopping is None or hooks.evaluate is not None, "early stopping needs an evaluation"
    progress = _Progress.restored(position)
    if position is not None:
        feed.restore(position["feed"])
    meter = Meter(state=progress.meter, total=total)
    start_up = start_up or StartUp()
    # Read from the device once; afterwards the loop counts, because reading it would wait for the step.
    step = first_step = int(state.step)
    saved_step: int | None = None
    metrics: Mapping[str, Any] = {}
    with (
        contextlib.closing(PlacedFeed(feed, place_batch)) as placed,
        _telemetry(
            state, cadence=cadence, writers=writers, meter=meter, start_up=start_up, print_line=print_line
        ) as telemetry,
    ):
        while True:
            if hooks.check is not None:
                # First, so that a failed save ends the run before it computes more that cannot be saved.
                hooks.check()
            evaluated: Mapping[str, Any] = {}
            # A run that is resumed at an evaluated step does not evaluate it again.
            due = cadence.evaluates(step) and step != progress.evaluated_step
            # After a stop request little time is left; the resumed run evaluates this step.
            # `stop` counts its calls (`stopping.SharedStop`): `due` is the same in all processes, so they call it
            # equally often.
            if hooks.evaluate is not None and due and not stop():
                with start_up.phase("evaluation"):
                    evaluated = metrics = _evaluate(hooks.evaluate, step, state, telemetry)
                progress.evaluated_step = step
                if early_stopping is not None:
                    progress.best = early_stopping.update(progress.best, step=step, metrics=evaluated)
            reason = _reason_to_end(step, cadence=cadence, early_stopping=early_stopping, best=progress.best, stop=stop)
            # The initial state is not saved: it is on disk already or can be computed again.
            is_due = hooks.save is not None and step > first_step and (reason or cadence.saves(step))
            if hooks.save is not None and is_due and telemetry.may_save(is_last=bool(reason)):
                _save(hooks.save, step, state, telemetry, evaluated, position=lambda: progress.position(placed, meter))
                saved_step = step
            elif is_due and reason and reason != STOP_REQUESTED and saved_step is None:
                raise DivergedError(
                    f"The run reached step {step:,}, but every step was skipped: there is nothing to save. Check the "
                    "data and the initial weights."
                )
            if reason:
                telemetry.flush()
                return Finished(
                    state=state,
                    step=step,
                    reason=reason,
                    metrics=metrics,
                    best=progress.best,
                    saved_step=saved_step,
                )
            with start_up.phase("batch"):
                (batch, stats, slots), wait_seconds = _next_batch(placed, step)
            # `step_fn` returns before the devices have finished, so this measures the dispatch, not the step.
            start = time.perf_counter()
            with start_up.phase("step"):
                state, step_metrics = step_fn(state, batch)
            step += 1
            telemetry.follow(
                step,
                step_metrics,
                stats=stats,
                slots=slots,
                wait_seconds=wait_seconds,
                dispatch_seconds=time.perf_counter() - start,
            )


@dataclasses.dataclass(kw_only=True)
class _Progress:
    """The part of a run's position that neither state nor feed has."""

    evaluated_step: int | None = None
    best: Memory = dataclasses.field(default_factory=Memory)
    meter: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def restored(cls, position: Mapping[str, Any] | None) -> "_Progress":
        if position is None:
            return cls()
        if position.get("version") != POSITION_VERSION:
            raise UserError(
                f"The checkpoint's position has version {position.get('version')!r}; this program reads version "
                f"{POSITION_VERSION}. Resume with the version that started the run, or start a new run from its "
                "parameters."
            )
        best = Memory(**position["best"])
        return cls(evaluated_step=position["evaluated_step"], best=best, meter=position["meter"])

    def position(self, feed: PlacedFeed, meter: Meter) -> dict[str, Any]:
        """Returns the complete position, as JSON."""
        return {
            "version": POSITION_VERSION,
            "feed": feed.state(),
            "evaluated_step": self.evaluated_step,
            "best": dataclasses.asdict(self.best),
            "meter": meter.state(),
        }


@contextlib.contextmanager
def _telemetry(
    state: TrainState,
    *,
    cadence: Cadence,
    writers: Sequence[Writer],
    meter: Meter,
    start_up: StartUp,
    print_line: Callable[[str], None],
) -> Iterator[Telemetry]:
    """Opens the writers until the loop ends."""
    with contextlib.ExitStack() as stack:
        yield Telemetry(
            writers=[stack.enter_context(writer) for writer in writers],
            meter=meter,
            tensor_names=path_names(state.params),
            logs=cadence.logs,
            max_skipped_steps=cadence.max_skipped_steps,
            start_up=start_up,
            print_line=print_line,
        )


def _evaluate(evaluate: Evaluate, step: int, state: TrainState, telemetry: Telemetry) -> Mapping[str, Any]:
    telemetry.flush()
    with telemetry.pause() as seconds:
        metrics = evaluate(step, state)
        telemetry.record(step, kind="evaluation", values={**metrics, "evaluate_seconds": seconds()})
    return metrics


def _save(
    save: Save,
    step: int,
    state: TrainState,
    telemetry: Telemetry,
    metrics: Mapping[str, Any],
    *,
    position: Callable[[], dict[str, Any]],
) -> None:
    with telemetry.pause() as seconds:
        save(step, state, position(), metrics)
        telemetry.record(step, kind="save", values={"save_seconds": seconds()})
    telemetry.was_saved()


def _reason_to_end(
    step: int, *, cadence: Cadence, early_stopping: EarlyStopping | None, best: Memory, stop: Callable[[], bool]
) -> str:
    # Before `stop`, which then is called equally often in all processes.
    if step >= cadence.total_steps:
        return "all steps"
    if early_stopping is not None and early_stopping.is_over(best):
        return "early stopping"
    return STOP_REQUESTED if stop() else ""


def _next_batch(placed: PlacedFeed, step: int) -> tuple[Placed, float]:
    """Returns the next batch on the devices, and how long the loop waited for it."""
    start = time.perf_counter()
    try:
        return next(placed), time.perf_counter() - start
    except StopIteration:
        raise RuntimeError(f"The feed ended at step {step}; a training feed repeats its examples.") from None


def _is_multiple(step: int, every_steps: int | None) -> bool:
    return every_steps is not None and step % every_steps == 0
