"""The names of an evaluation's scores, checked before there is one: early stopping and `keep_best` watch them."""

from collections.abc import Collection, Iterable

from flan_jax.data.manifest import TaskMetadata
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.evaluation.metrics import DISTANCES, METRICS, metric
from flan_jax.evaluation.results import SuiteResult, TaskResult
from flan_jax.evaluation.task_scores import metrics_of
from flan_jax.names import nearest

FORMS = (
    "eval/mean/METRIC",
    "eval/label/LABEL/METRIC",
    "eval/suite/LABEL",
    "eval/cluster/CLUSTER/METRIC",
    "eval/task/TASK/METRIC",
    "eval/normalized_average",
)


def require_form(name: str, *, setting: str, labels: Collection[str]) -> None:
    """Refuses a name that no evaluation could have, whatever its tasks are.

    Args:
      name: The watched score.
      setting: The setting that watches it, for the message.
      labels: The labels of the plan's suites.

    Raises:
      UnknownNameError: It has another form, or ends with no metric's score.
      UserError: The checkpoint with the highest score would be kept, and lower is better.
    """
    scores = list(dict.fromkeys(score for one in METRICS.values() for score in one.gives))
    group, _, rest = name.removeprefix("eval/").partition("/")
    if name.startswith("eval/suite/") and rest in labels:
        return
    member, _, score = rest.rpartition("/")
    has_form = name.startswith("eval/") and (
        group == "normalized_average"
        if not rest
        else group == "mean" and not member or group in ("label", "cluster", "task") and member
    )
    if not has_form:
        raise UnknownNameError(
            f"{setting} watches {name!r}, which is no score of an evaluation. Names are {', '.join(FORMS)}."
        )
    if rest and score not in scores:
        raise UnknownNameError(
            f"{setting} watches {name!r}, but {score!r} is no metric's score.{nearest(score, scores)} Scores: "
            f"{', '.join(scores)}."
        )
    if score in DISTANCES and setting.endswith("keep_best"):
        raise UserError(
            f"{setting} watches {name!r}, but {score!r} is better the lower it is, and {setting} keeps the highest. "
            "Watch a score that is better the higher it is, such as edit_similarity."
        )
    if group == "label" and member not in labels:
        raise UnknownNameError(
            f"{setting} watches {name!r}, but the evaluation has no suite {member!r}.{nearest(member, labels)} "
            f"Suites: {', '.join(labels)}."
        )


def require_known(
    name: str, tasks: Iterable[tuple[str, str, TaskMetadata]], *, suites: Iterable[str] = (), setting: str
) -> None:
    """Refuses a name that the evaluation of these tasks will not have.

    Of a metric whose scores depend on the number of options (`rank_classes`), any of them counts as known: that number
    is in the rows, and the first evaluation refuses the others.

    Args:
      name: The watched score.
      tasks: Label, name and metadata of each task.
      suites: The labels of published suites.
      setting: The setting that watches it, for the message.

    Raises:
      UnknownNameError: There is no such score; the message lists those that there are.
    """
    expected = SuiteResult(step=0, tasks=tuple(_expected(*one) for one in tasks))
    names = [f"eval/mean/{score}" for score in expected.means()]
    names += [known for known in expected.as_metrics() if known not in names]
    names += [f"eval/suite/{label}" for label in suites]
    if name not in names:
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise UnknownNameError(
            f"{setting} watches {name!r}, which the evaluation will not have.{nearest(name, names)} It has: {shown}."
        )


def _expected(label: str, task: str, metadata: TaskMetadata) -> TaskResult:
    """Returns a task's result with all its scores at 0."""
    names = metrics_of(metadata.evaluation, metadata.metrics)
    scores = [score for name in names for score in metric(name).gives]
    return TaskResult(
        task=task,
        split="",
        cluster=metadata.cluster,
        label=label,
        evaluation=metadata.evaluation,
        metrics=dict.fromkeys(scores, 0.0),
        main_metric=scores[0],
        num_examples=1,
    )
