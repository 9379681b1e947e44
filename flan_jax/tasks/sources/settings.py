"""Sources as YAML files declare them.

A task of one's own names its source next to its splits; see `tasks.yaml_file`. The datasets of a collection have a
published shape, which its templates expect. Under `rows`, a YAML file declares the source of a dataset's rows and
their mapping to that shape; paths are relative to the file:

    rows:
      super_glue/wsc.fixed:
        kind: jsonl                              # json, csv, tsv, parquet, tfds or wiki, with their own keys
        splits: {train: wsc/train.jsonl, validation: wsc/val.jsonl}
        on_bad_row: skip
        fields: {span1_text: target.span1_text}  # new name: old name, or a path such as answers.text[0]
        classes: {label: [false, true]}          # values that class numbers replace
      glue/stsb:
        kind: tsv
        columns: [sentence1, sentence2, label]       # names, when the file has no header; csv has `delimiter`, too
        splits: {train: sts-train.tsv}
        numbers: [label]                         # texts that are numbers
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flan_jax.settings import Place, Section, choose_kind, parse, parse_value, require_mapping
from flan_jax.tasks.sources.file_sources import (
    CsvSource,
    JsonlSource,
    JsonSource,
    ParquetSource,
    TfdsSource,
    TsvSource,
    WikiSource,
)
from flan_jax.tasks.sources.mapped import MappedSource
from flan_jax.tasks.sources.rows import OnBadRow, Source

SOURCES: Mapping[str, Callable[..., Source]] = {
    "jsonl": JsonlSource,
    "json": JsonSource,
    "csv": CsvSource,
    "tsv": TsvSource,
    "parquet": ParquetSource,
    "wiki": WikiSource,
    "tfds": TfdsSource,
}
_MAPPING = ("fields", "classes", "numbers")
"""The keys of an entry of `rows` that describe its mapping; see `MappedSource`."""


def parse_source(
    value: object,
    place: Place,
    *,
    splits: Section,
    on_bad_row: OnBadRow | None = None,
    also: tuple[str, ...] = (),
) -> Source:
    """Returns the source that a value declares.

    Args:
      value: A kind, or a mapping with it as `kind` and the settings of the source.
      place: Of the value.
      splits: The files or the expression of each split.
      on_bad_row: The policy for bad rows; None for the value's own.
      also: Keys of the value that are ignored here.

    Raises:
      UserError: An unknown kind or key, or an invalid value.
    """
    kind, mapping = choose_kind(value, SOURCES, place)
    given: dict[str, Any]
    if kind is TfdsSource:
        given = {"splits": parse_value(splits.values, Mapping[str, str], splits.place)}
    else:
        given = {"files": parse_files(splits)}
    if on_bad_row is not None:
        given["on_bad_row"] = on_bad_row
    return parse(mapping, kind, place, also=("kind", *also), given=given)


def parse_on_bad_row(entry: Section, declared: object) -> OnBadRow | None:
    """Returns the policy for bad rows that an entry gives next to its splits; None if it gives none there.

    Args:
      entry: Of a task.
      declared: The entry's source or format, which may give the policy instead.

    Raises:
      UserError: Both give it, or an unknown policy.
    """
    policy: OnBadRow | None = entry.get("on_bad_row", OnBadRow)
    if policy is not None and isinstance(declared, dict) and "on_bad_row" in declared:
        place = entry.at("on_bad_row").place
        raise place.error("on_bad_row is given twice, here and in the source or format; remove one of them.")
    return policy


def parse_rows(section: Section | None) -> dict[str, Source]:
    """Returns the sources under `rows`, by the names of datasets; see the module's example.

    Raises:
      UserError: An unknown kind or key, or an invalid value.
    """
    datasets = require_mapping(section.values, section.place) if section is not None else {}
    return {name: _dataset(section.at(name)) for name in datasets if section is not None}


def parse_files(splits: Section) -> dict[str, tuple[Path, ...]]:
    """Returns the files of each split.

    Raises:
      UserError: `splits` is not a mapping to paths or lists of them.
    """
    files: dict[str, tuple[Path, ...]] = parse_value(splits.values, Mapping[str, tuple[Path, ...]], splits.place)
    if not files:
        raise splits.place.error("there is no split; name at least one, as in {train: rows.jsonl}.")
    return files


def _dataset(entry: Section) -> Source:
    values = entry.values if isinstance(entry.values, dict) else {}
    choose_kind(entry.values, SOURCES, entry.place)  # A wrong kind first: it decides which keys are allowed.
    source = parse_source(entry.values, entry.place, splits=entry.at("splits"), also=("splits", *_MAPPING))
    if not any(values.get(key) for key in _MAPPING):
        return source
    others = tuple(key for key in values if key not in _MAPPING)
    return entry.parse(
        MappedSource, also=others, given={"source": source, "on_bad_row": source.on_bad_row, "split_names": {}}
    )
