"""Evaluation by generating: decode every example's prediction and compare it with the references.

Knows no model: a function turns a batch into tokens. Batches come unpacked, longest inputs first, in few shapes, so
that decoding ends early and compiles seldom (`flan_jax.data.evaluation_feed`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from flan_jax.data.evaluation_feed import PADDING_ROW, eval_batches
from flan_jax.errors import UserError
from flan_jax.evaluation.examples import Example, Task, read_examples, spell
from flan_jax.evaluation.measured import Measured
from flan_jax.evaluation.metrics import Metric, RowFact, metric
from flan_jax.evaluation.postprocess import postprocessor
from flan_jax.shapes import PAD_ID, Batch
from flan_jax.vocab import Vocabulary

GenerateFn = Callable[[Batch], Any]
"""A batch -> generated token ids, int [B, T], on device or host."""

EXTERNAL_METRICS = ("exact_match", "rouge_l")
EXTERNAL_NOTE = "external metrics not run"
IDS_NOTE = "token ids compared: the vocabulary is external"
_Output = TypeVar("_Output")


class Answer(Protocol):
    """The interface of an answer that text metrics score: postprocessed texts, and the example they belong to."""

    @property
    def example(self) -> Example:
        """The example."""

    @property
    def prediction(self) -> str:
        """The model's answer."""

    @property
    def references(self) -> tuple[str, ...]:
        """All right answers."""

    @property
    def options(self) -> tuple[str, ...]:
        """The answers to choose from."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """An example with the generated text.

    Attributes:
      text: The generated text.
      prediction: The answer that the postprocessor extracted from the text; `references` and `options` are processed
        alike.
      ended: Whether generation reached the end of sequence.
    """

    example: Example
    text: str
    prediction: str
    references: tuple[str, ...]
    options: tuple[str, ...] = ()
    ended: bool

    def as_row(self) -> dict[str, Any]:
        """Returns a row of the file of predictions.

        It has `generated` where the text is more than the answer, and `truncated` where generation did not end.
        """
        row = self.example.as_row() | {
            "target": self.references[0],
            "references": list(self.references),
            "prediction": self.prediction,
        }
        row |= {"generated": self.text} if self.text != self.prediction else {}
        return row | ({} if self.ended else {"truncated": True})


def generate_predictions(
    task: Task,
    *,
    indices: np.ndarray,
    generate_fn: GenerateFn,
    vocabulary: Vocabulary | None,
    batch_size: int,
    on_examples: Callable[[int], None] | None = None,
) -> list[Generated]:
    """Generates a prediction for each of the examples `indices`, in their order.

    Args:
      task: An exported task.
      indices: The examples to evaluate, [N].
      generate_fn: Maps a batch to token ids [B, T]; rows end with the end of sequence and padding.
      vocabulary: The vocabulary of the export; None for an external class.
      batch_size: Rows per batch.
      on_examples: Called with the number of examples done since the last call.
    """
    lengths = task.manifest.lengths
    batches = eval_batches(task, batch_size=batch_size, lengths=lengths, indices=indices.tolist())
    tokens: dict[int, np.ndarray] = {}
    for rows, generated in one_late((rows, generate_fn(batch)) for batch, rows in batches):
        real = rows != PADDING_ROW
        tokens.update(zip(rows[real].tolist(), np.asarray(generated)[real], strict=True))
        if on_examples is not None:
            on_examples(int(real.sum()))
    answer = postprocessor(task.manifest.metadata.postprocessor)
    results = []
    for example in read_examples(task, indices, vocabulary=vocabulary):
        ids = tokens[example.index]
        text = spell(ids, vocabulary)
        eos_id = task.manifest.vocabulary.eos_id
        results.append(
            Generated(
                example=example,
                text=text,
                prediction=answer(text),
                references=tuple(answer(reference) for reference in example.references),
                options=tuple(answer(option) for option in example.options),
                ended=bool(np.any((ids == eos_id) | (ids == PAD_ID))),
            )
        )
    return results


def measure(metrics: Iterable[str], generated: Sequence[Generated]) -> list[Measured]:
    """Returns what each of the named metrics measured of predictions.

    Raises:
      UserError: A metric judges scores of options, not texts.
    """
    measured = []
    for name in metrics:
        if metric(name).kind == "rank":
            raise UserError(
                f"Metric {name!r} judges scores of options, but the task is evaluated by generating. "
                "Declare it with evaluation='rank', or choose another metric."
            )
        measured.append(measure_texts(metric(name), generated))
    return measured


def measure_texts(judge: Metric, answers: Sequence[Answer]) -> Measured:
    """Returns what a metric over texts, which also receives the facts that it needs about rows, measured of answers."""
    facts: dict[RowFact, list[Any]] = {
        "options": [answer.options for answer in answers],
        "groups": [answer.example.group for answer in answers],
    }
    needed = {fact: facts[fact] for fact in (*judge.needs, *judge.takes)}
    return judge.measure([answer.references for answer in answers], [answer.prediction for answer in answers], **needed)


def all_the_majority(generated: Sequence[Generated]) -> list[Generated]:
    """Returns the predictions of a model that always gives the most frequent reference; none if none repeats."""
    answer = most_frequent(answer.references for answer in generated)
    return [] if answer is None else [replace(one, prediction=answer) for one in generated]


def most_frequent(rows: Iterable[Iterable[str]]) -> str | None:
    """Returns the text that most rows have, the first of equals; None if each is in one row only.

    >>> most_frequent([["no"], ["yes", "yeah"], ["yes"]]), most_frequent([["a"], ["b"]])
    ('yes', None)
    """
    counts = Counter(text for row in rows for text in dict.fromkeys(row))
    text, count = max(counts.items(), key=lambda item: item[1])
    return text if count > 1 else None


def one_late(outputs: Iterable[tuple[np.ndarray, _Output]]) -> Iterator[tuple[np.ndarray, _Output]]:
    """Yields each item after the next one was requested: the device computes one while the host reads the other."""
    waiting: list[tuple[np.ndarray, _Output]] = []
    for output in outputs:
        waiting.append(output)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
