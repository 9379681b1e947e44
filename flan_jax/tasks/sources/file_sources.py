"""Where rows come from: JSONL, JSON, CSV, TSV and Parquet files, TFDS and Python. Plain dicts, always in one order.

Nothing is opened before rows are asked for. The interface is `rows.Source`; TFDS is in `tfds_source`.
"""

import abc
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import sha256_of, sha256_of_file
from flan_jax.names import nearest, shortened
from flan_jax.tasks import lazy
from flan_jax.tasks.sources import file_rows
from flan_jax.tasks.sources.rows import NOT_UNICODE, BadRow, OnBadRow, Record, Row, Source, plain_record
from flan_jax.tasks.sources.tfds import TfdsSource, set_tfds_data_dir

__all__ = [
    "BadRow", "CsvSource", "FileSource", "InMemorySource", "JsonSource", "JsonlSource", "OnBadRow", "ParquetSource",
    "Record", "Row", "Source", "TfdsSource", "TsvSource", "set_tfds_data_dir",
]  # fmt: skip

Paths = str | Path | Sequence[str | Path]
Rows = Iterable[Mapping[str, Any]]

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
                yield BadRow(file_rows.NOT_AN_OBJECT, f"expected fields by name, got {shortened(row)}", place)

    def revision(self, split: str) -> str:
        """Returns the SHA-256 of the rows as canonical JSON.

        Raises:
          UserError: the rows hold something that JSON does not know.
        """
        self.require_split(split)
        rows = list(self._rows(split))
        try:
            return sha256_of(rows)
        except TypeError as error:
            raise UserError(
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
            raise UserError(f"files must map splits to paths, as in {{'train': 'train.jsonl'}}; got {files!r}.")
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
          MissingFileError: a path that leads nowhere, or a pattern that matches nothing.
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
            for number, line in file_rows.numbered_lines(path):
                yield file_rows.parse_json(line, f"{path}:{number}")

    def num_rows(self, split: str) -> int | None:
        """Returns the number of lines that are not blank."""
        return sum(1 for path in self.files(split) for _ in file_rows.numbered_lines(path))


@dataclass(frozen=True, kw_only=True, init=False)
class JsonSource(FileSource):
    """One JSON list of objects a file, read whole; `.gz` files are decompressed.

    Args:
      files: as in `JsonlSource`.
    """

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows; places are "file: row N", counted from 0.

        Raises:
          UserError: a file that is not one whole list; no policy for bad rows can mend it.
        """
        for path in self.files(split):
            for index, row in enumerate(file_rows.json_list(path)):
                yield file_rows.json_record(row, f"{path}: row {index}")


@dataclass(frozen=True, kw_only=True, init=False)
class TableSource(FileSource):
    """What files of rows with cells share; places are "file:line", of the line that a row starts on.

    Args:
      files: as in `JsonlSource`.
      columns: names of the fields; None when each file's first row has them.
    """

    columns: tuple[str, ...] | None
    between: ClassVar[str]

    def __init__(
        self, *, files: Mapping[str, Paths], columns: Sequence[str] | None = None, on_bad_row: OnBadRow = "error"
    ):
        object.__setattr__(self, "columns", None if columns is None else tuple(columns))
        super().__init__(files=files, on_bad_row=on_bad_row)

    @abc.abstractmethod
    def cells(self, path: str) -> Iterator[tuple[int, list[str] | str]]:
        """Yields the rows of a file with the numbers of their lines; in place of one that is not UTF-8, what is wrong."""

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows.

        Raises:
          UserError: a file after some place of which no row can be told from the next.
        """
        for path in self.files(split):
            names = self.columns
            for number, cells in self.cells(path):
                place = f"{path}:{number}"
                if isinstance(cells, str):
                    yield BadRow(NOT_UNICODE, cells, place)
                elif names is None:
                    names = tuple(cells)
                elif len(cells) == len(names):
                    yield Record(dict(zip(names, cells, strict=True)), place)
                else:
                    detail = f"{len(cells)} fields between {self.between}, expected {len(names)} ({', '.join(names)})"
                    yield BadRow(WRONG_COLUMNS, detail, place)

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the bytes of the split's files and the names of the columns."""
        return sha256_of([super().revision(split), self.columns])


@dataclass(frozen=True, kw_only=True, init=False)
class CsvSource(TableSource):
    """Fields between commas, quoted as in RFC 4180: a quoted field may hold commas, newlines and doubled quotes."""

    between = "commas"

    def cells(self, path: str) -> Iterator[tuple[int, list[str] | str]]:
        """Yields the rows of a file; raises where quotation marks do not pair up."""
        for number, cells in file_rows.csv_rows(path):
            escaped = [cell for cell in cells if not file_rows.is_unicode(cell)]
            yield number, f"not UTF-8: {shortened(escaped[0])}" if escaped else cells


@dataclass(frozen=True, kw_only=True, init=False)
class TsvSource(TableSource):
    """Fields between tabs, taken as they stand: a quotation mark is a character like any other."""

    between = "tabs"

    def cells(self, path: str) -> Iterator[tuple[int, list[str] | str]]:
        """Yields the lines of a file that are not blank."""
        for number, line in file_rows.numbered_lines(path):
            try:
                yield number, line.decode().split("\t")
            except UnicodeDecodeError as error:
                yield number, f"not UTF-8 ({error})"

    def num_rows(self, split: str) -> int | None:
        """Returns the number of lines that are not blank, headers apart."""
        counts = [sum(1 for _ in file_rows.numbered_lines(path)) for path in self.files(split)]
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
            raise UserError(f"{path}: not a Parquet file ({error}).") from error


def _matching(path: Path) -> list[str]:
    """Absolute paths of a file, or of all files that a pattern matches."""
    if path.is_file():
        return [os.path.abspath(path)]
    found = sorted(path.parent.glob(path.name)) if "*" in path.name and path.parent.is_dir() else []
    if not found:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        place = "" if path.parent.is_dir() else f" There is no folder {path.parent} either."
        raise MissingFileError(f"No file {path} to read rows from.{nearest(path.name, beside)}{place}")
    return [os.path.abspath(p) for p in found]
