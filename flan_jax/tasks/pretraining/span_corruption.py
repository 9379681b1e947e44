"""The arithmetic of T5's unsupervised objectives: which tokens are hidden, what replaces them, and how many there are.

Span corruption hides spans of a text, which are the targets (T5, arXiv 1910.10683, section 3.1.4); prefix LM splits a
text in two, and the second part is the target (section 3.2.3). Functions from arrays of ids to arrays of ids, none of
them with an end of sequence; `task` supplies the texts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from flan_jax.annotations import Share, Within, check_fields
from flan_jax.errors import UserError

Replacement = Literal["sentinels", "one sentinel", "nothing"]
"""The replacement of a hidden span: a sentinel of its own, the same sentinel everywhere, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The amount of a text that is hidden.

    Attributes:
      density: Share of the tokens, from 0 (nothing) to below 1.
      mean_span: Mean length of a hidden span, in tokens.
    """

    density: Share = 0.15
    mean_span: Annotated[float, Within(least=1)] = 3.0

    def __post_init__(self) -> None:
        check_fields(self)

    def counts(self, num_tokens: int) -> tuple[int, int]:
        """Returns the number of hidden tokens of a text, and the number of hidden spans.

        >>> Noise().counts(568)
        (85, 28)

        Args:
          num_tokens: Length of the text, at least 2: at least one token is hidden and one stays.
        """
        assert num_tokens >= 2, num_tokens
        if self.density == 0:
            return 0, 0
        # `round` is half to even, as T5's `tf.round`.
        hidden = min(max(round(num_tokens * self.density), 1), num_tokens - 1)
        # No span is empty, neither the hidden ones nor those between them.
        spans = min(max(round(hidden / self.mean_span), 1), hidden, num_tokens - hidden)
        return hidden, spans

    def lengths(self, num_tokens: int, *, replacement: Replacement = "sentinels") -> tuple[int, int]:
        """Returns the lengths of the inputs and of the targets of a text, each with its end of sequence.

        >>> Noise().lengths(568)
        (512, 114)
        """
        hidden, spans = self.counts(num_tokens)
        extra = 0 if replacement == "nothing" else spans
        return num_tokens - hidden + extra + 1, hidden + extra + 1

    def raw_length(self, max_input_tokens: int, *, replacement: Replacement = "sentinels") -> int:
        """Returns the largest length of a text whose inputs, with their end of sequence, are within the limit.

        At a density of exactly 0.5 it is one less where targets would be longer than inputs, as in T5.

        >>> Noise().raw_length(512)
        568

        Raises:
          UserError: A text of two tokens exceeds it.
        """
        num_tokens = 2
        # A search, as in T5: rounding makes the lengths of inputs no invertible formula.
        while self.lengths(num_tokens + 1, replacement=replacement)[0] <= max_input_tokens:
            num_tokens += 1
        inputs, targets = self.lengths(num_tokens, replacement=replacement)
        if inputs > max_input_tokens:
            raise UserError(f"Corrupted texts need inputs of at least {inputs} tokens; got {max_input_tokens}.")
        return num_tokens - 1 if self.density == 0.5 and targets > inputs and num_tokens > 2 else num_tokens

    def mask(self, num_tokens: int, rng: np.random.Generator) -> np.ndarray:
        """Returns a mask of the hidden tokens, bool [num_tokens]: spans of random lengths at random positions.

        The hidden tokens are divided at random into spans, the others into as many, and the two kinds alternate: the
        text begins with a visible span and ends with a hidden one.
        """
        hidden, spans = self.counts(num_tokens)
        if not spans:
            return np.zeros(num_tokens, bool)
        lengths = np.empty(2 * spans, np.int64)
        # The visible parts first: another order of the two draws would hide other spans.
        lengths[0::2] = _random_parts(num_tokens - hidden, spans, rng)
        lengths[1::2] = _random_parts(hidden, spans, rng)
        return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def _random_parts(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths of `parts` non-empty parts of `total`; all partitions are equally likely."""
    cuts = np.sort(rng.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(cuts, prepend=0, append=total)


def prefix_mask(num_tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a mask of the tokens after a random prefix of at least one token, bool [num_tokens].

    >>> prefix_mask(2, np.random.default_rng(0))
    array([False,  True])
    """
    return np.arange(num_tokens) >= rng.integers(1, num_tokens)


def unique_sentinels(tokens: np.ndarray, mask: np.ndarray, *, last_id: int) -> np.ndarray:
    """Replaces each span of a mask by a sentinel of its own: `last_id`, then downwards.

    >>> unique_sentinels(np.arange(10, 16), np.array([1, 1, 0, 0, 1, 0], bool), last_id=999).tolist()
    [999, 12, 13, 998, 15]
    """
    starts = _starts(mask)
    replaced: np.ndarray = np.where(starts, last_id + 1 - np.cumsum(starts), tokens)[starts | ~mask]
    return replaced


def one_sentinel(tokens: np.ndarray, mask: np.ndarray, *, last_id: int) -> np.ndarray:
    """Replaces every span of a mask by the same sentinel.

    >>> one_sentinel(np.arange(10, 16), np.array([1, 1, 0, 0, 1, 0], bool), last_id=999).tolist()
    [999, 12, 13, 999, 15]
    """
    starts = _starts(mask)
    replaced: np.ndarray = np.where(starts, last_id, tokens)[starts | ~mask]
    return replaced


def without(tokens: np.ndarray, mask: np.ndarray, *, last_id: int = 0) -> np.ndarray:
    """Removes the masked tokens; `last_id` is not used.

    >>> without(np.arange(10, 16), np.array([1, 1, 0, 0, 1, 0], bool)).tolist()
    [12, 13, 15]
    """
    del last_id
    visible: np.ndarray = tokens[~mask]
    return visible


REPLACE: Mapping[Replacement, Callable[..., np.ndarray]] = {
    "sentinels": unique_sentinels,
    "one sentinel": one_sentinel,
    "nothing": without,
}


def corrupted(
    tokens: np.ndarray, mask: np.ndarray, *, last_id: int, replacement: Replacement = "sentinels"
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs, without the hidden spans, and the targets, which are the hidden spans.

    >>> inputs, targets = corrupted(np.arange(10, 16), np.array([0, 1, 1, 0, 0, 1], bool), last_id=999)
    >>> inputs.tolist(), targets.tolist()
    ([10, 999, 13, 14, 998], [999, 11, 12, 998, 15])

    Args:
      tokens: Ids of the text.
      mask: The hidden tokens; the first is visible, so that the n-th sentinel of both sides marks the same span.
      last_id: The vocabulary's last id, its first sentinel.
      replacement: Substitute for a span.
    """
    replaced = REPLACE[replacement]
    # No sentinel ends the targets, unlike in figure 2 of the paper: T5's code adds none, as every text ends in a hidden
    # span.
    return replaced(tokens, mask, last_id=last_id), replaced(tokens, ~mask, last_id=last_id)


def _starts(mask: np.ndarray) -> np.ndarray:
    """A mask of the first token of each span."""
    starts = mask.copy()
    starts[1:] &= ~mask[:-1]
    return starts
