"""The scores of a task from its rows of predictions, with baselines. Knows neither model nor export."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from flan_jax.errors import UserError
from flan_jax.evaluation.measured import Measured
from flan_jax.evaluation.metrics import Metric, RowFact, metric, of_texts
from flan_jax.evaluation.prediction import Prediction
from flan_jax.evaluation.rank_metrics import OptionScores
from flan_jax.evaluation.results import TaskResult

Evaluation = Literal["generate", "rank", "external"]
EXTERNAL_METRICS = ("exact_match", "rouge_l")
OWN_PREFIX = "seqio."
"""Of the names of scores that the metric functions of an external SeqIO task give."""
IDS_NOTE = "token ids compared: the vocabulary is external"


@dataclass(frozen=True, kw_only=True)
class ScoredTask:
    """What a task is scored with and reported under, besides its predictions.

    Attributes:
      label: Its suite, such as "trained" or "held_out".
      metrics: The names of its metrics; the first score of the first is the main one.
      group: Its cluster and dataset in a published suite; `aggregation` is the rule of that suite. "" for none.
      notes: Reservations about the scores.
    """

    task: str
    split: str
    cluster: str
    label: str
    evaluation: Evaluation
    metrics: tuple[str, ...]
    group: str = ""
    aggregation: str = ""
    notes: tuple[str, ...] = ()


def metrics_of(evaluation: str, metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the metrics that score a task: its own, or those of its kind of evaluation."""
    if evaluation == "external":
        return EXTERNAL_METRICS
    return metrics or (("rank_accuracy",) if evaluation == "rank" else ("exact_match",))


def score(task: ScoredTask, predictions: Sequence[Prediction]) -> tuple[TaskResult, list[Prediction]]:
    """Scores a task.

    Args:
      task: What it is scored with.
      predictions: Its rows, at least one.

    Returns:
      The scores of the task, and the rows with their own scores.

    Raises:
      UserError: A metric does not fit the rows.
    """
    measured = measure(task.metrics, predictions)
    scores = {name: score for one in measured for name, score in one.scores().items()}
    main_metric = next(iter(scores))
    baseline = all_the_majority(predictions)
    accuracies = [metric(name).gives[0] for name in task.metrics if metric(name).kind == "rank"]
    result = TaskResult(
        task=task.task,
        split=task.split,
        cluster=task.cluster,
        label=task.label,
        evaluation=task.evaluation,
        metrics=scores,
        main_metric=main_metric,
        num_examples=len(predictions),
        group=task.group,
        aggregation=task.aggregation,
        standard_errors={name: error for one in measured for name, error in one.standard_errors().items()},
        intervals={name: limits for one in measured for name, limits in one.intervals().items()},
        majority={n: s for one in measure(task.metrics, baseline) for n, s in one.scores().items()} if baseline else {},
        chance=dict.fromkeys(accuracies, chance(predictions)) if task.evaluation == "rank" else {},
        signatures={name: one.signature for one in measured if one.signature for name in one.scores()},
        by_template=_by_template(task.metrics[0], predictions),
        num_truncated=sum(prediction.truncated for prediction in predictions),
        notes=(*task.notes, *(one.note for one in measured if one.note)),
    )
    return result, with_row_scores(predictions, measured)


def with_own_metrics(result: TaskResult, own: Mapping[str, float], notes: Sequence[str]) -> TaskResult:
    """Returns the scores of an external task with those of its own metrics, which come first.

    Args:
      result: The scores by `EXTERNAL_METRICS`.
      own: By name. Their units are the task's own, so that the prefix keeps them out of means over other tasks.
      notes: Reservations about them.
    """
    metrics = {**{f"{OWN_PREFIX}{name}": score for name, score in own.items()}, **result.metrics}
    return replace(
        result,
        metrics=metrics,
        main_metric=next(iter(metrics)),
        # Of this package's first metric, which is no longer the main one.
        by_template={} if own else result.by_template,
        notes=(*result.notes, *notes),
    )


def measure(metrics: Iterable[str], predictions: Sequence[Prediction]) -> list[Measured]:
    """Returns what each of the named metrics measured of predictions; those of texts judge a chosen option's text.

    Raises:
      UserError: A metric judges scores of options, which the predictions lack; or the rows lack what it needs.
    """
    measured = []
    for name in metrics:
        judge = metric(name)
        if judge.kind == "generate":
            measured.append(_measure_texts(judge, predictions))
            continue
        without = [prediction for prediction in predictions if not prediction.scores]
        if without:
            raise UserError(
                f"Metric {name!r} judges scores of options, which {len(without):,} of {len(predictions):,} rows lack: "
                f"they were generated. Declare the task with evaluation='rank', or choose one of texts: {of_texts()}."
            )
        measured.append(_measure_ranking(judge, predictions))
    return measured


def _measure_texts(judge: Metric, predictions: Sequence[Prediction]) -> Measured:
    facts: dict[RowFact, list[Any]] = {
        "options": [prediction.options for prediction in predictions],
        "groups": [prediction.group for prediction in predictions],
    }
    needed = {fact: facts[fact] for fact in (*judge.needs, *judge.takes)}
    references = [prediction.references for prediction in predictions]
    return judge.measure(references, [prediction.prediction for prediction in predictions], **needed)


def _measure_ranking(judge: Metric, predictions: Sequence[Prediction]) -> Measured:
    gold = [frozenset(prediction.gold) for prediction in predictions]
    return judge.measure([prediction.option_scores() for prediction in predictions], gold)


def with_row_scores(predictions: Sequence[Prediction], measured: Iterable[Measured]) -> list[Prediction]:
    """Returns the rows with their own scores; those of a metric over groups of rows belong to no row."""
    by_row: list[dict[str, float]] = [{} for _ in predictions]
    for one in measured:
        if len(one.rows) == len(predictions):
            for name, values in one.row_scores().items():
                for scores, value in zip(by_row, values.tolist(), strict=True):
                    scores[name] = value
    return [replace(row, metrics=scores) for row, scores in zip(predictions, by_row, strict=True)]


def _by_template(name: str, predictions: Sequence[Prediction]) -> Mapping[int, float]:
    """Returns the main score of the rows of each template; {} for a single one."""
    templates = sorted({prediction.template for prediction in predictions})
    scores = {}
    for template in templates if len(templates) > 1 else []:
        (measured,) = measure([name], [p for p in predictions if p.template == template])
        scores[template] = next(iter(measured.scores().values()))
    return scores


def all_the_majority(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Returns the predictions of a model that always gives the most frequent right answer; none if none repeats.

    Of ranked options, it takes the first one where a row lacks that answer.
    """
    if not all(prediction.scores and prediction.options for prediction in predictions):
        answer = most_frequent(prediction.references for prediction in predictions)
        return [] if answer is None else [replace(prediction, prediction=answer) for prediction in predictions]
    answer = most_frequent([p.options[number] for number in p.gold] for p in predictions)
    if answer is None:
        return []
    choices = [p.options.index(answer) if answer in p.options else 0 for p in predictions]
    return [
        replace(p, prediction=p.options[choice], **asdict(OptionScores.choosing(choice, len(p.options))))
        for p, choice in zip(predictions, choices, strict=True)
    ]


def most_frequent(rows: Iterable[Iterable[str]]) -> str | None:
    """Returns the text that most rows have, the first of equals; None if each is in one row only.

    >>> most_frequent([["no"], ["yes", "yeah"], ["yes"]]), most_frequent([["a"], ["b"]])
    ('yes', None)
    """
    counts = Counter(text for row in rows for text in dict.fromkeys(row))
    text, count = max(counts.items(), key=lambda item: item[1])
    return text if count > 1 else None


def chance(predictions: Sequence[Prediction]) -> float:
    """Returns the accuracy, 0 to 100, to expect of options that are chosen at random."""
    return 100.0 * float(np.mean([len(set(p.gold)) / len(p.scores) for p in predictions]))
