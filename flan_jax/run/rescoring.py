"""Scores of predictions that are in files: of an evaluation, or made elsewhere. Needs no model and no device."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax.data import exports
from flan_jax.data.manifest import Lengths
from flan_jax.data.source import open_members
from flan_jax.errors import MissingFileError, UserError
from flan_jax.evaluation import directory as files
from flan_jax.evaluation import suite, task_scores
from flan_jax.evaluation.examples import Example, Task, read_examples, select
from flan_jax.evaluation.generation import compared
from flan_jax.evaluation.postprocess import postprocessor
from flan_jax.evaluation.prediction import Prediction, prediction_of
from flan_jax.evaluation.results import SuiteResult, TaskResult
from flan_jax.evaluation.task_scores import ScoredTask
from flan_jax.names import counted, listed, nearest
from flan_jax.paths import user_path
from flan_jax.run.network import open_vocabulary
from flan_jax.settings import Place
from flan_jax.tasks.sources.file_sources import DetectedSource
from flan_jax.tasks.sources.mapped import looked_up
from flan_jax.tasks.sources.rows import BadRow, Record

LABEL = "evaluated"
_SHOWN = 3
_NUMBERS = ("index", "row", "template")
# Of a row that another program wrote, the fields that are read; all other fields are ignored.
_READ = (
    *("task", "split", *_NUMBERS, "input", "references", "target", "prediction", "generated", "truncated"),
    *("options", "gold", "scores", "eos_scores", "tokens", "bytes", "group"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """The export that rows belong to.

    Attributes:
      name: A mixture or task.
      split: Its split.
      export_dir: The directory of exports.
      lengths: Of the export, in tokens; None if only one is in the directory.
      limit: Examples of each task that were predicted, spread over its split; None is all.
    """

    name: str
    split: str
    export_dir: Path
    lengths: Lengths | None = None
    limit: int | None = None


def rescore(
    path: str, *, metrics: Sequence[str] = (), fields: Mapping[str, str] | None = None, exported: Exported | None = None
) -> SuiteResult:
    """Scores predictions.

    Args:
      path: A directory of an evaluation, or one of its files: scored as the evaluation was. Or a file of rows in any
        format, or a directory of .jsonl files: each row has `prediction`, and `references` or `target`.
      metrics: The names of metrics; () uses those of the tasks, or of their kind.
      fields: From the name of a field of a row to the name or path that the file has for it, as "answers.text".
      exported: Has the references of rows without them, which it finds by `index`, or `row` and `template`.

    Raises:
      UserError: A row cannot be read; rows are missing, repeated or not of the export; a metric does not fit.
      MissingFileError: There is no such file, or no export.
    """
    given = user_path(path)
    directory = given if given.is_dir() else given.parent
    record = None if exported is not None or fields else files.read_record(directory)
    if record is not None:
        tasks = [t for t in record.tasks if given.is_dir() or files.predictions_path(directory, t.scored.task) == given]
        if tasks:
            results = [_score(t.scored, _rows_of_evaluation(directory, t), metrics) for t in tasks]
            return SuiteResult(step=record.step, tasks=tuple(results), provenance=record.provenance)
    rows = list(_rows_of_files(given, fields or {}))
    scored = _without_export(rows, given) if exported is None else _with_export(rows, given, exported)
    return SuiteResult(step=0, tasks=tuple(_score(task, predictions, metrics) for task, predictions in scored))


def _score(task: ScoredTask, predictions: Sequence[Prediction], metrics: Sequence[str]) -> TaskResult:
    chosen = dataclasses.replace(task, metrics=tuple(metrics) or task.metrics)
    result, _ = task_scores.score(chosen, predictions)
    if task.evaluation == "external":  # They run in a process that exports, on its own vocabulary.
        return dataclasses.replace(result, notes=(*result.notes, "the task's own metrics not run"))
    return result


def _rows_of_evaluation(directory: Path, task: files.EvaluatedTask) -> list[Prediction]:
    """Returns the rows of a task of an evaluation, all of them.

    Raises:
      UserError: The task is not finished, or the file has other rows than the evaluation wrote.
    """
    predictions = files.read_finished(directory, task.scored.task)
    if not predictions:
        raise MissingFileError(
            f"{directory} has no predictions of task {task.scored.task!r}: the evaluation is not finished. Run it "
            "again, and it continues where it stopped."
        )
    path = files.predictions_path(directory, task.scored.task)
    wanted = select(task.num_exported, limit=task.num_examples).tolist()
    _require_same(wanted, [p.index for p in predictions], what="index", path=path)
    return predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FileRow:
    """A row of a file that another program may have written: the fields that are known, and its place."""

    fields: dict[str, Any]
    place: Place
    file: Path


def _rows_of_files(path: Path, fields: Mapping[str, str]) -> Iterator[_FileRow]:
    for name in fields:
        if name not in _READ:
            raise UserError(f"fields: {name!r} is no field of a row.{nearest(name, _READ)} Allowed: {listed(_READ)}.")
    found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not found:
        raise MissingFileError(f"--from_predictions={path} is a directory without .jsonl files. Give a file.")
    for file in found:
        for record in DetectedSource(files={"predictions": str(file)}).read("predictions"):
            if isinstance(record, BadRow):
                raise UserError(f"{record.place}: {record.detail}. Fix the row.")
            place = Place(file=record.place, syntax="JSON")
            yield _FileRow(fields=_known(record, fields), place=place, file=file)


def _known(record: Record, fields: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of a row that are read, under our names."""
    known: dict[str, Any] = {}
    for name in _READ:
        value = looked_up(record.row, fields[name]) if name in fields else (record.row.get(name),)
        if value is None:
            raise UserError(
                f"{record.place}: the row lacks the field {fields[name]!r}.{nearest(fields[name], record.row)} Fields: "
                f"{listed(record.row)}."
            )
        if value[0] is not None:
            known[name] = value[0]
    for name in _NUMBERS:
        if isinstance(known.get(name), str) and known[name].isdecimal():  # Tables hold only texts.
            known[name] = int(known[name])
        if name in known and (not isinstance(known[name], int) or isinstance(known[name], bool)):
            raise UserError(f"{record.place}: {name}: expected a whole number, got {known[name]!r}.")
    target = known.pop("target", None)
    known.setdefault("references", target)
    for name in ("references", "gold"):
        if name in known and isinstance(known[name], str | int):
            known[name] = [known[name]]
    if known["references"] is None:
        del known["references"]
    return known


def _read(row: _FileRow, /, **known: Any) -> Prediction:
    """Returns a row as a prediction; of ranked options without a text, the one with the highest score."""
    fields = {**row.fields, **known}
    read = prediction_of({"prediction": "", **fields}, row.place)
    if "prediction" not in fields:
        if not read.scores:
            raise UserError(
                f"{row.place}: the row has neither 'prediction' nor 'scores' of options. --fields=\"{{'prediction': "
                "'NAME'}\" names the field of the prediction."
            )
        chosen = int(np.argmax([-np.inf if score is None else score for score in read.scores]))
        read = dataclasses.replace(read, prediction=read.options[chosen] if read.options else str(chosen))
    return read


def _without_export(rows: Sequence[_FileRow], path: Path) -> Iterator[tuple[ScoredTask, list[Prediction]]]:
    """Yields the tasks of rows that bring their references; a row without a task belongs to that of its file's name."""
    if not rows:
        raise UserError(f"{path} has no rows.")
    by_task: dict[str, list[Prediction]] = defaultdict(list)
    for number, row in enumerate(rows):
        if "references" not in row.fields:
            raise UserError(
                f"{row.place}: the row has neither 'references' nor 'target'. --fields=\"{{'references': 'NAME'}}\" "
                "names their field; --mixture_or_task_name and --export_dir take them from an export."
            )
        read = _read(row, **{"index": number, **row.fields})
        by_task[read.task or row.file.name.split(".")[0]].append(read)
    has_index = all("index" in row.fields for row in rows)
    for task, predictions in by_task.items():
        if has_index:
            numbers = [prediction.index for prediction in predictions]
            _require_same(set(numbers), numbers, what="index", path=path)
        is_ranked = [bool(prediction.scores) for prediction in predictions]
        if any(is_ranked) and not all(is_ranked):
            raise UserError(
                f"{path}: {sum(is_ranked)} of the {len(is_ranked)} rows of {task!r} have 'scores' of options, the "
                "others have none. Rows of both kinds need different names in a field 'task'."
            )
        evaluation: task_scores.Evaluation = "rank" if any(is_ranked) else "generate"
        yield (
            ScoredTask(
                task=task,
                split=predictions[0].split,
                cluster=task,
                label=LABEL,
                evaluation=evaluation,
                metrics=task_scores.metrics_of(evaluation, ()),
            ),
            predictions,
        )


def _with_export(
    rows: Sequence[_FileRow], path: Path, exported: Exported
) -> Iterator[tuple[ScoredTask, list[Prediction]]]:
    """Yields the tasks of an export with the rows that belong to their examples.

    Raises:
      UserError: Rows are missing, repeated, or of no example.
    """
    mixture = exports.of_name(
        exported.name, split=exported.split, export_dir=exported.export_dir, lengths=exported.lengths
    )
    members = open_members(mixture, export_dir=exported.export_dir)
    vocabulary = open_vocabulary(mixture.vocabulary, exported.export_dir)
    by_task: dict[str, list[_FileRow]] = {member.manifest.task: [] for member in members}
    for row in rows:
        name = row.fields.get("task", members[0].manifest.task if len(members) == 1 else "")
        if name not in by_task:
            got = f"task {name!r}, which is not in" if name else "no field 'task', and there are several in"
            raise UserError(
                f"{row.place}: the row has {got} {exported.name!r}: {listed(by_task)}.{nearest(name, by_task)}"
            )
        by_task[name].append(row)
    for member in suite.labeled([(LABEL, members)]):
        examples = read_examples(member.task, select(len(member.task), limit=exported.limit), vocabulary=vocabulary)
        of_task = _matched(by_task[member.task.manifest.task], examples, path=path)
        yield (
            suite.scored_task(member, compares_ids=vocabulary is None),
            [_of_example(row, example, member.task) for row, example in of_task],
        )


def _matched(rows: Sequence[_FileRow], examples: Sequence[Example], *, path: Path) -> list[tuple[_FileRow, Example]]:
    """Returns each example with its row, found by the index, else by row and template, else by the row alone."""
    keys: Sequence[tuple[tuple[str, ...], Callable[[Example], tuple[int, ...]]]] = (
        (("index",), lambda example: (example.index,)),
        (("row", "template"), lambda example: (example.row, example.template)),
        (("row",), lambda example: (example.row,)),
    )
    for names, key in keys:
        is_unique = len({key(example) for example in examples}) == len(examples)
        if is_unique and all(name in row.fields for row in rows for name in names):
            by_key = {tuple(row.fields[name] for name in names): row for row in rows}
            what = " and ".join(names)
            _require_same(
                [key(e) for e in examples],
                [tuple(row.fields[name] for name in names) for row in rows],
                what=what,
                path=path,
            )
            return [(by_key[key(example)], example) for example in examples]
    row = next(row for row in rows if "index" not in row.fields)
    raise UserError(
        f"{row.place}: the row has neither 'index' nor 'row' (with 'template' where a task has several), by which its "
        "example is found. --fields=\"{'index': 'NAME'}\" names the field of the example's number in the export."
    )


def _of_example(row: _FileRow, example: Example, task: Task) -> Prediction:
    """Returns a row with the texts of its example; its own text is postprocessed as an evaluation does."""
    answer = postprocessor(task.manifest.metadata.postprocessor)
    known = {
        **compared(example, task, answer=answer),
        "gold": sorted(example.gold),
        "tokens": [len(ids) for ids in example.option_tokens],
        "bytes": [len(option.encode()) for option in example.options],
    }
    read = _read(row, **known)
    if "prediction" not in row.fields:
        return read
    text = read.prediction if read.generated is None else read.generated
    prediction = answer(text)
    return dataclasses.replace(read, prediction=prediction, generated=None if text == prediction else text)


def _require_same(expected: Iterable[Hashable], got: Sequence[Hashable], *, what: str, path: Path) -> None:
    """Refuses rows that are not exactly those of the examples.

    Raises:
      UserError: With the numbers of missing, extra and repeated rows, and the first few of each.
    """
    wanted, counts = dict.fromkeys(expected), Counter(got)
    faults = {
        "missing": [key for key in wanted if key not in counts],
        "without an example": [key for key in counts if key not in wanted],
        "repeated": [key for key, count in counts.items() if count > 1],
    }
    if any(faults.values()):
        lines = [
            f"{counted(len(keys), 'row')} {name} ({what} {', '.join(map(_shown, keys[:_SHOWN]))}"
            f"{', ...' if len(keys) > _SHOWN else ''})"
            for name, keys in faults.items()
            if keys
        ]
        raise UserError(
            f"{path} does not have one row for each of the {counted(len(wanted), 'example')}: {'; '.join(lines)}. "
            "Complete the file; --max_examples_per_task scores a part that an evaluation with it would have."
        )


def _shown(key: Hashable) -> str:
    return " and ".join(map(str, key)) if isinstance(key, tuple) else str(key)
