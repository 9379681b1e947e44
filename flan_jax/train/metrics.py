"""Aggregates the metrics of steps into training lines, on the host: sums become means, and counts become rates."""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flan_jax.train.state import StepMetrics

TOKEN_KEYS = ("encoder_input_tokens", "decoder_target_tokens")


def process_seconds() -> float | None:
    """Returns the age of this process; None where the system does not report it."""
    try:
        # The command name may contain spaces and ends at the last parenthesis; the start time is the 22nd field.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime_seconds = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return None
    ticks_per_second = 100  # USER_HZ, fixed in Linux's interface.
    return uptime_seconds - int(fields[19]) / ticks_per_second


def token_slots(batch: Mapping[str, Any]) -> int:
    """Returns the number of token positions in a batch, encoder and decoder together; 0 for a batch without tokens."""
    return sum(math.prod(batch[key].shape) for key in TOKEN_KEYS if key in batch)


@dataclasses.dataclass(kw_only=True)
class _Window:
    """Sums over the steps since the last line."""

    start: float
    steps: int = 0
    sums: Counter[str] = dataclasses.field(default_factory=Counter)
    weight: float = 0.0
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    earlier: Counter[str] = dataclasses.field(default_factory=Counter)  # Counts of steps before a restart.
    wait_seconds: float = 0.0
    excluded_seconds: float = 0.0


class Meter:
    """Sums the steps since the last line, and counts since the run began.

    The counts (examples, tokens, skipped steps) and the sums of an unfinished line are part of a run's position, so
    that a resumed run writes the same line. Tokens do not include padding.
    """

    def __init__(
        self,
        *,
        state: Mapping[str, Any] | None = None,
        total: Callable[[Mapping[str, int]], Mapping[str, int]] = lambda counts: counts,
        now: Callable[[], float] = time.perf_counter,
    ):
        """Starts the clock.

        Args:
          state: The state of an earlier meter, to continue from.
          total: Maps counts of this process's rows to those of all processes; called once per line and per state.
          now: A clock, in seconds.
        """
        state = state or {}
        self._totals = {"examples": 0, "tokens": 0, "skipped_steps": 0, **state.get("totals", {})}
        self._total = total
        self._own: Counter[str] = Counter()  # Counts of this process since the last all-reduce.
        self._now = now
        # Times and rates are those of one process, so that only the parts of means and shares are restored.
        self._window = _Window(
            start=now(),
            sums=Counter(state.get("sums", {})),
            weight=state.get("weight", 0.0),
            earlier=Counter(state.get("counts", {})),
        )

    def state(self) -> dict[str, Any]:
        """Returns the state that a later meter continues from, as JSON."""
        self._reduce()
        window = self._window
        counts = dict(window.counts + window.earlier)
        return {"totals": dict(self._totals), "sums": dict(window.sums), "weight": window.weight, "counts": counts}

    def add(self, metrics: StepMetrics, *, stats: Mapping[str, int], slots: int, wait_seconds: float) -> None:
        """Adds one step.

        Args:
          metrics: The step's metrics, on the host.
          stats: Counts of this process's rows: `examples`, `input_tokens` and `target_tokens`.
          slots: Token positions in this process's rows.
          wait_seconds: How long the loop waited for the batch.
        """
        window = self._window
        window.steps += 1
        tokens = stats.get("input_tokens", 0) + stats.get("target_tokens", 0)
        self._own.update({"examples": stats.get("examples", 0), "tokens": tokens, "slots": slots})
        window.wait_seconds += wait_seconds
        # Of the last step: norms and learning rates are not averaged.
        window.values = {name: float(value) for name, value in metrics.values.items()}
        if metrics.skipped:  # Its sums are not finite and would make the whole line so.
            # Every process counts all of them, since a step is skipped in all; `_reduce` adds only what differs.
            self._totals["skipped_steps"] += 1
            return
        window.sums.update({name: float(value) for name, value in metrics.sums.items()})
        window.weight += float(metrics.weight)

    def exclude(self, seconds: float) -> None:
        """Excludes time that was not training (compiling, evaluating, saving) from the next line."""
        self._window.excluded_seconds += seconds

    def line(self) -> dict[str, float | None]:
        """Returns the numbers of the steps since the last line, None where undefined, and starts a new line."""
        self._reduce()
        window, self._window = self._window, _Window(start=self._now())
        seconds = self._window.start - window.start - window.excluded_seconds
        seconds = seconds if seconds > 0 else math.nan
        counts = window.counts + window.earlier
        means = {name: total / (window.weight or math.nan) for name, total in window.sums.items()}
        line = {
            "loss": means.pop("loss", math.nan),
            **means,
            **{name: value for name, value in window.values.items() if "/" not in name},
            "seconds_per_step": seconds / (window.steps or math.nan),
            # Only tokens of this process's lifetime: `earlier` ones took time that is not in `seconds`.
            "tokens_per_second": window.counts["tokens"] / seconds,
            "data_wait_share": min(window.wait_seconds / seconds, 1.0),  # In this order NaN stays NaN.
            "padding_share": 1.0 - counts["tokens"] / (counts["slots"] or math.nan),
            **self._totals,
            # Statistics of tensors last: there are hundreds, and a reader of the line looks for the others.
            **{name: value for name, value in window.values.items() if "/" in name},
        }
        return {name: value if math.isfinite(value) else None for name, value in line.items()}

    def _reduce(self) -> None:
        """Adds what all processes counted since the last call to the line and to the totals of the run."""
        counts, self._own = self._total(dict(self._own)), Counter()
        self._window.counts.update(counts)
        for name in ("examples", "tokens"):
            self._totals[name] += counts.get(name, 0)
