"""Evaluation by generating: decode every example's prediction. Knows no model: a function decodes rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from flan_jax.decoding.decoder import Row
from flan_jax.decoding.hypotheses import Hypothesis
from flan_jax.evaluation.examples import Example, Task, read_examples, spell
from flan_jax.evaluation.postprocess import postprocessor
from flan_jax.evaluation.prediction import Alternative, Prediction
from flan_jax.vocab import Vocabulary

CHUNK_EXAMPLES = 2**14  # Whose tokens and texts are in memory at a time: about 100 MB.

Decode = Callable[[Iterable[Row]], Iterator[tuple[int, tuple[Hypothesis, ...]]]]
"""Rows (number, inputs) -> each number with its hypotheses, the best or the first sample first, in any order."""


def generate_predictions(
    task: Task, *, indices: Sequence[int], decode: Decode, vocabulary: Vocabulary | None
) -> Iterator[Prediction]:
    """Yields predictions for each of the examples `indices`, in order of completion.

    Args:
      task: An exported task.
      indices: The examples to evaluate, [N].
      decode: Maps the token ids of inputs to hypotheses. Its row numbers are those of examples, so that a sample
        depends on the example alone.
      vocabulary: The vocabulary of the export; None for an external class.
    """
    answer = postprocessor(task.manifest.metadata.postprocessor)
    for chunk in chunks(indices):
        examples = {example.index: example for example in read_examples(task, chunk, vocabulary=vocabulary)}
        inputs = [example_inputs for example_inputs, _ in task.read(chunk)]
        for number, hypotheses in decode((n, ids.tolist()) for n, ids in zip(chunk, inputs, strict=True)):
            alternatives = tuple(alternative(one, vocabulary, answer=answer) for one in hypotheses)
            first = alternatives[0]
            yield Prediction(
                **compared(examples[number], task, answer=answer),
                prediction=first.prediction,
                generated=first.generated,
                truncated=first.truncated,
                predictions=alternatives if len(alternatives) > 1 else (),
            )


def chunks(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yields the numbers of examples, as many at a time as may be in memory."""
    return (indices[start : start + CHUNK_EXAMPLES] for start in range(0, len(indices), CHUNK_EXAMPLES))


def alternative(
    hypothesis: Hypothesis, vocabulary: Vocabulary | None, *, answer: Callable[[str], str] = str
) -> Alternative:
    """Returns a hypothesis as a prediction: its text, and what a postprocessor extracts from it."""
    text = spell(hypothesis.tokens, vocabulary) if hypothesis.text is None else hypothesis.text
    prediction = answer(text)
    return Alternative(
        prediction=prediction,
        generated=None if text == prediction else text,
        # Finer digits depend on the other rows of a batch, and a process that continues has other batches.
        score=round(hypothesis.score, 5),
        score_per_token=round(hypothesis.score / max(1, len(hypothesis.tokens)), 5),
        truncated=not hypothesis.ended,
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
