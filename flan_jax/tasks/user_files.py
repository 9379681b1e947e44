"""Tasks and mixtures that a user writes down in a YAML file, or in one call for a JSONL file; parsed, not registered.

The schema, by example; paths are relative to the file:

    vocabulary: bytes                     # or embedded, or a .model file; the run's own when left out
    template_sets:                        # optional: templates that several tasks share
      ask:
        - {inputs: "{question}", targets: "{answer}"}
    tasks:
      capitals:
        cluster: geography
        source: jsonl                     # jsonl, tsv, parquet or tfds
        splits: {train: data/train.jsonl, validation: [data/a.jsonl, data/b.jsonl.gz]}
        templates: ask
        corpora: [my_atlas]               # what its rows come from: who holds the atlas out cannot train on this
        metrics: [exact_match, f1]
      reviews:
        cluster: sentiment
        source: {kind: tfds, name: "my_reviews:1.0.0", on_bad_row: skip}
        splits: {train: "train[:90%]", validation: "train[90%:]"}
        labels: {label: [negative, positive]}     # names in place of class numbers
        options: [negative, positive]
        evaluation: rank
        templates:
          - {name: plain, inputs: "Good or bad?\\n{text}\\n{options_}", targets: "{label}"}
          - {inputs: "Write a {label} review.", targets: "{text}", direction: inverted}
    families:                             # of the package, with settings: the data's folder, ...
      natural_instructions: {data_dir: data/superni, max_source_tokens: 1024}
    mixtures:
      all_mine: {members: [capitals, reviews], cap: 3000, temperature: 2}
      weighted: {members: {all_mine: 1, capitals: 0.5}}
      careful:                            # refused if a member would give away what is held out
        members: [reviews]
        hold_out: {clusters: [translation], corpora: [my_atlas], tasks: [capitals]}
        allow_leak: []                    # names of members, clusters or corpora whose leak is accepted
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flan_jax.data.holdout import HoldOut
from flan_jax.data.rates import ProportionalRate
from flan_jax.names import nearest
from flan_jax.tasks.declare import Evaluation, Normaliser, TemplatedTask
from flan_jax.tasks.preprocessors import LabelNames
from flan_jax.tasks.rows import OnBadRow
from flan_jax.tasks.sources import JsonlSource, ParquetSource, Paths, Source, TfdsSource, TsvSource
from flan_jax.templates.load import parse_sets, parse_templates, read_mapping, require_keys, require_mapping
from flan_jax.templates.render import Template

FILE_KEYS = ("vocabulary", "licence", "source", "template_sets", "families", "tasks", "mixtures")
TASK_KEYS = (
    "source", "splits", "cluster", "templates", "options", "labels", "metrics", "postprocessor", "references",
    "templates_per_row", "evaluation", "licence", "max_rows", "corpora",
)  # fmt: skip
AS_THEY_ARE = ("postprocessor", "references", "templates_per_row", "evaluation", "licence", "max_rows")
MIXTURE_KEYS = ("members", "cap", "temperature", "hold_out", "allow_leak")
HOLD_OUT_KEYS = ("clusters", "corpora", "tasks")
SOURCE_KEYS = {
    "jsonl": ("kind", "on_bad_row"),
    "tsv": ("kind", "on_bad_row", "columns"),
    "parquet": ("kind", "on_bad_row"),
    "tfds": ("kind", "on_bad_row", "name"),
}


@dataclass(frozen=True, kw_only=True)
class UserMixture:
    """A mixture as it was written down.

    Attributes:
      name: of the mixture.
      members: names with their weights; None for the default rate.
      default_rate: for members without a weight.
      hold_out: what it must not be trained on.
    """

    name: str
    members: tuple[tuple[str, float | None], ...]
    default_rate: ProportionalRate
    hold_out: HoldOut | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """Names that have to be registered before it."""
        held_out = () if self.hold_out is None else self.hold_out.tasks
        return (*(name for name, _ in self.members), *held_out)


@dataclass(frozen=True, kw_only=True)
class UserFile:
    """What a YAML file declares.

    Attributes:
      vocabulary: what `vocab.load` takes; None when the file does not say.
      families: settings of the package's own families, by name.
      tasks: in the file's order.
      mixtures: so ordered that a mixture comes after its members.
    """

    vocabulary: str | None
    families: Mapping[str, Mapping[str, Any]]
    tasks: tuple[TemplatedTask, ...]
    mixtures: tuple[UserMixture, ...]


def read_yaml(path: Path | str) -> UserFile:
    """Reads a file of the schema above.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not YAML, an unknown key, or a declaration that cannot be right; names the file and the place.
    """
    path = Path(path).expanduser()
    content = read_mapping(path)
    require_keys(content, FILE_KEYS, where=str(path))
    sets = parse_sets(content.get("template_sets", {}), where=str(path))
    tasks = require_mapping(content.get("tasks", {}), where=f"{path}: tasks")
    mixtures = require_mapping(content.get("mixtures", {}), where=f"{path}: mixtures")
    families = require_mapping(content.get("families", {}), where=f"{path}: families")
    if not tasks and not mixtures and not families:
        raise ValueError(f"{path}: it declares neither tasks nor mixtures.")
    base = path.parent
    vocabulary = content.get("vocabulary")
    if not isinstance(vocabulary, str | None):
        raise ValueError(f"{path}: vocabulary must be embedded, bytes or a path; got {vocabulary!r}.")
    return UserFile(
        vocabulary=vocabulary
        if vocabulary in (None, "embedded", "bytes")
        else str(base / Path(vocabulary).expanduser()),
        families={name: require_mapping(value, where=f"{path}: families.{name}") for name, value in families.items()},
        tasks=tuple(
            _task(name, value, sets=sets, base=base, where=f"{path}: tasks.{name}") for name, value in tasks.items()
        ),
        mixtures=_members_first(
            [_mixture(name, value, where=f"{path}: mixtures.{name}") for name, value in mixtures.items()],
            where=str(path),
        ),
    )


def jsonl_task(
    name: str,
    files: Paths | Mapping[str, Paths],
    *,
    inputs: str,
    targets: str,
    cluster: str = "user",
    options: Sequence[str] | str | None = None,
    metrics: Sequence[str] = TemplatedTask.metrics,
    evaluation: Evaluation = TemplatedTask.evaluation,
    references: str | None = None,
    normaliser: Normaliser | None = None,
    on_bad_row: OnBadRow = JsonlSource.on_bad_row,
) -> TemplatedTask:
    """Declares a task that asks in one way about the rows of JSONL files; see `TemplatedTask` for what arguments mean.

    Args:
      name: of the task.
      files: a path or several, for the split "train"; or a mapping from splits to them.
      inputs: pattern of what the model reads.
      targets: pattern of what it should write.
    """
    return TemplatedTask(
        name=name,
        source=JsonlSource(files=files if isinstance(files, Mapping) else {"train": files}, on_bad_row=on_bad_row),
        cluster=cluster,
        templates=(Template(inputs=inputs, targets=targets),),
        options=options if options is None or isinstance(options, str) else tuple(options),
        metrics=tuple(metrics),
        evaluation=evaluation,
        references=references,
        normaliser=normaliser,
    )


def _task(
    name: str, value: object, *, sets: Mapping[str, tuple[Template, ...]], base: Path, where: str
) -> TemplatedTask:
    fields = require_mapping(value, where=where)
    require_keys(fields, TASK_KEYS, where=where, needed=("source", "splits", "cluster", "templates"))
    given: dict[str, Any] = {key: fields[key] for key in AS_THEY_ARE if key in fields}
    if "metrics" in fields:
        given["metrics"] = _texts(fields["metrics"], where=f"{where}.metrics")
    if "corpora" in fields:
        given["corpora"] = _texts(fields["corpora"], where=f"{where}.corpora")
    if "labels" in fields:
        given["normaliser"] = LabelNames(names=require_mapping(fields["labels"], where=f"{where}.labels"))
    if "options" in fields:
        options = fields["options"]
        given["options"] = options if isinstance(options, str) else _texts(options, where=f"{where}.options")
    source = parse_source(fields["source"], fields["splits"], base=base, where=where)
    templates = _templates(fields["templates"], sets=sets, where=f"{where}.templates")
    try:
        return TemplatedTask(name=name, source=source, cluster=fields["cluster"], templates=templates, **given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


def _templates(value: object, *, sets: Mapping[str, tuple[Template, ...]], where: str) -> tuple[Template, ...]:
    if not isinstance(value, str):
        return parse_templates(value, where=where)
    if value not in sets:
        raise ValueError(
            f"{where}: no template set {value!r}.{nearest(value, sets)} Sets: {', '.join(sets) or 'none'}."
        )
    return sets[value]


def parse_source(value: object, splits: object, *, base: Path, where: str) -> Source:
    """Turns what a file says about a source into one.

    Args:
      value: a kind, or a mapping with `kind` and what `SOURCE_KEYS` allows for it.
      splits: for each split its files, or its expression in TFDS.
      base: the folder that relative paths start from.
      where: the place, for messages.

    Raises:
      ValueError: an unknown kind or key, or values that cannot be right.
    """
    fields = {"kind": value} if isinstance(value, str) else require_mapping(value, where=f"{where}.source")
    kind = fields.get("kind")
    if kind not in SOURCE_KEYS:
        near = nearest(str(kind), SOURCE_KEYS)
        raise ValueError(f"{where}.source: unknown kind {kind!r}.{near} Allowed: {', '.join(SOURCE_KEYS)}.")
    require_keys(fields, SOURCE_KEYS[kind], where=f"{where}.source", needed=("name",) if kind == "tfds" else ())
    by_split = require_mapping(splits, where=f"{where}.splits")
    settings: dict[str, Any] = {key: fields[key] for key in ("on_bad_row",) if key in fields}
    try:
        if kind == "tfds":
            return TfdsSource(name=fields["name"], splits=by_split, **settings)
        files = {
            split: [base / Path(p).expanduser() for p in _texts(v, where=f"{where}.splits")]
            for split, v in by_split.items()
        }
        if kind == "tsv":
            return TsvSource(files=files, columns=fields.get("columns"), **settings)
        return (JsonlSource if kind == "jsonl" else ParquetSource)(files=files, **settings)
    except ValueError as error:
        raise ValueError(f"{where}.source: {error}") from error


def _texts(value: object, *, where: str) -> tuple[str, ...]:
    """A text, or a list of texts and numbers. YAML reads an unquoted yes, no, on or off as true or false."""
    values = value if isinstance(value, list) else [value]
    for item in values:
        if isinstance(item, bool):
            raise ValueError(f"{where}: YAML reads an unquoted yes, no, on, off as {item}; put it in quotes.")
        if not isinstance(item, (str, int, float)):
            raise ValueError(f"{where}: expected texts, got {item!r}.")
    return tuple(map(str, values))


def _mixture(name: str, value: object, *, where: str) -> UserMixture:
    fields = require_mapping(value, where=where)
    require_keys(fields, MIXTURE_KEYS, where=where, needed=("members",))
    members = fields["members"]
    if isinstance(members, dict):
        for member, weight in members.items():
            if weight is not None and (isinstance(weight, bool) or not isinstance(weight, (int, float))):
                raise ValueError(f"{where}.members: the weight of {member!r} must be a number, got {weight!r}.")
        pairs = tuple(members.items())
    else:
        pairs = tuple((member, None) for member in _texts(members, where=f"{where}.members"))
    rate = {new: fields[key] for key, new in (("cap", "maximum"), ("temperature", "temperature")) if key in fields}
    for key, number in rate.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number <= 0:
            shown = "cap" if key == "maximum" else key
            raise ValueError(f"{where}: {shown} must be a number above 0, got {number!r}.")
    return UserMixture(
        name=name, members=pairs, default_rate=ProportionalRate(**rate), hold_out=_hold_out(fields, where=where)
    )


def _hold_out(fields: Mapping[str, Any], *, where: str) -> HoldOut | None:
    if "hold_out" not in fields:
        if "allow_leak" in fields:
            raise ValueError(f"{where}: allow_leak accepts leaks of what is held out, and there is no hold_out.")
        return None
    held_out = require_mapping(fields["hold_out"], where=f"{where}.hold_out")
    require_keys(held_out, HOLD_OUT_KEYS, where=f"{where}.hold_out")
    names = {key: _texts(value, where=f"{where}.hold_out.{key}") for key, value in held_out.items()}
    return HoldOut(**names, allow_leak=_texts(fields.get("allow_leak", []), where=f"{where}.allow_leak"))


def _members_first(mixtures: list[UserMixture], *, where: str) -> tuple[UserMixture, ...]:
    ordered: list[UserMixture] = []
    waiting = {mixture.name: mixture for mixture in mixtures}
    while waiting:
        ready = [m for m in waiting.values() if waiting.keys().isdisjoint(m.needed)]
        if not ready:
            raise ValueError(f"{where}: the mixtures {', '.join(sorted(waiting))} contain one another.")
        for mixture in ready:
            ordered.append(waiting.pop(mixture.name))
    return tuple(ordered)
