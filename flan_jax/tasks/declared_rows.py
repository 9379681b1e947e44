"""Rows that a user declares for the datasets of a family, by name; parsed, not read.

A family knows how to ask about a dataset and expects rows of the dataset's own shape. Where its usual source is not
there, a YAML file says where rows are and how they come to that shape; paths are relative to the file:

    rows:
      super_glue/wsc.fixed:
        kind: jsonl                              # jsonl, tsv, parquet or tfds, with their own keys
        splits: {train: wsc/train.jsonl, validation: wsc/val.jsonl}
        on_bad_row: skip
        fields: {span1_text: target.span1_text}  # new name: old name, a dot leads into a mapping
        classes: {label: [false, true]}          # class numbers in place of values
      glue/stsb:
        kind: tsv
        columns: [sentence1, sentence2, label]
        splits: {train: sts-train.tsv}
        numbers: [label]                         # texts that are numbers
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import sha256_of
from flan_jax.names import nearest, shortened
from flan_jax.tasks.sources.rows import BadRow, DerivedSource, Record, Row, Source
from flan_jax.tasks.user_sources import SOURCE_KEYS, parse_source
from flan_jax.templates.load import require_mapping

MAPPING_KEYS = ("splits", "fields", "classes", "numbers")

NO_SUCH_FIELD = "lacks a field"
NOT_A_CLASS = "value is no class"
NOT_A_NUMBER = "not a number"


@dataclass(frozen=True, kw_only=True)
class MappedSource(DerivedSource):
    """Another source's rows under other names, fields and splits alike.

    Attributes:
      fields: from a field's name to the one that the source has; a dot leads into a mapping. The old name is gone,
        other fields stay.
      classes: for a field the values that become class numbers 0, 1, ...
      numbers: fields whose texts become numbers.
      split_names: from a split's name to the source's; {} for the source's own.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    split_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return tuple(self.split_names) or self.source.splits

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows under their new names; places are the source's."""
        for record in super().read(split):
            yield record if isinstance(record, BadRow) else self._mapped(record)

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the source's revision and the mapping."""
        mapping = [dict(self.fields), {name: list(values) for name, values in self.classes.items()}, self.numbers]
        return sha256_of([super().revision(split), *mapping])

    def inner(self, split: str) -> str:
        """Returns the source's name of a split."""
        self.require_split(split)
        return self.split_names.get(split, split)

    def _mapped(self, record: Record) -> Record | BadRow:
        row = {name: value for name, value in record.row.items() if name not in self.fields.values()}
        for new, old in self.fields.items():
            found = _looked_up(record.row, old)
            if found is None:
                detail = f"the row lacks the field {old!r}.{nearest(old, record.row)} Fields: {', '.join(record.row)}"
                return BadRow(NO_SUCH_FIELD, detail, record.place)
            row[new] = found[0]
        return self._typed(row, record.place)

    def _typed(self, row: Row, place: str) -> Record | BadRow:
        for name, values in self.classes.items():
            # By kind too, since True == 1.
            classes = [i for i, v in enumerate(values) if type(v) is type(row.get(name)) and v == row.get(name)]
            if not classes:
                detail = f"the field {name!r} holds {shortened(row.get(name))}, which is none of {list(values)}"
                return BadRow(NOT_A_CLASS, detail, place)
            row[name] = classes[0]
        for name in self.numbers:
            number = _number(row.get(name))
            if number is None:
                detail = f"the field {name!r} holds {shortened(row.get(name))}, which is not a number"
                return BadRow(NOT_A_NUMBER, detail, place)
            row[name] = number
        return Record(row, place)


@dataclass(frozen=True, kw_only=True)
class AbsentSource(Source):
    """A dataset that nobody has said where to find: its tasks can be named and shown, not read.

    Attributes:
      why: what is missing, and what to do.
      split_names: the splits that it has elsewhere.
    """

    why: str
    split_names: tuple[str, ...]

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return self.split_names

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Raises FileNotFoundError."""
        self._refuse(split)

    def revision(self, split: str) -> str:
        """Raises FileNotFoundError."""
        self._refuse(split)

    def files(self, split: str) -> tuple[str, ...]:
        """Raises FileNotFoundError."""
        self._refuse(split)

    def describe(self, split: str) -> str:
        """Returns what is missing."""
        return self.why

    def _refuse(self, split: str) -> NoReturn:
        self.require_split(split)
        raise MissingFileError(self.why)


def declared_sources(value: Mapping[str, Any], *, base: Path, where: str) -> dict[str, Source]:
    """Turns the value of `rows` into sources.

    Args:
      value: for each dataset where its rows are, as the module shows.
      base: the folder that relative paths start from.
      where: the place, for messages.

    Returns:
      Sources by the names of datasets.

    Raises:
      UserError: an unknown kind or key, or values that cannot be right; names the place.
    """
    datasets = require_mapping(value, where=where)
    return {name: _declared(entry, base=base, where=f"{where}.{name}") for name, entry in datasets.items()}


def _declared(value: object, *, base: Path, where: str) -> Source:
    entry = require_mapping(value, where=where)
    for key, needed in (("kind", f"one of {', '.join(SOURCE_KEYS)}"), ("splits", "a mapping from splits to files")):
        if key not in entry:
            raise UserError(f"{where}: the key {key!r} is missing, {needed}; got {', '.join(entry) or 'nothing'}.")
    allowed = (*MAPPING_KEYS, *SOURCE_KEYS.get(entry["kind"], ()))
    for key in entry:
        if key not in allowed and entry["kind"] in SOURCE_KEYS:
            raise UserError(f"{where}: unknown key {key!r}.{nearest(key, allowed)} Allowed: {', '.join(allowed)}.")
    own = {key: setting for key, setting in entry.items() if key not in MAPPING_KEYS}
    source = parse_source(own, entry["splits"], base=base, where=where)
    fields = require_mapping(entry.get("fields", {}), where=f"{where}.fields")
    for new, old in fields.items():
        if not isinstance(old, str):
            raise UserError(f"{where}.fields.{new}: expected the name of a field, got {shortened(old)}.")
    classes = require_mapping(entry.get("classes", {}), where=f"{where}.classes")
    for name, values in classes.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}.classes.{name}: expected a list of values, got {shortened(values)}.")
    numbers = entry.get("numbers", [])
    if not isinstance(numbers, list) or not all(isinstance(name, str) for name in numbers):
        raise UserError(f"{where}.numbers: expected a list of fields, got {shortened(numbers)}.")
    if not (fields or classes or numbers):
        return source
    return MappedSource(
        source=source,
        fields=fields,
        classes={name: tuple(values) for name, values in classes.items()},
        numbers=tuple(numbers),
        on_bad_row=source.on_bad_row,
    )


def _looked_up(row: Mapping[str, Any], path: str) -> tuple[Any] | None:
    """The value of a field, in a tuple since it may be None; a name with a dot of its own goes before the path."""
    if path in row:
        return (row[path],)
    first, dot, rest = path.partition(".")
    inner = row.get(first)
    return _looked_up(inner, rest) if dot and isinstance(inner, Mapping) else None


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return None
