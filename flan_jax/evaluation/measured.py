"""Measurements of a metric: statistics of each row, and the function that turns them into scores of 0 to 100.

The two are apart so that a standard error costs no second reading of the texts: rows are drawn again from the
statistics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flan_jax.errors import UserError

References = Sequence[Sequence[str]]
Options = Sequence[Sequence[str]]
Groups = Sequence[str | None]

NUM_RESAMPLES = 1000  # Gives a standard error to about 2 % of itself, and the limits of an interval to a tenth of it.
CONFIDENCE = 95  # Percent.


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measurement of one set of predictions by one metric.

    Attributes:
      rows: Statistics of each independent unit, float [N, K]; a unit is a row, or a group of rows that count as one.
      reduce: Maps statistics [M, K] to scores by name; the first is the metric's main score.
      signature: The settings under which others publish the metric; empty for none.
      note: A reservation about the scores; empty for none.
      means: The names of the scores that are 100 times the means of the first columns of `rows`, in their order.
    """

    rows: np.ndarray
    reduce: Callable[[np.ndarray], dict[str, float]]
    signature: str = ""
    note: str = ""
    means: tuple[str, ...] = ()

    def scores(self) -> dict[str, float]:
        """Returns the scores."""
        return self.reduce(self.rows)

    def row_scores(self) -> dict[str, np.ndarray]:
        """Returns the scores of each unit alone, [N], of those scores that are means of units."""
        return {name: 100.0 * self.rows[:, column] for column, name in enumerate(self.means)}

    def standard_errors(self) -> dict[str, float]:
        """Returns the standard error of each score: its spread over samples of the rows with replacement.

        NaN for fewer than two rows, which have no spread.
        """
        return {
            name: float(values.std()) if len(values) > 1 else float("nan") for name, values in self._resampled.items()
        }

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Returns the 95 % interval of each score by the percentiles of the same samples; NaN as standard errors."""
        tail = (100 - CONFIDENCE) / 2
        return {
            name: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
            if len(values) > 1
            else (float("nan"), float("nan"))
            for name, values in self._resampled.items()
        }

    @cached_property
    def _resampled(self) -> dict[str, np.ndarray]:
        """The scores of samples of the rows; seeded, so that equal predictions have equal errors."""
        count = len(self.rows)
        if count < 2:
            return {name: np.empty(0) for name in self.scores()}
        rng = np.random.default_rng(0)
        samples = [self.reduce(self.rows[rng.integers(count, size=count)]) for _ in range(NUM_RESAMPLES)]
        drawn = {name: np.array([sample[name] for sample in samples]) for name in self.scores()}
        # A sample may lack a class, and with it the areas under its curves.
        return {name: values[~np.isnan(values)] for name, values in drawn.items()}


def mean_of_rows(names: Sequence[str], rows: Sequence[Sequence[float]], *, note: str = "") -> Measured:
    """Returns the measurement whose scores are means of the columns of `rows`, [N, number of names], times 100."""

    def reduce(sample: np.ndarray) -> dict[str, float]:
        return {name: 100.0 * float(mean) for name, mean in zip(names, sample.mean(0), strict=True)}

    units = np.asarray(rows, float).reshape(-1, len(names))
    return Measured(rows=units, reduce=reduce, note=note, means=tuple(names))


def mean_of_best(references: References, predictions: Sequence[str], **scores: Callable[[str, str], float]) -> Measured:
    """Returns the means over rows of the best `score(reference, prediction)` of 0 to 1, times 100, by name."""
    require_rows(references, predictions)
    rows = [
        [max(score(reference, prediction) for reference in row) for score in scores.values()]
        for row, prediction in zip(references, predictions, strict=True)
    ]
    return mean_of_rows(tuple(scores), rows)


def require_rows(references: References, predictions: Sequence[str], **facts: Sequence[Any] | None) -> None:
    """Refuses rows without references; numbers of rows that differ are our own mistake.

    Raises:
      UserError: A row has no list of references.
    """
    given = {"predictions": predictions, **{name: fact for name, fact in facts.items() if fact is not None}}
    for name, values in given.items():
        assert len(references) == len(values), f"{len(values)} {name} for {len(references)} rows"
    assert predictions, "There are no predictions to score."
    for index, row in enumerate(references):
        if isinstance(row, str) or not row:
            raise UserError(f"Row {index} must have a list of one or more references, got {row!r}.")
