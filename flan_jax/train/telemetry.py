"""Between the device and the writers: metrics are fetched one step late, so that the device never waits for a line."""

import contextlib
import numbers
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import jax

from flan_jax.errors import UserError
from flan_jax.train.metrics import Meter
from flan_jax.train.start_up import StartUp
from flan_jax.train.state import StepMetrics
from flan_jax.train.writers import Writer


class _Pending(NamedTuple):
    step: int
    metrics: StepMetrics
    stats: Mapping[str, int]
    slots: int
    wait_seconds: float


@final
class Telemetry:
    """Follows the steps of one run: adds them up, writes lines, and ends a run that no longer computes numbers."""

    def __init__(
        self,
        *,
        writers: Sequence[Writer],
        meter: Meter,
        tensor_names: Sequence[str],
        logs: Callable[[int], bool],
        max_skipped_steps: int,
        start_up: StartUp,
        say: Callable[[str], None],
    ):
        """Takes where to write, what adds up, and when.

        Args:
          writers: Open ones.
          meter: Keeps the sums between lines.
          tensor_names: Names of the parameters in flattened order, to name the one that went bad.
          logs: Whether there is a line at a step.
          max_skipped_steps: So many skipped steps in a row end the run.
          start_up: Told when the first step is done.
          say: Prints one line for a person.
        """
        self._writers = writers
        self._meter = meter
        self._tensor_names = tensor_names
        self._logs = logs
        self._max_skipped_steps = max_skipped_steps
        self._start_up = start_up
        self._say = say
        self._pending: _Pending | None = None
        self._skipped_in_a_row = 0
        self._started = False

    def follow(
        self,
        step: int,
        metrics: StepMetrics,
        *,
        stats: Mapping[str, int],
        slots: int,
        wait_seconds: float,
        dispatch_seconds: float,
    ) -> None:
        """Takes a step just dispatched, and tells of the one before it.

        Args:
          step: Steps done with this one.
          metrics: Still being computed.
          stats: Counts of the batch.
          slots: Room of the batch.
          wait_seconds: How long the loop waited for the batch.
          dispatch_seconds: How long the call took: the first one traces and compiles.
        """
        self._tell()
        self._pending = _Pending(step, metrics, stats, slots, wait_seconds)
        if not self._started:  # The only step that is waited for, because someone at the screen waits for it too.
            self._started = True
            with self._start_up.phase("step"):
                jax.block_until_ready(metrics)
            self._meter.exclude(dispatch_seconds)
            # In this order: who waits for the sentence, as tools/bench/startup.py does, finds the record.
            self.record(step, kind="start", values=self._start_up.values())
            self._say(self._start_up.sentence())
            self._tell()

    def settle(self) -> None:
        """Waits for the last step dispatched and tells of it, before the state is used otherwise."""
        self._tell()

    def record(self, step: int, *, kind: str, values: Mapping[str, Any]) -> None:
        """Writes a line that is no step's, those values that are numbers."""
        shown: dict[str, float | None] = {}
        for name, value in values.items():
            if value is None or isinstance(value, int | float):
                shown[name] = value
            elif isinstance(value, numbers.Real):  # NumPy's scalars, which JSON would refuse.
                shown[name] = float(value)
        for writer in self._writers:
            writer.write(step, kind=kind, values=shown)

    @contextlib.contextmanager
    def pause(self) -> Iterator[Callable[[], float]]:
        """Leaves the time spent inside out of the throughput; yields a clock that counts from its beginning."""
        start = time.perf_counter()
        yield lambda: time.perf_counter() - start
        self._meter.exclude(time.perf_counter() - start)

    def _tell(self) -> None:
        """Fetches the step that is pending, waiting for it when it is not done."""
        if self._pending is None:
            return
        step, on_device, stats, slots, wait_seconds = self._pending
        self._pending = None
        metrics: StepMetrics = jax.device_get(on_device)
        self._meter.add(metrics, stats=stats, slots=slots, wait_seconds=wait_seconds)
        if self._logs(step):
            self.record(step, kind="train", values=self._meter.line())
        for writer in self._writers:
            writer.advance(step)
        self._guard(step, metrics)

    def _guard(self, step: int, metrics: StepMetrics) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if metrics.skipped else 0
        if not metrics.skipped:
            return
        bad = int(metrics.bad_tensors)
        what = f"loss {float(metrics.mean('loss')):g}"
        if bad:
            first = self._tensor_names[int(metrics.first_bad_tensor)]
            what += f", gradients not finite in {bad} of {len(self._tensor_names)} tensors, the first {first!r}"
        self._say(f"step {step:,} skipped, for its numbers are not finite: {what}")
        if self._skipped_in_a_row >= self._max_skipped_steps:
            raise UserError(
                f"{self._skipped_in_a_row} steps in a row, up to step {step}, were skipped because their numbers were "
                f"not finite: {what}. The parameters are as they were before them. Lower the learning rate or lengthen "
                "the warm-up; if a low rate does the same, look at the data and the starting weights."
            )
