"""Scores of rank classification: which option of a row got the highest score, and is it right.

Follows T5's rank metric: the prediction is the first highest score; two classes give accuracy, F1 and areas under
curves, more give accuracy and the mean class F1, options that vary by row or rows with several right options give
accuracy alone. The positive class of two is option 1. Scoring the options is left to `flan_jax.evaluation.ranking`.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from flan_jax.errors import UserError
from flan_jax.evaluation.measured import Measured

Scores = Sequence[Sequence[float]]
Gold = Sequence[Collection[int]]


def rank_classification(
    scores: Scores,
    gold: Gold,
    *,
    num_classes: int | None = None,
    weights: Sequence[float] | None = None,
    lengths: Sequence[Sequence[int]] | None = None,
) -> Measured:
    """Measures the ranking of options.

    Args:
      scores: One row of option scores an example, higher is better.
      gold: The right options of each example.
      num_classes: Options of every row when they mean the same classes throughout; None when they vary.
      weights: Weight of each example; None is 1 for all.
      lengths: Target tokens of each option, to divide the scores by; None does not divide them, as in FLAN and T0.

    Returns:
      The measurement of `accuracy`; with two classes `positive_f1`, `auc_roc`, `auc_pr`; with more `mean_f1`.

    Raises:
      UserError: Rows and gold do not fit together, or a score is not a number.
    """
    if lengths is not None:
        scores = [np.asarray(s, float) / np.asarray(n) for s, n in zip(scores, lengths, strict=True)]
    _check(scores, gold, num_classes)
    weight = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
    chosen = np.array([int(np.argmax(row)) for row in scores])
    right = np.array([c in g for c, g in zip(chosen, gold, strict=True)])
    # Options that vary, or several right ones, are no classes.
    are_classes = num_classes is not None and all(len(set(g)) == 1 for g in gold)
    labels = np.array([next(iter(g)) for g in gold])
    # The margin orders rows as the softmax over two options does.
    margins = np.array([row[1] - row[0] for row in scores]) if num_classes == 2 else np.zeros(len(scores))

    def reduce(rows: np.ndarray) -> dict[str, float]:
        right, chosen, labels, margins, weight = rows.T
        result = {"accuracy": 100.0 * float(weight @ right / weight.sum())}
        if are_classes and num_classes == 2:
            result["positive_f1"] = class_f1(labels, chosen, weight, label=1)
            result["auc_roc"] = auc_roc(labels == 1, margins, weight)
            result["auc_pr"] = auc_pr(labels == 1, margins, weight)
        elif are_classes and num_classes is not None and num_classes > 2:
            result["mean_f1"] = float(np.mean([class_f1(labels, chosen, weight, label=c) for c in range(num_classes)]))
        return result

    rows = np.array([right, chosen, labels, margins, weight], float).T
    return Measured(rows=rows, reduce=reduce, means=("accuracy",) if weights is None else ())


def rank_accuracy(scores: Scores, gold: Gold, *, lengths: Sequence[Sequence[int]] | None = None) -> Measured:
    """Accuracy of the highest score, for options that may vary by row; `lengths` are not used.

    >>> rank_accuracy([[-1.0, -2.0], [-5.0, -3.0, -4.0]], [{0}, {2}]).scores()
    {'accuracy': 50.0}
    """
    return rank_classification(scores, gold)


def rank_classes(scores: Scores, gold: Gold, *, lengths: Sequence[Sequence[int]] | None = None) -> Measured:
    """As `rank_accuracy` with F1 (and areas under curves for two), for options that are the same classes in every row.

    >>> rank_classes([[-1.0, -2.0], [-5.0, -3.0]], [{0}, {1}]).scores()
    {'accuracy': 100.0, 'positive_f1': 100.0, 'auc_roc': 100.0, 'auc_pr': 100.0}
    """
    return rank_classification(scores, gold, num_classes=len(scores[0]) if len(scores) else None)


def rank_accuracy_by_length(scores: Scores, gold: Gold, *, lengths: Sequence[Sequence[int]] | None = None) -> Measured:
    """As `rank_accuracy` with every score divided by its option's number of tokens.

    >>> rank_accuracy_by_length([[-4.0, -3.0]], [{0}], lengths=[[4, 2]]).scores()
    {'accuracy_by_length': 100.0}
    """
    measured = rank_classification(scores, gold, lengths=lengths)
    # A name of its own: a task may have both accuracies.
    name = "accuracy_by_length"
    return replace(measured, reduce=lambda rows: {name: measured.reduce(rows)["accuracy"]}, means=(name,))


def class_f1(labels: np.ndarray, chosen: np.ndarray, weight: np.ndarray, *, label: int) -> float:
    """Weighted F1 of one class, 0 to 100; 0 when the class neither occurs nor is predicted."""
    expected, predicted = labels == label, chosen == label
    total = weight @ expected + weight @ predicted
    return 200.0 * float(weight @ (expected & predicted) / total) if total else 0.0


def auc_roc(positive: np.ndarray, values: np.ndarray, weight: np.ndarray) -> float:
    """Weighted area under the ROC curve, 0 to 100: the chance that a positive beats a negative, ties counting half.

    NaN when one of the classes is absent, where the area is not defined.
    """
    up, down = _weights_by_value(positive, values, weight)
    total = up.sum() * down.sum()
    below = np.cumsum(down) - down / 2
    return 100.0 * float(up @ below / total) if total else float("nan")


def auc_pr(positive: np.ndarray, values: np.ndarray, weight: np.ndarray) -> float:
    """Weighted average precision, 0 to 100: precision at every threshold times the recall it adds.

    NaN when there is no positive.
    """
    up, down = (side[::-1] for side in _weights_by_value(positive, values, weight))
    total = up.sum()
    predicted = np.cumsum(up + down)
    precision = np.cumsum(up) / np.where(predicted > 0, predicted, 1.0)
    return 100.0 * float(precision @ up / total) if total else float("nan")


def _weights_by_value(positive: np.ndarray, values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and of negatives at each distinct value, ascending."""
    distinct, inverse = np.unique(values, return_inverse=True)
    up = np.bincount(inverse, weights=weight * positive, minlength=len(distinct))
    return up, np.bincount(inverse, weights=weight * ~positive, minlength=len(distinct))


def _check(scores: Scores, gold: Gold, num_classes: int | None) -> None:
    assert 0 < len(scores) == len(gold), (len(scores), len(gold))
    for index, (row, right) in enumerate(zip(scores, gold, strict=True)):
        if not len(row) or (num_classes is not None and len(row) != num_classes):
            raise UserError(f"Row {index} has {len(row)} option scores, expected {num_classes or 'at least 1'}.")
        assert right and 0 <= min(right) <= max(right) < len(row), (index, right, len(row))
        if np.isnan(np.asarray(row, float)).any():
            raise UserError(f"Row {index} has option scores {list(row)}: a score is not a number.")
