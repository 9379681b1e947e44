"""Sources of rows in files and in memory. Rows are plain dictionaries, always in the same order.

Nothing is opened before rows are requested. The interface is `rows.Source`; `tfds.TfdsSource` reads prepared datasets.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing, sha256_of, sha256_of_file
from flan_jax.names import nearest, shortened
from flan_jax.paths import user_path
from flan_jax.tasks.sources import parquet, readers, streams, tables
from flan_jax.tasks.sources.rows import BadRow, OnBadRow, Record, Row, Source, plain_record, unique_columns
from flan_jax.tasks.sources.tfds import TfdsSource, set_tfds_data_dir

__all__ = [
    "BadRow", "CsvSource", "DetectedSource", "FileSource", "InMemorySource", "JsonSource", "JsonlSource", "OnBadRow",
    "ParquetSource", "Record", "Row", "Source", "TfdsSource", "TsvSource", "WikiSource", "set_tfds_data_dir",
]  # fmt: skip

Reader = Callable[[BinaryIO, str], Iterator[Record | BadRow]]
Paths = str | Path | Sequence[str | Path]
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class InMemorySource(Source):
    """Rows in memory.

    >>> list(InMemorySource(data={"train": [{"q": "2+2", "a": "4"}]}).rows("train"))
    [{'q': '2+2', 'a': '4'}]

    Attributes:
      data: For each split its rows, or a function without arguments that returns the same rows at every call.
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
                yield plain_record(row, place=place)
            else:
                yield BadRow(readers.NOT_AN_OBJECT, f"expected fields by name, got {shortened(row)}", place)

    def revision(self, split: str) -> str:
        """Returns the SHA-256 of the rows as canonical JSON.

        Raises:
          UserError: The rows contain a value that JSON cannot express.
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
    """Rows of files; a kind of it sets the reader of its format. `.gz` files are decompressed.

    Attributes:
      paths: For each split its files or patterns; a pattern with `*` means all files it matches, in order of name.
    """

    reader: ClassVar[Reader]

    paths: Mapping[str, tuple[str, ...]]

    def __init__(self, *, files: Mapping[str, Paths], on_bad_row: OnBadRow = "error"):
        if not isinstance(files, Mapping):
            raise UserError(f"files must map splits to paths, as in {{'train': 'train.jsonl'}}; got {files!r}.")
        listed = {s: (p,) if isinstance(p, (str, Path)) else p for s, p in files.items()}
        for split, paths in listed.items():
            if not isinstance(paths, Sequence) or not all(isinstance(path, (str, Path)) for path in paths):
                raise UserError(f"files of the split {split!r}: expected a path or a list of paths, got {paths!r}.")
        object.__setattr__(self, "paths", {split: tuple(map(str, paths)) for split, paths in listed.items()})
        object.__setattr__(self, "on_bad_row", on_bad_row)
        self.__post_init__()

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return tuple(self.paths)

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows of the split's files."""
        for path in self.files(split):
            with streams.open_bytes(path) as stream:
                yield from self.read_stream(stream, path)

    def read_stream(self, stream: BinaryIO, path: str) -> Iterator[Record | BadRow]:
        """Yields the rows of one file."""
        return type(self).reader(stream, path)

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the split's files as absolute paths.

        Raises:
          MissingFileError: A path without a file, or a pattern that matches none.
        """
        self.require_split(split)
        files = [file for path in self.paths[split] for file in _matching(user_path(path))]
        for file, count in Counter(files).items():
            if count > 1:
                raise UserError(f"{file} is {count} times among the files of the split {split!r}. Name it once.")
        return tuple(files)

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the split's paths and patterns as absolute paths."""
        self.require_split(split)
        return tuple(str(user_path(path)) for path in self.paths[split])

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the bytes of the split's files."""
        return sha256_of([type(self).__name__, *(sha256_of_file(path) for path in self.files(split))])

    def _line_counts(self, split: str) -> list[int]:
        """Returns the number of lines of each file that are not blank."""
        counts = []
        for path in self.files(split):
            with streams.open_bytes(path) as stream:
                counts.append(sum(1 for _ in streams.numbered_lines(stream, path)))
        return counts


class JsonlSource(FileSource):
    """One JSON object per line, or a JSON list, as `readers.read_jsonl` reads it.

    Args:
      files: For each split a path, a pattern with `*`, or several of them.
    """

    reader = readers.read_jsonl

    def num_rows(self, split: str) -> int | None:
        """Returns the number of lines that are not blank; None if a file is a list."""
        for path in self.files(split):
            with streams.open_bytes(path) as stream:
                if readers.is_json_list(stream):
                    return None
        return sum(self._line_counts(split))


class JsonSource(FileSource):
    """One JSON list of objects per file.

    Args:
      files: As in `JsonlSource`.
    """

    reader = readers.read_json


class WikiSource(FileSource):
    """Documents in WikiExtractor's format, many per file; see `readers.read_wiki` for the fields of a row.

    Args:
      files: As in `JsonlSource`.
    """

    reader = readers.read_wiki


class ParquetSource(FileSource):
    """Parquet files; needs the `tasks` extra.

    Args:
      files: As in `JsonlSource`.
    """

    reader = parquet.read_parquet

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows of the split's files, with integers in columns of integers with gaps."""
        whole_numbers = parquet.nullable_integers(self.files(split))
        for path in self.files(split):
            with streams.open_bytes(path) as stream:
                yield from parquet.read_parquet(stream, path, whole_numbers=whole_numbers)

    def num_rows(self, split: str) -> int | None:
        """Returns the number that the files' footers state."""
        total = 0
        for path in self.files(split):
            with streams.open_bytes(path) as stream:
                total += parquet.open_parquet(stream, path).metadata.num_rows
        return total


@dataclass(frozen=True, kw_only=True, init=False)
class TableSource(FileSource):
    """Files whose rows are cells under named columns.

    Args:
      files: As in `JsonlSource`.
      columns: Names of the fields; None when each file's first row has them.
    """

    columns: tuple[str, ...] | None

    def __init__(
        self, *, files: Mapping[str, Paths], columns: Sequence[str] | None = None, on_bad_row: OnBadRow = "error"
    ):
        if columns is not None:
            unique_columns(list(columns), where="columns")
        object.__setattr__(self, "columns", None if columns is None else tuple(columns))
        super().__init__(files=files, on_bad_row=on_bad_row)

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the bytes of the split's files and the names of the columns."""
        return sha256_of([super().revision(split), self.columns])


@dataclass(frozen=True, kw_only=True, init=False)
class CsvSource(TableSource):
    """Fields between commas, or another delimiter, quoted as in RFC 4180; see `tables.read_csv`.

    Args:
      files: As in `JsonlSource`.
      columns: As in `TableSource`.
      delimiter: Between fields, ";" for many a spreadsheet of a European country.
    """

    delimiter: str

    def __init__(
        self,
        *,
        files: Mapping[str, Paths],
        columns: Sequence[str] | None = None,
        delimiter: str = tables.COMMA,
        on_bad_row: OnBadRow = "error",
    ):
        tables.require_delimiter(delimiter)
        object.__setattr__(self, "delimiter", delimiter)
        super().__init__(files=files, columns=columns, on_bad_row=on_bad_row)

    def read_stream(self, stream: BinaryIO, path: str) -> Iterator[Record | BadRow]:
        """Yields the rows of one file."""
        return tables.read_csv(stream, path, columns=self.columns, delimiter=self.delimiter)

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the bytes of the split's files, the names of the columns and the delimiter."""
        revision = super().revision(split)
        return revision if self.delimiter == tables.COMMA else sha256_of([revision, self.delimiter])


class TsvSource(TableSource):
    """Fields between tabs, without quoting; see `tables.read_tsv`."""

    def read_stream(self, stream: BinaryIO, path: str) -> Iterator[Record | BadRow]:
        """Yields the rows of one file."""
        return tables.read_tsv(stream, path, columns=self.columns)

    def num_rows(self, split: str) -> int | None:
        """Returns the number of lines that are not blank, without headers."""
        counts = self._line_counts(split)
        return sum(counts) if self.columns is not None else sum(max(0, count - 1) for count in counts)


READERS_BY_SUFFIX: Mapping[str, Reader] = {
    ".parquet": parquet.read_parquet,
    ".csv": tables.read_csv,
    ".tsv": tables.read_tsv,
    ".txt": readers.read_text_or_jsonl,
}


@dataclass(frozen=True, kw_only=True, init=False)
class DetectedSource(FileSource):
    """Files of any format, by each file's name or first character.

    Args:
      files: As in `JsonlSource`.
      delimiter: Between the fields of CSV files; None for commas.
    """

    delimiter: str | None

    def __init__(self, *, files: Mapping[str, Paths], delimiter: str | None = None, on_bad_row: OnBadRow = "error"):
        if delimiter is not None:
            tables.require_delimiter(delimiter)
        object.__setattr__(self, "delimiter", delimiter)
        super().__init__(files=files, on_bad_row=on_bad_row)

    def read_stream(self, stream: BinaryIO, path: str) -> Iterator[Record | BadRow]:
        """Yields the rows of one file, by the reader for its name or content."""
        reader = reader_for(stream, path)
        if reader is tables.read_csv and self.delimiter is not None:
            return tables.read_csv(stream, path, delimiter=self.delimiter)
        return reader(stream, path)


def reader_for(stream: BinaryIO, path: str) -> Reader:
    """Returns the reader for a file, by its name; for JSON, by whether its content begins with a list."""
    name = path.removesuffix(".gz")
    for suffix, reader in READERS_BY_SUFFIX.items():
        if name.endswith(suffix):
            return reader
    head = streams.head_of(stream).removeprefix(b"\xef\xbb\xbf")
    return readers.read_json if head.lstrip()[:1] == b"[" else readers.read_jsonl


def _matching(path: Path) -> list[str]:
    """Returns the absolute paths of a file, or of all files that a pattern matches."""
    with accessing(path, setting="The file", action="read"):
        if path.is_file():
            return [str(path)]
        matches = sorted(path.parent.glob(path.name)) if "*" in path.name and path.parent.is_dir() else []
    if not matches:
        neighbors = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        no_folder = "" if path.parent.is_dir() else f" There is no folder {path.parent} either."
        reason = f"{path} is a directory, not a file" if path.is_dir() else f"No file {path}"
        raise MissingFileError(f"{reason} to read rows from.{nearest(path.name, neighbors)}{no_folder}")
    return [str(match) for match in matches]
