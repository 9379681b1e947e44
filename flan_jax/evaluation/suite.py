"""Evaluation of many tasks: which tasks, how many examples of each, and the files that are written.

    <directory>/<task>.jsonl    one row per example: input, references, prediction or option scores
    <directory>/summary.json    scores by task, cluster and label; written last

Works from exports alone and knows neither trainer nor TensorFlow: functions generate and score. How results are shown
is left to `flan_jax.evaluation.report`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.data.manifest import safe_name
from flan_jax.errors import UserError
from flan_jax.evaluation import generation, ranking
from flan_jax.evaluation.examples import Task, select
from flan_jax.evaluation.generation import GenerateFn
from flan_jax.evaluation.measured import Measured
from flan_jax.evaluation.ranking import ScoreFn
from flan_jax.evaluation.results import SuiteResult, TaskResult, write_summary
from flan_jax.files import write_atomic
from flan_jax.vocab import Vocabulary

TRAINED = "trained"
HELD_OUT = "held_out"


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """The tasks that an evaluation covers, and its settings.

    Attributes:
      suites: Label -> names of mixtures or tasks, for example {"trained": ("mine",), "held_out": ("others",)}; one name
        needs no tuple.
      split: The split of all of them.
      max_examples_per_task: Examples of each task, spread over its split; None is all.
      batch_size: Rows of a batch.
      max_decode_length: Tokens that a prediction may have; None is the export's target length.
    """

    suites: Mapping[str, Any] = field(default_factory=dict)
    split: str = "validation"
    max_examples_per_task: PositiveInt | None = None
    batch_size: PositiveInt = 32
    max_decode_length: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        listed = {label: (names,) if isinstance(names, str) else names for label, names in self.suites.items()}
        for label, names in listed.items():
            if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
                raise UserError(f"Suite {label!r} must list names of mixtures or tasks; got {names!r}.")
        object.__setattr__(self, "suites", {label: tuple(names) for label, names in listed.items()})

    def members(self) -> list[tuple[str, str]]:
        """The (label, name of a mixture or task) of all suites, in order."""
        return [(label, name) for label, names in self.suites.items() for name in names]


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """An exported task under the label of its suite."""

    label: str
    task: Task


def labeled(suites: Iterable[tuple[str, Iterable[Task]]]) -> tuple[Labeled, ...]:
    """Returns the tasks of several suites, each once.

    Args:
      suites: (label, exported tasks) of each; a label may come several times.

    Raises:
      UserError: A task is under two labels, or there are none.
    """
    found: dict[str, Labeled] = {}
    for label, tasks in suites:
        for task in tasks:
            name = task.manifest.task
            if found.setdefault(name, Labeled(label=label, task=task)).label != label:
                raise UserError(
                    f"Task {name!r} is in the suites {found[name].label!r} and {label!r}; a task can have one label."
                )
    if not found:
        raise UserError("There is no task to evaluate: the evaluation's suites are empty.")
    return tuple(found.values())


def run_suite(
    tasks: Sequence[Labeled],
    *,
    plan: EvaluationPlan,
    step: int,
    vocabulary: Vocabulary | None,
    generate_fn: GenerateFn,
    score_fn: ScoreFn,
    directory: Path | str | None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> SuiteResult:
    """Evaluates tasks one after another.

    Args:
      tasks: From `labeled`.
      plan: The number of examples and the batch size.
      step: The step of the parameters that the functions use.
      vocabulary: The vocabulary of the exports; None for an external class, when token ids are compared.
      generate_fn: Maps a batch to token ids [B, T].
      score_fn: Maps a batch to log-probabilities of the targets [B].
      directory: `<run>/eval/<step>`; None writes nothing, as in processes other than the first.
      provenance: JSON for the summary: decoding settings, versions of packages, the evaluation plan.
      progress: Called with a task's name, its number of examples done, and its number of examples.
    """
    results = []
    for member in tasks:
        result, rows = _evaluate(
            member, plan=plan, vocabulary=vocabulary, generate_fn=generate_fn, score_fn=score_fn, progress=progress
        )
        results.append(result)
        if directory is not None:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomic(predictions_path(directory, result.task), lines)
    suite = SuiteResult(step=step, tasks=tuple(results), provenance=dict(provenance or {}))
    if directory is not None:
        write_summary(directory, suite)
    return suite


def predictions_path(directory: Path | str, task: str) -> Path:
    """Returns the path of a task's predictions in the directory of an evaluation."""
    return Path(directory) / f"{safe_name(task)}.jsonl"


def _evaluate(
    member: Labeled,
    *,
    plan: EvaluationPlan,
    vocabulary: Vocabulary | None,
    generate_fn: GenerateFn,
    score_fn: ScoreFn,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[TaskResult, list[dict[str, Any]]]:
    task, manifest = member.task, member.task.manifest
    indices = select(len(task), limit=plan.max_examples_per_task)
    done = 0

    def on_examples(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(manifest.task, done, len(indices))

    common: Any = {
        "indices": indices,
        "vocabulary": vocabulary,
        "batch_size": plan.batch_size,
        "on_examples": on_examples,
    }
    if manifest.metadata.evaluation == "rank":
        ranked = ranking.rank_options(task, score_fn=score_fn, **common)
        result = _result(member, ranked, measure=ranking.measure, baseline=ranking.all_the_majority(ranked))
        accuracies = [name for name in ("accuracy", "accuracy_by_length") if name in result.metrics]
        return replace(result, chance=dict.fromkeys(accuracies, ranking.chance(ranked))), [
            answer.as_row() for answer in ranked
        ]
    generated = generation.generate_predictions(task, generate_fn=generate_fn, **common)
    result = _result(member, generated, measure=generation.measure, baseline=generation.all_the_majority(generated))
    external = (generation.EXTERNAL_NOTE,) if manifest.metadata.evaluation == "external" else ()
    ids = () if vocabulary else (generation.IDS_NOTE,)
    return replace(result, notes=(*external, *ids, *result.notes)), [answer.as_row() for answer in generated]


def metrics_of(evaluation: str, metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the metrics that score a task: its own, or those of its kind of evaluation."""
    if evaluation == "external":
        return generation.EXTERNAL_METRICS
    return metrics or (("rank_accuracy",) if evaluation == "rank" else ("exact_match",))


def _result(
    member: Labeled,
    answers: Sequence[Any],
    *,
    measure: Callable[[Iterable[str], Sequence[Any]], list[Measured]],
    baseline: Sequence[Any],
) -> TaskResult:
    """Returns the scores of answers, and those of the baseline's, by the task's metrics."""
    manifest = member.task.manifest
    metrics = metrics_of(manifest.metadata.evaluation, manifest.metadata.metrics)
    measured = measure(metrics, answers)
    scores = {name: score for one in measured for name, score in one.scores().items()}
    main_metric = next(iter(scores))
    by_template = {}
    templates = sorted({answer.example.template for answer in answers})
    for template in templates if len(templates) > 1 else []:
        of_template = [answer for answer in answers if answer.example.template == template]
        by_template[template] = measure(metrics[:1], of_template)[0].scores()[main_metric]
    return TaskResult(
        task=manifest.task,
        split=manifest.split,
        cluster=manifest.metadata.cluster,
        label=member.label,
        evaluation=manifest.metadata.evaluation,
        metrics=scores,
        main_metric=main_metric,
        num_examples=len(answers),
        standard_errors={name: error for one in measured for name, error in one.standard_errors().items()},
        majority={n: s for one in measure(metrics, baseline) for n, s in one.scores().items()} if baseline else {},
        signatures={name: one.signature for one in measured if one.signature for name in one.scores()},
        by_template=by_template,
        num_truncated=sum(not getattr(answer, "ended", True) for answer in answers),
        notes=tuple(one.note for one in measured if one.note),
    )
