"""`flan-jax show`: what is registered, exported, trained and saved, as a table for people or as JSON for programs.

What is shown is gathered by the packages that own it; this module chooses among them and makes the tables. Only tasks,
mixtures and templates need TensorFlow.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.pretty import Pretty
from rich.table import Table
from rich.text import Text

from flan_jax.errors import UserError
from flan_jax.names import nearest

Found = dict[str, Any]

# Noun -> whether it needs the name of a thing; None: with or without.
NOUNS: dict[str, bool | None] = {
    "tasks": None,
    "mixtures": None,
    "task": True,
    "mixture": True,
    "template": True,
    "lint": None,
    "export": True,
    "run": True,
    "checkpoint": True,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """A description: `data` for programs, `table` for people."""

    data: Found
    table: RenderableType

    @property
    def exit_status(self) -> int:
        """Returns 2 when the description contains problems in templates."""
        return 2 if any(line["severity"] == "problem" for line in self.data.get("findings", ())) else 0

    def __rich__(self) -> RenderableType:
        return self.table


def show(
    what: str,
    name: str | None = None,
    *,
    mixture_or_task_module: str | None = None,
    vocabulary: str | None = None,
    tfds_data_dir: str | None = None,
    task_feature_lengths: Mapping[str, int] | None = None,
    split: str | None = None,
    index: int = 0,
    num_examples: int = 4,
    train_steps: int = 1000,
    batch_size: int = 32,
    export_dir: str | None = None,
    step: int | None = None,
) -> Shown:
    """Describes one thing.

    Args:
      what: "tasks", "mixtures", "task", "mixture", "template", "lint", "export", "run" or "checkpoint".
      name: of the task or mixture, or the path of the file or directory; of `tasks` and `mixtures` a part of the names
        to show, or a pattern with `*`; of `lint` a task or a YAML file, without which every template of every family is
        looked at.
      mixture_or_task_module: what defines it, when the package does not: dotted modules or paths, comma-separated.
      vocabulary: "embedded", "bytes" or a SentencePiece model, for tasks that name none.
      tfds_data_dir: where TensorFlow Datasets are prepared.
      task_feature_lengths: {"inputs": S, "targets": T} in tokens that an example is shown under; of `task`, `mixture`, `lint`.
      split: of `task` and `mixture`; "train" unless given.
      index: of the row that `task` shows.
      num_examples: how many examples `task` packs, and how many rows `template` renders.
      train_steps: for the expected epochs of `mixture`.
      batch_size: rows of a batch, likewise.
      export_dir: where `mixture` finds how long its tasks' examples are, which tells how many share a packed row;
        without it each has a row of its own.
      step: of `checkpoint`, of any format; the latest unless given.

    Returns:
      The description; the exit status is 2 when `lint` reports problems.

    Raises:
      UserError: The thing to show is unknown, or it needs a name.
      UnknownNameError, MissingFileError: there is no such task, mixture, file, export, run or checkpoint.
    """
    if what not in NOUNS:
        raise UserError(f"show what? Got {what!r}.{nearest(what, NOUNS)} Allowed: {', '.join(NOUNS)}.")
    if NOUNS[what] and not name:
        word = "NAME" if what in ("task", "mixture") else "PATH"
        raise UserError(f"show which {what}? Write: flan-jax show {what} {word}.")
    if what in ("tasks", "mixtures", "task", "mixture", "lint"):
        _define(mixture_or_task_module, vocabulary=vocabulary, tfds_data_dir=tfds_data_dir)
    gather: dict[str, Callable[[], tuple[Found, RenderableType]]] = {
        "tasks": lambda: _tasks(name),
        "mixtures": lambda: _mixtures(name),
        "task": lambda: _task(
            str(name), split=split, index=index, lengths=task_feature_lengths, num_packed=num_examples
        ),
        "mixture": lambda: _mixture(
            str(name),
            split=split or "train",
            steps=train_steps,
            batch_size=batch_size,
            export_dir=export_dir,
            lengths=task_feature_lengths,
        ),
        "template": lambda: _template(str(name), num_rows=num_examples),
        "lint": lambda: _lint(name, lengths=task_feature_lengths),
        "export": lambda: _export(str(name)),
        "run": lambda: _run(str(name)),
        "checkpoint": lambda: _checkpoint(str(name), step=step),
    }
    data, table = gather[what]()
    return Shown(data=data, table=table)


def _define(module: str | None, *, vocabulary: str | None, tfds_data_dir: str | None) -> None:
    from flan_jax.tasks import registry
    from flan_jax.tasks.sources import file_sources

    file_sources.set_tfds_data_dir(tfds_data_dir)
    registry.use_vocabulary(vocabulary or "embedded")
    registry.register_all()
    if module:
        registry.import_module(module)


def _tasks(pattern: str | None) -> tuple[Found, RenderableType]:
    from flan_jax.tasks import describe

    tasks = describe.all_tasks(pattern)
    columns = ("name", "cluster", "splits", "templates", "evaluation", "metrics", "licence")
    table = _table(f"{len(tasks):,} tasks", columns, tasks)
    return {"tasks": tasks}, table if pattern else Group(table, *_declared("tasks"))


def _mixtures(pattern: str | None) -> tuple[Found, RenderableType]:
    from flan_jax.tasks import describe

    mixtures = describe.all_mixtures(pattern)
    columns = ("name", "members", "tasks", "splits")
    table = _table(f"{len(mixtures):,} mixtures", columns, mixtures)
    return {"mixtures": mixtures}, table if pattern else Group(table, *_declared("mixtures"))


def _declared(what: str) -> list[RenderableType]:
    """A line for each family whose names are registered when they are asked for."""
    from flan_jax.tasks import registry

    return [
        Text(f"{family}: {count:,} more names, registered when asked for; flan-jax show {what} 'PATTERN*' lists them")
        for family, count in registry.families().items()
        if count
    ]


def _task(
    name: str, *, split: str | None, index: int, lengths: Mapping[str, int] | None, num_packed: int
) -> tuple[Found, RenderableType]:
    from flan_jax.tasks import describe

    found = describe.task_example(
        name, split=split, index=index, lengths=lengths or describe.DEFAULT_LENGTHS, num_packed=num_packed
    )
    packed = found["packed"]
    features = [{"feature": feature, "values": _numbers(values)} for feature, values in packed["features"].items()]
    parts: list[RenderableType] = [
        _heading(f"{name}, split {found['split']}, {found['place']}"),
        Text("raw row"),
        Pretty(found["raw"]),
    ]
    if found["row"] != found["raw"]:
        parts += [Text("after the normaliser"), Pretty(found["row"])]
    for rendering in found["renderings"]:
        parts += [_rendering(rendering), *(_tokens(side, value) for side, value in rendering["tokens"].items())]
    title = f"one packed row: {packed['examples']} of the next {num_packed} examples, lengths {found['lengths']}"
    return found, Group(*parts, _table(title, ("feature", "values"), features))


def _mixture(
    name: str,
    *,
    split: str,
    steps: int,
    batch_size: int,
    export_dir: str | None,
    lengths: Mapping[str, int] | None,
) -> tuple[Found, RenderableType]:
    from flan_jax.tasks import describe, mixture_description

    found = mixture_description.mixture(
        name,
        split=split,
        steps=steps,
        batch_size=batch_size,
        lengths=lengths or describe.DEFAULT_LENGTHS,
        export_dir=export_dir,
    )
    per_row = "one example a row" if export_dir is None else f"{found['examples_per_row']:.1f} examples a packed row"
    epochs = f"epochs in {steps:,} steps of {batch_size:,} rows, {per_row}"
    title = f"{name}, split {split}: {found['examples']:,} examples; {epochs}"
    columns: tuple[str, ...] = ("name", "cluster", "examples", "cap", "rate", "share_percent", "expected_epochs")
    if export_dir is not None:
        columns = (*columns, "rows_read", "dropped", "cut", "source_revision", "templates_digest")
    columns = (*columns, "licence")
    digests = ("source_revision", "templates_digest")
    lines = [{k: str(v)[:12] if k in digests else v for k, v in member.items()} for member in found["members"]]
    skipped = [Text(f"left out: {task} {reason}", style="yellow") for task, reason in found["skipped"].items()]
    stated = [
        Text(
            f"{share['mixture']}: {share['member']} has {share['share']:.2%} of the {share['unit']} by definition; "
            f"{share['of_examples']:.2%} of examples, {share['of_tokens']:.2%} of tokens"
        )
        for share in found["shares"]
    ]
    notes = [Text(note, style="yellow") for note in found["notes"]]
    return found, Group(_table(title, columns, lines), *stated, *notes, *skipped)


def _template(path: str, *, num_rows: int) -> tuple[Found, RenderableType]:
    from flan_jax.tasks import describe

    found = describe.user_file(path, num_rows=num_rows)
    parts: list[RenderableType] = []
    for task in found["tasks"]:
        parts.append(_heading(f"{task['task']} (cluster {task['cluster']}), split {task['split']}"))
        for row in task["rows"]:
            parts += [Text(row["place"]), Pretty(row["raw"]), *map(_rendering, row["renderings"])]
    return found, Group(*parts)


def _lint(name: str | None, *, lengths: Mapping[str, int] | None) -> tuple[Found, RenderableType]:
    from flan_jax.tasks import describe, lint

    findings, tasks = lint.lint(name, lengths=lengths or describe.DEFAULT_LENGTHS)
    lines = [vars(finding) for finding in findings]
    together: dict[tuple[str, ...], dict[str, Any]] = {}  # What several templates of a task share is one line.
    for line in lines:
        key = (line["where"], line["severity"], line["rule"], line["detail"])
        shown = together.setdefault(key, {**line, "templates": []})
        shown["templates"] += [] if line["template"] is None else [line["template"]]
    columns = ("where", "templates", "severity", "rule", "detail")
    problems = sum(finding.severity == "problem" for finding in findings)
    title = f"{tasks:,} tasks looked at: {problems:,} problems, {len(findings) - problems:,} notes"
    return {"tasks": tasks, "findings": lines}, _table(title, columns, together.values())


def _export(path: str) -> tuple[Found, RenderableType]:
    from flan_jax.data.inventory import inventory

    found = inventory(path)
    tasks = [
        {
            **task,
            "input tokens": task["tokens"]["inputs"],
            "target tokens": task["tokens"]["targets"],
            "cut": "{inputs:,} / {targets:,}".format(**task["truncated"]),
            "left out": ", ".join(f"{reason}: {n:,}" for reason, n in task["dropped"].items()),
            "lengths": _lengths(task["lengths"]),
        }
        for task in found["tasks"]
    ]
    mixtures = [{**mixture, "lengths": _lengths(mixture["lengths"])} for mixture in found["mixtures"]]
    columns = ("name", "split", "lengths", "examples", "input tokens", "target tokens", "cut", "left out", "bytes")
    parts: list[RenderableType] = [
        _table(f"mixtures in {path}", ("name", "split", "lengths", "members", "examples", "fingerprint"), mixtures),
        _table(f"tasks in {path}", columns, tasks),
    ]
    unfinished = [f"unfinished: {folder} (the next export goes on with it)" for folder in found["partial"]]
    return found, Group(*parts, *(Text(line, style="yellow") for line in unfinished))


def _run(path: str) -> tuple[Found, RenderableType]:
    from flan_jax.checkpoint import describe, reading
    from flan_jax.run.directory import RunDirectory

    directory = RunDirectory(path=Path(path).expanduser())
    run = directory.read()
    step = reading.latest_step(directory.checkpoints)
    found: Found = {
        "run": str(directory.path),
        "step": step,
        "params_digest": None if step is None else describe.digest_of(directory.checkpoints, step=step),
        "checkpoints": reading.all_steps(directory.checkpoints),
        "metrics": directory.last_metrics(),
        "evaluation": directory.last_evaluation(),
        "record": run,
    }
    lines = [{"what": what, "value": found[what]} for what in ("run", "step", "params_digest", "checkpoints")]
    lines += [{"what": what, "value": _in_words(run[what])} for what in ("versions", "devices") if what in run]
    parts: list[RenderableType] = [_table("run", ("what", "value"), lines)]
    for title in ("metrics", "evaluation"):
        if found[title] is not None:
            parts.append(_numbers_table(f"last {title}", found[title]))
    return found, Group(*parts)


def _checkpoint(path: str, *, step: int | None) -> tuple[Found, RenderableType]:
    from flan_jax.checkpoint import describe

    found = describe.describe(path, step=step)
    arrays = [{**array, "shape": " x ".join(map(str, array["shape"])) or "scalar"} for array in found["arrays"]]
    title = f"{found['checkpoint']}: {found['parameters']:,} parameters, {found['bytes']:,} bytes"
    told = ("format", "layout", "step", "family", "dtypes", "optimizer_arrays", "vocabulary")
    lines = [{"what": what.replace("_", " "), "value": found[what]} for what in told]
    notes = [Text(note, style="yellow") for note in found["notes"]]
    digest = Text(f"params_digest {found['params_digest']}")
    columns = ("name", "shape", "dtype", "bytes")
    return found, Group(_table(title, ("what", "value"), lines), _table("parameters", columns, arrays), *notes, digest)


def _numbers_table(title: str, found: Mapping[str, Any]) -> RenderableType:
    """The plain values of a record, and of an evaluation its tasks."""
    if "tasks" in found:
        tasks = [{**task, "score": task["metrics"].get(task["main_metric"])} for task in found["tasks"]]
        step = f"{title}, step {found['step']:,}"
        return _table(step, ("task", "cluster", "label", "main_metric", "score", "num_examples"), tasks)
    return _table(title, ("what", "value"), [{"what": key, "value": value} for key, value in found.items()])


def _rendering(rendering: Mapping[str, Any]) -> RenderableType:
    named = f" {rendering['name']!r}" if rendering["name"] else ""
    inverted = ", inverted" if rendering["direction"] == "inverted" else ""
    lists = {side: " | ".join(rendering[side]) for side in ("options", "references") if rendering[side]}
    grid = Table(box=box.SIMPLE, show_header=False)
    for label, text in {"inputs": rendering["inputs"], "targets": rendering["targets"], **lists}.items():
        grid.add_row(Text(label, style="dim"), Text(text, overflow="fold"))
    for note in rendering.get("notes", ()):
        grid.add_row(Text("note", style="yellow"), Text(note))
    return Group(Text(f"template {rendering['template']}{named}{inverted}", style="bold"), grid)


def _tokens(side: str, tokens: Mapping[str, Any]) -> RenderableType:
    text = Text(f"{len(tokens['ids'])} tokens of the {side}: ", style="bold")
    for number, piece in zip(tokens["ids"], tokens["pieces"], strict=True):
        text.append(piece, style="not bold cyan").append(f" {number}  ", style="not bold dim")
    return text


def _table(title: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """One line a row; numbers to the right, long texts folded and never shortened."""
    rows = list(rows)
    table = Table(box=box.SIMPLE)
    for column in columns:
        is_number = rows and all(isinstance(row.get(column), int | float | None) for row in rows)
        label = column.replace("_percent", " %").replace("_", " ")
        table.add_column(label, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    return Group(Text(title, style="bold"), table)  # Not the table's own title, which folds at the table's width.


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return _in_words(value)


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items())
    return ", ".join(map(_in_words, value)) if isinstance(value, list | tuple) else str(value)


def _lengths(lengths: Mapping[str, int]) -> str:
    return f"{lengths['inputs']:,} / {lengths['targets']:,}"


def _numbers(values: Sequence[float]) -> str:
    """A feature's values; zeros at the end, which pad, are counted instead."""
    kept = len(values)
    while kept and not values[kept - 1]:
        kept -= 1
    padding = f" + {len(values) - kept} x 0" if kept < len(values) else ""
    return " ".join(f"{value:g}" for value in values[:kept]) + padding


def _heading(text: str) -> RenderableType:
    return Text(text, style="bold underline")
