"""Ends a run when an evaluation metric stops improving. The best evaluation is part of the run's position."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from flan_jax.annotations import NotNegative, PositiveInt, check_fields
from flan_jax.errors import UnknownNameError
from flan_jax.names import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """The best evaluation so far.

    Attributes:
      value: The metric; None before the first evaluation with a finite value.
      step: The step of that evaluation.
      evaluations_since: The number of later evaluations without an improvement.
    """

    value: float | None = None
    step: int | None = None
    evaluations_since: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Which metric to watch, and how long to wait for an improvement.

    Attributes:
      metric: A metric of the evaluation.
      mode: "max" or "min": which values are better.
      patience_evaluations: The number of consecutive evaluations without an improvement that ends the run.
      min_delta: A change counts as an improvement only if it is larger than this.

    Raises:
      UserError: The mode, the patience or the change is not allowed.
    """

    metric: str
    mode: Literal["max", "min"] = "max"
    patience_evaluations: PositiveInt = 3
    min_delta: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def update(self, memory: Memory, *, step: int, metrics: Mapping[str, float]) -> Memory:
        """Returns the memory after an evaluation.

        Raises:
          UnknownNameError: The evaluation has no such metric.

        >>> stopping, memory = EarlyStopping(metric="accuracy"), Memory(value=50.0, step=10)
        >>> stopping.update(memory, step=20, metrics={"accuracy": 49.0})
        Memory(value=50.0, step=10, evaluations_since=1)
        >>> stopping.update(memory, step=20, metrics={"accuracy": 51.0})
        Memory(value=51.0, step=20, evaluations_since=0)
        """
        if self.metric not in metrics:
            raise UnknownNameError(
                f"Early stopping watches {self.metric!r}, which the evaluation does not have."
                f"{nearest(self.metric, metrics)} It has: {', '.join(sorted(metrics)) or 'none'}."
            )
        value = float(metrics[self.metric])
        sign = 1.0 if self.mode == "max" else -1.0
        # Strictly more, so that a constant metric counts as no improvement.
        improved = memory.value is None or sign * (value - memory.value) > self.min_delta
        # NaN is no improvement, and nothing could ever improve on infinity.
        if math.isfinite(value) and improved:
            return Memory(value=value, step=step)
        return dataclasses.replace(memory, evaluations_since=memory.evaluations_since + 1)

    def is_over(self, memory: Memory) -> bool:
        """Returns whether the run should end."""
        return memory.evaluations_since >= self.patience_evaluations
