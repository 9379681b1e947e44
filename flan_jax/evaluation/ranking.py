"""Evaluation by ranking: score every option of every example and take the best, without generating.

The score of an option is the sum of the log-probabilities of its tokens with end-of-sequence, not divided by its
length, as in FLAN and T0; the first of equal scores wins. Rows may have different numbers of options. Knows no model: a
function turns a batch into scores.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from flan_jax.data.evaluation_feed import PADDING_ROW, score_batches
from flan_jax.errors import UserError
from flan_jax.evaluation.examples import Example, Task, read_examples
from flan_jax.evaluation.generation import compared, one_late
from flan_jax.evaluation.postprocess import postprocessor
from flan_jax.evaluation.prediction import Prediction
from flan_jax.shapes import Batch
from flan_jax.vocab import Vocabulary

ScoreFn = Callable[[Batch], Any]
"""A batch -> sum of the log-probabilities of each row's targets, float [B], on device or host."""


def rank_options(
    task: Task, *, indices: Sequence[int], score_fn: ScoreFn, vocabulary: Vocabulary | None, batch_size: int
) -> Iterator[Prediction]:
    """Yields the ranking of the options of each of the examples `indices`, in the order in which they are computed.

    Args:
      task: An exported task whose examples have options.
      indices: The examples to evaluate, [N].
      score_fn: Maps a batch to scores [B]; those of padding rows are ignored.
      vocabulary: The vocabulary of the export; None for an external class.
      batch_size: Rows per batch; each row holds one option.

    Raises:
      UserError: An example has no options, or none of them is right.
    """
    examples = read_examples(task, np.asarray(indices), vocabulary=vocabulary)
    _require_options(examples, task=task.manifest.task)
    inputs = [example_inputs for example_inputs, _ in task.read(indices)]
    pairs = [(i, option) for i, e in zip(inputs, examples, strict=True) for option in e.option_tokens]
    owner = np.repeat(np.arange(len(examples)), [len(e.option_tokens) for e in examples])
    scores = np.full(len(pairs), np.nan)
    waiting_options = np.bincount(owner, minlength=len(examples))
    starts = np.cumsum([0, *waiting_options])
    answer = postprocessor(task.manifest.metadata.postprocessor)
    # Options are scored whole, also where they are longer than any target that training saw.
    longest = max((len(option) for _, option in pairs), default=0)
    lengths = {**task.manifest.lengths, "targets": max(longest, task.manifest.lengths["targets"])}
    batches = score_batches(pairs, batch_size=batch_size, lengths=lengths)
    for rows, batch_scores in one_late((rows, score_fn(batch)) for batch, rows in batches):
        real = rows != PADDING_ROW
        scores[rows[real]] = np.asarray(batch_scores, np.float64)[real]
        np.subtract.at(waiting_options, owner[rows[real]], 1)
        for number in np.unique(owner[rows[real]]).tolist():
            if waiting_options[number] == 0:
                example, of_options = examples[number], scores[starts[number] : starts[number + 1]]
                yield Prediction(
                    **compared(example, task, answer=answer),
                    prediction=answer(example.options[int(np.argmax(of_options))]),
                    gold=tuple(sorted(example.gold)),
                    scores=tuple(score if math.isfinite(score) else None for score in of_options.tolist()),
                    tokens=tuple(map(len, example.option_tokens)),
                )


def _require_options(examples: list[Example], *, task: str) -> None:
    for example in examples:
        if not example.options or len(example.options) != len(example.option_tokens) or not example.gold:
            raise UserError(
                f"Task {task!r} is evaluated by ranking, but its example {example.index} has the options "
                f"{list(example.options)} with {len(example.option_tokens)} token lists, of which the right ones are "
                f"{sorted(example.gold)}; the references are {list(example.references)}. Every example needs options "
                "with a right one among them; or declare the task with evaluation='generate'."
            )
