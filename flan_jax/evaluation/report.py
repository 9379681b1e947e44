"""Evaluations as tables: before and after, by task and by cluster, and sample predictions."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flan_jax.evaluation.comparison import Difference
from flan_jax.evaluation.directory import predictions_path
from flan_jax.evaluation.results import Mean, SuiteResult, TaskResult
from flan_jax.evaluation.suite import HELD_OUT, TRAINED
from flan_jax.names import counted

_LEGEND = "± standard error; 95 %: its interval; majority: one answer, always; chance: any of the options."
_SHOWN_IN_TITLE = ("examples",)  # Instead of in a column, when all rows have the same value.
_EMPTY = "(empty)"
_Row = list[Text | str] | None
_Means = Mapping[str, Mean]


def compare(before: SuiteResult | None, after: SuiteResult) -> RenderableType:
    """Returns the tables of an evaluation by task and by cluster, compared with an earlier one.

    Args:
      before: The same tasks at an earlier step; None shows a single evaluation.
      after: The later evaluation.
    """
    notes = [Text(f"{task.task}: {'; '.join(_notes(task))}", style="yellow") for task in after.tasks if _notes(task)]
    legend = Text(_LEGEND, style="dim")
    tables = [task_table(before, after), *notes, Text(""), cluster_table(before, after)]
    if after.aggregates():
        tables += [Text(""), suite_table(before, after)]
    return Group(*tables, legend)


def task_table(before: SuiteResult | None, after: SuiteResult) -> RenderableType:
    """Returns the scores of each task, under its cluster, at both steps; with the main one's spread over templates.

    All metrics are shown: on the line of the task where all tasks have the same one, and otherwise on lines of their
    own.
    """
    earlier = {task.task: task.metrics for task in before.tasks} if before else {}
    the_metric = _the_only(name for task in after.tasks for name in task.metrics)
    rows: list[_Row] = []
    for label, cluster in after.clusters():
        rows.append([_name(cluster, label, style="bold")])
        for task in (t for t in after.tasks if (t.label, t.cluster) == (label, cluster)):
            lines = {name: _task_cells(task, name, earlier.get(task.task, {}), before) for name in task.metrics}
            examples = f"{task.num_examples:,}"
            if the_metric:
                rows.append([Text(f" {task.task}"), *lines[the_metric], examples])
                continue
            rows.append([Text(f" {task.task}"), *[""] * len(lines[task.main_metric]), examples])
            rows += [[Text(f"   {name}"), *cells] for name, cells in lines.items()]
        rows.append(None)
    columns = ["task", *_steps(before, after), "majority", "chance", "spread", "examples"]
    return _table(_title("Tasks", the_metric), columns, rows)


def cluster_table(before: SuiteResult | None, after: SuiteResult) -> RenderableType:
    """Returns the means of each metric over the tasks of each cluster and of each label, at both steps."""
    earlier, earlier_labels = (before.clusters(), before.labels()) if before else ({}, {})
    the_metric = _the_only(after.means())
    rows: list[_Row] = []

    def add(name: Text, means: _Means, old: _Means) -> None:
        cells = {metric: _mean_cells(mean, old.get(metric), before) for metric, mean in means.items()}
        if the_metric:
            rows.append([name, *cells[the_metric]])
        else:
            rows.append([name])
            rows.extend([Text(f" {metric}"), *of_metric] for metric, of_metric in cells.items())

    for label, label_means in after.labels().items():
        for (of_label, cluster), means in after.clusters().items():
            if of_label == label:
                add(_name(cluster, label, style=""), means, earlier.get((label, cluster), {}))
        add(_name("mean of tasks", label, style="bold"), label_means, earlier_labels.get(label, {}))
        rows.append(None)
    columns = ["cluster", *_steps(before, after), "majority", "chance", "tasks", "examples"]
    return _table(_title("Clusters: mean of tasks", the_metric), columns, rows)


def suite_table(before: SuiteResult | None, after: SuiteResult) -> RenderableType:
    """Returns the score of each published suite by its own rule, with those of its clusters, at both steps."""
    earlier = before.aggregates() if before else {}
    rows: list[_Row] = []

    def line(name: Text, new: float, old: float, count: str) -> None:
        rows.append([name, *_scores(old, new, math.nan, before), count])

    for label, one in after.aggregates().items():
        old = earlier.get(label)
        line(Text(f"{label} ({one.aggregation})", style="bold"), one.score, old.score if old else math.nan,
             f"{one.num_tasks:,}")  # fmt: skip
        for cluster, score in one.clusters.items() if len(one.clusters) > 1 else ():
            line(Text(f" {cluster}"), score, old.clusters.get(cluster, math.nan) if old else math.nan, "")
        rows.append(None)
    return _table("Suites by their own rules", ["suite", *_steps(before, after), "tasks"], rows)


def difference_table(differences: Sequence[Difference]) -> RenderableType:
    """Returns the comparison of two evaluations row by row."""
    rows: list[_Row] = []
    for task, of_task in itertools.groupby(differences, key=lambda one: one.name):
        rows.append([Text(task, style="bold")])
        for one in of_task:
            limits = f"{one.low:.1f} to {one.high:.1f}"
            p_value = "-" if math.isnan(one.p_value) else f"{one.p_value:.3f}"
            scores = (_number(one.before), _number(one.after), f"{one.difference:+.1f}")
            rows.append([Text(f" {one.metric}"), *scores, limits, p_value, f"{one.wins}/{one.ties}/{one.losses}"])
    columns = ["task", "before", "after", "change", "95 %", "p", "w/t/l"]
    legend = "95 % and p: paired bootstrap over rows; w/t/l: rows that the second evaluation wins, ties and loses."
    return Group(_table("Differences", columns, rows), Text(legend, style="dim"))


def _task_cells(task: TaskResult, name: str, old: Mapping[str, float], before: SuiteResult | None) -> list[str]:
    error = task.standard_errors.get(name, math.nan)
    limits = task.intervals.get(name, (math.nan, math.nan))
    scores = _scores(old.get(name, math.nan), task.metrics[name], error, before, interval=_range(*limits))
    baselines = (_number(one[name]) if name in one else "" for one in (task.majority, task.chance))
    return [*scores, *baselines, _spread(task) if name == task.main_metric else ""]


def _mean_cells(mean: Mean, old: Mean | None, before: SuiteResult | None) -> list[str]:
    scores = _scores(old.over_tasks if old else math.nan, mean.over_tasks, mean.standard_error, before)
    baselines = ("" if math.isnan(value) else _number(value) for value in (mean.majority, mean.chance))
    return [*scores, *baselines, f"{mean.num_tasks}", f"{mean.num_examples:,}"]


def _the_only(names: Iterable[str]) -> str:
    """Returns the name that all of them are; empty if they differ."""
    distinct = set(names)
    return distinct.pop() if len(distinct) == 1 else ""


def _title(title: str, metric: str) -> str:
    return f"{title}, metric {metric}" if metric else title


def in_words(label: str, means: Mapping[str, Mean]) -> str:
    """Returns the means of a label as one line: "trained accuracy 70.0 ± 1.2 (majority 33.3, 2 tasks)"."""

    def one(name: str, mean: Mean) -> str:
        error = "" if math.isnan(mean.standard_error) else f" ± {mean.standard_error:.1f}"
        baselines = [
            f"{baseline} {value:.1f}"
            for baseline, value in (("majority", mean.majority), ("chance", mean.chance))
            if not math.isnan(value)
        ]
        return f"{name} {_number(mean.over_tasks)}{error} ({', '.join([*baselines, counted(mean.num_tasks, 'task')])})"

    return f"{label} {', '.join(one(name, mean) for name, mean in means.items())}"


def predictions(directory: Path | str, result: SuiteResult, *, per_label: int) -> RenderableType:
    """Returns some predictions to read, from different clusters: green where the text equals a reference.

    Args:
      directory: The evaluation's, `<run>/eval/<step>`.
      result: The evaluation.
      per_label: How many of each label.
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
    if "scores" in row:
        for option, score in zip(row["options"], row["scores"], strict=True):
            grid.add_row("option", Text(f"{_number(score)}  {_shortened(option)}"))
    grid.add_row("target", Text(_shortened(" | ".join(reference or _EMPTY for reference in row["references"]))))
    is_right = row["prediction"] in row["references"]
    grid.add_row("prediction", Text(_shortened(row["prediction"]) or _EMPTY, style="green" if is_right else "red"))
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


def _table(title: str, columns: Sequence[str], rows: Sequence[_Row]) -> RenderableType:
    """Returns a narrow table: without empty columns, and with a count that all rows share in the title.

    A row may be shorter than `columns`; None is a line between rows.
    """
    values = [{str(row[i]) for row in rows if row and i < len(row)} - {""} for i in range(len(columns))]
    shared = [i for i, name in enumerate(columns) if name in _SHOWN_IN_TITLE and len(values[i]) == 1]
    shown = [i for i in range(len(columns)) if i not in shared and values[i]]
    notes = [f"{columns[i]} {values[i].pop()}" for i in shared]
    # One space between columns: with all of them, names of 30 letters fit 80 columns.
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for i in shown:
        table.add_column(columns[i], justify="right" if i else "left", overflow="fold", no_wrap=i > 0)
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*(row[i] for i in shown if i < len(row)))
    return Group(Text(", ".join([title, *notes]), style="bold"), table)  # A table's own title folds at its width.


def _name(name: str, label: str, *, style: str) -> Text:
    """A cluster's name, marked when it was not trained on."""
    return Text.assemble((name, style), " ", _mark(label))


def _steps(before: SuiteResult | None, after: SuiteResult) -> list[str]:
    return [f"step {before.step:,}", f"step {after.step:,}", "change"] if before else [f"step {after.step:,}", "95 %"]


def _scores(old: float, new: float, error: float, before: SuiteResult | None, *, interval: str = "") -> list[str]:
    shown = _number(new) if math.isnan(error) else f"{_number(new)} ± {error:.1f}"
    if before is None:
        return [shown, interval]
    change = new - old
    return [_number(old), shown, "-" if math.isnan(change) else f"{change:+.1f}"]


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def _spread(task: TaskResult) -> str:
    """Lowest and highest score of a template."""
    return _range(task.template_spread.minimum, task.template_spread.maximum)


def _range(low: float, high: float) -> str:
    """Two limits as whole numbers; empty if they are not defined.

    >>> _range(37.6, 62.0), _range(-5.2, 10.0)
    ('38-62', '-5 to 10')
    """
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"{low:.0f}{' to ' if low < -0.5 else '-'}{high:.0f}"


def _notes(task: TaskResult) -> list[str]:
    truncated = [f"{counted(task.num_truncated, 'prediction')} truncated"] if task.num_truncated else []
    return [*task.notes, *truncated]


def _mark(label: str) -> Text:
    if label == TRAINED:
        return Text("")
    return Text("(held out)" if label == HELD_OUT else f"({label})", style="yellow")


def _shortened(text: str, *, limit: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit // 2]} ... {flat[-limit // 2 :]}"
