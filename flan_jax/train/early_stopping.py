"""Ending a run when an evaluation metric no longer gets better. What it remembers is saved with the run."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """The best evaluation so far: small enough for JSON.

    Attributes:
      value: The metric there; None before the first evaluation that gave a number.
      step: The step it was at.
      evaluations_since: Evaluations after it that were no better.
    """

    value: float | None = None
    step: int | None = None
    evaluations_since: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Which metric to watch, and how long to wait for it.

    Attributes:
      metric: Its name as the evaluation gives it.
      mode: Whether "max" or "min" is better.
      patience_evaluations: Evaluations in a row without a gain that end the run.
      min_delta: A change that is not larger than this is no gain.

    Raises:
      UserError: a mode that is neither, or a patience or a change that cannot be.
    """

    metric: str
    mode: Literal["max", "min"] = "max"
    patience_evaluations: int = 3
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in ("max", "min"):
            raise UserError(f"Early stopping on {self.metric!r}: mode is {self.mode!r}; allowed are 'max' and 'min'.")
        if self.patience_evaluations < 1:
            raise UserError(
                f"Early stopping on {self.metric!r}: patience_evaluations is {self.patience_evaluations}; "
                "at least 1 evaluation must be able to be no better."
            )
        if not self.min_delta >= 0:
            raise UserError(f"Early stopping on {self.metric!r}: min_delta is {self.min_delta}; allowed is 0 or more.")

    def update(self, memory: Memory, *, step: int, metrics: Mapping[str, float]) -> Memory:
        """Returns what to remember after an evaluation.

        Raises:
          UnknownNameError: the evaluation gives no such metric.

        >>> stopping, memory = EarlyStopping(metric="accuracy"), Memory(value=50.0, step=10)
        >>> stopping.update(memory, step=20, metrics={"accuracy": 49.0})
        Memory(value=50.0, step=10, evaluations_since=1)
        >>> stopping.update(memory, step=20, metrics={"accuracy": 51.0})
        Memory(value=51.0, step=20, evaluations_since=0)
        """
        if self.metric not in metrics:
            raise UnknownNameError(
                f"Early stopping watches {self.metric!r}, which the evaluation does not give."
                f"{nearest(self.metric, metrics)} It gives: {', '.join(sorted(metrics)) or 'nothing'}."
            )
        value = float(metrics[self.metric])
        sign = 1.0 if self.mode == "max" else -1.0
        gained = memory.value is None or sign * (value - memory.value) > self.min_delta
        if math.isfinite(value) and gained:
            return Memory(value=value, step=step)
        return dataclasses.replace(memory, evaluations_since=memory.evaluations_since + 1)

    def is_over(self, memory: Memory) -> bool:
        """Returns whether the patience is at its end."""
        return memory.evaluations_since >= self.patience_evaluations
