"""Tasks and mixtures declared in a YAML file: its schema, and its reader. Nothing is registered here.

The schema is the dataclasses below, whose fields are the keys. By example; paths are relative to the file:

    vocabulary: bytes                     # or embedded, or a .model file; by default the run's own
    template_sets:                        # optional: templates that several tasks share
      ask:
        - {inputs: "{question}", targets: "{answer}"}
    tasks:
      capitals:
        cluster: geography
        source: jsonl                     # jsonl, json (a list), csv, tsv, parquet or tfds
        splits: {train: data/train.jsonl, validation: [data/a.jsonl, data/b.jsonl.gz]}
        templates: ask
        corpora: [my_atlas]               # the origin of its rows: holding the atlas out excludes this task
        metrics: [exact_match, f1]        # names of `flan_jax.evaluation.metrics`, or "bleu(tokenizer=zh)"
      reviews:
        cluster: sentiment
        source: {kind: tfds, name: "my_reviews:1.0.0", on_bad_row: skip}
        splits: {train: "train[:90%]", validation: "train[90%:]"}
        labels: {label: [negative, positive]}     # names that replace class numbers
        options: [negative, positive]
        evaluation: rank
        templates:
          - {name: plain, inputs: "Good or bad?\\n{text}\\n{options_}", targets: "{label}"}
          - {inputs: "Write a {label} review.", targets: "{text}", direction: inverted}
      instructions:                       # files of a published format, with its own templates
        format: alpaca                    # or dolly, self_instruct, unnatural, prompted, chat, preference
        splits: {train: data/alpaca.json}
        filters:                          # rows to drop, counted by reason; see `filters.settings`
          - {kind: length, field: instruction, min_words: 4}
          - {kind: duplicates, fields: [instruction, input]}
      talk:
        format: {kind: chat, max_tokens: 512, turns: last, on_bad_row: skip}
        splits: {train: data/chats.jsonl}
    inverted: [reviews]                   # their inverted templates become tasks: reviews_inverted
    pretraining:                          # plain text: hidden spans are predicted, or a text is continued
      wiki:
        source: wiki                      # WikiExtractor's files; or as in tasks, with the `field` of the text
        splits: {train: data/wiki_*.gz}
        objective: span_corruption        # or prefix_lm; noise_density, mean_span, lengths, passes, seed
    collections:                          # of the package, with settings: the folder of the data, ...
      natural_instructions: {data_dir: data/superni, max_source_tokens: 1024}
    mixtures:
      all_mine: {members: [capitals, reviews], cap: 3000, temperature: 2}
      weighted: {members: {all_mine: 1, capitals: 0.5}}
      careful:                            # an error if a member would leak what is held out
        members: [reviews]
        hold_out:
          clusters: [translation]
          corpora: [my_atlas]
          tasks: [capitals]
          allow_leak: []                  # names of members, clusters or corpora whose leak is accepted
      with_text: {members: [all_mine], share: {member: wiki, share: 0.05, of: tokens}}     # or of: examples
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from flan_jax.data.holdout import HoldOut
from flan_jax.data.rates import ProportionalRate, ShareUnit, StatedShare
from flan_jax.errors import UserError
from flan_jax.names import nearest
from flan_jax.settings import Place, Section, parse, read_mapping, require_mapping
from flan_jax.tasks.declare import Evaluation, TemplatedTask
from flan_jax.tasks.filters.settings import parse_filters
from flan_jax.tasks.formats.declare import format_task, parse_format
from flan_jax.tasks.label_names import LabelNames
from flan_jax.tasks.pretraining.span_corruption import Noise, Replacement
from flan_jax.tasks.pretraining.task import Objective, PretrainingTask
from flan_jax.tasks.sources.settings import parse_files, parse_source
from flan_jax.templates.render import Template

Sets = Mapping[str, tuple[Template, ...]]


@dataclass(frozen=True, kw_only=True)
class _File:
    """The keys of a file."""

    vocabulary: str | None = None
    license: str = ""
    source: str = ""
    template_sets: Sets = field(default_factory=dict)
    collections: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Any] = field(default_factory=dict)
    inverted: tuple[str, ...] = ()
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    mixtures: Mapping[str, "Mixture"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.tasks or self.mixtures or self.collections or self.pretraining):
            raise UserError("it declares neither tasks nor mixtures.")


@dataclass(frozen=True, kw_only=True)
class _AnyTask:
    """The keys of every entry of `tasks`; see `TemplatedTask` for their meaning. `filters` has its own module."""

    splits: Any
    metrics: tuple[str, ...] = TemplatedTask.metrics
    templates_per_row: int = TemplatedTask.templates_per_row
    evaluation: Evaluation = TemplatedTask.evaluation
    license: str = TemplatedTask.license
    max_rows: int | None = None
    corpora: tuple[str, ...] = ()
    filters: Any = ()


@dataclass(frozen=True, kw_only=True)
class _Task(_AnyTask):
    """The keys of a task with templates of its own."""

    source: Any
    cluster: str
    templates: str | tuple[Template, ...]
    options: str | tuple[str | int | float, ...] | None = None
    labels: Mapping[str, tuple[str, ...] | Mapping[Any, str]] | None = None
    postprocessor: str | None = None
    references: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class _FormatTask(_AnyTask):
    """The keys of a task over files of a published format; the format has defaults for what is None."""

    format: Any
    cluster: str | None = None
    templates: str | tuple[Template, ...] | None = None
    metrics: tuple[str, ...] | None = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class _Pretraining:
    """The keys of an entry of `pretraining`; see `PretrainingTask` for their meaning."""

    source: Any
    splits: Any
    field: str = PretrainingTask.field
    objective: Objective = PretrainingTask.objective
    noise_density: float = Noise.density
    mean_span: float = Noise.mean_span
    replacement: Replacement = PretrainingTask.replacement
    lengths: Mapping[str, int] | None = None
    chunks_per_group: int = PretrainingTask.chunks_per_group
    passes: int = PretrainingTask.passes
    seed: int = PretrainingTask.seed
    cluster: str = PretrainingTask.cluster
    corpora: tuple[str, ...] = ()
    license: str = PretrainingTask.license


@dataclass(frozen=True, kw_only=True)
class Share:
    """A member that makes up the fraction `share` of a mixture's tokens or examples."""

    member: str
    share: float
    of: ShareUnit

    def __post_init__(self) -> None:
        StatedShare(self.share, unit=self.of)  # Checks both.


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A declared mixture.

    Attributes:
      members: names, with their weights if it is a mapping.
      cap: the number of examples at which the size of a member without a weight is capped.
      temperature: of the rates of members without a weight; 1 is proportional, large is equal.
      hold_out: what it must not be trained on.
      share: a further member, and its fraction of the mixture.
    """

    members: tuple[str, ...] | Mapping[str, float | None]
    cap: float | None = None
    temperature: float = 1.0
    hold_out: HoldOut | None = None
    share: Share | None = None

    def __post_init__(self) -> None:
        for key, number in (("cap", self.cap), ("temperature", self.temperature)):
            if number is not None and number <= 0:
                raise UserError(f"{key} must be a number above 0; got {number!r}.")

    @property
    def weights(self) -> tuple[tuple[str, float | None], ...]:
        """Names of the members with their weights; None for the default rate."""
        members = self.members if isinstance(self.members, Mapping) else dict.fromkeys(self.members)
        if self.share is not None and list(members.values()) == [None]:
            return ((next(iter(members)), 1.0),)  # A mixture as the only member needs a number, whatever it is.
        return tuple(members.items())

    @property
    def default_rate(self) -> ProportionalRate:
        """The rate of members without a weight."""
        return ProportionalRate(maximum=self.cap, temperature=self.temperature)

    @property
    def required(self) -> tuple[str, ...]:
        """Names that must be registered before it."""
        held_out = self.hold_out.tasks if self.hold_out else ()
        return (*self.members, *held_out, *((self.share.member,) if self.share else ()))


@dataclass(frozen=True, kw_only=True)
class YamlFile:
    """The declarations of a YAML file.

    Attributes:
      vocabulary: the argument for `vocab.load`; None if the file names none.
      collections: settings of the package's collections, by name.
      tasks: in the file's order.
      inverted: names of tasks whose inverted templates become separate tasks.
      pretraining: in the file's order.
      mixtures: by name, each after its members.
    """

    vocabulary: str | None
    collections: Mapping[str, Section]
    tasks: tuple[TemplatedTask, ...]
    inverted: tuple[str, ...]
    pretraining: tuple[PretrainingTask, ...]
    mixtures: Mapping[str, Mixture]


def read_yaml(path: Path | str) -> YamlFile:
    """Reads a file of the schema above.

    Raises:
      MissingFileError: no such file.
      UserError: not YAML, an unknown key, or an invalid declaration; names the file, the line and the keys.
    """
    content, place = read_mapping(path)
    file = parse(content, _File, place)
    vocabulary = file.vocabulary
    if vocabulary not in (None, "embedded", "bytes"):
        vocabulary = str(place.path(vocabulary))
    return YamlFile(
        vocabulary=vocabulary,
        collections={
            name: Section(values=require_mapping(section.values, section.place), place=section.place)
            for name, section in _entries("collections", content, place).items()
        },
        tasks=tuple(
            _task(name, entry, sets=file.template_sets) for name, entry in _entries("tasks", content, place).items()
        ),
        inverted=file.inverted,
        pretraining=tuple(_pretraining(name, entry) for name, entry in _entries("pretraining", content, place).items()),
        mixtures=_members_first(file.mixtures, place=place.at("mixtures", content)),
    )


def _entries(key: str, content: Mapping[str, Any], place: Place) -> dict[str, Section]:
    """Returns the values of a key that have a schema of their own, with their places."""
    within = content.get(key, {})
    return {
        name: Section(values=value, place=place.at(key, content).at(name, within)) for name, value in within.items()
    }


def _task(name: str, entry: Section, *, sets: Sets) -> TemplatedTask:
    values = require_mapping(entry.values, entry.place)
    if "format" in values:
        return _format_task(name, entry, sets=sets)
    declared = entry.parse(_Task)
    options, source = declared.options, parse_source(entry)
    templates = _templates(declared.templates, sets=sets, place=entry.at("templates"))
    given = _shared(declared, entry)
    with entry.place.in_errors():
        return TemplatedTask(
            name=name,
            source=source,
            cluster=declared.cluster,
            templates=templates,
            options=tuple(map(str, options)) if isinstance(options, tuple) else options,
            normalizer=None if declared.labels is None else LabelNames(names=declared.labels),
            postprocessor=declared.postprocessor,
            references=declared.references,
            group=declared.group,
            **given,
        )


def _format_task(name: str, entry: Section, *, sets: Sets) -> TemplatedTask:
    """Returns a task over files of a published format."""
    declared = entry.parse(_FormatTask)
    format, on_bad_row = parse_format(declared.format, entry.at("format"))
    files = parse_files(declared.splits, entry.at("splits"))
    templates = declared.templates
    if templates is not None:
        templates = _templates(templates, sets=sets, place=entry.at("templates"))
    given = _shared(declared, entry)
    with entry.place.in_errors():
        return format_task(
            name, files, format=format, cluster=declared.cluster, on_bad_row=on_bad_row, templates=templates, **given
        )


def _shared(declared: _AnyTask, entry: Section) -> dict[str, Any]:
    """Returns what both kinds of tasks declare, as arguments."""
    given = {field.name: getattr(declared, field.name) for field in fields(_AnyTask) if field.name != "splits"}
    return {**given, "filters": parse_filters(declared.filters, entry.at("filters"))}


def _pretraining(name: str, entry: Section) -> PretrainingTask:
    declared = entry.parse(_Pretraining)
    given = {field.name: getattr(declared, field.name) for field in fields(declared)}
    del given["splits"], given["noise_density"], given["mean_span"]
    given["source"] = parse_source(entry)
    with entry.place.in_errors():
        noise = Noise(density=declared.noise_density, mean_span=declared.mean_span)
        return PretrainingTask(name=name, noise=noise, **given)


def _templates(value: str | tuple[Template, ...], *, sets: Sets, place: Place) -> tuple[Template, ...]:
    if not isinstance(value, str):
        return value
    if value not in sets:
        raise place.error(f"no template set {value!r}.{nearest(value, sets)} Sets: {', '.join(sets) or 'none'}.")
    return sets[value]


def _members_first(mixtures: Mapping[str, Mixture], *, place: Place) -> dict[str, Mixture]:
    ordered: dict[str, Mixture] = {}
    waiting = dict(mixtures)
    while waiting:
        ready = [name for name, mixture in waiting.items() if waiting.keys().isdisjoint(mixture.required)]
        if not ready:
            raise place.error(f"the mixtures {', '.join(sorted(waiting))} contain one another.")
        for name in ready:
            ordered[name] = waiting.pop(name)
    return ordered
