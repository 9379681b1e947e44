"""Results of an evaluation: scores of tasks, means over clusters and labels, and their format on disk."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import write_atomic

FORMAT_VERSION = 2
SUMMARY_NAME = "summary.json"


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Scores of one task, 0 to 100.

    Attributes:
      label: Its suite, such as "trained" or "held_out".
      metrics: Scores by name; `main_metric` names the first, which is the score of the task.
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
    by_template: Mapping[int, float] = field(default_factory=dict)
    num_truncated: int = 0
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The main score."""
        return self.metrics[self.main_metric]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Means of the main scores of several tasks: weighted equally by task, and by example."""

    over_tasks: float
    over_examples: float
    num_tasks: int
    num_examples: int


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """All tasks of an evaluation of one set of parameters.

    Attributes:
      step: The step of the parameters.
      provenance: Other settings that the scores depend on: decoding, versions of packages, the evaluation plan.
    """

    step: int
    tasks: tuple[TaskResult, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def mean(self) -> Mean:
        """The mean over all tasks."""
        return _mean(self.tasks)

    def labels(self) -> dict[str, Mean]:
        """Means by label, in the order in which labels first occur."""
        return {
            label: _mean(t for t in self.tasks if t.label == label) for label in _unique(t.label for t in self.tasks)
        }

    def clusters(self) -> dict[tuple[str, str], Mean]:
        """Means by (label, cluster), in the order of labels."""
        keys = [(label, t.cluster) for label in self.labels() for t in self.tasks if t.label == label]
        return {key: _mean(t for t in self.tasks if (t.label, t.cluster) == key) for key in _unique(keys)}

    def metrics(self) -> dict[str, Mean]:
        """Means of each metric that all tasks have, by name.

        The one figure to tell where tasks have different main metrics, as ROUGE-L over all of
        Super-NaturalInstructions.
        """
        names = _unique(name for task in self.tasks for name in task.metrics)
        shared = [name for name in names if all(name in task.metrics for task in self.tasks)]
        return {name: _mean(replace(task, main_metric=name) for task in self.tasks) for name in shared}

    def as_metrics(self) -> dict[str, float]:
        """The scores as one flat record, for logs, early stopping and keeping the best checkpoint.

        Names: `eval/mean`, `eval/metric/<metric>`, `eval/label/<label>`, `eval/cluster/<cluster>`,
        `eval/task/<task>/<metric>`; means are over tasks, those of a metric over tasks that all have it. A cluster that
        has tasks under several labels is one entry.
        """
        flat = {"eval/mean": self.mean().over_tasks}
        flat |= {f"eval/metric/{name}": mean.over_tasks for name, mean in self.metrics().items()}
        flat |= {f"eval/label/{label}": mean.over_tasks for label, mean in self.labels().items()}
        for cluster in _unique(t.cluster for t in self.tasks):
            flat[f"eval/cluster/{cluster}"] = _mean(t for t in self.tasks if t.cluster == cluster).over_tasks
        for task in self.tasks:
            flat |= {f"eval/task/{task.task}/{name}": score for name, score in task.metrics.items()}
        return flat


def write_summary(directory: Path | str, result: SuiteResult) -> None:
    """Writes `summary.json`, which marks the evaluation in this directory as complete."""
    value = {
        "format_version": FORMAT_VERSION,
        "step": result.step,
        "provenance": dict(result.provenance),
        "mean": asdict(result.mean()),
        "metrics": {name: asdict(mean) for name, mean in result.metrics().items()},
        "labels": {label: asdict(mean) for label, mean in result.labels().items()},
        "clusters": [
            {"label": label, "cluster": cluster, **asdict(mean)} for (label, cluster), mean in result.clusters().items()
        ],
        "tasks": [asdict(task) for task in result.tasks],
    }
    write_atomic(Path(directory) / SUMMARY_NAME, json.dumps(_without_nan(value), indent=1, ensure_ascii=False) + "\n")


def read_summary(directory: Path | str) -> SuiteResult:
    """Reads the evaluation of one step back.

    Raises:
      MissingFileError: there is none, or it was not finished.
      UserError: it is of another format.
    """
    path = Path(directory) / SUMMARY_NAME
    if not path.exists():
        raise MissingFileError(f"No {SUMMARY_NAME} in {directory}: no evaluation, or one that was not finished.")
    value = json.loads(path.read_text())
    if value.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version: got {value.get('format_version')!r}, wanted {FORMAT_VERSION}. Evaluate again."
        )
    tasks = tuple(_task_from_json(task) for task in value["tasks"])
    return SuiteResult(step=value["step"], tasks=tasks, provenance=value["provenance"])


def _task_from_json(value: Mapping[str, Any]) -> TaskResult:
    return TaskResult(
        **{
            **value,
            "metrics": {name: _number(score) for name, score in value["metrics"].items()},
            "by_template": {int(template): _number(score) for template, score in value["by_template"].items()},
            "notes": tuple(value["notes"]),
        }
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: scores that are not defined are null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _mean(tasks: Iterable[TaskResult]) -> Mean:
    """Scores that are not defined are left out of the means."""
    tasks = list(tasks)
    defined = [t for t in tasks if not math.isnan(t.score)]
    examples = sum(t.num_examples for t in defined)
    return Mean(
        over_tasks=sum(t.score for t in defined) / len(defined) if defined else math.nan,
        over_examples=sum(t.score * t.num_examples for t in defined) / examples if examples else math.nan,
        num_tasks=len(tasks),
        num_examples=sum(t.num_examples for t in tasks),
    )


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
