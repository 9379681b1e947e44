"""From the examples of an external task to records: ids checked, truncated and counted."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.data.manifest import Lengths
from flan_jax.data.record import encode_record
from flan_jax.errors import UserError
from flan_jax.tasks.interface import EMPTY_INPUTS, EMPTY_TARGETS, FEATURES, Encoded

Numbered = tuple[int, Mapping[str, Any]]
"""An example with its position."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExternalEncoder:
    """From the examples of one external task and split to records.

    Attributes:
      name: The task's, for messages.
      size: Number of ids of the vocabulary; 0 when unknown.
      eos_id: -1 when the vocabulary has none.
      decode: From ids to text, for texts that the task did not retain.
      with_meta: Whether texts are saved next to the ids, as evaluation needs.
    """

    name: str
    size: int
    eos_id: int
    lengths: Lengths
    decode: Callable[[Sequence[int]], str]
    with_meta: bool

    def encode(self, chunk: Sequence[Numbered]) -> Encoded:
        """Turns examples of SeqIO into records."""
        records: list[bytes] = []
        lengths: list[tuple[int, int]] = []
        truncated, dropped = Counter[str](), Counter[str]()
        for row, example in chunk:
            checked = [self._checked(example[feature], feature, row) for feature in FEATURES]
            empty = [ids.size == 0 or (ids.size == 1 and ids[0] == self.eos_id) for ids in checked]
            # In evaluation an empty target is an answer: the end of sequence alone.
            is_answer = self.with_meta and self.eos_id >= 0
            if empty[0] or (empty[1] and not is_answer):
                dropped[EMPTY_INPUTS if empty[0] else EMPTY_TARGETS] += 1
                continue
            if empty[1]:
                checked[1] = np.array([self.eos_id], checked[1].dtype)
            limited = [self._truncated(ids, feature, truncated) for ids, feature in zip(checked, FEATURES, strict=True)]
            records.append(encode_record(limited, self._meta(example, row) if self.with_meta else None))
            lengths.append((len(limited[0]), len(limited[1])))
        table = np.array(lengths, np.int32).reshape(-1, 2)
        return Encoded(records=records, lengths=table, truncated=truncated, dropped=dropped)

    def _checked(self, ids: np.ndarray, feature: str, row: int) -> np.ndarray:
        if ids.size and (ids.min() < 0 or (self.size > 0 and ids.max() >= self.size)):
            raise UserError(
                f"Task {self.name!r}, example {row}: {feature} holds ids {ids.min()}..{ids.max()}, and its vocabulary "
                f"has 0..{self.size - 1}. Fix the task's preprocessors or its output_features."
            )
        return ids

    def _truncated(self, ids: np.ndarray, feature: str, truncated: Counter[str]) -> np.ndarray:
        """Truncates ids; an end of sequence stays last."""
        limit = self.lengths[feature]
        if len(ids) <= limit:
            return ids
        truncated[feature] += 1
        ends = ids[-1] == self.eos_id
        return np.append(ids[: limit - 1], ids[-1]) if ends else ids[:limit]

    def _meta(self, example: Mapping[str, Any], row: int) -> Mapping[str, Any]:
        texts = {feature: text_of(example, feature, self.decode) for feature in FEATURES}
        return {
            **texts,
            "references": [texts["targets"]],
            "options": [],
            "option_tokens": [],
            "gold": -1,
            "template": 0,
            "row": row,
        }


def text_of(example: Mapping[str, Any], feature: str, decode: Callable[[Sequence[int]], str]) -> str:
    """Returns the text that a feature was tokenized from; decodes the ids when the task did not retain it."""
    text = example.get(f"{feature}_pretokenized")
    if isinstance(text, bytes | str):
        return text.decode(errors="replace") if isinstance(text, bytes) else text
    return decode(example[feature].tolist())
