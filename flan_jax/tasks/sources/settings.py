"""Sources as YAML files declare them.

A task of one's own names its source next to its splits; see `tasks.yaml_file`. The datasets of a collection have a
published shape, which its templates expect. Under `rows`, a YAML file declares the source of a dataset's rows and
their mapping to that shape; paths are relative to the file:

    rows:
      super_glue/wsc.fixed:
        kind: jsonl                              # json, csv, tsv, parquet, tfds or wiki, with their own keys
        splits: {train: wsc/train.jsonl, validation: wsc/val.jsonl}
        on_bad_row: skip
        fields: {span1_text: target.span1_text}  # new name: old name; a dot leads into a mapping
        classes: {label: [false, true]}          # values that class numbers replace
      glue/stsb:
        kind: tsv
        columns: [sentence1, sentence2, label]       # names, when the file has no header; csv has `delimiter`, too
        splits: {train: sts-train.tsv}
        numbers: [label]                         # texts that are numbers
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flan_jax.settings import Place, Section, parse_kind, parse_value, require_mapping
from flan_jax.tasks.sources.file_sources import (
    CsvSource,
    FileSource,
    JsonlSource,
    JsonSource,
    ParquetSource,
    TfdsSource,
    TsvSource,
    WikiSource,
)
from flan_jax.tasks.sources.mapped import MappedSource
from flan_jax.tasks.sources.rows import OnBadRow, Source
from flan_jax.tasks.sources.tables import COMMA


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """The keys of every kind of source."""

    on_bad_row: OnBadRow = Source.on_bad_row


@dataclass(frozen=True, kw_only=True)
class _TableKeys(_Keys):
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class _CsvKeys(_TableKeys):
    delimiter: str = COMMA


@dataclass(frozen=True, kw_only=True)
class _TfdsKeys(_Keys):
    name: str


@dataclass(frozen=True, kw_only=True)
class _Mapping:
    """The keys of an entry of `rows` in addition to those of its source; see `MappedSource`."""

    splits: Any
    fields: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Rows(_Mapping, _Keys):
    pass


@dataclass(frozen=True, kw_only=True)
class _TableRows(_Mapping, _TableKeys):
    pass


@dataclass(frozen=True, kw_only=True)
class _CsvRows(_Mapping, _CsvKeys):
    pass


@dataclass(frozen=True, kw_only=True)
class _TfdsRows(_Mapping, _TfdsKeys):
    pass


_FILE_SOURCES: Mapping[str, type[FileSource]] = {
    "jsonl": JsonlSource,
    "json": JsonSource,
    "csv": CsvSource,
    "tsv": TsvSource,
    "parquet": ParquetSource,
    "wiki": WikiSource,
}
_KEYS: Mapping[str, type[_Keys]] = {
    **dict.fromkeys(_FILE_SOURCES, _Keys),
    "csv": _CsvKeys,
    "tsv": _TableKeys,
    "tfds": _TfdsKeys,
}
_OF_ROWS = {_Keys: _Rows, _TableKeys: _TableRows, _CsvKeys: _CsvRows, _TfdsKeys: _TfdsRows}
_ROWS: Mapping[str, type[_Mapping]] = {kind: _OF_ROWS[keys] for kind, keys in _KEYS.items()}


def parse_source(entry: Section) -> Source:
    """Returns the source that an entry declares: by `source`, a kind or a mapping with it as `kind`, and `splits`.

    Raises:
      UserError: an unknown kind or key, or an invalid value.
    """
    declared, place = entry.values["source"], entry.at("source")
    keys = parse_kind(declared, _KEYS, place)
    kind = declared if isinstance(declared, str) else declared["kind"]
    return _source(kind, vars(keys), entry)


def parse_rows(value: object, place: Place) -> dict[str, Source]:
    """Returns the sources under `rows`, by the names of datasets; see the module's example.

    Args:
      value: the entry of each dataset.
      place: of the value.

    Raises:
      UserError: an unknown kind or key, or an invalid value.
    """
    datasets = require_mapping(value, place)
    return {name: _dataset(Section(values=entry, place=place.at(name, datasets))) for name, entry in datasets.items()}


def parse_files(splits: object, place: Place) -> dict[str, tuple[Path, ...]]:
    """Returns the files of each split.

    Raises:
      UserError: `splits` is not a mapping to paths or lists of them.
    """
    files: dict[str, tuple[Path, ...]] = parse_value(splits, Mapping[str, tuple[Path, ...]], place)
    if not files:
        raise place.error("there is no split; name at least one, as in {train: rows.jsonl}.")
    return files


def _dataset(entry: Section) -> Source:
    declared = parse_kind(entry.values, _ROWS, entry.place)
    of_mapping = set(_Mapping.__dataclass_fields__)
    keys = {name: value for name, value in vars(declared).items() if name not in of_mapping}
    source = _source(entry.values["kind"], keys, entry)
    if not (declared.fields or declared.classes or declared.numbers):
        return source
    with entry.place.in_errors():
        return MappedSource(
            source=source,
            fields=declared.fields,
            classes=declared.classes,
            numbers=declared.numbers,
            on_bad_row=source.on_bad_row,
        )


def _source(kind: str, keys: Mapping[str, Any], entry: Section) -> Source:
    """Returns the source of a kind with the splits of an entry."""
    splits, place = entry.values["splits"], entry.at("splits")
    if kind == "tfds":
        return TfdsSource(splits=parse_value(splits, Mapping[str, str], place), **keys)
    return _FILE_SOURCES[kind](files=parse_files(splits, place), **keys)
