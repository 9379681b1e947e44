"""Tasks and mixtures declared in a YAML file: its schema, and its reader. Nothing is registered here.

The schema is the dataclasses below, whose fields are the keys. By example; paths are relative to the file:

    vocabulary: bytes                     # or embedded, or a .model file; by default the run's own
    template_sets:                        # optional: templates that several tasks share
      ask:
        - {inputs: "{question}", targets: "{answer}"}
    tasks:
      capitals:
        cluster: geography                # by default the task's name
        source: jsonl                     # jsonl, json (a list), csv, tsv, parquet or tfds
        splits: {train: data/train.jsonl, validation: [data/a.jsonl, data/b.jsonl.gz]}
        on_bad_row: skip                  # drops and counts rows that cannot be used; by default they are an error
        fields: {question: query.text}    # new name: name in the rows, or a path into them
        templates: ask
        corpora: [my_atlas]               # the origin of its rows: holding the atlas out excludes this task
        metrics: [exact_match, f1]        # names of `flan_jax.evaluation.metrics`, or "bleu(tokenizer=zh)"
      reviews:
        cluster: sentiment
        source: {kind: tfds, name: "my_reviews:1.0.0"}
        splits: {train: "train[:90%]", validation: "train[90%:]"}
        labels: {label: [negative, positive]}     # names that replace class numbers
        options: [negative, positive]
        evaluation: rank
        templates:
          - {name: plain, inputs: "Good or bad?\\n{text}\\n{options_}", targets: "{label}"}
          - {inputs: "Write a {label} review.", targets: "{text}", direction: inverted}
      squad:
        source: parquet                   # or {kind: csv, delimiter: ";"}
        splits: {train: data/squad.parquet}
        templates: [{inputs: "{context}\\n{question}", targets: "{answers.text[0]}"}]    # paths into a row
        references: answers.text          # all of them are right answers
      instructions:                       # files of a published format, with its own templates
        format: alpaca                    # or dolly, self_instruct, unnatural, prompted, chat, preference
        splits: {train: data/alpaca.json}
        filters:                          # rows to drop, counted by reason; see `filters.settings`
          - {kind: length, field: instruction, min_words: 4}
          - {kind: duplicates, fields: [instruction, input]}
      talk:
        format: {kind: chat, max_tokens: 512, turns: last}
        splits: {train: data/chats.jsonl}
    inverted: [reviews]                   # their inverted templates become tasks: reviews_inverted
    pretraining:                          # plain text: hidden spans are predicted, or a text is continued
      wiki:
        source: wiki                      # WikiExtractor's files; or as in tasks, with the `field` of the text
        splits: {train: data/wiki_*.gz}
        objective: span_corruption        # or prefix_lm; lengths, passes, seed, noise: {density, mean_span}
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

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from flan_jax.annotations import Positive, Within
from flan_jax.data.holdout import HoldOut
from flan_jax.data.rates import ProportionalRate, ShareUnit, Temperature
from flan_jax.errors import UserError, in_errors
from flan_jax.names import repeated, require_choice
from flan_jax.settings import Place, Section, parse, parse_value, require_mapping
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.filters.settings import parse_filters
from flan_jax.tasks.formats.declare import format_task, parse_format
from flan_jax.tasks.inverted import inverted_name
from flan_jax.tasks.label_names import LabelNames
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.sources.mapped import MappedSource, is_path
from flan_jax.tasks.sources.rows import Source
from flan_jax.tasks.sources.settings import parse_files, parse_on_bad_row, parse_source
from flan_jax.templates.render import Template
from flan_jax.yaml_loader import read_mapping

Sets = Mapping[str, tuple[Template, ...]]
Labels = Mapping[str, tuple[str, ...] | Mapping[Any, str]]


@dataclass(frozen=True, kw_only=True)
class _File:
    """The keys of a file."""

    vocabulary: str | None = None
    license: str = ""
    source: str = ""
    template_sets: Sets = field(default_factory=dict)
    collections: Mapping[str, Section] = field(default_factory=dict)
    tasks: Mapping[str, Section] = field(default_factory=dict)
    inverted: tuple[str, ...] = ()
    pretraining: Mapping[str, Section] = field(default_factory=dict)
    mixtures: Mapping[str, "Mixture"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.tasks or self.mixtures or self.collections or self.pretraining):
            raise UserError("it declares neither tasks nor mixtures.")


@dataclass(frozen=True, kw_only=True)
class Share:
    """A member that makes up the fraction `share` of a mixture's tokens or examples."""

    member: str
    share: Annotated[float, Within(above=0, below=1)]
    of: ShareUnit


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A declared mixture.

    Attributes:
      members: Names, with their weights if it is a mapping.
      cap: The number of examples at which the size of a member without a weight is capped.
      temperature: Of the rates of members without a weight; 1 is proportional, large is equal.
      hold_out: Tasks, clusters and corpora that it must not train on.
      share: A further member, and its fraction of the mixture.
    """

    members: tuple[str, ...] | Mapping[str, Positive | None]
    cap: Positive | None = None
    temperature: Temperature = 1.0
    hold_out: HoldOut | None = None
    share: Share | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise UserError("it has no members; name at least one task or mixture.")
        for name in repeated(self.members):
            raise UserError(f"the member {name!r} is named twice. Give it a weight instead: {{NAME: WEIGHT}}.")

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
      vocabulary: The argument for `vocab.load`; None if the file names none.
      collections: Settings of the package's collections, by name.
      tasks: In the file's order.
      inverted: Names of tasks whose inverted templates become separate tasks.
      pretraining: In the file's order.
      mixtures: By name, each after its members.
      places: Where each name is declared, for messages.
    """

    vocabulary: str | None
    collections: Mapping[str, Section]
    tasks: tuple[TemplatedTask, ...]
    inverted: tuple[str, ...]
    pretraining: tuple[PretrainingTask, ...]
    mixtures: Mapping[str, Mixture]
    places: Mapping[str, Place]


def read_yaml(path: Path | str) -> YamlFile:
    """Reads a file of the schema above.

    Raises:
      MissingFileError: No such file.
      UserError: Not YAML, an unknown key, or an invalid declaration; names the file, the line and the keys.
    """
    content, place = read_mapping(path)
    file = parse(content, _File, place)
    vocabulary = file.vocabulary
    if vocabulary not in (None, "embedded", "bytes"):
        vocabulary = str(place.path(vocabulary))
    whole = Section(values=content, place=place)
    places = {name: Place(file=place.file, keys="inverted") for name in map(inverted_name, file.inverted)}
    for key in ("tasks", "pretraining", "mixtures"):
        for name in content.get(key, {}):
            if name in places:
                raise whole.at(key).at(name).place.error(f"the name {name!r} is taken: {places[name]}.")
            places[name] = whole.at(key).at(name).place
    return YamlFile(
        vocabulary=vocabulary,
        collections=file.collections,
        tasks=tuple(_task(name, entry, sets=file.template_sets) for name, entry in file.tasks.items()),
        inverted=file.inverted,
        pretraining=tuple(_pretraining(name, entry) for name, entry in file.pretraining.items()),
        mixtures=_members_first(file.mixtures, place=place.at("mixtures", content)),
        places=places,
    )


def _task(name: str, entry: Section, *, sets: Sets) -> TemplatedTask:
    readers = {"filters": parse_filters, "templates": functools.partial(_templates, sets=sets)}
    if "format" in require_mapping(entry.values, entry.place):
        given: dict[str, Any] = {"name": name, "files": parse_files(entry.at("splits"))}
        chosen, of_format = parse_format(entry.at("format"))
        policy = parse_on_bad_row(entry, entry.at("format").values)
        given |= {"format": chosen, "on_bad_row": of_format if policy is None else policy}
        return entry.parse(format_task, also=("format", "splits", "on_bad_row"), given=given, readers=readers)
    labels = entry.get("labels", Labels)
    task = entry.parse(
        TemplatedTask,
        also=("splits", "on_bad_row", "labels", "fields", "numbers"),
        given={
            "name": name,
            "declared_in": str(entry.place),
            "normalizer": None if labels is None else LabelNames(names=labels),
        },
        readers={**readers, "source": functools.partial(_source, entry=entry)},
    )
    return _with_mapping(task, entry)


def _with_mapping(task: TemplatedTask, entry: Section) -> TemplatedTask:
    """Returns the task with the fields that it renames, and with those that it names by a path into a row."""
    fields = entry.get("fields", Mapping[str, str], {})
    numbers = entry.get("numbers", tuple[str, ...], ())
    named = [field for template in task.templates for field in template.fields]
    named += [field for field in (task.options, task.references, task.group) if isinstance(field, str)]
    paths = {name: name for name in named if is_path(name) and name not in fields}
    if not (fields or numbers or paths):
        return task
    source = MappedSource(
        source=task.source, fields={**fields, **paths}, numbers=numbers, on_bad_row=task.source.on_bad_row
    )
    return replace(task, source=source)


def _pretraining(name: str, entry: Section) -> PretrainingTask:
    source = functools.partial(_source, entry=entry)
    return entry.parse(PretrainingTask, also=("splits", "on_bad_row"), given={"name": name}, readers={"source": source})


def _source(value: object, place: Place, *, entry: Section) -> Source:
    return parse_source(value, place, splits=entry.at("splits"), on_bad_row=parse_on_bad_row(entry, value))


def _templates(value: object, place: Place, *, sets: Sets) -> tuple[Template, ...]:
    chosen: str | tuple[Template, ...] = parse_value(value, str | tuple[Template, ...], place)
    if isinstance(chosen, str):
        with in_errors(place):
            require_choice(chosen, sets, "a template set")
        chosen = sets[chosen]
    for name in repeated([template.name for template in chosen if template.name]):
        raise place.error(f"two templates have the name {name!r}. Give each a name of its own, or none.")
    return chosen


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
