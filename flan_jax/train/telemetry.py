"""Reads the metrics of steps one step late, so that the device never waits, and passes them to the writers."""

import contextlib
import numbers
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import jax

from flan_jax.names import counted
from flan_jax.train.metrics import Meter
from flan_jax.train.soundness import DivergedError
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
    """Aggregates the steps of one run, writes lines, and ends a run whose numbers stay non-finite."""

    def __init__(
        self,
        *,
        writers: Sequence[Writer],
        meter: Meter,
        tensor_names: Sequence[str],
        logs: Callable[[int], bool],
        max_skipped_steps: int,
        start_up: StartUp,
        print_line: Callable[[str], None],
    ):
        """Stores the settings.

        Args:
          writers: Open writers.
          meter: Holds the sums between lines.
          tensor_names: The names of the parameters in flattened order, for messages.
          logs: Returns whether a step has a line.
          max_skipped_steps: The number of consecutive skipped steps that ends the run.
          start_up: Measures the time until the first step is done.
          print_line: Prints one line of text.
        """
        self._writers = writers
        self._meter = meter
        self._tensor_names = tensor_names
        self._logs = logs
        self._max_skipped_steps = max_skipped_steps
        self._start_up = start_up
        self._print_line = print_line
        self._pending: _Pending | None = None
        self._skipped_in_a_row = 0
        self._updated_since_save = False
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
        """Registers a step that was just dispatched, and reports the one before it.

        Args:
          step: The number of steps, including this one.
          metrics: The step's metrics, still being computed.
          stats: Counts of the batch.
          slots: Token positions of the batch.
          wait_seconds: How long the loop waited for the batch.
          dispatch_seconds: How long the call took; the first one waits for the compiler.
        """
        self._report_pending()
        self._pending = _Pending(step, metrics, stats, slots, wait_seconds)
        if not self._started:  # The only step that is waited for: its end is reported.
            self._started = True
            with self._start_up.phase("step"):
                jax.block_until_ready(metrics)
            self._meter.exclude(dispatch_seconds)
            # The record comes before the printed line, which tools/bench/startup.py waits for.
            self.record(step, kind="start", values=self._start_up.values())
            self._print_line(self._start_up.sentence())
            self._report_pending()

    def flush(self) -> None:
        """Waits for the last dispatched step and reports it, before its state is used otherwise."""
        self._report_pending()

    def may_save(self, *, is_last: bool) -> bool:
        """Returns whether the state after the last dispatched step may be saved; waits for that step, and reports it.

        Not while steps are skipped. At the end of a run also then, if an update since the last save would be lost.
        """
        self.flush()
        may = self._updated_since_save if is_last else self._skipped_in_a_row == 0
        if not may:
            self._print_line("not saved: the last step was skipped, and the parameters are those before it")
        return may

    def was_saved(self) -> None:
        """Registers that the state was saved."""
        self._updated_since_save = False

    def record(self, step: int, *, kind: str, values: Mapping[str, Any]) -> None:
        """Writes a line with those values that are numbers."""
        numeric: dict[str, float | None] = {}
        for name, value in values.items():
            if value is None or isinstance(value, int | float):
                numeric[name] = value
            elif isinstance(value, numbers.Real):  # NumPy scalars, which JSON cannot write.
                numeric[name] = float(value)
        for writer in self._writers:
            writer.write(step, kind=kind, values=numeric)

    @contextlib.contextmanager
    def pause(self) -> Iterator[Callable[[], float]]:
        """Excludes the time spent inside from the throughput; yields a clock of the seconds since the start."""
        start = time.perf_counter()
        yield lambda: time.perf_counter() - start
        self._meter.exclude(time.perf_counter() - start)

    def _report_pending(self) -> None:
        """Fetches the metrics of the pending step, waiting for it when necessary."""
        if self._pending is None:
            return
        step, on_device, stats, slots, wait_seconds = self._pending
        self._pending = None
        # Waits for this step; the next one was dispatched before, so that the device stays busy.
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
            self._updated_since_save = True
            return
        bad = int(metrics.bad_tensors)
        what = f"loss {float(metrics.mean('loss')):g}"
        if bad:
            first = self._tensor_names[int(metrics.first_bad_tensor)]
            what += f", gradients not finite in {bad} of {len(self._tensor_names)} tensors, the first {first!r}"
        self._print_line(f"step {step:,} skipped because its numbers are not finite: {what}")
        # The count is not in the position: a resumed run starts from a saved state, and none is saved while steps are
        # skipped.
        if self._skipped_in_a_row >= self._max_skipped_steps:
            raise DivergedError(
                f"{counted(self._skipped_in_a_row, 'step')} in a row, up to step {step}, were skipped because their "
                f"numbers were not finite: {what}. The parameters are unchanged since then. Check the data and the "
                "initial weights."
            )
