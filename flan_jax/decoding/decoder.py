"""Decodes rows of any length with a fixed number of compiled programs."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import final

import jax
import numpy as np

from flan_jax.errors import UserError
from flan_jax.shapes import PAD_ID

Row = tuple[int, Sequence[int]]
"""The number of a row, and the token ids of its inputs, end of sequence included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A prediction.

    Attributes:
      tokens: int32 [T], without padding, with the end of sequence if it ended.
      score: The sum of the log-probabilities of its tokens.
      beam_score: That sum divided by the penalty for the length, by which beam search ranks; equal to `score` without
        beams.
      ended: Whether it reached the end of sequence, or a stop string.
      text: The text before the stop string that ended it; None if none did.
    """

    tokens: np.ndarray
    score: float
    beam_score: float
    ended: bool
    text: str | None = None


@final
class Decoder:
    """A callable from rows to their predictions, in order of completion."""

    def __init__(
        self,
        generate: Callable[[Mapping[str, np.ndarray]], jax.Array],
        *,
        batch_size: int,
        eos_id: int,
    ):
        self._generate = generate
        self._batch_size = batch_size
        self._eos_id = eos_id
        self._shapes: set[tuple[int, int]] = set()

    @property
    def programs(self) -> int:
        """The number of programs that were compiled."""
        return len(self._shapes)

    def __call__(self, rows: Iterable[Row]) -> Iterator[tuple[int, tuple[Hypothesis, ...]]]:
        """Yields the number of each row with its hypotheses, the best or the first sample first."""
        ordered = sorted(rows, key=lambda row: -len(row[1]))
        for start in range(0, len(ordered), self._batch_size):
            chunk = ordered[start : start + self._batch_size]
            if not chunk[-1][1]:
                raise UserError(f"Row {chunk[-1][0]} has no token.")
            length = -(-len(chunk[0][1]) // 32) * 32
            tokens = np.full((self._batch_size, length), PAD_ID, np.int32)
            segments = np.zeros_like(tokens)
            for i, (_, ids) in enumerate(chunk):
                tokens[i, : len(ids)], segments[i, : len(ids)] = ids, 1
            self._shapes.add(tokens.shape)
            batch = {"encoder_input_tokens": tokens, "encoder_segment_ids": segments}
            generated = np.asarray(self._generate(batch))
            for (number, _), ids in zip(chunk, generated, strict=False):
                yield number, (self._hypothesis(ids),)

    def stream(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the growing token ids, int32 [T], of one row's first hypothesis."""
        ((_, (hypothesis, *_)),) = self([(0, ids)])
        yield hypothesis.tokens

    def _hypothesis(self, ids: np.ndarray) -> Hypothesis:
        (ends,) = np.nonzero(ids == self._eos_id)
        length = int(ends[0]) + 1 if len(ends) else len(ids)
        return Hypothesis(tokens=ids[:length], score=float("nan"), beam_score=float("nan"), ended=len(ends) > 0)
