"""Metrics over written labels and numbers: F1 by class, of pairs of options and by question, and correlation.

Each returns what it measured (`flan_jax.evaluation.measured`); their scores are no means of rows.
"""

from collections.abc import Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.evaluation.measured import Groups, Measured, Options, References, require_rows


def macro_f1(references: References, predictions: Sequence[str]) -> Measured:
    """Mean F1 over the classes that occur among the references (the first of each row), and accuracy.

    >>> macro_f1([["a"], ["a"], ["b"]], ["a", "c", "d"]).scores()["macro_f1"]  # 2/3 for a, 0 for b
    33.33333333333333
    """
    require_rows(references, predictions)
    expected, got = [row[0].strip() for row in references], [p.strip() for p in predictions]
    number = {label: i for i, label in enumerate(sorted({*expected, *got}))}
    right = [any(r.strip() == p for r in row) for row, p in zip(references, got, strict=True)]

    def reduce(sample: np.ndarray) -> dict[str, float]:
        wanted, given = sample[:, 0].astype(int), sample[:, 1].astype(int)
        support = np.bincount(wanted, minlength=len(number))
        hits = np.bincount(wanted[wanted == given], minlength=len(number))
        total = support + np.bincount(given, minlength=len(number))
        scores = 2.0 * hits[support > 0] / total[support > 0]
        return {"macro_f1": 100.0 * float(np.mean(scores)), "accuracy": 100.0 * float(sample[:, 2].mean())}

    rows = [[number[e], number[g], r] for e, g, r in zip(expected, got, right, strict=True)]
    return Measured(rows=np.array(rows, float), reduce=reduce)


def positive_f1(references: References, predictions: Sequence[str], *, options: Options) -> Measured:
    """F1 of the positive class, the second of a row's two options, and accuracy (MRPC and QQP in GLUE).

    A prediction that is neither option counts as the wrong one of them, so that it harms precision where the answer was
    no, as T5's metric has it.

    >>> positive_f1([["yes"], ["yes"], ["no"]], ["yes", "yes", "maybe"], options=[["no", "yes"]] * 3).scores()[
    ...     "positive_f1"
    ... ]
    80.0
    """

    def reduce(sample: np.ndarray) -> dict[str, float]:
        expected, got = sample.T
        return {"positive_f1": _binary_f1(expected, got), "accuracy": 100.0 * float(np.mean(expected == got))}

    return Measured(rows=_positive(references, predictions, options), reduce=reduce)


def multirc(references: References, predictions: Sequence[str], *, options: Options, groups: Groups) -> Measured:
    """MultiRC's F1 over all answers (F1a), and the share of questions all of whose answers are judged right.

    A row is one candidate answer, and its second option means that the answer is right; a group is a question
    (SuperGLUE, arXiv 1905.00537, section 3.2).

    >>> rows = {"options": [["no", "yes"]] * 3, "groups": ["q1", "q1", "q2"]}
    >>> multirc([["yes"], ["no"], ["yes"]], ["yes", "yes", "yes"], **rows).scores()
    {'f1a': 80.0, 'em_by_question': 50.0}
    """
    pairs = _positive(references, predictions, options)
    require_rows(references, predictions, groups=groups)
    questions: dict[str, list[float]] = {}  # Both, expected, given, and whether all answers are right.
    for index, (group, (expected, got)) in enumerate(zip(groups, pairs.tolist(), strict=True)):
        if group is None:
            raise UserError(f"Row {index} belongs to no group; MultiRC is judged by question. Give the task a group.")
        counts = questions.setdefault(group, [0.0, 0.0, 0.0, 1.0])
        counts[:3] = [counts[0] + expected * got, counts[1] + expected, counts[2] + got]
        counts[3] *= expected == got

    def reduce(sample: np.ndarray) -> dict[str, float]:
        both, expected, got, _ = sample.sum(0)
        f1 = 200.0 * float(both / (expected + got)) if expected + got else 0.0
        return {"f1a": f1, "em_by_question": 100.0 * float(sample[:, 3].mean())}

    return Measured(rows=np.array(list(questions.values())), reduce=reduce)


def _positive(references: References, predictions: Sequence[str], options: Options) -> np.ndarray:
    """Whether the second option is right, and whether it was given, [N, 2]; what is no option becomes the wrong one."""
    require_rows(references, predictions, options=options)
    rows = []
    for index, (row, prediction, pair) in enumerate(zip(references, predictions, options, strict=True)):
        right, given = row[0].strip(), prediction.strip()
        if len(set(pair)) != 2 or len(pair) != 2 or right not in pair:
            raise UserError(
                f"Row {index} must have two options with the right one, {right!r}, among them, got {list(pair)}."
            )
        expected = right == pair[1]
        rows.append([expected, given == pair[1] if given in pair else not expected])
    return np.array(rows, float)


def _binary_f1(expected: np.ndarray, got: np.ndarray) -> float:
    total = expected.sum() + got.sum()
    return 200.0 * float(expected @ got / total) if total else 0.0


def correlation(references: References, predictions: Sequence[str]) -> Measured:
    """Pearson's and Spearman's correlation of numbers written as text (STS-B); 0 when either side is constant.

    >>> correlation([["1"], ["2"], ["4"]], ["1", "2", "4"]).scores()
    {'pearson': 100.0, 'spearman': 100.0}
    """
    require_rows(references, predictions)
    rows = [[_as_number(row[0]), _as_number(p)] for row, p in zip(references, predictions, strict=True)]
    return Measured(
        rows=np.array(rows),
        reduce=lambda sample: {
            "pearson": _pearson(*sample.T),
            "spearman": _pearson(*map(_mean_ranks, sample.T)),
        },
    )


def _as_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0  # A value that is not a number scores as zero, as T5's STS-B postprocessing does with its -1.
    return value if np.isfinite(value) else 0.0


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return 100.0 * round(float(a @ b) / norm, 12) if norm else 0.0


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
