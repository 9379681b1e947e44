"""The metric functions of external SeqIO tasks, run as SeqIO's evaluator runs them.

Targets go through the task's own `postprocess_fn` as they were before tokenization, predictions as its own vocabulary
decodes them; both with the example that they belong to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flan_jax.data.manifest import Lengths
from flan_jax.errors import UserError, as_user_error, raised_outside
from flan_jax.tasks.external import ExternalTask


@dataclass(frozen=True, kw_only=True)
class ExternalScores:
    """The scores of an external task by its own metric functions.

    Attributes:
      metrics: Scores by name, in the task's own units.
      skipped: Metric functions and values that are not run or shown, with the reason.
    """

    metrics: Mapping[str, float]
    skipped: tuple[str, ...] = ()


def measure(
    task: ExternalTask, split: str, *, lengths: Lengths, generated: Mapping[int, str], are_ids: bool
) -> ExternalScores:
    """Returns the scores of predictions.

    Args:
      task: An external task.
      split: The split of the predictions.
      lengths: Token limits of its export.
      generated: The generated text of each row, by its number.
      are_ids: Whether the texts are ids between spaces, which the task's own vocabulary decodes.

    Raises:
      UserError: The task's own code fails, or a row is not in the split any more.
    """
    theirs = task.seqio_task
    examples = {}
    # Read again instead of stored: a `postprocess_fn` may use any field of an example, and exports have texts and ids.
    for row, example in task.examples(split, lengths=lengths):
        if row in generated:
            examples[row] = example
        if len(examples) == len(generated):
            break
    missing = [row for row in generated if row not in examples]
    if missing:
        raise UserError(
            f"Task {task.name!r}, split {split!r}, has no row {missing[0]} any more: its source changed since it was "
            "exported. Export it again: --use_cached_tasks=False."
        )
    vocabulary = theirs.output_features["targets"].vocabulary
    # Noted, not refused: the other metrics of the task are still what its author asked for.
    skipped = [f"{_name(fn)} needs {what}" for fn, what in _not_run(theirs)]
    try:
        targets = [
            theirs.postprocess_fn(_target(examples[row], vocabulary), example=examples[row], is_target=True)
            for row in generated
        ]
        texts = {
            row: vocabulary.decode([*map(int, text.split())]) if are_ids else text for row, text in generated.items()
        }
        predictions = [
            theirs.postprocess_fn(text, example=examples[row], is_target=False) for row, text in texts.items()
        ]
        values = {name: value for fn in theirs.predict_metric_fns for name, value in fn(targets, predictions).items()}
    except Exception as error:
        if isinstance(error, UserError) or not raised_outside(error, caller=__file__):
            raise
        refusal = as_user_error(error) or f"{type(error).__name__}: {error}"
        raise UserError(f"Task {task.name!r}, split {split!r}: its own metrics fail: {refusal}") from error
    numbers = {name: _number(value) for name, value in values.items()}
    skipped += [f"{name} is no number" for name, number in numbers.items() if number is None]
    return ExternalScores(
        metrics={name: number for name, number in numbers.items() if number is not None}, skipped=tuple(skipped)
    )


def _target(example: Mapping[str, Any], vocabulary: Any) -> str:
    target = example.get("targets_pretokenized")
    if target is None:
        target = vocabulary.decode([int(number) for number in example["targets"]])
    return target.decode() if isinstance(target, bytes) else str(target)


def _not_run(task: Any) -> Sequence[tuple[Any, str]]:
    """The metric functions that need more than a text, with what they need."""
    scored = [(fn, "scores of the targets") for fn in task.score_metric_fns]
    return scored + [(fn, "auxiliary values") for fn in task.predict_with_aux_metric_fns]


def _name(fn: Any) -> str:
    return str(getattr(fn, "__name__", type(fn).__name__))


def _number(value: Any) -> float | None:
    """A number, also out of SeqIO's `Scalar`; None for histograms, texts and the like."""
    value = getattr(value, "value", value)
    if isinstance(value, int | float | np.number | np.ndarray) and np.size(value) == 1:
        return float(value)
    return None
