"""Evaluation by ranking: score every option of every example and take the best, without generating.

The score of an option is the sum of the log-probabilities of its tokens with end-of-sequence, not divided by its
length, as in FLAN and T0, unless the task's first rank metric normalizes it in another way; the first of equal scores
wins. Rows may have different numbers of options. Knows no model: a function scores options.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from flan_jax.errors import UserError
from flan_jax.evaluation.examples import Example, Task, read_examples
from flan_jax.evaluation.generation import chunks, compared
from flan_jax.evaluation.metrics import metric
from flan_jax.evaluation.postprocess import postprocessor
from flan_jax.evaluation.prediction import Prediction
from flan_jax.evaluation.rank_metrics import Normalization
from flan_jax.vocab import Vocabulary

Tokens = Sequence[int] | np.ndarray


class TokenLogProbs(Protocol):
    """The interface of an option's score; `flan_jax.decoding.scoring.OptionScore` has it."""

    @property
    def log_probs(self) -> np.ndarray:
        """The log-probability of each token."""


ScoreFn = Callable[[Iterable[tuple[int, Tokens, Sequence[Tokens]]]], Iterator[tuple[int, Sequence[TokenLogProbs]]]]
"""Rows (number, inputs, options) of token ids -> (number, scores of the options), in any order."""


def rank_options(
    task: Task,
    *,
    indices: Sequence[int],
    score_fn: ScoreFn,
    vocabulary: Vocabulary | None,
    normalizations: Sequence[Normalization],
) -> Iterator[Prediction]:
    """Yields the ranking of the options of each of the examples `indices`, in the order in which they are computed.

    Args:
      task: An exported task whose examples have options.
      indices: The examples to evaluate, [N].
      score_fn: Scores options.
      vocabulary: The vocabulary of the export; None for an external class.
      normalizations: Those that the scores will be needed for; the first one chooses the prediction.

    Raises:
      UserError: An example cannot be ranked: it has fewer than two different options, an empty one, or no right one.
    """
    for chunk in chunks(indices):
        examples = read_examples(task, np.asarray(chunk), vocabulary=vocabulary)
        inputs = [example_inputs for example_inputs, _ in task.read(chunk)]
        yield from _ranked(task, examples, inputs, score_fn=score_fn, normalizations=normalizations)


def _ranked(
    task: Task,
    examples: Sequence[Example],
    inputs: Sequence[Tokens],
    *,
    score_fn: ScoreFn,
    normalizations: Sequence[Normalization],
) -> Iterator[Prediction]:
    for example in examples:
        _require_options(example, task=task.manifest.task)
    tokens = [example.option_tokens for example in examples]
    unconditional: Mapping[tuple[int, ...], TokenLogProbs] = {}
    if any(normalization.is_unconditional for normalization in normalizations) and examples:
        # Options repeat over rows: each is scored once, all of them after the same empty inputs.
        distinct = list(dict.fromkeys(option for options in tokens for option in options))
        ((_, scores),) = score_fn([(0, [task.manifest.vocabulary.eos_id], distinct)])
        unconditional = dict(zip(distinct, scores, strict=True))
    answer = postprocessor(task.manifest.metadata.postprocessor)
    for number, scores in score_fn(zip(range(len(examples)), inputs, tokens, strict=True)):
        example = examples[number]
        conditions = [unconditional[option] for option in example.option_tokens] if unconditional else []
        ranked = Prediction(
            **compared(example, task, answer=answer),
            prediction="",
            gold=tuple(sorted(example.gold)),
            scores=_sums(scores),
            eos_scores=_rounded(score.log_probs[-1] for score in scores),
            tokens=tuple(map(len, example.option_tokens)),
            bytes=tuple(len(option.encode()) for option in example.options),
            unconditional_scores=_sums(conditions),
            unconditional_eos_scores=_rounded(score.log_probs[-1] for score in conditions),
        )
        chosen = int(np.argmax(normalizations[0].of(ranked.option_scores(), row=example.index)))
        yield dataclasses.replace(ranked, prediction=answer(example.options[chosen]))


def normalizations_of(metrics: Iterable[str]) -> list[Normalization]:
    """Returns the normalizations of the rank metrics among these, in order; at least the sum."""
    return [metric(name).normalization for name in metrics if metric(name).kind == "rank"] or [Normalization()]


def _sums(scores: Sequence[TokenLogProbs]) -> tuple[float | None, ...]:
    return _rounded(score.log_probs.sum(dtype=np.float64) for score in scores)


def _rounded(values: Iterable[float]) -> tuple[float | None, ...]:
    # Finer digits depend on the other rows of a batch, and a resumed evaluation has other batches.
    return tuple(round(float(value), 5) if math.isfinite(value) else None for value in values)


def _require_options(example: Example, *, task: str) -> None:
    """Refuses an example whose options cannot be ranked.

    Raises:
      UserError: With the task, the example and the reason.
    """
    reason = ""
    if len(set(example.options)) < 2:
        reason = f"it needs at least two different options, got {list(example.options)}"
    elif len(example.options) != len(example.option_tokens):
        reason = f"it has {len(example.options)} options and {len(example.option_tokens)} token lists"
    elif not all(example.option_tokens):
        empty = [option for option, ids in zip(example.options, example.option_tokens, strict=True) if not ids]
        reason = f"the option {empty[0]!r} has no tokens"
    elif not example.gold:
        reason = f"none of the options {list(example.options)} is right; the references are {list(example.references)}"
    elif not all(0 <= right < len(example.options) for right in example.gold):
        reason = f"its right options are {sorted(example.gold)} of {len(example.options)}"
    if reason:
        raise UserError(
            f"Task {task!r} is evaluated by ranking, but its example {example.index} (row {example.row} of the source) "
            f"cannot be ranked: {reason}. Correct the row and export again, or declare the task with "
            "evaluation='generate'."
        )
