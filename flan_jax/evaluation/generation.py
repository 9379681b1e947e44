"""Evaluation by generating: decode every example's prediction.

Knows no model: a function turns a batch into tokens. Batches come unpacked, longest inputs first, in few shapes, so
that decoding ends early and compiles seldom (`flan_jax.data.evaluation_feed`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from flan_jax.data.evaluation_feed import PADDING_ROW, eval_batches
from flan_jax.evaluation.examples import Example, Task, read_examples, spell
from flan_jax.evaluation.postprocess import postprocessor
from flan_jax.evaluation.prediction import Prediction
from flan_jax.shapes import PAD_ID, Batch
from flan_jax.vocab import Vocabulary

GenerateFn = Callable[[Batch], Any]
"""A batch -> generated token ids, int [B, T], on device or host."""

_Output = TypeVar("_Output")


def generate_predictions(
    task: Task, *, indices: Sequence[int], generate_fn: GenerateFn, vocabulary: Vocabulary | None, batch_size: int
) -> Iterator[Prediction]:
    """Yields a prediction for each of the examples `indices`, in the order in which they are computed.

    Args:
      task: An exported task.
      indices: The examples to evaluate, [N].
      generate_fn: Maps a batch to token ids [B, T]; rows end with the end of sequence and padding.
      vocabulary: The vocabulary of the export; None for an external class.
      batch_size: Rows per batch.
    """
    batches = eval_batches(task, batch_size=batch_size, lengths=task.manifest.lengths, indices=indices)
    eos_id, answer = task.manifest.vocabulary.eos_id, postprocessor(task.manifest.metadata.postprocessor)
    for rows, generated in one_late((rows, generate_fn(batch)) for batch, rows in batches):
        real = rows != PADDING_ROW
        examples = read_examples(task, rows[real], vocabulary=vocabulary)
        for example, ids in zip(examples, np.asarray(generated)[real], strict=True):
            text = spell(ids, vocabulary)
            prediction = answer(text)
            yield Prediction(
                **compared(example, task, answer=answer),
                prediction=prediction,
                generated=None if text == prediction else text,
                truncated=not np.any((ids == eos_id) | (ids == PAD_ID)),
            )


def compared(example: Example, task: Task, *, answer: Callable[[str], str]) -> dict[str, Any]:
    """Returns the fields of a prediction that do not depend on the model, with the texts as they are compared."""
    return {
        "task": task.manifest.task,
        "split": task.manifest.split,
        "index": example.index,
        "row": example.row,
        "template": example.template,
        "input": example.inputs,
        "references": tuple(map(answer, example.references)),
        "options": tuple(map(answer, example.options)),
        "group": example.group,
    }


def one_late(outputs: Iterable[tuple[np.ndarray, _Output]]) -> Iterator[tuple[np.ndarray, _Output]]:
    """Yields each item after the next one was requested: the device computes one while the host reads the other."""
    waiting: list[tuple[np.ndarray, _Output]] = []
    for output in outputs:
        waiting.append(output)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
