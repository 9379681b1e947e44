"""`flan-jax show`: describes what is registered, exported, trained and saved, as a table for people or as JSON.

The packages that own the data describe it; this module selects among them and builds the tables. Only tasks, mixtures
and templates need TensorFlow.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.pretty import Pretty
from rich.table import Table
from rich.text import Text

from flan_jax import t5x_names
from flan_jax.annotations import Count, PositiveInt
from flan_jax.data.manifest import require_lengths
from flan_jax.errors import MissingFileError, UserError
from flan_jax.evaluation import comparison, report, results
from flan_jax.names import counted, require_choice
from flan_jax.paths import location, user_path

Data = dict[str, Any]

NAMED = ("task", "mixture", "template", "export", "run", "checkpoint", "evaluation")
NOUNS = ("tasks", "mixtures", "suites", "lint", "gin", *NAMED)  # These also without a name.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """A description: `data` for programs, `table` for people."""

    data: Data
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
    other: str | None = None,
    *,
    mixture_or_task_module: str | None = None,
    vocabulary: str | None = None,
    tfds_data_dir: str | None = None,
    task_feature_lengths: Mapping[str, int] | None = None,
    split: str | None = None,
    index: Count = 0,
    num_examples: PositiveInt = 4,
    train_steps: PositiveInt = 1000,
    batch_size: PositiveInt = 32,
    export_dir: str | None = None,
    step: int | None = None,
    strict: bool = False,
    from_t5x: str | None = None,
) -> Shown:
    """Describes a task, mixture, template file, export, run or checkpoint, or translates a gin file of T5X.

    Args:
      what: tasks, mixtures, suites, task, mixture, template, lint, export, run, checkpoint, evaluation or gin.
      name: The name of the task or mixture, or the path of the file or directory. For `tasks`, `mixtures` and `suites`:
        a part of the names, or a pattern with `*`. For `lint`: a task or a YAML file; without it, every template of
        the package.
      other: For `evaluation`: the directory of an evaluation of the same rows, to compare row by row.
      mixture_or_task_module: The module that defines it, when the package does not: dotted modules or paths,
        comma-separated.
      vocabulary: "embedded", "bytes", a SentencePiece model or a Hugging Face folder, for tasks that name none.
      tfds_data_dir: Where TensorFlow Datasets are prepared.
      task_feature_lengths: {"inputs": S, "targets": T} in tokens, for `task`, `mixture` and `lint`.
      split: The split, for `task` and `mixture`; None uses "train".
      index: The index of the row, for `task`.
      num_examples: The number of examples that `task` packs, and of rows that `template` renders.
      train_steps: The number of steps of the expected epochs, for `mixture`.
      batch_size: The rows per batch of the expected epochs.
      export_dir: The directory with the exports of the tasks, from which `mixture` estimates how many examples share a
        packed row; without it every example has its own row.
      step: The step of the checkpoint, for `checkpoint`; None uses the latest.
      strict: Whether a damaged newest checkpoint is an error; otherwise the newest intact one is shown.
      from_t5x: A gin file of T5X, for `gin`: what its settings are called here.

    Returns:
      The description; the exit status is 2 when `lint` reports problems.

    Raises:
      UserError: There is no such noun, or it requires a name or a path.
      UnknownNameError: There is no such task or mixture.
      MissingFileError: There is no such file, export, run or checkpoint.
    """
    require_choice(what, NOUNS, "what to show")
    if task_feature_lengths is not None:
        require_lengths(task_feature_lengths, of="--task_feature_lengths")
    if what in NAMED and not name:
        word = "NAME" if what in ("task", "mixture") else "PATH"
        raise UserError(f"show which {what}? Write: flan-jax show {what} {word}.")
    if other is not None and what != "evaluation":
        raise UserError(f"show {what} takes one name or path; got {name!r} and {other!r}.")
    if what in ("tasks", "mixtures", "suites", "task", "mixture", "lint"):
        _define(mixture_or_task_module, vocabulary=vocabulary, tfds_data_dir=tfds_data_dir)
    sizes: Data = {"steps": train_steps, "batch_size": batch_size, "lengths": task_feature_lengths}
    gather: dict[str, Callable[[], tuple[Data, RenderableType]]] = {
        "tasks": lambda: _tasks(name),
        "mixtures": lambda: _mixtures(name),
        "suites": lambda: _suites(name),
        "task": lambda: _task(
            str(name), split=split, index=index, lengths=task_feature_lengths, num_packed=num_examples
        ),
        "mixture": lambda: _mixture(str(name), split=split or "train", export_dir=export_dir, **sizes),
        "template": lambda: _template(str(name), num_rows=num_examples),
        "lint": lambda: _lint(name, lengths=task_feature_lengths),
        "gin": lambda: _gin(from_t5x or name),
        "export": lambda: _export(str(name)),
        "evaluation": lambda: _evaluation(str(name), other),
        "run": lambda: _run(str(name), strict=strict),
        "checkpoint": lambda: _checkpoint(str(name), step=step, strict=strict),
    }
    data, table = gather[what]()
    return Shown(data=data, table=table)


def _define(module: str | None, *, vocabulary: str | None, tfds_data_dir: str | None) -> None:
    from flan_jax.collections import catalog
    from flan_jax.tasks import registry
    from flan_jax.tasks.sources import file_sources

    catalog.install()
    file_sources.set_tfds_data_dir(tfds_data_dir)
    registry.use_vocabulary(vocabulary or "embedded")
    registry.register_all()
    if module:
        registry.import_module(module)


def _tasks(pattern: str | None) -> tuple[Data, RenderableType]:
    from flan_jax.tasks import describe

    tasks, notes = describe.all_tasks(pattern)
    columns = ("name", "cluster", "splits", "templates", "evaluation", "metrics", "license")
    table = _table(counted(len(tasks), "task"), columns, tasks)
    return {"tasks": tasks, "notes": notes}, Group(table, *map(Text, notes), *_declared("tasks", pattern))


def _mixtures(pattern: str | None) -> tuple[Data, RenderableType]:
    from flan_jax.tasks import describe

    mixtures, notes = describe.all_mixtures(pattern)
    columns = ("name", "members", "tasks", "splits")
    table = _table(counted(len(mixtures), "mixture"), columns, mixtures)
    return {"mixtures": mixtures, "notes": notes}, Group(table, *map(Text, notes), *_declared("mixtures", pattern))


def _suites(pattern: str | None) -> tuple[Data, RenderableType]:
    from flan_jax.collections import suites

    described, notes = suites.describe(pattern)
    columns = ("name", "tasks", "available", "split", "aggregation")
    table = _table(counted(len(described), "suite"), columns, described)
    return {"suites": described, "notes": notes}, Group(table, *map(Text, notes))


def _declared(what: str, pattern: str | None) -> list[RenderableType]:
    from flan_jax.tasks import registry

    return [
        Text(f"{collection}: {count:,} more names, registered on request; flan-jax show {what} 'PATTERN*' lists them")
        for collection, count in registry.collections().items()
        if count and not pattern
    ]


def _task(
    name: str, *, split: str | None, index: int, lengths: Mapping[str, int] | None, num_packed: int
) -> tuple[Data, RenderableType]:
    from flan_jax.tasks import describe, example_tables

    data = describe.task_example(
        name, split=split, index=index, lengths=lengths or describe.DEFAULT_LENGTHS, num_packed=num_packed
    )
    packed = data["packed"]
    features = [
        {"feature": feature, "values": example_tables.numbers(values)} for feature, values in packed["features"].items()
    ]
    parts: list[RenderableType] = [
        Text(f"{name}, split {data['split']}, {data['place']}", style="bold underline"),
        Text("raw row"),
        Pretty(data["raw"]),
    ]
    if data["row"] != data["raw"]:
        parts += [Text("after the normalizer"), Pretty(data["row"])]
    for rendering in data["renderings"]:
        parts.append(example_tables.rendering(rendering))
        parts += [example_tables.tokens(side, value) for side, value in rendering["tokens"].items()]
    title = f"one packed row: {packed['examples']} of the next {num_packed} examples, lengths {data['lengths']}"
    return data, Group(*parts, _table(title, ("feature", "values"), features))


def _mixture(
    name: str,
    *,
    split: str,
    steps: int,
    batch_size: int,
    export_dir: str | None,
    lengths: Mapping[str, int] | None,
) -> tuple[Data, RenderableType]:
    from flan_jax.tasks import describe, mixture_description

    data = mixture_description.mixture(
        name,
        split=split,
        steps=steps,
        batch_size=batch_size,
        lengths=lengths or describe.DEFAULT_LENGTHS,
        export_dir=user_path(export_dir) if export_dir else None,
    )
    per_row = "one example per row" if export_dir is None else f"{data['examples_per_row']:.1f} examples per packed row"
    size = f"{counted(data['examples'], 'example')}; {counted(steps, 'step')} of {counted(batch_size, 'row')}"
    title = f"{name}, split {split}: {size}, {per_row}"
    columns: tuple[str, ...] = ("name", "cluster", "examples", "cap", "rate", "share_percent", "expected_epochs")
    if export_dir is not None:
        columns = (*columns, "rows_read", "dropped", "truncated", "source_revision", "templates_digest")
    columns = (*columns, "license")
    digests = ("source_revision", "templates_digest")
    lines = [{k: str(v)[:12] if k in digests else v for k, v in member.items()} for member in data["members"]]
    skipped = [Text(f"skipped: {task} {reason}", style="yellow") for task, reason in data["skipped"].items()]
    shares = [
        Text(
            f"{share['mixture']}: {share['member']} has {share['share']:.2%} of the {share['unit']} by definition; "
            f"{share['of_examples']:.2%} of examples, {share['of_tokens']:.2%} of tokens"
        )
        for share in data["shares"]
    ]
    notes = [Text(note, style="yellow") for note in data["notes"]]
    return data, Group(_table(title, columns, lines), *map(Text, data["epochs"]), *shares, *notes, *skipped)


def _template(path: str, *, num_rows: int) -> tuple[Data, RenderableType]:
    from flan_jax.tasks import describe, example_tables

    data = describe.user_file(path, num_rows=num_rows)
    parts: list[RenderableType] = []
    for task in data["tasks"]:
        parts.append(Text(f"{task['task']} (cluster {task['cluster']}), split {task['split']}", style="bold underline"))
        for row in task["rows"]:
            parts += [Text(row["place"]), Pretty(row["raw"]), *map(example_tables.rendering, row["renderings"])]
    return data, Group(*parts)


def _lint(name: str | None, *, lengths: Mapping[str, int] | None) -> tuple[Data, RenderableType]:
    from flan_jax.tasks import describe, lint

    findings, tasks = lint.lint(name, lengths=lengths or describe.DEFAULT_LENGTHS)
    data = {"tasks": tasks, "findings": [vars(finding) for finding in findings]}
    return data, Text("\n".join(lint.summary(findings, num_tasks=tasks)))


def _gin(path: str | None) -> tuple[Data, RenderableType]:
    if path is None:
        raise UserError("show which gin file? Write: flan-jax show gin --from-t5x FILE.")
    rows = list(t5x_names.translated(user_path(path)))
    return {"settings": rows}, _table(f"{path}, translated from T5X", ("line", "t5x", "value", "here", "note"), rows)


def _export(path: str) -> tuple[Data, RenderableType]:
    from flan_jax.data.inventory import inventory

    data = inventory(user_path(path))
    tasks = [
        {
            **task,
            **{name: _sides(task[name]) for name in ("lengths", "tokens", "truncated")},
            "dropped": ", ".join(f"{reason}: {n:,}" for reason, n in task["dropped"].items()) or 0,
        }
        for task in data["tasks"]
    ]
    mixtures = [
        {**mixture, "lengths": _sides(mixture["lengths"]), "fingerprint": mixture["fingerprint"][:12]}
        for mixture in data["mixtures"]
    ]
    columns = ("name", "split", "lengths", "examples", "tokens", "truncated", "dropped")
    parts: list[RenderableType] = [
        _table(f"mixtures in {path}", ("name", "split", "lengths", "members", "examples", "fingerprint"), mixtures),
        _table(f"tasks in {path}; inputs / targets", columns, tasks),
    ]
    unfinished = [f"unfinished: {folder} (the next export resumes it)" for folder in data["partial"]]
    return data, Group(*parts, *(Text(line, style="yellow") for line in unfinished))


def _run(path: str, *, strict: bool) -> tuple[Data, RenderableType]:
    from flan_jax.checkpoint import formats, reading
    from flan_jax.checkpoint.digest import leaves_digest
    from flan_jax.run.directory import RunDirectory

    directory = RunDirectory(path=user_path(path))
    run = directory.read()
    evaluation = directory.last_evaluation()
    steps = reading.all_steps(directory.checkpoints)
    opened = formats.open_weights(directory.checkpoints, strict=strict) if steps else None
    data: Data = {
        "run": str(directory.path),
        "step": opened and opened.step,
        "params_digest": opened and leaves_digest(opened.params),
        "checkpoints": steps,
        "warnings": list(opened.warnings) if opened else [],
        "metrics": directory.last_metrics(),
        "evaluation": evaluation and results.as_json(evaluation),
        "record": run,
    }
    lines = [{"what": what, "value": data[what]} for what in ("run", "step", "params_digest", "checkpoints")]
    lines += [{"what": what, "value": _as_text(run[what])} for what in ("versions", "devices") if what in run]
    parts: list[RenderableType] = [_table("run", ("what", "value"), lines)]
    if data["metrics"] is not None:
        parts.append(_numbers_table("last metrics", data["metrics"]))
    if evaluation is not None:
        parts += [Text("last evaluation", style="bold underline"), report.compare(None, evaluation)]
    parts += [Text(warning, style="yellow") for warning in data["warnings"]]
    return data, Group(*parts)


def _evaluation(path: str, other: str | None) -> tuple[Data, RenderableType]:
    directory = user_path(path)
    if other is not None:
        differences = comparison.compare(directory, user_path(other))
        listed = results.json_of([dataclasses.asdict(one) | {"difference": one.difference} for one in differences])
        return {"before": path, "after": other, "differences": listed}, report.difference_table(differences)
    evaluation = results.read_summary(directory)
    if evaluation is None:
        raise MissingFileError(f"{path} has no summary.json of a finished evaluation: name a directory RUN/eval/STEP.")
    return results.as_json(evaluation), report.compare(None, evaluation)


def _checkpoint(path: str, *, step: int | None, strict: bool) -> tuple[Data, RenderableType]:
    from flan_jax.checkpoint import describe

    data = describe.describe(location(path), step=step, strict=strict)
    arrays = [{**array, "shape": " x ".join(map(str, array["shape"])) or "scalar"} for array in data["arrays"]]
    title = f"{data['checkpoint']}: {data['parameters']:,} parameters, {data['bytes']:,} bytes"
    fields = ("format", "layout", "step", "family", "dtypes", "optimizer_arrays", "vocabulary")
    lines = [{"what": what.replace("_", " "), "value": data[what]} for what in fields]
    notes = [Text(note, style="yellow") for note in data["notes"]]
    digest = Text(f"params_digest {data['params_digest']}")
    columns = ("name", "shape", "dtype", "bytes")
    return data, Group(_table(title, ("what", "value"), lines), _table("parameters", columns, arrays), *notes, digest)


def _numbers_table(title: str, data: Mapping[str, Any]) -> RenderableType:
    return _table(title, ("what", "value"), [{"what": key, "value": value} for key, value in data.items()])


def _table(title: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """One line per row; numbers are right-aligned, names stay whole, other texts are folded and never shortened."""
    rows = list(rows)
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        is_number = rows and all(isinstance(row.get(column), int | float | None) for row in rows)
        label = column.replace("_percent", " %").replace("_", " ")
        is_name = column == columns[0]  # To be copied; on a narrow terminal the other columns give way.
        table.add_column(label, justify="right" if is_number else "left", overflow="fold", no_wrap=is_name)
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    return Group(Text(title, style="bold"), table)  # A table's own title would fold at its width.


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return _as_text(value)


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_as_text(item)}" for key, item in value.items())
    return ", ".join(map(_as_text, value)) if isinstance(value, list | tuple) else str(value)


def _sides(numbers: Mapping[str, int]) -> str:
    return f"{numbers['inputs']:,} / {numbers['targets']:,}"
