"""The published ways to make one score of a suite's tasks: FLAN's, T0's, Super-NaturalInstructions', MMLU's, BBH's.

A task of a suite has a group, `cluster/dataset`. The tasks of one group are the prompts of one dataset, and their
scores have a spread.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

MAIN_METRIC = "main"
Over = Literal["clusters", "datasets", "examples"]


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """A rule.

    Attributes:
      metrics: The score to take of each task, the first one that it has; `MAIN_METRIC` is its main one.
      statistic: Of the scores of a dataset's prompts.
      over: What the mean is over, each with equal weight: clusters (each the mean of its datasets), datasets, or the
        examples of all tasks.
      source: Where the rule is published.
    """

    metrics: tuple[str, ...] = (MAIN_METRIC,)
    statistic: Literal["mean", "median"] = "mean"
    over: Over = "datasets"
    source: str


AGGREGATIONS: Mapping[str, Aggregation] = {
    # Every metric that FLAN reports for a dataset is the main one of its task, so that none is named here.
    "flan2021": Aggregation(over="clusters", source="arXiv:2109.01652, section 4: mean of templates, then of datasets"),
    "t0": Aggregation(
        metrics=("accuracy",),
        statistic="median",
        over="clusters",
        source="arXiv:2110.08207, section 6: median of prompts; ANLI's rounds are one dataset",
    ),
    # The released script averages instances, so that a task with fewer than 100 of them counts for less.
    "superni": Aggregation(
        metrics=("rouge_l", "rouge_l_xlingual"),
        over="examples",
        source="arXiv:2204.07705 and its compute_metrics.py: ROUGE-L of all instances, also by category",
    ),
    "mmlu": Aggregation(metrics=("accuracy", MAIN_METRIC), source="arXiv:2210.11416, section 4: mean of subjects"),
    "bbh": Aggregation(over="clusters", source="arXiv:2210.09261: mean of 23 tasks, of which two are three files each"),
    "macro": Aggregation(source="mean of tasks"),
}
"""By name. Suites name them."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The spread of scores: over the prompts of a dataset, or over its templates.

    >>> Spread.of([40.0, 50.0, 90.0])
    Spread(count=3, mean=60.0, median=50.0, minimum=40.0, maximum=90.0, std=21.602468994692867, iqr=25.0)

    Attributes:
      std: The standard deviation of these scores, not of a larger population.
      iqr: The interquartile range, interpolated as by NumPy.
    """

    count: int
    mean: float
    median: float
    minimum: float
    maximum: float
    std: float
    iqr: float

    @classmethod
    def of(cls, scores: Iterable[float]) -> "Spread":
        """Returns the spread of scores; those that are not defined are left out, and without any all are NaN."""
        defined = np.array([score for score in scores if not math.isnan(score)])
        if not len(defined):
            return cls(count=0, **dict.fromkeys(("mean", "median", "minimum", "maximum", "std", "iqr"), math.nan))
        low, median, high = map(float, np.percentile(defined, (25, 50, 75)))
        return cls(
            count=len(defined),
            mean=float(defined.mean()),
            median=median,
            minimum=float(defined.min()),
            maximum=float(defined.max()),
            std=float(defined.std()),
            iqr=high - low,
        )


class Scored(Protocol):
    """The interface of a task's result."""

    @property
    def group(self) -> str:
        """Its group, `cluster/dataset`."""

    @property
    def main_metric(self) -> str:
        """The name of its main score."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Scores by name."""

    @property
    def num_examples(self) -> int:
        """The number of scored rows."""


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """The score of a suite by its rule.

    Attributes:
      aggregation: The name of the rule.
      score: The score.
      clusters: The same score of each cluster alone.
      datasets: The spread of each dataset's prompts, by group.
      num_tasks: The number of tasks whose score is defined.
    """

    aggregation: str
    score: float
    clusters: Mapping[str, float]
    datasets: Mapping[str, Spread]
    num_tasks: int


def aggregate(name: str, tasks: Sequence[Scored]) -> Aggregate:
    """Returns the score of tasks by a rule.

    Args:
      name: In `AGGREGATIONS`.
      tasks: The results of a suite's tasks.
    """
    rule = AGGREGATIONS[name]
    # A score that is not defined would make every mean above it undefined.
    defined = [task for task in tasks if not math.isnan(_score(task, rule))]
    groups = list(dict.fromkeys(task.group for task in defined))
    of_group = {group: [task for task in defined if task.group == group] for group in groups}
    clusters = {
        cluster: _over({g: members for g, members in of_group.items() if _cluster(g) == cluster}, rule)
        for cluster in dict.fromkeys(map(_cluster, groups))
    }
    return Aggregate(
        aggregation=name,
        score=_mean(clusters.values()) if rule.over == "clusters" else _over(of_group, rule),
        clusters=clusters,
        datasets={g: Spread.of(_score(task, rule) for task in members) for g, members in of_group.items()},
        num_tasks=len(defined),
    )


def _cluster(group: str) -> str:
    return group.partition("/")[0]


def _score(task: Scored, rule: Aggregation) -> float:
    names = (task.main_metric if name == MAIN_METRIC else name for name in rule.metrics)
    return next((task.metrics[name] for name in names if name in task.metrics), math.nan)


def _over(of_group: Mapping[str, Sequence[Scored]], rule: Aggregation) -> float:
    """Returns the mean over the datasets of some groups, or over their examples."""
    if rule.over == "examples":
        tasks = [task for members in of_group.values() for task in members]
        return sum(_score(t, rule) * t.num_examples for t in tasks) / (sum(t.num_examples for t in tasks) or math.nan)
    spreads = [Spread.of(_score(task, rule) for task in members) for members in of_group.values()]
    return _mean(getattr(spread, rule.statistic) for spread in spreads)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
