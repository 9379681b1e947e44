"""Tasks and mixtures that a user writes down in a YAML file, or in one call for a JSONL file; parsed, not registered.

The schema, by example; paths are relative to the file:

    vocabulary: bytes                     # or embedded, or a .model file; the run's own when left out
    template_sets:                        # optional: templates that several tasks share
      ask:
        - {inputs: "{question}", targets: "{answer}"}
    tasks:
      capitals:
        cluster: geography
        source: jsonl                     # jsonl, json (a list), csv, tsv, parquet or tfds
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
      instructions:                       # files of a published format, with its own templates
        format: alpaca                    # or dolly, self_instruct, unnatural, prompted, chat, preference
        splits: {train: data/alpaca.json}
        filters:                          # rows to leave out, counted; see filter_settings
          - {kind: length, field: instruction, min_words: 4}
          - {kind: duplicates, fields: [instruction, input]}
      talk:
        format: {kind: chat, max_tokens: 512, turns: last, on_bad_row: skip}
        splits: {train: data/chats.jsonl}
    inverted: [reviews]                   # their inverted templates become tasks: reviews_inverted
    pretraining:                          # of plain text: spans hidden and asked for, or a text continued
      wiki:
        source: wiki                      # WikiExtractor's files; or as in tasks, with the `field` that holds the text
        splits: {train: data/wiki_*.gz}
        objective: span_corruption        # or prefix_lm; noise_density, mean_span, lengths, passes, seed
    families:                             # of the package, with settings: the data's folder, ...
      natural_instructions: {data_dir: data/superni, max_source_tokens: 1024}
    mixtures:
      all_mine: {members: [capitals, reviews], cap: 3000, temperature: 2}
      weighted: {members: {all_mine: 1, capitals: 0.5}}
      careful:                            # refused if a member would give away what is held out
        members: [reviews]
        hold_out: {clusters: [translation], corpora: [my_atlas], tasks: [capitals]}
        allow_leak: []                    # names of members, clusters or corpora whose leak is accepted
      with_text: {members: [all_mine], share: {member: wiki, share: 0.05, of: tokens}}     # or of: examples
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flan_jax.data.holdout import HoldOut
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import UserError
from flan_jax.names import nearest
from flan_jax.tasks.declare import Evaluation, Normaliser, TemplatedTask
from flan_jax.tasks.filters.settings import parse_filters
from flan_jax.tasks.formats.declare import format_task, parse_format
from flan_jax.tasks.preprocessors import LabelNames
from flan_jax.tasks.pretraining.declared import UserShare, pretraining_task, share_of
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.settings import checked
from flan_jax.tasks.sources.file_sources import JsonlSource, Paths
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.tasks.user_sources import files_of, parse_source, texts
from flan_jax.templates.load import parse_sets, parse_templates, read_mapping, require_keys, require_mapping
from flan_jax.templates.render import Template

FILE_KEYS = (
    "vocabulary", "licence", "source", "template_sets", "families", "tasks", "inverted", "pretraining", "mixtures",
)  # fmt: skip
TASK_KEYS = (
    "source", "splits", "cluster", "templates", "options", "labels", "metrics", "postprocessor", "references",
    "templates_per_row", "evaluation", "licence", "max_rows", "corpora", "filters", "group",
)  # fmt: skip
FORMAT_TASK_KEYS = (
    "format", "splits", "cluster", "templates", "metrics", "templates_per_row", "evaluation", "licence", "max_rows",
    "corpora", "filters",
)  # fmt: skip
AS_THEY_ARE = ("postprocessor", "references", "templates_per_row", "evaluation", "licence", "max_rows", "group")
MIXTURE_KEYS = ("members", "cap", "temperature", "hold_out", "allow_leak", "share")
HOLD_OUT_KEYS = ("clusters", "corpora", "tasks")


@dataclass(frozen=True, kw_only=True)
class UserMixture:
    """A mixture as it was written down.

    Attributes:
      name: of the mixture.
      members: names with their weights; None for the default rate.
      default_rate: for members without a weight.
      hold_out: what it must not be trained on.
      share: what is added to these members, and how much of the whole it is.
    """

    name: str
    members: tuple[tuple[str, float | None], ...]
    default_rate: ProportionalRate
    hold_out: HoldOut | None = None
    share: UserShare | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """Names that have to be registered before it."""
        held_out = () if self.hold_out is None else self.hold_out.tasks
        return (*(name for name, _ in self.members), *held_out, *((self.share.member,) if self.share else ()))


@dataclass(frozen=True, kw_only=True)
class UserFile:
    """What a YAML file declares.

    Attributes:
      vocabulary: what `vocab.load` takes; None when the file does not say.
      families: settings of the package's own families, by name.
      tasks: in the file's order.
      inverted: names of tasks whose inverted templates become tasks of their own.
      pretraining: in the file's order.
      mixtures: so ordered that a mixture comes after its members.
    """

    vocabulary: str | None
    families: Mapping[str, Mapping[str, Any]]
    tasks: tuple[TemplatedTask, ...]
    inverted: tuple[str, ...]
    pretraining: tuple[PretrainingTask, ...]
    mixtures: tuple[UserMixture, ...]


def read_yaml(path: Path | str) -> UserFile:
    """Reads a file of the schema above.

    Raises:
      MissingFileError: no such file.
      UserError: not YAML, an unknown key, or a declaration that cannot be right; names the file and the place.
    """
    path = Path(path).expanduser()
    content = read_mapping(path)
    require_keys(content, FILE_KEYS, where=str(path))
    sets = parse_sets(content.get("template_sets", {}), where=str(path))
    tasks = require_mapping(content.get("tasks", {}), where=f"{path}: tasks")
    mixtures = require_mapping(content.get("mixtures", {}), where=f"{path}: mixtures")
    families = require_mapping(content.get("families", {}), where=f"{path}: families")
    pretraining = require_mapping(content.get("pretraining", {}), where=f"{path}: pretraining")
    if not tasks and not mixtures and not families and not pretraining:
        raise UserError(f"{path}: it declares neither tasks nor mixtures.")
    base = path.parent
    vocabulary = content.get("vocabulary")
    if not isinstance(vocabulary, str | None):
        raise UserError(f"{path}: vocabulary must be embedded, bytes or a path; got {vocabulary!r}.")
    return UserFile(
        vocabulary=vocabulary
        if vocabulary in (None, "embedded", "bytes")
        else str(base / Path(vocabulary).expanduser()),
        families={name: require_mapping(value, where=f"{path}: families.{name}") for name, value in families.items()},
        tasks=tuple(
            _task(name, value, sets=sets, base=base, where=f"{path}: tasks.{name}") for name, value in tasks.items()
        ),
        inverted=texts(content.get("inverted", []), where=f"{path}: inverted"),
        pretraining=tuple(
            _pretraining(name, value, base=base, where=f"{path}: pretraining.{name}")
            for name, value in pretraining.items()
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
    inputs: str | Sequence[str],
    targets: str,
    cluster: str = "user",
    options: Sequence[str] | str | None = None,
    metrics: Sequence[str] = TemplatedTask.metrics,
    evaluation: Evaluation = TemplatedTask.evaluation,
    references: str | None = None,
    normaliser: Normaliser | None = None,
    on_bad_row: OnBadRow = JsonlSource.on_bad_row,
) -> TemplatedTask:
    """Declares a task that asks about the rows of JSONL files; see `TemplatedTask` for what arguments mean.

    Args:
      name: of the task.
      files: a path or several, for the split "train"; or a mapping from splits to them.
      inputs: pattern of what the model reads; or several, for as many templates with the same targets.
      targets: pattern of what it should write.
    """
    return TemplatedTask(
        name=name,
        source=JsonlSource(files=files if isinstance(files, Mapping) else {"train": files}, on_bad_row=on_bad_row),
        cluster=cluster,
        templates=tuple(
            Template(inputs=words, targets=targets) for words in ((inputs,) if isinstance(inputs, str) else inputs)
        ),
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
    if "format" in fields:
        return _format_task(name, fields, sets=sets, base=base, where=where)
    require_keys(fields, TASK_KEYS, where=where, needed=("source", "splits", "cluster", "templates"))
    given = _given(fields, base=base, where=where)
    if "labels" in fields:
        given["normaliser"] = LabelNames(names=require_mapping(fields["labels"], where=f"{where}.labels"))
    if "options" in fields:
        options = fields["options"]
        given["options"] = options if isinstance(options, str) else texts(options, where=f"{where}.options")
    source = parse_source(fields["source"], fields["splits"], base=base, where=where)
    templates = _templates(fields["templates"], sets=sets, where=f"{where}.templates")
    try:
        return TemplatedTask(name=name, source=source, cluster=fields["cluster"], templates=templates, **given)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _format_task(
    name: str, fields: Mapping[str, Any], *, sets: Mapping[str, tuple[Template, ...]], base: Path, where: str
) -> TemplatedTask:
    """A task over files of a published format."""
    require_keys(fields, FORMAT_TASK_KEYS, where=where, needed=("splits",))
    given = _given(fields, base=base, where=where)
    if "templates" in fields:
        given["templates"] = _templates(fields["templates"], sets=sets, where=f"{where}.templates")
    format, on_bad_row = parse_format(fields["format"], where=f"{where}.format")
    files = files_of(fields["splits"], base=base, where=where)
    try:
        return format_task(name, files, format=format, cluster=fields.get("cluster"), on_bad_row=on_bad_row, **given)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _given(fields: Mapping[str, Any], *, base: Path, where: str) -> dict[str, Any]:
    """What every kind of task may say about itself, as arguments."""
    given = checked({key: fields[key] for key in AS_THEY_ARE if key in fields}, TemplatedTask, where=where)
    for key in ("metrics", "corpora"):
        if key in fields:
            given[key] = texts(fields[key], where=f"{where}.{key}")
    if "filters" in fields:
        given["filters"] = parse_filters(fields["filters"], base=base, where=f"{where}.filters")
    return given


def _pretraining(name: str, value: object, *, base: Path, where: str) -> PretrainingTask:
    return pretraining_task(
        name,
        value,
        source=lambda source, splits: parse_source(source, splits, base=base, where=where),
        texts=lambda corpora: texts(corpora, where=f"{where}.corpora"),
        where=where,
    )


def _templates(value: object, *, sets: Mapping[str, tuple[Template, ...]], where: str) -> tuple[Template, ...]:
    if not isinstance(value, str):
        return parse_templates(value, where=where)
    if value not in sets:
        raise UserError(f"{where}: no template set {value!r}.{nearest(value, sets)} Sets: {', '.join(sets) or 'none'}.")
    return sets[value]


def _mixture(name: str, value: object, *, where: str) -> UserMixture:
    fields = require_mapping(value, where=where)
    require_keys(fields, MIXTURE_KEYS, where=where, needed=("members",))
    members = fields["members"]
    if isinstance(members, dict):
        for member, weight in members.items():
            if weight is not None and (isinstance(weight, bool) or not isinstance(weight, (int, float))):
                raise UserError(f"{where}.members: the weight of {member!r} must be a number, got {weight!r}.")
        pairs = tuple(members.items())
    else:
        pairs = tuple((member, None) for member in texts(members, where=f"{where}.members"))
    rate = {new: fields[key] for key, new in (("cap", "maximum"), ("temperature", "temperature")) if key in fields}
    for key, number in rate.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number <= 0:
            shown = "cap" if key == "maximum" else key
            raise UserError(f"{where}: {shown} must be a number above 0, got {number!r}.")
    return UserMixture(
        name=name,
        members=pairs,
        default_rate=ProportionalRate(**rate),
        hold_out=_hold_out(fields, where=where),
        share=share_of(fields, where=where),
    )


def _hold_out(fields: Mapping[str, Any], *, where: str) -> HoldOut | None:
    if "hold_out" not in fields:
        if "allow_leak" in fields:
            raise UserError(f"{where}: allow_leak accepts leaks of what is held out, and there is no hold_out.")
        return None
    held_out = require_mapping(fields["hold_out"], where=f"{where}.hold_out")
    require_keys(held_out, HOLD_OUT_KEYS, where=f"{where}.hold_out")
    names = {key: texts(value, where=f"{where}.hold_out.{key}") for key, value in held_out.items()}
    return HoldOut(**names, allow_leak=texts(fields.get("allow_leak", []), where=f"{where}.allow_leak"))


def _members_first(mixtures: list[UserMixture], *, where: str) -> tuple[UserMixture, ...]:
    ordered: list[UserMixture] = []
    waiting = {mixture.name: mixture for mixture in mixtures}
    while waiting:
        ready = [m for m in waiting.values() if waiting.keys().isdisjoint(m.needed)]
        if not ready:
            raise UserError(f"{where}: the mixtures {', '.join(sorted(waiting))} contain one another.")
        for mixture in ready:
            ordered.append(waiting.pop(mixture.name))
    return tuple(ordered)
