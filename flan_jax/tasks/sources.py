"""Where rows come from: JSONL, TSV and Parquet files, TFDS and Python. Plain dicts, always in one order.

Nothing is opened before rows are asked for. The interface is `rows.Source`; TFDS is in `tfds_source`.
"""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flan_jax.files import sha256_of, sha256_of_file
from flan_jax.names import nearest
from flan_jax.tasks import lazy
from flan_jax.tasks.rows import NOT_UNICODE, BadRow, OnBadRow, Record, Row, Source, plain_record
from flan_jax.tasks.tfds_source import TfdsSource, set_tfds_data_dir
from flan_jax.templates.render import shortened

__all__ = [
    "BadRow", "FileSource", "InMemorySource", "JsonlSource", "OnBadRow", "ParquetSource", "Record", "Row", "Source",
    "TfdsSource", "TsvSource", "set_tfds_data_dir",
]  # fmt: skip

Paths = str | Path | Sequence[str | Path]
Rows = Iterable[Mapping[str, Any]]

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"
WRONG_COLUMNS = "wrong number of columns"


@dataclass(frozen=True, kw_only=True)
class InMemorySource(Source):
    """Rows that Python makes.

    >>> list(InMemorySource(data={"train": [{"q": "2+2", "a": "4"}]}).rows("train"))
    [{'q': '2+2', 'a': '4'}]

    Attributes:
      data: for each split its rows, or a function without arguments that makes them, the same ones at every call.
    """

    data: Mapping[str, Rows | Callable[[], Rows]]

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return tuple(self.data)

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows."""
        for index, row in enumerate(self._rows(split)):
            place = f"{split} rows in memory: row {index}"
            if isinstance(row, Mapping):
                yield Record(dict(row), place)
            else:
                yield BadRow(NOT_AN_OBJECT, f"expected fields by name, got {shortened(row)}", place)

    def revision(self, split: str) -> str:
        """Returns the SHA-256 of the rows as canonical JSON.

        Raises:
          ValueError: the rows hold something that JSON does not know.
        """
        self.require_split(split)
        try:
            return sha256_of(list(self._rows(split)))
        except TypeError as error:
            raise ValueError(
                f"The {split!r} rows in memory cannot be fingerprinted: {error}. Use texts, numbers, lists and dicts."
            ) from error

    def num_rows(self, split: str) -> int | None:
        """Returns the length of a list; None for a function."""
        self.require_split(split)
        rows = self.data[split]
        return len(rows) if isinstance(rows, Sequence) else None

    def _rows(self, split: str) -> Rows:
        rows = self.data[split]
        return rows() if callable(rows) else rows


@dataclass(frozen=True, kw_only=True, init=False)
class FileSource(Source):
    """What sources that read files share. A pattern with `*` stands for all files it matches, in order of name.

    Attributes:
      paths: for each split its files or patterns.
    """

    paths: Mapping[str, tuple[str, ...]]

    def __init__(self, *, files: Mapping[str, Paths], on_bad_row: OnBadRow = "error"):
        if not isinstance(files, Mapping):
            raise ValueError(f"files must map splits to paths, as in {{'train': 'train.jsonl'}}; got {files!r}.")
        listed = {s: (p,) if isinstance(p, (str, Path)) else tuple(p) for s, p in files.items()}
        object.__setattr__(self, "paths", {split: tuple(map(str, paths)) for split, paths in listed.items()})
        object.__setattr__(self, "on_bad_row", on_bad_row)
        self.__post_init__()

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return tuple(self.paths)

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the split's files as absolute paths.

        Raises:
          FileNotFoundError: a path that leads nowhere, or a pattern that matches nothing.
        """
        self.require_split(split)
        return tuple(file for path in self.paths[split] for file in _matching(Path(path).expanduser()))

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the split's paths and patterns as absolute paths."""
        self.require_split(split)
        return tuple(os.path.abspath(os.path.expanduser(path)) for path in self.paths[split])

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the bytes of the split's files."""
        return sha256_of([type(self).__name__, *(sha256_of_file(path) for path in self.files(split))])


@dataclass(frozen=True, kw_only=True, init=False)
class JsonlSource(FileSource):
    """One JSON object a line; `.gz` files are decompressed, blank lines passed over.

    Args:
      files: for each split a path, a pattern with `*`, or several of them.
    """

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows; places are "file:line"."""
        for path in self.files(split):
            for number, line in _lines(path):
                yield _parse_json(line, f"{path}:{number}")

    def num_rows(self, split: str) -> int | None:
        """Returns the number of lines that are not blank."""
        return sum(1 for path in self.files(split) for _ in _lines(path))


@dataclass(frozen=True, kw_only=True, init=False)
class TsvSource(FileSource):
    """Fields between tabs, taken as they stand: a quotation mark is a character like any other.

    Args:
      files: as in `JsonlSource`.
      columns: names of the fields; None when each file's first line has them.
    """

    columns: tuple[str, ...] | None

    def __init__(
        self, *, files: Mapping[str, Paths], columns: Sequence[str] | None = None, on_bad_row: OnBadRow = "error"
    ):
        object.__setattr__(self, "columns", None if columns is None else tuple(columns))
        super().__init__(files=files, on_bad_row=on_bad_row)

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows; places are "file:line"."""
        for path in self.files(split):
            names = self.columns
            for number, line in _lines(path):
                place = f"{path}:{number}"
                try:
                    cells = line.decode().split("\t")
                except UnicodeDecodeError as error:
                    yield BadRow(NOT_UNICODE, f"not UTF-8 ({error})", place)
                    continue
                if names is None:
                    names = tuple(cells)
                elif len(cells) == len(names):
                    yield Record(dict(zip(names, cells, strict=True)), place)
                else:
                    detail = f"{len(cells)} fields between tabs, expected {len(names)} ({', '.join(names)})"
                    yield BadRow(WRONG_COLUMNS, detail, place)

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the bytes of the split's files and the names of the columns."""
        return sha256_of([super().revision(split), self.columns])

    def num_rows(self, split: str) -> int | None:
        """Returns the number of lines that are not blank, headers apart."""
        counts = [sum(1 for _ in _lines(path)) for path in self.files(split)]
        return sum(counts) if self.columns is not None else sum(max(0, count - 1) for count in counts)


@dataclass(frozen=True, kw_only=True, init=False)
class ParquetSource(FileSource):
    """Parquet files; needs the `tasks` extra."""

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows; places are "file: row N", counted from 0."""
        for path in self.files(split):
            rows = (row for batch in self._open(path).iter_batches() for row in batch.to_pylist())
            for index, row in enumerate(rows):
                yield plain_record(row, place=f"{path}: row {index}")

    def num_rows(self, split: str) -> int | None:
        """Returns the number that the files' footers give."""
        return sum(self._open(path).metadata.num_rows for path in self.files(split))

    def _open(self, path: str) -> Any:
        parquet = lazy.import_parquet()
        try:
            return parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: not a Parquet file ({error}).") from error


def _matching(path: Path) -> list[str]:
    """Absolute paths of a file, or of all files that a pattern matches."""
    if path.is_file():
        return [os.path.abspath(path)]
    found = sorted(path.parent.glob(path.name)) if "*" in path.name and path.parent.is_dir() else []
    if not found:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        place = "" if path.parent.is_dir() else f" There is no folder {path.parent} either."
        raise FileNotFoundError(f"No file {path} to read rows from.{nearest(path.name, beside)}{place}")
    return [os.path.abspath(p) for p in found]


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not blank with their numbers, counted from 1. Bytes, so that only \\n ends a line."""
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield number, line.rstrip(b"\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: cannot be decompressed ({error}). The file is damaged or not gzip.") from error


def _parse_json(line: bytes, place: str) -> Record | BadRow:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, f"not UTF-8 ({error})", place)
    except json.JSONDecodeError as error:
        hint = "; one object a line is needed, not a list over many" if line.strip() == b"[" else ""
        return BadRow(NOT_JSON, f"not JSON ({error}{hint}): {shortened(line.decode(errors='replace'))}", place)
    if not isinstance(row, dict):
        return BadRow(NOT_AN_OBJECT, f"expected a JSON object, got {shortened(row)}", place)
    if b"\\ud" in line or b"\\uD" in line:  # Half of a surrogate pair is JSON, but no text that can be encoded.
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return BadRow(NOT_UNICODE, f"half a surrogate pair ({error})", place)
    return Record(row, place)
