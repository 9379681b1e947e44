"""Metrics over written labels and numbers: by class, of pairs of options and by question, and correlation.

Each returns what it measured (`flan_jax.evaluation.measured`); their scores are no means of rows.
"""

from collections.abc import Callable, Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.evaluation.measured import Groups, Measured, Options, References, require_rows


def macro_f1(references: References, predictions: Sequence[str]) -> Measured:
    """Mean F1 over the classes that occur among the references (the first of each row), and accuracy.

    >>> macro_f1([["a"], ["a"], ["b"]], ["a", "c", "d"]).scores()["macro_f1"]  # 2/3 for a, 0 for b
    33.33333333333333
    """
    # A class that only predictions have costs the recall of the right one; scikit-learn's "macro" counts it as a 0 too.
    return _by_class(references, predictions, macro_f1=lambda table: float(np.mean(_class_f1(table)[_occur(table)])))


def weighted_f1(references: References, predictions: Sequence[str]) -> Measured:
    """F1 by class, weighted by how often the class is right (the first reference of each row), and accuracy.

    >>> weighted_f1([["a"], ["a"], ["b"]], ["a", "c", "d"]).scores()["weighted_f1"]  # 2/3 for a, 0 for b
    44.44444444444444
    """
    return _by_class(
        references,
        predictions,
        weighted_f1=lambda table: float(np.average(_class_f1(table), weights=table.sum(1))),
    )


def matthews_corrcoef(references: References, predictions: Sequence[str]) -> Measured:
    """Matthews' correlation of labels in any number of classes (CoLA in GLUE), and accuracy; 0 for a constant side.

    >>> matthews_corrcoef([["0"], ["0"], ["2"], ["1"]], ["0", "1", "2", "1"]).scores()
    {'matthews_corrcoef': 70.0, 'accuracy': 75.0}
    """

    def matthews(table: np.ndarray) -> float:
        wanted, got, total = table.sum(1), table.sum(0), table.sum()
        norm = float(np.sqrt((total**2 - wanted @ wanted) * (total**2 - got @ got)))
        return round(float(np.trace(table) * total - wanted @ got) / norm, 12) if norm else 0.0

    return _by_class(references, predictions, matthews_corrcoef=matthews)


def mean_multiclass_f1(references: References, predictions: Sequence[str], *, options: Options) -> Measured:
    """Mean F1 over the options of the rows, whether or not they occur, and accuracy (CB in SuperGLUE, by T5's rule).

    A class is the position of an option, so that templates may word the options differently.

    >>> rows = {"options": [["no", "maybe", "yes"]] * 4}
    >>> mean_multiclass_f1([["no"], ["maybe"], ["maybe"], ["yes"]], ["no", "no", "yes", "yes"], **rows).scores()
    {'mean_multiclass_f1': 44.44444444444444, 'accuracy': 50.0}
    """
    require_rows(references, predictions, options=options)
    count = len(options[0])
    positions: list[tuple[str, str]] = []
    for index, (row, prediction, listed) in enumerate(zip(references, predictions, options, strict=True)):
        right = row[0].strip()
        if len(set(listed)) != count or len(listed) != count or right not in listed:
            raise UserError(
                f"Row {index} must have {count} different options with the right one, {right!r}, among them, got "
                f"{list(listed)}: each option is a class of all rows."
            )
        given = prediction.strip()
        positions.append((str(listed.index(right)), str(listed.index(given) if given in listed else count)))
    return _by_class(
        [[right] for right, _ in positions],
        [given for _, given in positions],
        labels=[str(number) for number in range(count)],
        mean_multiclass_f1=lambda table: float(np.mean(_class_f1(table)[:count])),
    )


def _by_class(
    references: References,
    predictions: Sequence[str],
    labels: Sequence[str] = (),
    **scores: Callable[[np.ndarray], float],
) -> Measured:
    """Measures labels by their confusion table, and their accuracy.

    Args:
      references: Of each row the first one is its class; a prediction that is another one is of that class too.
      predictions: The labels given.
      labels: Classes that come first in the table, whether or not they occur.
      **scores: Functions of the table [C, C] of right classes by given ones, to -1 to 1.
    """
    require_rows(references, predictions)
    expected, got = [row[0].strip() for row in references], [p.strip() for p in predictions]
    number = {label: i for i, label in enumerate(dict.fromkeys([*labels, *sorted({*expected, *got})]))}
    right = [any(r.strip() == p for r in row) for row, p in zip(references, got, strict=True)]

    def reduce(sample: np.ndarray) -> dict[str, float]:
        table = np.zeros((len(number), len(number)))
        np.add.at(table, tuple(sample[:, :2].astype(int).T), 1.0)
        measured = {name: 100.0 * score(table) for name, score in scores.items()}
        return measured | {"accuracy": 100.0 * float(sample[:, 2].mean())}

    rows = [[number[e], number[g], r] for e, g, r in zip(expected, got, right, strict=True)]
    return Measured(rows=np.array(rows, float), reduce=reduce)


def _class_f1(table: np.ndarray) -> np.ndarray:
    """F1 of each class, [C]; 0 for a class that neither occurs nor is given."""
    total = table.sum(0) + table.sum(1)
    return 2.0 * np.diagonal(table) / np.where(total > 0, total, 1.0)


def _occur(table: np.ndarray) -> np.ndarray:
    return np.asarray(table.sum(1) > 0)


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
