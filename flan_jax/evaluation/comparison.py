"""Two evaluations of the same rows, compared row by row: differences with intervals, significance, wins and losses.

Rows are drawn in pairs (paired bootstrap; Koehn 2004, W04-3250), so that what is hard for both evaluations does not
widen the interval of their difference.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flan_jax.errors import MissingFileError, UserError
from flan_jax.evaluation import directory as files
from flan_jax.evaluation.measured import CONFIDENCE, NUM_RESAMPLES, Measured
from flan_jax.evaluation.prediction import Prediction
from flan_jax.evaluation.task_scores import ScoredTask, measure
from flan_jax.names import counted

_SHOWN = 3  # Rows that a message names.


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of one score between two evaluations of the same rows.

    Attributes:
      name: The task, or "mean of N tasks".
      metric: The score.
      before: The score of the first evaluation; `after` that of the second.
      low: The lower limit of the 95 % interval of `after - before`; `high` the upper one.
      p_value: Twice the share of samples in which the difference has the other sign or is 0, at most 1.
      wins: The number of rows, or groups of rows, with a higher score in the second evaluation; `losses` with a lower
        one, and `ties` with the same.
    """

    name: str
    metric: str
    before: float
    after: float
    low: float
    high: float
    p_value: float
    wins: int
    ties: int
    losses: int

    @property
    def difference(self) -> float:
        """The second score minus the first."""
        return self.after - self.before


def compare(before: Path, after: Path) -> tuple[Difference, ...]:
    """Returns the differences of the scores of each task, and then of each metric over all tasks that have it.

    Args:
      before: The directory of an evaluation, `<run>/eval/<step>`.
      after: That of another one, of the same tasks and rows.

    Raises:
      MissingFileError: There is no finished evaluation.
      UserError: The evaluations are of other tasks, or of other rows.
    """
    differences: list[Difference] = []
    samples: dict[str, list[np.ndarray]] = {}
    for task in _tasks(before, after):
        rows = [_rows(path, task.task) for path in (before, after)]
        _require_same_rows(task.task, *rows, paths=(before, after))
        numbers = sorted(rows[0])
        pairs = zip(*(measure(task.metrics, [of_run[number] for number in numbers]) for of_run in rows), strict=True)
        for one, other in pairs:
            for difference, drawn in _differences(task.task, one, other):
                differences.append(difference)
                samples.setdefault(difference.metric, []).append(drawn)
    means = [_mean([d for d in differences if d.metric == metric], drawn) for metric, drawn in samples.items()]
    return (*differences, *(mean for mean in means if mean is not None))


def _tasks(before: Path, after: Path) -> Sequence[ScoredTask]:
    """Returns the tasks of both evaluations, scored with the metrics of the second."""
    first, second = (_record(path) for path in (before, after))
    one, other = ({task.scored.task: task.scored for task in record.tasks} for record in (first, second))
    for path, whole, tasks, of_path in ((after, before, other, one), (before, after, one, other)):
        lacking = [name for name in of_path if name not in tasks]
        if lacking:
            raise UserError(
                f"{path} lacks {counted(len(lacking), 'task')} of {whole}: {_some(lacking)}. Evaluate both on the same "
                "tasks."
            )
    return list(other.values())


def _record(path: Path) -> files.EvaluationRecord:
    record = files.read_record(path)
    if record is None:
        raise MissingFileError(f"{path} has no evaluation of this version: {files.RECORD_NAME} is missing or older.")
    return record


def _rows(path: Path, task: str) -> Mapping[int, Prediction]:
    rows = files.read_finished(path, task)
    if not rows:
        raise MissingFileError(
            f"{path} has no predictions of {task!r}: the evaluation is not finished. Evaluate again."
        )
    return {row.index: row for row in rows}


def _require_same_rows(
    task: str, before: Mapping[int, Prediction], after: Mapping[int, Prediction], *, paths: tuple[Path, Path]
) -> None:
    missing, extra = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    if missing or extra:
        parts = [
            f"{counted(len(numbers), 'row')} {what} (index {_some(numbers)})"
            for numbers, what in ((missing, "missing"), (extra, "extra"))
            if numbers
        ]
        raise UserError(
            f"Task {task!r}: {paths[1]} has {' and '.join(parts)}, compared with {paths[0]}. Evaluate both with the "
            "same max_examples_per_task."
        )
    other = [n for n in sorted(before) if _content(before[n]) != _content(after[n])]
    if other:
        raise UserError(
            f"Task {task!r}: {counted(len(other), 'row')} of {paths[1]} (index {_some(other)}) have another input or "
            f"other references than in {paths[0]}: they come from different exports. Evaluate both on one export."
        )


def _content(row: Prediction) -> tuple[object, ...]:
    return row.input, row.references, row.options, row.gold


def _some(items: Sequence[object]) -> str:
    more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(map(str, items[:_SHOWN])) + more


def _differences(task: str, before: Measured, after: Measured) -> list[tuple[Difference, np.ndarray]]:
    """Returns the difference of each score of a metric, and its samples, [NUM_RESAMPLES]."""
    assert len(before.rows) == len(after.rows), task
    # One generator per metric: all metrics of a task draw the same rows.
    count, rng = len(before.rows), np.random.default_rng(0)
    first, second = before.scores(), after.scores()
    names = list(first)

    def of_rows(rows: np.ndarray | slice) -> list[float]:
        # Each by its own `reduce`: the statistics of classes are numbered by the labels that occur.
        one, other = before.reduce(before.rows[rows]), after.reduce(after.rows[rows])
        return [other[name] - one[name] for name in names]

    drawn = np.array([of_rows(rng.integers(count, size=count)) for _ in range(NUM_RESAMPLES)]).T
    # Rounded, because equal rows can differ in the last bit of a product.
    by_row = np.array([of_rows(slice(i, i + 1)) for i in range(count)]).round(9).T
    return [
        (
            Difference(
                name=task,
                metric=name,
                before=first[name],
                after=second[name],
                wins=int((alone > 0).sum()),
                ties=int((alone == 0).sum()),
                losses=int((alone < 0).sum()),
                **_spread(samples),
            ),
            samples,
        )
        for name, samples, alone in zip(names, drawn, by_row, strict=True)
    ]


def _mean(differences: Sequence[Difference], samples: Sequence[np.ndarray]) -> Difference | None:
    """Returns the difference of the mean over tasks; None for a single task."""
    if len(differences) < 2:
        return None
    return Difference(
        name=f"mean of {counted(len(differences), 'task')}",
        metric=differences[0].metric,
        before=float(np.mean([one.before for one in differences])),
        after=float(np.mean([one.after for one in differences])),
        wins=sum(one.wins for one in differences),
        ties=sum(one.ties for one in differences),
        losses=sum(one.losses for one in differences),
        **_spread(_independent(samples)),
    )


def _independent(samples: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over tasks of samples that are shuffled: tasks of equal sizes drew the same numbers of rows."""
    rng = np.random.default_rng(0)
    return np.mean([rng.permutation(of_task) for of_task in samples], axis=0)


def _spread(samples: np.ndarray) -> dict[str, float]:
    """The limits of the interval, and the p-value; NaN where a sample lacks what the score is of."""
    defined = samples[~np.isnan(samples)].round(9)
    if not len(defined):
        return dict.fromkeys(("low", "high", "p_value"), math.nan)
    tail = (100 - CONFIDENCE) / 2
    # The measured difference counts as one more sample, so that no p-value is 0.
    shares = [(1 + int(side.sum())) / (1 + len(defined)) for side in (defined <= 0, defined >= 0)]
    return {
        "low": float(np.percentile(defined, tail)),
        "high": float(np.percentile(defined, 100 - tail)),
        "p_value": min(1.0, 2 * min(shares)),
    }
