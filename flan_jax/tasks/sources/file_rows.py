"""Files to rows: lines, JSON lines, JSON lists, CSV. What cannot be a row is told with its file and line.

Which files a split has, and what becomes of bad rows, is the business of `sources`.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any

from flan_jax.errors import UserError
from flan_jax.names import shortened
from flan_jax.tasks.sources.rows import NOT_UNICODE, BadRow, Record

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"
LONGEST_FIELD = 2**24  # Characters of a CSV field.


def numbered_lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not blank with their numbers, counted from 1. Bytes, so that only \\n ends a line."""
    for number, line in enumerate(_whole_lines(path), start=1):
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def _whole_lines(path: str) -> Iterator[bytes]:
    """Yields the lines with their ends, without a byte order mark."""
    # Buffered once more, since gzip's own `readline` is Python and as slow as all else that is done to a line.
    with io.BufferedReader(gzip.GzipFile(path)) if path.endswith(".gz") else open(path, "rb") as file:
        try:
            for number, line in enumerate(file):
                yield line if number else line.removeprefix(b"\xef\xbb\xbf")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: cannot be decompressed ({error}). The file is damaged or not gzip.") from error


def parse_json(line: bytes, place: str) -> Record | BadRow:
    """Returns the row that a line of JSON lines holds."""
    try:
        text = line.decode()
        row = json.loads(text)
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, f"not UTF-8 ({error})", place)
    except json.JSONDecodeError as error:
        hint = "; one object a line is needed, not a list over many" if line.strip() == b"[" else ""
        return BadRow(NOT_JSON, f"not JSON ({error}{hint}): {shortened(text)}", place)
    return json_record(row, place, may_be_halved="\\u" in text and ("\\ud" in text or "\\uD" in text))


def json_record(row: Any, place: str, *, may_be_halved: bool = True) -> Record | BadRow:
    """Returns a JSON value as a row; `may_be_halved` says whether half a surrogate pair has to be looked for."""
    if not isinstance(row, dict):
        return BadRow(NOT_AN_OBJECT, f"expected a JSON object, got {shortened(row)}", place)
    if may_be_halved:  # Half of a surrogate pair is JSON, but no text that can be encoded.
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return BadRow(NOT_UNICODE, f"half a surrogate pair ({error})", place)
    return Record(row, place)


def json_list(path: str) -> list[Any]:
    """Returns the list that a file holds.

    Raises:
      UserError: not UTF-8, not one whole list.
    """
    content = b"".join(_whole_lines(path))
    try:
        value = json.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 ({error}). Mend the file: a JSON list is read whole.") from error
    except json.JSONDecodeError as error:
        if content.lstrip()[:1] == b"{" and error.msg == "Extra data":
            hint = "It looks like JSON lines, one object a line: read it as jsonl."
        elif content.rstrip()[-1:] != b"]":
            hint = "The file ends before its list does; get it again."
        else:
            hint = "Mend the file: a JSON list is read whole."
        raise UserError(f"{path}:{error.lineno}: not one JSON list ({error}). {hint}") from error
    if not isinstance(value, list):
        raise UserError(f"{path}: expected one JSON list of objects, got {shortened(value)}.")
    return value


def csv_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not blank, each with the number of the line that it starts on, counted from 1.

    Raises:
      UserError: quotation marks that do not pair up.
    """
    # Python's own limit (131,072 characters, the process over) is shorter than articles and dialogues are.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    # Bytes that are no UTF-8 are told by the row they are in, which is known only when it has been cut.
    reader = csv.reader((line.decode(errors="surrogateescape") for line in _whole_lines(path)), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path}:{number}: the quotation marks of the row that starts here do not pair up ({error}). A field "
                'with a comma, a newline or a quotation mark in it stands between quotation marks ("), and each mark '
                "inside is written twice."
            ) from error
        if cells:
            yield number, cells


def is_unicode(text: str) -> bool:
    """Whether a cell of `csv_rows` was UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def first_byte(path: str) -> bytes:
    """Returns the first byte of a file that is not white space, b"" when there is none: what tells a list from lines.

    Raises:
      UserError: the file ends in `.gz` and cannot be decompressed.
    """
    return next((line.lstrip()[:1] for line in _whole_lines(path) if line.strip()), b"")
