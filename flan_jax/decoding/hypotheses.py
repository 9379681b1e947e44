"""Predictions, and where a stop string ends one."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np

from flan_jax.vocab import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A prediction.

    Attributes:
      tokens: int32 [T], without padding, with the end of sequence if it ended; up to the end of a stop string.
      score: The sum of the log-probabilities of its tokens, as the network gives them; in beam search, after the
        penalties of the strategy.
      beam_score: That sum divided by the penalty for the length, by which beam search ranks; equal to `score` without
        beams.
      ended: Whether it reached the end of sequence, or a stop string.
      text: The text before the stop string that ended it; None if none did.
      log_p: The log-probability of each token; None in beam search.
    """

    tokens: np.ndarray
    score: float
    beam_score: float
    ended: bool
    text: str | None = None
    log_p: np.ndarray | None = None

    @classmethod
    def of(cls, tokens_T: np.ndarray, log_p_T: np.ndarray, *, eos_id: int) -> Self:
        """Returns the hypothesis up to the first end of sequence."""
        (ends,) = np.nonzero(tokens_T == eos_id)
        length = int(ends[0]) + 1 if len(ends) else len(tokens_T)
        return cls._scored(tokens_T[:length], log_p_T[:length], ended=len(ends) > 0)

    def stopped(self, stop: "Stop") -> Self:
        """Returns the hypothesis up to a stop string."""
        assert self.log_p is not None
        tokens, log_p = self.tokens[: stop.num_tokens], self.log_p[: stop.num_tokens]
        return dataclasses.replace(self._scored(tokens, log_p, ended=True), text=stop.text)

    @classmethod
    def _scored(cls, tokens: np.ndarray, log_p: np.ndarray, *, ended: bool) -> Self:
        score = float(np.sum(log_p, dtype=np.float64))
        return cls(tokens=tokens, score=score, beam_score=score, ended=ended, log_p=log_p)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stop:
    """A stop string in a prediction: the number of tokens up to its end, and the text before it."""

    num_tokens: int
    text: str


@dataclasses.dataclass(frozen=True)
class Stops:
    """The texts that end a prediction, however its tokens divide them."""

    texts: Sequence[str]
    vocabulary: Vocabulary

    def find(self, tokens: np.ndarray, *, known: int) -> Stop | None:
        """Returns the first stop string; of several that one token completes, the one that starts first.

        The text of every prefix is searched, so that the result does not depend on how many tokens were added at once.

        Args:
          tokens: The token ids.
          known: The number of tokens whose text has none.
        """
        for length in range(known + 1, len(tokens) + 1):
            text = self.vocabulary.decode(tokens[:length].tolist())
            starts = [start for start in map(text.find, self.texts) if start >= 0]
            if starts:
                return Stop(num_tokens=length, text=text[: min(starts)])
        return None
