"""Bytes to rows: one reader per file format.

A reader takes an open byte stream and the path that messages name, and yields a `Record` for each row and a `BadRow`
for what cannot be one, each with its file and line. Sources decide which files a split has and what to do about bad
rows.

    with open_bytes("train.jsonl.gz") as stream:
      for record in read_jsonl(stream, "train.jsonl.gz"):
        ...
"""

import contextlib
import csv
import gzip
import html
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from flan_jax.errors import UserError
from flan_jax.names import shortened
from flan_jax.tasks import lazy
from flan_jax.tasks.sources.rows import NOT_UNICODE, BadRow, Record, plain_record

Rows = Iterator[Record | BadRow]
Reader = Callable[[BinaryIO, str], Rows]

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"
WRONG_COLUMNS = "wrong number of columns"
NOT_CLOSED = "document is not closed"
OUTSIDE = "text outside a document"
LONGEST_FIELD = 2**24  # Characters of a CSV field.

_DOCUMENT = re.compile(rb"<doc\s[^>]*>\s*$")
_ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+=|\s*>)')


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading; a `.gz` file is decompressed.

    Raises:
      UserError: the file cannot be opened or decompressed.
    """
    try:
        # Buffered once more, since `readline` of gzip is Python and as slow as all other work on a line.
        stream = io.BufferedReader(gzip.GzipFile(path)) if path.endswith(".gz") else open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}).") from error
    with stream:
        try:
            yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: cannot be decompressed ({error}). The file is damaged or not gzip.") from error


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not blank with their numbers, counted from 1. Bytes, so that only \\n ends a line."""
    for number, line in enumerate(_lines(stream), start=1):
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def read_jsonl(stream: BinaryIO, path: str) -> Rows:
    """Yields the objects of JSON lines; blank lines are ignored. Places are "file:line"."""
    for number, line in numbered_lines(stream):
        yield _json_line(line, f"{path}:{number}")


def read_json(stream: BinaryIO, path: str) -> Rows:
    """Yields the objects of one JSON list. Places are "file: row N", counted from 0.

    Raises:
      UserError: not UTF-8, or not one complete list; no policy for bad rows can skip that.
    """
    content = b"".join(_lines(stream))
    try:
        items = json.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 ({error}). Fix the file: a JSON list is read as one value."
        ) from error
    except json.JSONDecodeError as error:
        if content.lstrip()[:1] == b"{" and error.msg == "Extra data":
            hint = "It looks like JSON lines, one object per line: read it as jsonl."
        elif content.rstrip()[-1:] != b"]":
            hint = "The file ends before its list does; download it again."
        else:
            hint = "Fix the file: a JSON list is read as one value."
        raise UserError(f"{path}:{error.lineno}: not one JSON list ({error}). {hint}") from error
    except (ValueError, RecursionError) as error:  # As in `_json_line`.
        raise UserError(f"{path}: JSON that cannot be read ({error}). Fix the file.") from error
    if not isinstance(items, list):
        raise UserError(f"{path}: expected one JSON list of objects, got {shortened(items)}.")
    for index, item in enumerate(items):
        yield _json_record(item, f"{path}: row {index}")


def read_csv(stream: BinaryIO, path: str, *, columns: Sequence[str] | None = None) -> Rows:
    """Yields the rows of a file with commas between fields, quoted as in RFC 4180.

    A quoted field may contain commas, newlines and doubled quotation marks. Places are "file:line" of a row's first
    line.

    Args:
      stream: of the file.
      path: of the file, for messages.
      columns: names of the fields; None if the first row has them.

    Raises:
      UserError: quotation marks that do not pair up: after them no row can be separated from the next.
    """
    yield from _table(_csv_cells(stream, path), path, columns=columns, between="commas")


def read_tsv(stream: BinaryIO, path: str, *, columns: Sequence[str] | None = None) -> Rows:
    """Yields the rows of a file with tabs between fields; a quotation mark is an ordinary character.

    Args:
      stream: of the file.
      path: of the file, for messages.
      columns: as in `read_csv`.
    """
    yield from _table(_tsv_cells(stream), path, columns=columns, between="tabs")


def read_parquet(stream: BinaryIO, path: str) -> Rows:
    """Yields the rows of a Parquet file. Places are "file: row N", counted from 0.

    Raises:
      UserError: not a Parquet file.
    """
    rows = (row for batch in open_parquet(stream, path).iter_batches() for row in batch.to_pylist())
    for index, row in enumerate(rows):
        yield plain_record(row, place=f"{path}: row {index}")


def open_parquet(stream: BinaryIO, path: str) -> Any:
    """Returns the `pyarrow.parquet.ParquetFile` of a stream.

    Raises:
      UserError: not a Parquet file.
    """
    try:
        return lazy.import_parquet().ParquetFile(stream)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a Parquet file ({error}).") from error


def read_wiki(stream: BinaryIO, path: str) -> Rows:
    r"""Yields the documents of a file written by WikiExtractor. Places are "file:line" of the opening tag.

    A row has the attributes of the opening tag (`id`, `url`, `title`) and `text`, without its first line if that is the
    title, and without blank lines. A file with the lines `<doc id="7" title="Rain">`, `Rain`, a blank one, `It falls.`
    and `</doc>` is the row {"id": "7", "title": "Rain", "text": "It falls."}. The text of many an article is "".
    """
    opening, place, lines = b"", path, list[bytes]()
    for number, line in numbered_lines(stream):
        if _DOCUMENT.match(line):
            if opening:
                yield BadRow(NOT_CLOSED, "another document begins before its </doc>", place)
            opening, place, lines = line, f"{path}:{number}", []
        elif not opening:
            yield BadRow(OUTSIDE, "expected <doc ...>", f"{path}:{number}")
        elif line.strip() == b"</doc>":
            yield _document(opening, lines, place)
            opening = b""
        else:
            lines.append(line)
    if opening:
        yield BadRow(NOT_CLOSED, "the file ends before its </doc>", place)


READERS_BY_SUFFIX: Mapping[str, Reader] = {".parquet": read_parquet, ".csv": read_csv, ".tsv": read_tsv}


def reader_for(path: str) -> Reader:
    """Returns the reader for a file, by its name; for JSON, by whether its content begins with a list.

    Raises:
      UserError: the file ends in `.gz` and cannot be decompressed.
    """
    name = path.removesuffix(".gz")
    for suffix, reader in READERS_BY_SUFFIX.items():
        if name.endswith(suffix):
            return reader
    with open_bytes(path) as stream:
        first = next((line.lstrip()[:1] for _, line in numbered_lines(stream)), b"")
    return read_json if first == b"[" else read_jsonl


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yields the lines with their ends, without a byte order mark."""
    for index, line in enumerate(stream):
        yield line if index else line.removeprefix(b"\xef\xbb\xbf")


def _json_line(line: bytes, place: str) -> Record | BadRow:
    try:
        text = line.decode()
        row = json.loads(text)
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, f"not UTF-8 ({error})", place)
    except json.JSONDecodeError as error:
        hint = "; expected one object per line, not a list over several lines" if line.strip() == b"[" else ""
        return BadRow(NOT_JSON, f"not JSON ({error}{hint}): {shortened(text)}", place)
    except (ValueError, RecursionError) as error:  # A number of over 4,300 digits; nesting of a thousand levels.
        return BadRow(NOT_JSON, f"JSON that cannot be read ({error}): {shortened(text)}", place)
    return _json_record(row, place, may_be_halved="\\u" in text and ("\\ud" in text or "\\uD" in text))


def _json_record(row: Any, place: str, *, may_be_halved: bool = True) -> Record | BadRow:
    """Returns a JSON value as a row; without `may_be_halved` it is not searched for half a surrogate pair."""
    if not isinstance(row, dict):
        return BadRow(NOT_AN_OBJECT, f"expected a JSON object, got {shortened(row)}", place)
    if may_be_halved:  # Half of a surrogate pair is valid JSON, but no text that can be encoded.
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return BadRow(NOT_UNICODE, f"half a surrogate pair ({error})", place)
    return Record(row, place)


def _table(
    numbered: Iterable[tuple[int, list[str] | str]], path: str, *, columns: Sequence[str] | None, between: str
) -> Rows:
    """Yields rows of cells as records; a text in place of cells is why that row is bad."""
    for number, cells in numbered:
        place = f"{path}:{number}"
        if isinstance(cells, str):
            yield BadRow(NOT_UNICODE, cells, place)
        elif columns is None:
            columns = cells
        elif len(cells) == len(columns):
            yield Record(dict(zip(columns, cells, strict=True)), place)
        else:
            detail = f"{len(cells)} fields between {between}, expected {len(columns)} ({', '.join(columns)})"
            yield BadRow(WRONG_COLUMNS, detail, place)


def _csv_cells(stream: BinaryIO, path: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yields the rows that are not blank, each with the number of its first line; the reason for one not in UTF-8."""
    # Python's own limit (131,072 characters, for the whole process) is shorter than many articles and dialogues.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    # Undecodable bytes are reported with their row, which is known only after the line has been split.
    reader = csv.reader((line.decode(errors="surrogateescape") for line in _lines(stream)), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path}:{number}: the quotation marks of the row that starts here do not pair up ({error}). Put a "
                'field that contains a comma, a newline or a quotation mark between quotation marks ("), and double '
                "each mark inside."
            ) from error
        if cells:
            undecodable = [cell for cell in cells if not _is_unicode(cell)]
            yield number, f"not UTF-8: {shortened(undecodable[0])}" if undecodable else cells


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _tsv_cells(stream: BinaryIO) -> Iterator[tuple[int, list[str] | str]]:
    for number, line in numbered_lines(stream):
        try:
            yield number, line.decode().split("\t")
        except UnicodeDecodeError as error:
            yield number, f"not UTF-8 ({error})"


def _document(opening: bytes, lines: list[bytes], place: str) -> Record | BadRow:
    try:
        attributes = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(opening.decode())}
        texts = [line.decode().strip() for line in lines]
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, f"not UTF-8 ({error})", place)
    # Depending on the version of WikiExtractor, the title is escaped in the tag, in the text, or in neither.
    title = attributes.get("title")
    body = texts[1:] if texts and html.unescape(texts[0]) == title else texts
    return Record({**attributes, "text": "\n".join(body)}, place)
