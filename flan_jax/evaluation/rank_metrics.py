"""Scores of rank classification: which option of a row got the highest score, and is it right.

Follows T5's rank metric: the prediction is the first highest score; two classes give accuracy, F1 and areas under
curves, more give accuracy and the mean class F1, options that vary by row or rows with several right options give
accuracy alone. The positive class of two is option 1. An option's score is its log-likelihood, normalized in one of
several ways (`NORMALIZATIONS`). Computing it is left to `flan_jax.evaluation.ranking`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from flan_jax.errors import UserError
from flan_jax.evaluation.measured import Measured

Scores = Sequence[Sequence[float] | np.ndarray]
Gold = Sequence[Collection[int]]


@dataclass(frozen=True, kw_only=True)
class OptionScores:
    """What was measured of the options of a row; every normalization follows from it.

    Fields that were not measured are empty.

    Attributes:
      scores: The log-likelihood of each option, its end of sequence included.
      eos_scores: The part of the end of sequence.
      tokens: Tokens of each option, the end of sequence included.
      bytes: UTF-8 bytes of each option's text.
      unconditional_scores: The log-likelihoods after empty inputs.
      unconditional_eos_scores: The part of the end of sequence.
    """

    scores: tuple[float, ...]
    eos_scores: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    bytes: tuple[int, ...] = ()
    unconditional_scores: tuple[float, ...] = ()
    unconditional_eos_scores: tuple[float, ...] = ()

    @classmethod
    def choosing(cls, chosen: int, count: int) -> "OptionScores":
        """Returns scores of `count` options by which every normalization chooses the given one."""
        zeros, ones = (0.0,) * count, (1,) * count
        return cls(
            scores=tuple(float(i == chosen) for i in range(count)),
            eos_scores=zeros,
            tokens=(2,) * count,
            bytes=ones,
            unconditional_scores=zeros,
            unconditional_eos_scores=zeros,
        )


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """How the log-likelihoods of a row's options are made comparable.

    Attributes:
      divisor: The length that a score is divided by: "tokens" (GPT-3, 2005.14165, section 2.4), "bytes"
        (lm-evaluation-harness: `acc_bytes`), or None.
      is_unconditional: Whether the log-likelihood of the same option after empty inputs is subtracted (GPT-3's
        p(completion | answer context); lm-evaluation-harness: `acc_mutual_info`).
      with_eos: Whether the end of sequence counts.
    """

    divisor: Literal["tokens", "bytes"] | None = None
    is_unconditional: bool = False
    with_eos: bool = True

    def of(self, options: OptionScores, *, row: int = 0) -> np.ndarray:
        """Returns the score of each option.

        Args:
          options: The options of one row.
          row: Its number, for messages.

        Raises:
          UserError: An option has no tokens or no bytes to divide by, or what the normalization needs was not measured.
        """
        count = len(options.scores)

        def measured(name: str) -> np.ndarray:
            values = getattr(options, name)
            if len(values) != count:
                raise UserError(
                    f"Row {row} has {count} scores of options and {len(values)} {name}, which the metric needs. "
                    "Evaluate again with this metric, or choose another one."
                )
            return np.asarray(values, float)

        scores = measured("scores")
        if not self.with_eos:
            scores = scores - measured("eos_scores")
        if self.is_unconditional:
            scores = scores - measured("unconditional_scores")
            scores = scores if self.with_eos else scores + measured("unconditional_eos_scores")
        if self.divisor is None:
            return scores
        # The end of sequence is a token, and has no bytes.
        lengths = measured(self.divisor) - float(self.divisor == "tokens" and not self.with_eos)
        if (lengths < 1).any():
            raise UserError(
                f"Row {row}: options of {lengths.astype(int).tolist()} {self.divisor} cannot be scored per "
                f"{self.divisor[:-1]}: an option is empty. Use `rank_accuracy`, which does not divide."
            )
        return scores / lengths


_WAYS = {
    "": Normalization(),
    "_per_token": Normalization(divisor="tokens"),
    "_per_byte": Normalization(divisor="bytes"),
    "_unconditional": Normalization(is_unconditional=True),
}
NORMALIZATIONS: Mapping[str, Normalization] = _WAYS | {
    f"{suffix}_no_eos": replace(way, with_eos=False) for suffix, way in _WAYS.items()
}
"""By the suffix of the metric, `rank_accuracy<suffix>`."""


def rank_accuracy(
    options: Sequence[OptionScores],
    gold: Gold,
    *,
    normalization: Normalization = Normalization(),
    name: str = "accuracy",
) -> Measured:
    """Accuracy of the highest score, for options that may vary by row.

    >>> row = OptionScores(scores=(-4.0, -3.0), eos_scores=(-1.0, -1.0), tokens=(4, 2), bytes=(9, 2))
    >>> rank_accuracy([row], [{0}]).scores()
    {'accuracy': 0.0}
    >>> rank_accuracy([row], [{0}], normalization=Normalization(divisor="tokens"), name="accuracy_per_token").scores()
    {'accuracy_per_token': 100.0}
    """
    measured = rank_classification([normalization.of(one, row=row) for row, one in enumerate(options)], gold)
    # A name of its own: a task may have several accuracies.
    return replace(measured, reduce=lambda rows: {name: measured.reduce(rows)["accuracy"]}, means=(name,))


def rank_classes(options: Sequence[OptionScores], gold: Gold) -> Measured:
    """As `rank_accuracy` with F1 (and areas under curves for two), for options that are the same classes in every row.

    >>> rank_classes([OptionScores.choosing(0, 2), OptionScores.choosing(1, 2)], [{0}, {1}]).scores()
    {'accuracy': 100.0, 'positive_f1': 100.0, 'auc_roc': 100.0, 'auc_pr': 100.0}
    """
    scores = [row.scores for row in options]
    return rank_classification(scores, gold, num_classes=len(scores[0]) if scores else None)


def rank_classification(
    scores: Scores,
    gold: Gold,
    *,
    num_classes: int | None = None,
    weights: Sequence[float] | None = None,
) -> Measured:
    """Measures the ranking of options.

    Args:
      scores: One row of option scores per example, higher is better.
      gold: The right options of each example.
      num_classes: Options of every row when they mean the same classes throughout; None when they vary.
      weights: Weight of each example; None is 1 for all.

    Returns:
      The measurement of `accuracy`; with two classes `positive_f1`, `auc_roc`, `auc_pr`; with more `mean_f1`.

    Raises:
      UserError: Rows and gold do not fit together, or a score is not a number.
    """
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
