"""The limit on truncated targets: checked after a sample of a task's examples, and again when all are exported."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from flan_jax.errors import UserError
from flan_jax.tasks.interface import Encode, Encoded

# A few seconds of work, after which a share of 5 % is known to about half a percent.
SAMPLE_EXAMPLES = 2_000
SHOWN = 8  # Tasks listed in a message.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncated:
    """The truncated targets of a task.

    Attributes:
      task: Its name.
      targets: How many are truncated.
      examples: Of how many.
      of: "the first " for a sample, "" for all.
    """

    task: str
    targets: int
    examples: int
    of: str = ""

    @property
    def share(self) -> float:
        """The share of targets that are truncated."""
        return self.targets / max(1, self.examples)

    def __str__(self) -> str:
        return f"{self.task!r} {self.targets:,} of {self.of}{self.examples:,} ({self.share:.1%})"


def refusal(over: Sequence[Truncated], *, name: str, split: str, limit: float, length: int) -> UserError:
    """Returns the error for tasks with too many truncated targets.

    Args:
      over: The tasks, the largest share first.
      name: Of the mixture or task that is exported.
      split: Of it.
      limit: The largest share that is allowed.
      length: Of targets, in tokens.
    """
    more = f"; and {len(over) - SHOWN} more tasks" if len(over) > SHOWN else ""
    return UserError(
        f"{name!r}, split {split!r}: too many targets are longer than {length} tokens and would be truncated: "
        f"{'; '.join(map(str, over[:SHOWN]))}{more}. At most {limit:.1%} of a task's targets may be "
        "(max_truncated_targets). Raise TASK_FEATURE_LENGTHS['targets'], leave these tasks out, or allow it: "
        f"max_truncated_targets = {min(1.0, math.ceil(over[0].share * 100) / 100)}."
    )


class SampledEncode:
    """An encoder that refuses a task when its first examples show that the limit cannot be met.

    A share a little above the limit may still fall below it: the refusal needs three standard errors more, which a
    sample of shuffled rows exceeds by chance once in a thousand exports.
    """

    def __init__(self, encode: Encode, *, task: str, split: str, limit: float, length: int):
        """Wraps an encoder; see `refusal` for the arguments."""
        self._encode, self._task, self._split, self._limit, self._length = encode, task, split, limit, length
        self._examples = self._targets = 0

    def __call__(self, chunk: Sequence[Any]) -> Encoded:
        """Encodes a chunk.

        Raises:
          UserError: The sample is complete, and its share is above the limit.
        """
        encoded = self._encode(chunk)
        if self._examples < SAMPLE_EXAMPLES:
            self._examples += len(encoded.records)
            self._targets += encoded.truncated.get("targets", 0)
            if self._examples >= SAMPLE_EXAMPLES:
                sample = Truncated(task=self._task, targets=self._targets, examples=self._examples, of="the first ")
                margin = 3 * math.sqrt(self._limit * (1 - self._limit) / self._examples)
                if sample.share > self._limit + margin:
                    raise refusal([sample], name=self._task, split=self._split, limit=self._limit, length=self._length)
        return encoded
