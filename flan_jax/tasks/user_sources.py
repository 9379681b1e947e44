"""What a YAML file says about where rows are: kinds of sources, files by split, lists of texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.errors import UserError
from flan_jax.names import nearest
from flan_jax.tasks.pretraining.wiki import WikiSource
from flan_jax.tasks.sources.file_sources import (
    CsvSource,
    FileSource,
    JsonlSource,
    JsonSource,
    ParquetSource,
    Source,
    TfdsSource,
    TsvSource,
)
from flan_jax.templates.load import require_keys, require_mapping

SOURCE_KEYS = {
    "jsonl": ("kind", "on_bad_row"),
    "json": ("kind", "on_bad_row"),
    "csv": ("kind", "on_bad_row", "columns"),
    "tsv": ("kind", "on_bad_row", "columns"),
    "parquet": ("kind", "on_bad_row"),
    "tfds": ("kind", "on_bad_row", "name"),
    "wiki": ("kind", "on_bad_row"),
}
FILE_SOURCES: Mapping[str, type[FileSource]] = {
    "jsonl": JsonlSource, "json": JsonSource, "parquet": ParquetSource, "wiki": WikiSource,
}  # fmt: skip


def parse_source(value: object, splits: object, *, base: Path, where: str) -> Source:
    """Turns what a file says about a source into one.

    Args:
      value: a kind, or a mapping with `kind` and what `SOURCE_KEYS` allows for it.
      splits: for each split its files, or its expression in TFDS.
      base: the folder that relative paths start from.
      where: the place, for messages.

    Raises:
      UserError: an unknown kind or key, or values that cannot be right.
    """
    fields = {"kind": value} if isinstance(value, str) else require_mapping(value, where=f"{where}.source")
    kind = fields.get("kind")
    if kind not in SOURCE_KEYS:
        near = nearest(str(kind), SOURCE_KEYS)
        raise UserError(f"{where}.source: unknown kind {kind!r}.{near} Allowed: {', '.join(SOURCE_KEYS)}.")
    require_keys(fields, SOURCE_KEYS[kind], where=f"{where}.source", needed=("name",) if kind == "tfds" else ())
    settings: dict[str, Any] = {key: fields[key] for key in ("on_bad_row",) if key in fields}
    try:
        if kind == "tfds":
            by_split = require_mapping(splits, where=f"{where}.splits")
            return TfdsSource(name=fields["name"], splits=by_split, **settings)
        files = files_of(splits, base=base, where=where)
        if kind in ("csv", "tsv"):
            return (CsvSource if kind == "csv" else TsvSource)(files=files, columns=fields.get("columns"), **settings)
        return FILE_SOURCES[kind](files=files, **settings)
    except UserError as error:
        raise UserError(f"{where}.source: {error}") from error


def files_of(splits: object, *, base: Path, where: str) -> dict[str, list[Path]]:
    """Returns the files of each split, relative paths from `base`."""
    by_split = require_mapping(splits, where=f"{where}.splits")
    return {
        split: [base / Path(path).expanduser() for path in texts(value, where=f"{where}.splits")]
        for split, value in by_split.items()
    }


def texts(value: object, *, where: str) -> tuple[str, ...]:
    """Returns a text, or a list of texts and numbers, as texts.

    Raises:
      UserError: something else; also true or false, which is how YAML reads an unquoted yes, no, on or off.
    """
    values = value if isinstance(value, list) else [value]
    for item in values:
        if isinstance(item, bool):
            raise UserError(f"{where}: YAML reads an unquoted yes, no, on, off as {item}; put it in quotes.")
        if not isinstance(item, (str, int, float)):
            raise UserError(f"{where}: expected texts, got {item!r}.")
    return tuple(map(str, values))
