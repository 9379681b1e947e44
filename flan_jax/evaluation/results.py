"""Results of an evaluation: scores of tasks, means over clusters and labels, and their format on disk."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from flan_jax.errors import DamagedFileError
from flan_jax.evaluation.aggregation import Aggregate, Spread, aggregate
from flan_jax.evaluation.metrics import DISTANCES
from flan_jax.files import write_atomic

FORMAT_VERSION = 5
SUMMARY_NAME = "summary.json"


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Scores of one task, 0 to 100.

    Attributes:
      label: Its suite, such as "trained" or "held_out".
      metrics: Scores by name; `main_metric` names the first, which is the score of the task.
      num_examples: The number of rows that were scored.
      group: Its cluster and dataset, `cluster/dataset`, in the published suite that it belongs to; "" for no suite.
      aggregation: The rule of that suite, a name in `aggregation.AGGREGATIONS`.
      standard_errors: The standard error of each score; NaN for a single row.
      intervals: The lower and the upper limit of the 95 % interval of each score; NaN for a single row.
      majority: The scores of giving the most frequent reference as every answer; empty where no reference repeats.
      chance: The scores of choosing an option at random, of accuracies of ranked options.
      signatures: The settings of metrics that have several, as their package writes them, by score.
      by_template: The main score of the examples of each template.
      num_truncated: The number of predictions that reached the decoding length without ending.
      notes: Reservations about the score.
    """

    task: str
    split: str
    cluster: str
    label: str
    evaluation: Literal["generate", "rank", "external"]
    metrics: Mapping[str, float]
    main_metric: str
    num_examples: int
    group: str = ""
    aggregation: str = ""
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    majority: Mapping[str, float] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    by_template: Mapping[int, float] = field(default_factory=dict)
    num_truncated: int = 0
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The main score."""
        return self.metrics[self.main_metric]

    @property
    def template_spread(self) -> Spread:
        """The spread of the main score over templates; counts 0 for a single template."""
        return Spread.of(self.by_template.values())

    @property
    def normalized_score(self) -> float:
        """The part of the way from the baseline (chance, else majority, else 0) to 100.

        NaN for a distance, and for an external task's own metric, whose range is not known.
        """
        if self.main_metric in DISTANCES or (self.evaluation == "external" and self.main_metric not in self.intervals):
            return math.nan
        baseline = self.chance.get(self.main_metric, self.majority.get(self.main_metric, 0.0))
        return 100.0 * (self.score - baseline) / (100.0 - baseline) if baseline < 100.0 else math.nan


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Means of one metric over several tasks: weighted equally by task, and by example.

    Attributes:
      standard_error: Of the mean over tasks, whose rows are independent.
      majority: The mean of the tasks' majority baselines; NaN where one has none. `chance` alike.
      num_tasks: The number of tasks that have the metric; those whose score is not defined are left out.
    """

    over_tasks: float
    over_examples: float
    standard_error: float
    majority: float
    chance: float
    num_tasks: int
    num_examples: int


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """All tasks of an evaluation of one set of parameters.

    Attributes:
      step: The step of the parameters.
      provenance: Other settings that the scores depend on: weights, decoding, versions of packages, plan.
      performance: What the evaluation cost: `seconds`, `examples` that were computed, `examples_per_second`,
        `examples_reused` of an earlier process, `programs` that were compiled for decoding, and `task_seconds` by task.
        Empty when predictions were only scored.
    """

    step: int
    tasks: tuple[TaskResult, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    performance: Mapping[str, Any] = field(default_factory=dict)

    def means(self) -> dict[str, Mean]:
        """The mean of each metric over the tasks that have it. There is none over different metrics."""
        return _means(self.tasks)

    def labels(self) -> dict[str, dict[str, Mean]]:
        """Means of each metric by label, in the order in which labels first occur."""
        return {
            label: _means(t for t in self.tasks if t.label == label) for label in _unique(t.label for t in self.tasks)
        }

    def clusters(self) -> dict[tuple[str, str], dict[str, Mean]]:
        """Means of each metric by (label, cluster), in the order of labels."""
        labels = _unique(t.label for t in self.tasks)
        keys = [(label, t.cluster) for label in labels for t in self.tasks if t.label == label]
        return {key: _means(t for t in self.tasks if (t.label, t.cluster) == key) for key in _unique(keys)}

    def aggregates(self) -> dict[str, Aggregate]:
        """The score of each label that is a published suite, by the suite's rule."""
        rules = {task.label: task.aggregation for task in self.tasks if task.aggregation}
        return {
            label: aggregate(rule, [task for task in self.tasks if task.label == label and task.aggregation])
            for label, rule in rules.items()
        }

    def normalized_average(self) -> float:
        """The mean over tasks of their normalized main scores: one figure where tasks have different metrics."""
        scores = [t.normalized_score for t in self.tasks if not math.isnan(t.normalized_score)]
        return sum(scores) / len(scores) if scores else math.nan

    def as_metrics(self) -> dict[str, float]:
        """The scores as one flat record, for logs, early stopping and keeping the best checkpoint.

        Names: `eval/mean/<metric>`, `eval/label/<label>/<metric>`, `eval/suite/<label>` for the score of a published
        suite by its rule, `eval/cluster/<cluster>/<metric>`, `eval/task/<task>/<metric>` and
        `eval/normalized_average`; means are over the tasks that have the metric. A
        cluster that has tasks under several labels is one entry.
        """
        clusters = {c: _means(t for t in self.tasks if t.cluster == c) for c in _unique(t.cluster for t in self.tasks)}
        groups = {"mean": self.means()}
        groups |= {f"label/{label}": means for label, means in self.labels().items()}
        groups |= {f"cluster/{cluster}": means for cluster, means in clusters.items()}
        flat = {f"eval/suite/{label}": one.score for label, one in self.aggregates().items()}
        flat |= {
            f"eval/{group}/{name}": mean.over_tasks for group, means in groups.items() for name, mean in means.items()
        }
        for task in self.tasks:
            flat |= {f"eval/task/{task.task}/{name}": score for name, score in task.metrics.items()}
        return flat | {"eval/normalized_average": self.normalized_average()}


def write_summary(directory: Path | str, result: SuiteResult) -> None:
    """Writes `summary.json`, which marks the evaluation in this directory as complete."""
    write_atomic(Path(directory) / SUMMARY_NAME, json.dumps(as_json(result), indent=1, ensure_ascii=False) + "\n")


def as_json(result: SuiteResult) -> dict[str, Any]:
    """Returns an evaluation as `summary.json` has it."""
    value = {
        "format_version": FORMAT_VERSION,
        "step": result.step,
        "provenance": dict(result.provenance),
        "performance": dict(result.performance),
        "means": _means_as_json(result.means()),
        "labels": {label: _means_as_json(means) for label, means in result.labels().items()},
        "clusters": [
            {"label": label, "cluster": cluster, "means": _means_as_json(means)}
            for (label, cluster), means in result.clusters().items()
        ],
        "normalized_average": result.normalized_average(),
        "aggregates": {label: asdict(one) for label, one in result.aggregates().items()},
        "tasks": [asdict(task) | {"template_spread": asdict(task.template_spread)} for task in result.tasks],
    }
    json_value: dict[str, Any] = json_of(value)
    return json_value


def _means_as_json(means: Mapping[str, Mean]) -> dict[str, Any]:
    return {name: asdict(mean) for name, mean in means.items()}


def read_summary(directory: Path | str) -> SuiteResult | None:
    """Reads the evaluation of one step back; None when there is none, it was not finished, or is of another version.

    Raises:
      DamagedFileError: It is not what `write_summary` writes.
    """
    path = Path(directory) / SUMMARY_NAME
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text())
        if value["format_version"] != FORMAT_VERSION:
            return None
        tasks = tuple(task_from_json(task) for task in value["tasks"])
        return SuiteResult(
            step=value["step"], tasks=tasks, provenance=value["provenance"], performance=value["performance"]
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DamagedFileError(f"{path} is damaged ({reason}). Delete it, or evaluate again.") from error


def task_from_json(value: Mapping[str, Any]) -> TaskResult:
    """Returns the scores of a task from JSON, in which scores that are not defined are null or NaN."""
    scores = {
        name: {score: _number(number) for score, number in value[name].items()}
        for name in ("metrics", "standard_errors", "majority", "chance")
    }
    intervals = {score: (_number(low), _number(high)) for score, (low, high) in value["intervals"].items()}
    by_template = {int(template): _number(score) for template, score in value["by_template"].items()}
    read = {**value, **scores, "intervals": intervals, "by_template": by_template, "notes": tuple(value["notes"])}
    # Derived from `by_template`; for readers of the file.
    read.pop("template_spread", None)
    return TaskResult(**read)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def json_of(value: Any) -> Any:
    """Returns a value with null for scores that are not defined: JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {key: json_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_of(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _means(tasks: Iterable[TaskResult]) -> dict[str, Mean]:
    tasks = list(tasks)
    return {name: _mean(tasks, name) for name in _unique(name for task in tasks for name in task.metrics)}


def _mean(tasks: Iterable[TaskResult], name: str) -> Mean:
    """Scores that are not defined are left out."""
    defined = [t for t in tasks if not math.isnan(t.metrics.get(name, math.nan))]
    count, examples = len(defined), sum(t.num_examples for t in defined)

    def over_tasks(values: Iterable[float]) -> float:
        return sum(values) / count if count else math.nan

    variance = sum(t.standard_errors.get(name, math.nan) ** 2 for t in defined)
    return Mean(
        over_tasks=over_tasks(t.metrics[name] for t in defined),
        over_examples=sum(t.metrics[name] * t.num_examples for t in defined) / examples if examples else math.nan,
        standard_error=math.sqrt(variance) / count if count else math.nan,
        majority=over_tasks(t.majority.get(name, math.nan) for t in defined),
        chance=over_tasks(t.chance.get(name, math.nan) for t in defined),
        num_tasks=count,
        num_examples=examples,
    )


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
