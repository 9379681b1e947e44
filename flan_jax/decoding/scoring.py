"""Log-likelihoods of given options, which rank classification compares: one encoder pass per input.

Rows are packed as in training. An encoder row holds the inputs of several requests, and the decoder row next to it all
of their options, a segment per option: an option sees its own tokens and its request's inputs, and no other option.
Neither padding nor the number of options is computed, and a few shapes serve all tasks.

Options do not share the prefixes that they have in common: with T5's vocabulary this would save 5 % of the arithmetic
on COPA and CosmosQA, 1 % on CommonsenseQA, 0.5 % on Super-NaturalInstructions' classification and 16 % on PIQA, and
needs a mask of a tree.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Array, Bool, Float32

from flan_jax.data import features, packing
from flan_jax.data.features import Tokens
from flan_jax.errors import UserError
from flan_jax.models.acceleration.chunked_logits import ChunkedLogits
from flan_jax.models.execution import Execution
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.shapes import Batch, Params

_ROW_TOKENS = 512  # Of an encoder row, if its inputs are not longer; longer rows pay more for attention than they pack.
_SHORTEST_TARGETS = 16
_DECODER_COST = 2.0  # Of a decoder position in encoder positions: a cross-attention and the vocabulary more.
_SLACK = 1.25  # How much more a known shape may cost than the best one.
_MOST_SHAPES = 3  # From here on, only rows that no known shape holds get another one.

Request = tuple[int, Tokens, Sequence[Tokens]]
"""A row's number, its encoder tokens and the tokens of its options."""


class TokenScores(NamedTuple):
    """What is computed of each decoder position."""

    log_probs: Float32[Array, "B T"]
    is_greedy: Bool[Array, "B T"]


TokenScorer = Callable[[Batch], TokenScores]


def score_tokens(params: Params, batch: Batch, *, config: T5Config) -> TokenScores:
    """Returns log p(token | inputs, previous tokens of the option) of each target, and whether it is the argmax.

    No z-loss, no smoothing, no division by length. Padding positions have values that mean nothing. To be called under
    jit, with `config` bound.

    Args:
      params: The network's parameters.
      batch: Rows as `features.options_batch` lays them out, or training rows.
      config: The network's sizes.
    """
    # Chunks of the vocabulary: the logits of a batch of options are the largest array by far.
    logits = t5.output(params, batch, config=config, execution=Execution(logits="chunked"))
    assert isinstance(logits, ChunkedLogits)
    statistics = logits.statistics(batch["decoder_target_tokens"])
    return TokenScores(log_probs=statistics.target - statistics.log_z, is_greedy=statistics.is_correct > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptionScore:
    """The log-likelihood of one option.

    Attributes:
      log_probs: log p of each of its tokens, given the inputs and the tokens before, float32.
      is_greedy: Whether every token is the most likely one.
    """

    log_probs: np.ndarray
    is_greedy: bool

    @property
    def total(self) -> float:
        """The log-likelihood: the sum over all tokens."""
        return float(self.log_probs.sum(dtype=np.float64))


@final
class OptionScorer:
    """Scores options in packed rows.

    Attributes:
      programs: The number of shapes so far, each of which was compiled.
    """

    def __init__(self, function: TokenScorer, *, batch_rows: int, input_length: int):
        """Creates a scorer that has compiled nothing yet.

        Args:
          function: Maps a batch of `features.options_batch` to the scores of its decoder tokens.
          batch_rows: Rows of each batch.
          input_length: The longest inputs, in tokens.
        """
        self._function = function
        self._batch_rows = batch_rows
        self._limit = input_length
        self._shapes: list[tuple[int, int]] = []

    @property
    def programs(self) -> int:
        """See the class."""
        return len(self._shapes)

    def __call__(self, requests: Iterable[Request]) -> Iterator[tuple[int, tuple[OptionScore, ...]]]:
        """Yields each request's number and the scores of its options, in the order of completion.

        All requests of a call are read first and packed together; callers that stream give a few thousand at a time.

        Raises:
          UserError: A request has no inputs or more than fit, no options, or an option without tokens.
        """
        work = list(requests)
        for request in work:
            self._require_tokens(request)
        if not work:
            return
        S, T = self._shape(work)
        pieces = list(_pieces(work, T))
        # A pair is an input with its options; one side or the other fills a row first.
        lengths = np.array([(len(work[p.request][1]), p.num_tokens) for p in pieces], np.int64)
        rows = packing.fewest_rows(lengths, (S, T))
        waiting = [len(options) for _, _, options in work]
        scores: list[list[OptionScore | None]] = [[None] * count for count in waiting]
        for placed, output in _one_late(self._batches(work, [[pieces[i] for i in row] for row in rows], (S, T))):
            log_probs_BT, is_greedy_BT = (np.asarray(array) for array in output)
            for row, row_pieces in enumerate(placed):
                end = 0
                for piece in row_pieces:
                    number, _, options = work[piece.request]
                    for option in range(piece.start, piece.end):
                        start, end = end, end + len(options[option])
                        scores[piece.request][option] = OptionScore(
                            log_probs=log_probs_BT[row, start:end], is_greedy=bool(is_greedy_BT[row, start:end].all())
                        )
                    waiting[piece.request] -= piece.end - piece.start
                    if not waiting[piece.request]:
                        yield number, tuple(score for score in scores[piece.request] if score is not None)
                        scores[piece.request] = []

    def _batches(
        self, work: Sequence[Request], rows: Sequence[Sequence["_Piece"]], shape: tuple[int, int]
    ) -> Iterator[tuple[Sequence[Sequence["_Piece"]], TokenScores]]:
        for start in range(0, len(rows), self._batch_rows):
            placed = rows[start : start + self._batch_rows]
            contents = [[(work[p.request][1], work[p.request][2][p.start : p.end]) for p in row] for row in placed]
            # A batch's last rows may be empty: their cost is small, and another number of rows another program.
            contents += [[]] * (self._batch_rows - len(placed))
            batch = features.options_batch(contents, lengths={"inputs": shape[0], "targets": shape[1]})
            yield placed, self._function(batch)

    def _shape(self, work: Sequence[Request]) -> tuple[int, int]:
        """Returns the row lengths (S, T): of those of earlier calls where one does nearly as well as the best."""
        shapes = [*self._shapes, *_shapes(work, limit=self._limit)]
        costs = [_cost(work, shape) for shape in shapes]
        best = min(range(len(shapes)), key=lambda i: costs[i])
        known = min(range(len(self._shapes)), key=lambda i: costs[i], default=None)
        # Each program takes seconds to minutes to compile.
        slack = _SLACK if len(self._shapes) < _MOST_SHAPES else math.inf
        if known is not None and math.isfinite(costs[known]) and costs[known] <= slack * costs[best]:
            return self._shapes[known]
        self._shapes.append(shapes[best])
        return shapes[best]

    def _require_tokens(self, request: Request) -> None:
        number, inputs, options = request
        if not 0 < len(inputs) <= self._limit:
            raise UserError(
                f"Row {number} has {len(inputs)} input tokens; allowed are 1 to {self._limit}. Shorten it when "
                "exporting, or raise the length."
            )
        if not options or not all(len(option) for option in options):
            counts = [len(option) for option in options]
            raise UserError(f"Row {number} has options of {counts} tokens; each needs at least one to be scored.")


class _Piece(NamedTuple):
    """Consecutive options of a request that share a row."""

    request: int
    start: int
    end: int
    num_tokens: int


def _pieces(work: Sequence[Request], limit: int) -> Iterator[_Piece]:
    """Yields the options of each request, all together unless they are longer than a row; then inputs are repeated."""
    for number, (_, _, options) in enumerate(work):
        start = used = 0
        for end, option in enumerate(options):
            if used + len(option) > limit:
                yield _Piece(number, start, end, used)
                start, used = end, 0
            used += len(option)
        yield _Piece(number, start, len(options), used)


def _shapes(work: Sequence[Request], *, limit: int) -> list[tuple[int, int]]:
    """Returns the row lengths to choose from: one S that holds the longest inputs; T of 16, 24, 32, 48, 64, ..."""
    longest_inputs = max(len(inputs) for _, inputs, _ in work)
    longest_option = max(len(option) for _, _, options in work for option in options)
    S = _ROW_TOKENS
    while S < longest_inputs:
        S *= 2
    S = min(S, limit)
    shapes: list[tuple[int, int]] = []
    T = _SHORTEST_TARGETS
    while not shapes or T <= S:
        shapes += [(S, length) for length in (T, T * 3 // 2) if length >= longest_option]
        T *= 2
    return shapes


def _cost(work: Sequence[Request], shape: tuple[int, int]) -> float:
    """Returns about how much rows of this shape compute, in encoder positions; infinity if a request does not fit."""
    S, T = shape
    if any(len(inputs) > S or max(map(len, options)) > T for _, inputs, options in work):
        return math.inf
    pieces = list(_pieces(work, T))
    inputs = sum(len(work[piece.request][1]) for piece in pieces)
    targets = sum(piece.num_tokens for piece in pieces)
    # At least as many rows as the fuller side needs, and one more half-empty one.
    return (max(inputs / S, targets / T) + 0.5) * (S + _DECODER_COST * T)


def _one_late(
    outputs: Iterable[tuple[Sequence[Sequence[_Piece]], TokenScores]],
) -> Iterator[tuple[Sequence[Sequence[_Piece]], TokenScores]]:
    """Yields each item after the next one was started: the device computes one while the host reads the other."""
    waiting = []
    for output in outputs:
        waiting.append(output)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
