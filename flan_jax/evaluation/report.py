"""Evaluations as tables: before and after, by task and by cluster, and sample predictions."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flan_jax.evaluation.results import Mean, SuiteResult, TaskResult
from flan_jax.evaluation.suite import HELD_OUT, TRAINED, predictions_path

_TEXT_COLUMNS = ("task", "cluster", "metric", "notes")
_SHOWN_IN_TITLE = ("metric", "examples")  # Instead of in a column, when all rows have the same value.
_Row = list[Text | str] | None


def compare(before: SuiteResult | None, after: SuiteResult) -> RenderableType:
    """Returns the tables of an evaluation by task and by cluster, compared with an earlier one.

    Args:
      before: The same tasks at an earlier step; None shows a single evaluation.
      after: The later evaluation.
    """
    return Group(task_table(before, after), Text(""), cluster_table(before, after))


def task_table(before: SuiteResult | None, after: SuiteResult) -> Table:
    """Returns one line per task, under its cluster: the main score at both steps, and its spread over templates."""
    earlier = {task.task: task.score for task in before.tasks} if before else {}
    rows: list[_Row] = []
    for label, cluster in after.clusters():
        rows.append([_name(cluster, label, style="bold")])
        for task in (t for t in after.tasks if (t.label, t.cluster) == (label, cluster)):
            scores = _scores(earlier.get(task.task, math.nan), task.score, before)
            name = Text(f"  {task.task}")
            rows.append([name, task.main_metric, *scores, _spread(task), f"{task.num_examples:,}", _notes(task)])
        rows.append(None)
    return _table("Tasks", ["task", "metric", *_steps(before, after), "templates", "examples", "notes"], rows)


def cluster_table(before: SuiteResult | None, after: SuiteResult) -> Table:
    """Returns one line per cluster and one per label: means of the main scores over tasks, at both steps.

    Where main scores are of several metrics, those that all tasks have get a line each.
    """
    earlier = before.clusters() if before else {}
    earlier_labels = before.labels() if before else {}
    rows: list[_Row] = []

    def add(name: Text, mean: Mean, old: Mean | None) -> None:
        scores = _scores(old.over_tasks if old else math.nan, mean.over_tasks, before)
        rows.append([name, *scores, f"{mean.num_tasks}", f"{mean.num_examples:,}"])

    for label, label_mean in after.labels().items():
        for (of_label, cluster), mean in after.clusters().items():
            if of_label == label:
                add(_name(cluster, label, style=""), mean, earlier.get((label, cluster)))
        add(_name("mean of tasks", label, style="bold"), label_mean, earlier_labels.get(label))
        rows.append(None)
    if len({task.main_metric for task in after.tasks}) > 1:  # Then the means above mix metrics: these do not.
        earlier_metrics = before.metrics() if before else {}
        for name, mean in after.metrics().items():
            add(Text(f"{name} of all tasks"), mean, earlier_metrics.get(name))
    return _table("Clusters: mean of tasks", ["cluster", *_steps(before, after), "tasks", "examples"], rows)


def predictions(directory: Path | str, result: SuiteResult, *, per_label: int) -> RenderableType:
    """Returns some predictions to read, from different clusters: green where the text equals a reference.

    Args:
      directory: the evaluation's, `<run>/eval/<step>`.
      result: The evaluation.
      per_label: how many of each label.
    """
    shown: list[RenderableType] = []
    for label in result.labels():
        tasks = [task for task in result.tasks if task.label == label]
        for number, task in enumerate(_spread_over(tasks, per_label)):
            rows = _rows(directory, task)
            if rows:
                shown += [_prediction(task, rows[number % len(rows)]), Text("")]
    return Group(*shown)


def _prediction(task: TaskResult, row: dict[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", justify="right")
    grid.add_column(overflow="fold")
    grid.add_row("task", Text.assemble((task.task, "bold"), " ", _mark(task.label)))
    grid.add_row("input", Text(_shortened(row["input"])))
    if "options" in row:
        for option, score in zip(row["options"], row["scores"], strict=True):
            grid.add_row("option", Text(f"{_number(score)}  {_shortened(option)}"))
    grid.add_row("target", Text(_shortened(" | ".join(row["references"]))))
    is_right = row["prediction"] in row["references"]
    grid.add_row("prediction", Text(_shortened(row["prediction"]) or "(empty)", style="green" if is_right else "red"))
    return grid


def _rows(directory: Path | str, task: TaskResult) -> list[dict[str, Any]]:
    with open(predictions_path(directory, task.task)) as file:
        return [json.loads(line) for line in file]


def _spread_over(tasks: Sequence[TaskResult], count: int) -> list[TaskResult]:
    """Picks tasks of different clusters first, then goes round again."""
    seen: dict[str, int] = {}
    order: list[tuple[int, int, TaskResult]] = []
    for task in tasks:
        seen[task.cluster] = seen.get(task.cluster, 0) + 1
        order.append((seen[task.cluster], len(order), task))
    ordered = [task for _, _, task in sorted(order, key=lambda entry: entry[:2])]
    return [ordered[i % len(ordered)] for i in range(count)] if ordered else []


def _table(title: str, columns: Sequence[str], rows: Sequence[_Row]) -> Table:
    """Returns a narrow table: without empty columns, and with a metric or count that all rows share in the title.

    A row may be shorter than `columns`; None is a line between rows.
    """
    values = [{str(row[i]) for row in rows if row and i < len(row)} for i in range(len(columns))]
    shared = [i for i, name in enumerate(columns) if name in _SHOWN_IN_TITLE and len(values[i]) == 1]
    shown = [i for i in range(len(columns)) if i not in shared and values[i] - {""}]
    notes = [f"{columns[i]} {values[i].pop()}" for i in shared]
    table = Table(title=", ".join([title, *notes]), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in (columns[i] for i in shown):
        is_text = name in _TEXT_COLUMNS
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*(row[i] for i in shown if i < len(row)))
    return table


def _name(name: str, label: str, *, style: str) -> Text:
    """A cluster's name, marked when it was not trained on."""
    return Text.assemble((name, style), " ", _mark(label))


def _steps(before: SuiteResult | None, after: SuiteResult) -> list[str]:
    return [f"step {before.step:,}", f"step {after.step:,}", "change"] if before else [f"step {after.step:,}"]


def _scores(old: float, new: float, before: SuiteResult | None) -> list[str]:
    if before is None:
        return [_number(new)]
    change = new - old
    return [_number(old), _number(new), "-" if math.isnan(change) else f"{change:+.1f}"]


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def _spread(task: TaskResult) -> str:
    """Lowest and highest score of a template."""
    scores = [score for score in task.by_template.values() if not math.isnan(score)]
    return f"{min(scores):.0f}-{max(scores):.0f}" if scores else ""


def _notes(task: TaskResult) -> str:
    truncated = [f"{task.num_truncated:,} predictions truncated"] if task.num_truncated else []
    return "; ".join([*task.notes, *truncated])


def _mark(label: str) -> Text:
    if label == TRAINED:
        return Text("")
    return Text("(held out)" if label == HELD_OUT else f"({label})", style="yellow")


def _shortened(text: str, *, limit: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit // 2]} ... {flat[-limit // 2 :]}"
