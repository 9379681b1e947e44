"""Evaluations as tables for people: before and after, by task and by cluster, and predictions to read."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flan_jax.evaluation.results import Mean, SuiteResult, TaskResult
from flan_jax.evaluation.suite import HELD_OUT, TRAINED, predictions_path


def compare(before: SuiteResult | None, after: SuiteResult) -> RenderableType:
    """Returns the tables of an evaluation by task and by cluster, with an earlier one beside it.

    Args:
      before: the same tasks at an earlier step; None shows one evaluation alone.
      after: the later evaluation.
    """
    return Group(task_table(before, after), Text(""), cluster_table(before, after))


def task_table(before: SuiteResult | None, after: SuiteResult) -> Table:
    """Returns one line a task: its main score at both steps, and the spread over templates."""
    table = _table("Tasks", ["task", "cluster", "", "metric"], before, after, ["templates", "examples", "notes"])
    earlier = {task.task: task.score for task in before.tasks} if before else {}
    for label in after.labels():
        for task in sorted((t for t in after.tasks if t.label == label), key=lambda t: (t.cluster, t.task)):
            table.add_row(
                Text(task.task),
                Text(task.cluster),
                _mark(label),
                task.main_metric,
                *_scores(earlier.get(task.task, math.nan), task.score, before),
                _spread(task),
                f"{task.num_examples:,}",
                _notes(task),
            )
        table.add_section()
    return table


def cluster_table(before: SuiteResult | None, after: SuiteResult) -> Table:
    """Returns one line a cluster and one a label: means of the main scores over tasks, at both steps."""
    table = _table("Clusters", ["cluster", ""], before, after, ["tasks", "examples"])
    earlier = before.clusters() if before else {}
    earlier_labels = before.labels() if before else {}

    def add(name: Text, label: str, mean: Mean, old: Mean | None) -> None:
        old_score = old.over_tasks if old else math.nan
        scores = _scores(old_score, mean.over_tasks, before)
        table.add_row(name, _mark(label), *scores, f"{mean.num_tasks}", f"{mean.num_examples:,}")

    for label, label_mean in after.labels().items():
        for (of_label, cluster), mean in after.clusters().items():
            if of_label == label:
                add(Text(cluster), label, mean, earlier.get((label, cluster)))
        add(Text("mean of tasks", style="bold"), label, label_mean, earlier_labels.get(label))
        table.add_section()
    return table


def predictions(directory: Path | str, result: SuiteResult, *, per_label: int) -> RenderableType:
    """Returns some predictions to read, from different clusters: green where the text equals a reference.

    Args:
      directory: the evaluation's, `<run>/eval/<step>`.
      result: what was evaluated there.
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


def _table(
    title: str, first: Sequence[str], before: SuiteResult | None, after: SuiteResult, last: Sequence[str]
) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in first:
        table.add_column(name, overflow="fold")
    steps = [f"step {before.step:,}"] if before else []
    for name in [*steps, f"step {after.step:,}", *(["change"] if before else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    for name in last:
        table.add_column(name, justify="left" if name == "notes" else "right")
    return table


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
    return f"{min(scores):.0f} to {max(scores):.0f}" if scores else "-"


def _notes(task: TaskResult) -> str:
    cut = [f"{task.num_cut:,} predictions cut"] if task.num_cut else []
    return "; ".join([*task.notes, *cut])


def _mark(label: str) -> Text:
    if label == TRAINED:
        return Text("")
    return Text("held out" if label == HELD_OUT else label, style="yellow")


def _shortened(text: str, *, limit: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit // 2]} ... {flat[-limit // 2 :]}"
