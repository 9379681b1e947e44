"""Evaluation of many tasks: which tasks, and how many examples of each; resumed where it was killed.

Works from exports alone and knows neither trainer nor TensorFlow: functions generate and score. Its files are those of
`flan_jax.evaluation.directory`; how results are shown is left to `flan_jax.evaluation.report`.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.data.manifest import TaskManifest
from flan_jax.decoding.strategies import STRATEGIES, Greedy, Strategy
from flan_jax.errors import UserError
from flan_jax.evaluation import directory as files
from flan_jax.evaluation import generation, ranking, task_scores
from flan_jax.evaluation.directory import EvaluatedTask, EvaluationRecord
from flan_jax.evaluation.examples import Task, select
from flan_jax.evaluation.generation import Decode
from flan_jax.evaluation.metrics import metric, of_texts
from flan_jax.evaluation.prediction import Prediction
from flan_jax.evaluation.ranking import ScoreFn
from flan_jax.evaluation.results import SuiteResult, TaskResult, task_from_json, write_summary
from flan_jax.evaluation.task_scores import ScoredTask
from flan_jax.files import sha256_of
from flan_jax.names import listed
from flan_jax.partial_file import PartialFile
from flan_jax.vocab import Vocabulary

TRAINED = "trained"
HELD_OUT = "held_out"


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """The tasks that an evaluation covers, and its settings.

    Attributes:
      suites: Label -> names of mixtures, tasks or published suites (`flan-jax show suites`), for example
        {"trained": ("mine",), "held_out": ("others",)}; one name needs no tuple.
      split: The split of mixtures and tasks; a published suite has its own.
      max_examples_per_task: Examples of each task, spread over its split; None is all.
      batch_size: Rows of a batch.
      max_decode_length: Tokens that a prediction may have; None is the export's target length.
      strategy: How tokens are chosen.
    """

    suites: Mapping[str, Any] = field(default_factory=dict)
    split: str = "validation"
    max_examples_per_task: PositiveInt | None = None
    batch_size: PositiveInt = 32
    max_decode_length: PositiveInt | None = None
    strategy: Strategy = Greedy()

    def __post_init__(self) -> None:
        check_fields(self)
        suites = {label: (names,) if isinstance(names, str) else names for label, names in self.suites.items()}
        for label, names in suites.items():
            if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
                raise UserError(f"Suite {label!r} must list names of mixtures, tasks or suites; got {names!r}.")
        if not isinstance(self.strategy, Strategy):
            raise UserError(f"EvaluationPlan.strategy must be one of {listed(STRATEGIES)}; got {self.strategy!r}.")
        object.__setattr__(self, "suites", {label: tuple(names) for label, names in suites.items()})

    def record(self) -> dict[str, Any]:
        """Returns the plan as JSON."""
        record: dict[str, Any] = json.loads(json.dumps({**vars(self), "strategy": self.strategy.record()}))
        return record


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """An exported task under the label of its suite.

    Attributes:
      group: Its cluster and dataset in a published suite; `aggregation` is the rule of that suite. "" for none.
    """

    label: str
    task: Task
    group: str = ""
    aggregation: str = ""


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


class Processes(Protocol):
    """The processes that evaluate together; `flan_jax.processes.Group` is one."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes for all."""

    def broadcast(self, value: Any) -> Any:
        """Returns the first process's value (JSON) in every process."""


class Progress(Protocol):
    """Reports how far an evaluation is."""

    def examples(self, task: str, done: int, total: int) -> None:
        """Receives the number of examples of a task that are done."""

    def finished(self, result: TaskResult, *, seconds: float, reused: int) -> None:
        """Receives the result of a task, the time it took, and how many predictions an earlier process computed."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a suite needs of a network.

    Attributes:
      decode: Maps rows to their predictions.
      score: Scores the options of rows.
      vocabulary: The vocabulary of the exports; None for an external class, when token ids are compared.
      external: Maps an external task and its predictions to the scores of the task's own metrics, and notes on them.
      programs: Returns the number of programs that were compiled so far.
    """

    decode: Decode
    score: ScoreFn
    vocabulary: Vocabulary | None
    external: Callable[[TaskManifest, Sequence[Prediction]], tuple[Mapping[str, float], tuple[str, ...]]]
    programs: Callable[[], int]


def run_suite(
    tasks: Sequence[Labeled],
    *,
    plan: EvaluationPlan,
    step: int,
    model: Model,
    directory: Path,
    settings: Mapping[str, Any],
    group: Processes,
    progress: Progress,
) -> SuiteResult:
    """Evaluates tasks one after another, and writes predictions as they are computed.

    A prediction that is already in the directory is reused if everything that decides it is the same.

    Args:
      tasks: From `labeled`.
      plan: The number of examples and the batch size.
      step: The step of the parameters that the model has.
      model: The network.
      directory: `<run>/eval/<step>`; only the first process writes to it.
      settings: Everything besides the tasks that decides predictions, as JSON: weights, decoding, versions.
      group: The processes; each computes all predictions.
      progress: Called in every process.

    Raises:
      UserError: A metric does not fit a task.
      DamagedFileError: Predictions of an earlier process are damaged.
    """
    evaluated = [
        EvaluatedTask(
            scored=scored_task(one, compares_ids=model.vocabulary is None),
            identity=_identity(one, settings),
            num_exported=len(one.task),
            num_examples=len(select(len(one.task), limit=plan.max_examples_per_task)),
        )
        for one in tasks
    ]
    provenance = {**settings, "plan": plan.record()}
    if group.is_first:
        files.begin(directory, EvaluationRecord(step=step, provenance=provenance, tasks=tuple(evaluated)))
    started, results, seconds, num_reused = time.monotonic(), [], {}, 0
    for member, task in zip(tasks, evaluated, strict=True):
        task_started = time.monotonic()
        result, reused = _evaluate(
            member.task, task, plan=plan, model=model, directory=directory, group=group, progress=progress
        )
        results.append(result)
        num_reused += reused
        seconds[result.task] = round(time.monotonic() - task_started, 3)
        progress.finished(result, seconds=seconds[result.task], reused=reused)
    total_seconds, computed = time.monotonic() - started, sum(r.num_examples for r in results) - num_reused
    performance = {
        "seconds": round(total_seconds, 3),
        "examples": computed,
        "examples_reused": num_reused,
        "examples_per_second": round(computed / total_seconds, 3),
        "programs": model.programs(),
        "task_seconds": seconds,
    }
    suite = SuiteResult(step=step, tasks=tuple(results), provenance=provenance, performance=performance)
    if group.is_first:
        write_summary(directory, suite)
    return suite


def scored_task(member: Labeled, *, compares_ids: bool) -> ScoredTask:
    """Returns what a task is scored with.

    Args:
      member: The exported task with its label.
      compares_ids: Whether no vocabulary decodes its texts, so that token ids are compared.

    Raises:
      UserError: It generates texts, and a metric judges scores of options.
    """
    manifest = member.task.manifest
    evaluation = manifest.metadata.evaluation
    metrics = task_scores.metrics_of(evaluation, manifest.metadata.metrics)
    for name in metrics if evaluation != "rank" else ():
        if metric(name).kind == "rank":
            raise UserError(
                f"Metric {name!r} judges scores of options, but task {manifest.task!r} is evaluated by generating. "
                f"Declare it with evaluation='rank', or choose one of texts: {of_texts()}."
            )
    ids = (task_scores.IDS_NOTE,) if compares_ids and evaluation != "rank" else ()
    num_truncated = manifest.truncated.get("inputs", 0)  # Of the whole split: records do not say which ones.
    truncated = (f"{num_truncated:,} of {manifest.num_examples:,} inputs truncated",) if num_truncated else ()
    return ScoredTask(
        task=manifest.task,
        split=manifest.split,
        cluster=manifest.metadata.cluster,
        label=member.label,
        evaluation=evaluation,
        metrics=metrics,
        group=member.group,
        aggregation=member.aggregation,
        notes=(*ids, *truncated),
    )


def _identity(member: Labeled, settings: Mapping[str, Any]) -> str:
    manifest, metadata = member.task.manifest, member.task.manifest.metadata
    metrics = task_scores.metrics_of(metadata.evaluation, metadata.metrics)
    is_ranked = metadata.evaluation == "rank"
    # Neither other metrics, labels nor the number of examples, which change no prediction.
    decides = [
        manifest.task,
        manifest.split,
        manifest.fingerprint,
        metadata.postprocessor,
        [asdict(one) for one in ranking.normalizations_of(metrics)] if is_ranked else None,
    ]
    return sha256_of([settings, *decides])


def _evaluate(
    exported: Task,
    task: EvaluatedTask,
    *,
    plan: EvaluationPlan,
    model: Model,
    directory: Path,
    group: Processes,
    progress: Progress,
) -> tuple[TaskResult, int]:
    """Returns the scores of a task, and the number of predictions that were there before."""
    name, wanted = task.scored.task, select(len(exported), limit=plan.max_examples_per_task)
    partial = PartialFile(files.predictions_path(directory, name), identity=task.identity)
    predictions: dict[int, Prediction] = {}
    if group.is_first:
        numbers = frozenset(wanted.tolist())
        earlier = files.read_finished(directory, name)
        if not partial.open():
            partial.remove()
            partial.open()
        earlier += files.read_rows(partial.lines(), partial.path)
        predictions = {prediction.index: prediction for prediction in earlier if prediction.index in numbers}
    missing = wanted[~_shared_mask([number in predictions for number in wanted.tolist()], group)]
    reused = done = len(wanted) - len(missing)
    if len(missing):
        with partial.appending() if group.is_first else nullcontext() as append:
            for prediction in _predict(exported, task.scored, missing.tolist(), model=model):
                if append is not None:
                    append(prediction.line())
                    predictions[prediction.index] = prediction
                done += 1
                progress.examples(name, done, len(wanted))
    result = None
    if group.is_first:
        rows = [predictions[number] for number in wanted.tolist()]
        scores, rows = task_scores.score(task.scored, rows)
        if task.scored.evaluation == "external":
            scores = task_scores.with_own_metrics(scores, *model.external(exported.manifest, rows))
        result = asdict(scores)
        files.write_finished(directory, name, rows)
        partial.remove()
    return task_from_json(group.broadcast(result)), reused


def _predict(exported: Task, task: ScoredTask, indices: Sequence[int], *, model: Model) -> Iterator[Prediction]:
    if exported.manifest.metadata.evaluation == "rank":
        return ranking.rank_options(
            exported,
            indices=indices,
            score_fn=model.score,
            vocabulary=model.vocabulary,
            normalizations=ranking.normalizations_of(task.metrics),
        )
    return generation.generate_predictions(exported, indices=indices, decode=model.decode, vocabulary=model.vocabulary)


def _shared_mask(mask: Sequence[bool], group: Processes) -> np.ndarray:
    """Returns the first process's mask in every process, as a message of one bit per example."""
    bits = group.broadcast(np.packbits(np.array(mask, bool)).tobytes().hex() if any(mask) else "")
    if not bits:
        return np.zeros(len(mask), bool)
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=len(mask)).astype(bool)
