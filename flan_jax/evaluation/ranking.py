"""Evaluation by ranking: score every option of every example and take the best, without generating.

The score of an option is the sum of the log-probabilities of its tokens with end-of-sequence, not divided by its
length, as in FLAN and T0; the first of equal scores wins. Rows may have different numbers of options. Knows no model: a
function turns a batch into scores.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flan_jax.data.evaluation_feed import PADDING_ROW, score_batches
from flan_jax.errors import UserError
from flan_jax.evaluation.examples import Example, Task, read_examples
from flan_jax.evaluation.generation import measure_texts, most_frequent, one_late
from flan_jax.evaluation.measured import Measured
from flan_jax.evaluation.metrics import metric
from flan_jax.evaluation.postprocess import postprocessor
from flan_jax.shapes import Batch
from flan_jax.vocab import Vocabulary

ScoreFn = Callable[[Batch], Any]
"""A batch -> sum of the log-probabilities of each row's targets, float [B], on device or host."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One example and the score of each of its options; `chosen` is the first highest."""

    example: Example
    scores: tuple[float, ...]
    prediction: str
    references: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def chosen(self) -> int:
        """The number of the chosen option."""
        return int(np.argmax(self.scores))

    def as_row(self) -> dict[str, Any]:
        """A row of the predictions' file."""
        return self.example.as_row() | {
            "target": self.references[0],
            "references": list(self.references),
            "options": list(self.example.options),
            "gold": sorted(self.example.gold),
            "scores": [round(score, 6) if math.isfinite(score) else None for score in self.scores],
            "chosen": self.chosen,
            "prediction": self.prediction,
        }


def rank_options(
    task: Task,
    *,
    indices: np.ndarray,
    score_fn: ScoreFn,
    vocabulary: Vocabulary | None,
    batch_size: int,
    on_examples: Callable[[int], None] | None = None,
) -> list[Ranked]:
    """Ranks the options of each of the examples `indices`, in their order.

    Args:
      task: An exported task whose examples have options.
      indices: The examples to evaluate, [N].
      score_fn: Maps a batch to scores [B]; those of padding rows are ignored.
      vocabulary: The vocabulary of the export; None for an external class.
      batch_size: Rows per batch; each row holds one option.
      on_examples: Called with the number of examples done since the last call.

    Raises:
      UserError: An example has no options, or none of them is right.
    """
    examples = read_examples(task, indices, vocabulary=vocabulary)
    _require_options(examples, task=task.manifest.task)
    inputs = [example_inputs for example_inputs, _ in task.read(indices)]
    pairs = [(i, option) for i, e in zip(inputs, examples, strict=True) for option in e.option_tokens]
    owner = np.repeat(np.arange(len(examples)), [len(e.option_tokens) for e in examples])
    scores = np.full(len(pairs), np.nan)
    waiting_options = np.bincount(owner, minlength=len(examples))
    # Options are scored whole, also where they are longer than any target that training saw.
    longest = max(len(option) for _, option in pairs)
    lengths = {**task.manifest.lengths, "targets": max(longest, task.manifest.lengths["targets"])}
    batches = score_batches(pairs, batch_size=batch_size, lengths=lengths)
    for rows, batch_scores in one_late((rows, score_fn(batch)) for batch, rows in batches):
        real = rows != PADDING_ROW
        scores[rows[real]] = np.asarray(batch_scores, np.float64)[real]
        np.subtract.at(waiting_options, owner[rows[real]], 1)
        if on_examples is not None:
            on_examples(int((waiting_options[np.unique(owner[rows[real]])] == 0).sum()))
    answer = postprocessor(task.manifest.metadata.postprocessor)
    starts = np.cumsum([0, *(len(e.option_tokens) for e in examples)])
    results = []
    for example, start, end in zip(examples, starts[:-1], starts[1:], strict=True):
        results.append(
            Ranked(
                example=example,
                scores=tuple(scores[start:end].tolist()),
                prediction=answer(example.options[int(np.argmax(scores[start:end]))]),
                references=tuple(answer(reference) for reference in example.references),
                options=tuple(answer(option) for option in example.options),
            )
        )
    return results


def measure(metrics: Iterable[str], ranked: Sequence[Ranked]) -> list[Measured]:
    """Returns what each of the named metrics measured of rankings; those of texts judge the chosen option's text."""
    measured = []
    for name in metrics:
        if metric(name).kind == "rank":
            lengths = [[len(option) for option in r.example.option_tokens] for r in ranked]
            scores, gold = [r.scores for r in ranked], [r.example.gold for r in ranked]
            measured.append(metric(name).measure(scores, gold, lengths=lengths))
        else:
            measured.append(measure_texts(metric(name), ranked))
    return measured


def all_the_majority(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Returns the choices of a model that always takes the most frequent right option; none if no such option repeats.

    The first option where a row lacks it.
    """
    answer = most_frequent([r.options[i] for i in sorted(r.example.gold)] for r in ranked)
    if answer is None:
        return []
    choices = [r.options.index(answer) if answer in r.options else 0 for r in ranked]
    return [
        replace(r, prediction=r.options[choice], scores=tuple(float(i == choice) for i in range(len(r.options))))
        for r, choice in zip(ranked, choices, strict=True)
    ]


def chance(ranked: Sequence[Ranked]) -> float:
    """Returns the accuracy, 0 to 100, to expect of options that are chosen at random."""
    return 100.0 * float(np.mean([len(r.example.gold) / len(r.options) for r in ranked]))


def _require_options(examples: list[Example], *, task: str) -> None:
    for example in examples:
        if not example.options or len(example.options) != len(example.option_tokens) or not example.gold:
            raise UserError(
                f"Task {task!r} is evaluated by ranking, but its example {example.index} has the options "
                f"{list(example.options)} with {len(example.option_tokens)} token lists, of which the right ones are "
                f"{sorted(example.gold)}; the references are {list(example.references)}. Every example needs options "
                "with a right one among them; or declare the task with evaluation='generate'."
            )
