"""From what steps tell to the numbers of a line: sums to means, counts to rates. On the host; no device waits for it."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flan_jax.train.state import StepMetrics

TOKEN_KEYS = ("encoder_input_tokens", "decoder_target_tokens")


def process_seconds() -> float | None:
    """Returns how long this process has been alive; None where the system does not say so."""
    try:
        # The command's name may hold blanks, and ends with the last parenthesis; the start is the 22nd field.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime_seconds = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return None
    ticks_a_second = 100  # USER_HZ, fixed in Linux's interface.
    return uptime_seconds - int(fields[19]) / ticks_a_second


def token_slots(batch: Mapping[str, Any]) -> int:
    """Returns how many tokens a batch has room for, on both sides; 0 for a batch of something else."""
    return sum(math.prod(batch[key].shape) for key in TOKEN_KEYS if key in batch)


class Meter:
    """Adds up the steps since the last line, and what is counted since the run began.

    The counts since the beginning (examples, tokens, skipped steps) are part of a run's position, so that they go
    on where a resumed run left them. Tokens are real ones, without padding.

    Attributes:
      totals: The counts since the beginning, by name.
    """

    def __init__(
        self,
        *,
        totals: Mapping[str, int] | None = None,
        processes: int = 1,
        now: Callable[[], float] = time.perf_counter,
    ):
        """Starts the clock.

        Args:
          totals: Where the counts since the beginning go on.
          processes: How many processes read a share of each batch; counts are of one share.
          now: A clock, in seconds.
        """
        self.totals = {"examples": 0, "tokens": 0, "skipped_steps": 0, **(totals or {})}
        self._processes = processes
        self._now = now
        self._reset()

    def add(
        self, metrics: StepMetrics, *, stats: Mapping[str, int], slots: int, wait_seconds: float
    ) -> None:
        """Takes in one step.

        Args:
          metrics: Fetched to the host.
          stats: Of this process's rows: `examples`, `input_tokens` and `target_tokens`.
          slots: Tokens that this process's rows have room for.
          wait_seconds: How long the loop waited for the batch.
        """
        self._steps += 1
        self._wait_seconds += wait_seconds
        self._slots += slots * self._processes
        tokens = (stats.get("input_tokens", 0) + stats.get("target_tokens", 0)) * self._processes
        self._tokens += tokens
        self.totals["tokens"] += tokens
        self.totals["examples"] += stats.get("examples", 0) * self._processes
        self._values = {name: float(value) for name, value in metrics.values.items()}
        if metrics.skipped:
            self.totals["skipped_steps"] += 1
            return  # Its sums are not finite, and would be all that a line shows.
        self._sums.update({name: float(value) for name, value in metrics.sums.items()})
        self._weight += float(metrics.weight)

    def exclude(self, seconds: float) -> None:
        """Takes time that was no training (compiling, evaluating, saving) off the next line's."""
        self._excluded_seconds += seconds

    def line(self) -> dict[str, float | None]:
        """Returns the numbers of the steps since the last line, and begins anew. None: there is no such number."""
        seconds = self._now() - self._start - self._excluded_seconds
        seconds = seconds if seconds > 0 else math.nan
        steps = self._steps or math.nan
        weight = self._weight or math.nan
        means = {name: total / weight for name, total in self._sums.items()}
        line = {
            "loss": means.pop("loss", math.nan),
            **means,
            **{name: value for name, value in self._values.items() if "/" not in name},
            "seconds_per_step": seconds / steps,
            "tokens_per_second": self._tokens / seconds,
            "data_wait_share": min(1.0, self._wait_seconds / seconds),
            "padding_share": 1.0 - self._tokens / self._slots if self._slots else math.nan,
            **self.totals,
            **{name: value for name, value in self._values.items() if "/" in name},
        }
        self._reset()
        return {name: value if math.isfinite(value) else None for name, value in line.items()}

    def _reset(self) -> None:
        self._start = self._now()
        self._sums: Counter[str] = Counter()
        self._values: dict[str, float] = {}
        self._weight = self._wait_seconds = self._excluded_seconds = 0.0
        self._steps = self._slots = self._tokens = 0
