"""The loop of a run. It knows no network, no file format and no evaluation: those come as callables."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError
from flan_jax.optim.selection import path_names
from flan_jax.shapes import Batch
from flan_jax.train.early_stopping import EarlyStopping, Memory
from flan_jax.train.metrics import Meter
from flan_jax.train.placed_feed import Feed, Placed, PlacedFeed
from flan_jax.train.start_up import StartUp
from flan_jax.train.state import TrainState
from flan_jax.train.step import TrainStep
from flan_jax.train.telemetry import Telemetry
from flan_jax.train.writers import Writer

POSITION_VERSION = 1

Evaluate = Callable[[int, TrainState], Mapping[str, Any]]
Save = Callable[[int, TrainState, dict[str, Any], Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
    """When a run does what; in steps since its beginning.

    Attributes:
      total_steps: The end.
      log_every_steps: A line of metrics at every multiple, and at the end.
      evaluate_every_steps: An evaluation at every multiple, and at the end; None: at the end only.
      save_every_steps: A save at every multiple, and at the end; None: at the end only.
      evaluate_at_start: Whether there is an evaluation before the first step, to compare with.
      max_skipped_steps: So many steps in a row that are not finite end the run.

    Raises:
      UserError: a number below 1.
    """

    total_steps: int
    log_every_steps: int = 10
    evaluate_every_steps: int | None = None
    save_every_steps: int | None = None
    evaluate_at_start: bool = False
    max_skipped_steps: int = 10

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name.endswith("steps") and value < 1:
                raise UserError(f"Cadence: {field.name} is {value}; it has to be at least 1.")

    def logs(self, step: int) -> bool:
        """Returns whether there is a line of metrics at a step."""
        return step >= self.total_steps or _is_multiple(step, self.log_every_steps)

    def evaluates(self, step: int) -> bool:
        """Returns whether there is an evaluation at a step."""
        if step == 0:
            return self.evaluate_at_start
        return step >= self.total_steps or _is_multiple(step, self.evaluate_every_steps)

    def saves(self, step: int) -> bool:
        """Returns whether there is a save at a step, whatever ends there."""
        return step >= self.total_steps or _is_multiple(step, self.save_every_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls at step boundaries; None: not at all.

    Attributes:
      evaluate: From step and state to metrics by name.
      save: Takes step, state, position (JSON) and the metrics of the evaluation at this very step, if any. The state's
        arrays are given to the next step, so it has to have copied them when it returns.
      check: Called at every boundary; raises what a save going on in the background met.
    """

    evaluate: Evaluate | None = None
    save: Save | None = None
    check: Callable[[], None] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """How a run ended.

    Attributes:
      state: The last state.
      step: Steps done.
      reason: "all steps", "early stopping" or "stop requested".
      metrics: Of the last evaluation in this process.
      best: What early stopping remembers.
    """

    state: TrainState
    step: int
    reason: str
    metrics: Mapping[str, Any]
    best: Memory


def run(
    state: TrainState,
    *,
    step_fn: TrainStep,
    feed: Feed,
    place_batch: Callable[[Mapping[str, Any]], Batch],
    cadence: Cadence,
    hooks: Hooks,
    writers: Sequence[Writer],
    frozen: Any = None,
    early_stopping: EarlyStopping | None = None,
    position: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
    total: Callable[[Mapping[str, int]], Mapping[str, int]] = lambda counts: counts,
    start_up: StartUp | None = None,
    say: Callable[[str], None] = print,
) -> Finished:
    """Trains from a state to the end.

    The order at every step boundary is a contract: **evaluate, save, draw a batch, step**. A save therefore holds the
    position behind the batches that the state has seen, and the evaluation at its own step; a run that goes on from it
    repeats neither and misses none. When a stop is requested, no evaluation is begun: save, and end.

    Args:
      state: The first state, or a restored one; its arrays are given up to the first step.
      step_fn: The compiled step, `(state, frozen, batch) -> (state, metrics)`.
      feed: Endless; not at a restored position yet. It is drawn from in a thread, a few batches ahead.
      place_batch: From the arrays of this process's rows to arrays on the devices; called in that thread.
      cadence: When to log, evaluate, save and end.
      hooks: Evaluation and saving.
      writers: Opened here and closed again.
      frozen: Handed to every step: weights that an objective uses and nobody trains.
      early_stopping: Ends the run before its time; needs the evaluation.
      position: As the restored save got it; None at a beginning.
      stop: Asked at every boundary whether a stop was requested, as by `stopping.StopRequest`.
      total: From counts of this process's rows to those of all processes'; asked at the same steps in each.
      start_up: What has taken its time until now.
      say: Prints one line for a person.

    Returns:
      The last state and why it is the last.

    Raises:
      UserError: too many steps in a row that are not finite, a feed that ends, early stopping without an evaluation.
      UnknownNameError: early stopping on a metric that the evaluation does not give.
    """
    if early_stopping is not None and hooks.evaluate is None:
        raise UserError(f"Early stopping watches {early_stopping.metric!r}, but nothing evaluates in this run.")
    progress = _Progress.restored(position)
    if position is not None:
        feed.restore(position["feed"])
    meter = Meter(state=progress.meter, total=total)
    start_up = start_up or StartUp()
    step = first_step = int(state.step)
    metrics: Mapping[str, Any] = {}
    with (
        contextlib.closing(PlacedFeed(feed, place_batch)) as placed,
        _telemetry(state, cadence=cadence, writers=writers, meter=meter, start_up=start_up, say=say) as telemetry,
    ):
        while True:
            if hooks.check is not None:
                hooks.check()
            evaluated: Mapping[str, Any] = {}
            due = cadence.evaluates(step) and step != progress.evaluated_step
            if hooks.evaluate is not None and due and not stop():
                with start_up.phase("evaluation"):
                    evaluated = metrics = _evaluate(hooks.evaluate, step, state, telemetry)
                progress.evaluated_step = step
                if early_stopping is not None:
                    progress.best = early_stopping.update(progress.best, step=step, metrics=evaluated)
            reason = _reason_to_end(step, cadence=cadence, early_stopping=early_stopping, best=progress.best, stop=stop)
            if hooks.save is not None and step > first_step and (reason or cadence.saves(step)):
                _save(hooks.save, step, state, telemetry, evaluated, position=lambda: progress.position(placed, meter))
            if reason:
                telemetry.settle()
                return Finished(state=state, step=step, reason=reason, metrics=metrics, best=progress.best)
            with start_up.phase("batch"):
                (batch, stats, slots), wait_seconds = _draw(placed, step)
            start = time.perf_counter()
            with start_up.phase("step"):
                state, step_metrics = step_fn(state, frozen, batch)
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
    """What, besides state and feed, says where a run is."""

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
                f"{POSITION_VERSION}. Resume with the program that began the run, or begin one from its parameters."
            )
        best = Memory(**position["best"])
        return cls(evaluated_step=position["evaluated_step"], best=best, meter=position["meter"])

    def position(self, feed: PlacedFeed, meter: Meter) -> dict[str, Any]:
        """The whole position, as JSON."""
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
    say: Callable[[str], None],
) -> Iterator[Telemetry]:
    """Opens the writers for as long as the loop runs."""
    with contextlib.ExitStack() as stack:
        yield Telemetry(
            writers=[stack.enter_context(writer) for writer in writers],
            meter=meter,
            tensor_names=path_names(state.params),
            logs=cadence.logs,
            max_skipped_steps=cadence.max_skipped_steps,
            start_up=start_up,
            say=say,
        )


def _evaluate(evaluate: Evaluate, step: int, state: TrainState, telemetry: Telemetry) -> Mapping[str, Any]:
    telemetry.settle()
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
    telemetry.settle()  # The position counts the examples of the last step too.
    with telemetry.pause() as seconds:
        save(step, state, position(), metrics)
        telemetry.record(step, kind="save", values={"save_seconds": seconds()})


def _reason_to_end(
    step: int, *, cadence: Cadence, early_stopping: EarlyStopping | None, best: Memory, stop: Callable[[], bool]
) -> str:
    if step >= cadence.total_steps:
        return "all steps"
    if early_stopping is not None and early_stopping.is_over(best):
        return "early stopping"
    return "stop requested" if stop() else ""


def _draw(placed: PlacedFeed, step: int) -> tuple[Placed, float]:
    """The next batch on the devices, and how long it was waited for."""
    start = time.perf_counter()
    try:
        return next(placed), time.perf_counter() - start
    except StopIteration:
        raise RuntimeError(f"The feed ended at step {step}; a training feed repeats its examples.") from None


def _is_multiple(step: int, every_steps: int | None) -> bool:
    return every_steps is not None and step % every_steps == 0
