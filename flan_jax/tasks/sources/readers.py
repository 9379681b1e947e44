"""Bytes to rows: one reader per file format, for exports, previews and inference alike.

A reader takes an open byte stream and the path that messages name, and yields a `Record` for each row and a `BadRow`
for what cannot be one, each with its file and line. Sources decide which files a split has and what to do about bad
rows. CSV and TSV are in `tables`, Parquet in `parquet`.

    with open_bytes("train.jsonl.gz") as stream:
      for record in read_jsonl(stream, "train.jsonl.gz"):
        ...
"""

import html
import json
import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from flan_jax.encodings import not_utf8
from flan_jax.errors import UserError
from flan_jax.names import shortened
from flan_jax.tasks.sources.rows import (
    MAX_NESTING,
    NOT_FINITE,
    NOT_UNICODE,
    REPEATED,
    TOO_DEEP,
    BadRow,
    Record,
    Unusable,
    require_plain,
)
from flan_jax.tasks.sources.streams import head_of, numbered_lines, text_lines

Rows = Iterator[Record | BadRow]

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"
NOT_CLOSED = "document is not closed"
OUTSIDE = "text outside a document"
TEXT_FIELD = "inputs"  # Of a row that is a line of text.

_DOCUMENT = re.compile(rb"<doc\s[^>]*>\s*$")
_ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+=|\s*>)')
_LIST = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*(?:\{|\]|$)")
_OBJECT = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*["}]')


def read_jsonl(stream: BinaryIO, path: str) -> Rows:
    """Yields the objects of JSON lines, or of a JSON list; blank lines are ignored. Places are "file:line".

    Raises:
      UserError: As `read_json`, for a list.
    """
    if is_json_list(stream):
        yield from read_json(stream, path)
        return
    for number, line in numbered_lines(stream, path):
        yield _json_line(line, f"{path}:{number}")


def is_json_list(stream: BinaryIO) -> bool:
    """Returns whether a stream begins with a list of objects, which is one value and not one per line."""
    return _LIST.match(head_of(stream)) is not None


def read_json(stream: BinaryIO, path: str) -> Rows:
    """Yields the objects of one JSON list. Places are "file: row N", counted from 0.

    Raises:
      UserError: Not UTF-8, or not one complete list; no policy for bad rows can skip that.
    """
    content = b"".join(text_lines(stream, path))
    try:
        text = content.decode()
        items = json.loads(text, object_pairs_hook=_mapping_or_repeated)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: {not_utf8(error)}. Fix the file: a JSON list is read as one value.") from error
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
        yield _json_record(item, f"{path}: row {index}", is_plain=False)


def read_text_or_jsonl(stream: BinaryIO, path: str) -> Rows:
    """Yields the rows of standard input: JSON lines, a JSON list, or lines of text as the field `inputs`.

    The first line decides: it is JSON if it begins with an object's brace and a key.
    """
    if _OBJECT.match(head_of(stream)) or is_json_list(stream):
        yield from read_jsonl(stream, path)
        return
    for number, line in numbered_lines(stream, path):
        try:
            yield Record({TEXT_FIELD: line.decode()}, f"{path}:{number}")
        except UnicodeDecodeError as error:
            yield BadRow(NOT_UNICODE, not_utf8(error), f"{path}:{number}")


def read_wiki(stream: BinaryIO, path: str) -> Rows:
    r"""Yields the documents of a file written by WikiExtractor. Places are "file:line" of the opening tag.

    A row has the attributes of the opening tag (`id`, `url`, `title`) and `text`, without its first line if that is the
    title, and without blank lines. A file with the lines `<doc id="7" title="Rain">`, `Rain`, a blank one, `It falls.`
    and `</doc>` is the row {"id": "7", "title": "Rain", "text": "It falls."}. The text of many an article is "".
    """
    opening, place, lines = b"", path, list[bytes]()
    for number, line in numbered_lines(stream, path):
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


class _Repeated(dict[str, Any]):
    """A JSON object with a key given twice; `key` is its name."""

    key: str


def _mapping_or_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) == len(pairs):
        return mapping
    repeated = _Repeated(mapping)
    keys = [key for key, _ in pairs]
    repeated.key = next(key for i, key in enumerate(keys) if key in keys[:i])
    return repeated


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = _mapping_or_repeated(pairs)
    if isinstance(mapping, _Repeated):
        raise Unusable(REPEATED, f"the key {mapping.key!r} is given twice in one object")
    return mapping


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999, and NaN, Infinity and -Infinity, which JSON does not have.
        raise Unusable(NOT_FINITE, text)
    return number


# The checks run inside the decoder, so that ordinary rows are not walked again.
_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite).decode


def _json_line(line: bytes, place: str) -> Record | BadRow:
    try:
        text = line.decode()
        row = _decode(text)
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, not_utf8(error), place)
    except Unusable as error:
        return _with_field(error, text, place)
    except json.JSONDecodeError as error:
        hint = "; expected one object per line, not a list over several lines" if line.strip() == b"[" else ""
        return BadRow(NOT_JSON, f"not JSON ({error}{hint}): {shortened(text)}", place)
    except RecursionError:
        return BadRow(TOO_DEEP, f"JSON that nests values more than {MAX_NESTING} levels deep: {shortened(text)}", place)
    except ValueError as error:  # A number of over 4,300 digits.
        return BadRow(NOT_JSON, f"JSON that cannot be read ({error}): {shortened(text)}", place)
    may_be_halved = "\\u" in text and ("\\ud" in text or "\\uD" in text)
    may_be_deep = text.count("[") + text.count("{") > MAX_NESTING
    return _json_record(row, place, is_plain=not (may_be_halved or may_be_deep))


def _with_field(error: Unusable, text: str, place: str) -> Record | BadRow:
    """Returns a bad row that names the field of a number that is not finite, which the decoder does not know."""
    if error.reason == NOT_FINITE:
        try:
            row = json.loads(text, object_pairs_hook=_mapping_or_repeated)
            return _json_record(row, place, is_plain=False)
        except (ValueError, RecursionError):  # The line is not JSON after the number.
            return BadRow(NOT_JSON, f"not JSON, and {error.detail} is not a finite number: {shortened(text)}", place)
    return BadRow(error.reason, error.detail, place)


def _json_record(row: Any, place: str, *, is_plain: bool) -> Record | BadRow:
    """Returns a JSON value as a row; one that is known to be plain is not searched for bad values."""
    if not isinstance(row, dict):
        return BadRow(NOT_AN_OBJECT, f"expected a JSON object, got {shortened(row)}", place)
    if not is_plain:
        try:
            require_plain(row)
            _require_unique(row)
        except Unusable as error:
            return BadRow(error.reason, error.detail, place)
    return Record(row, place)


def _require_unique(value: Any) -> None:
    if isinstance(value, _Repeated):
        raise Unusable(REPEATED, f"the key {value.key!r} is given twice in one object")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _require_unique(inner)


def _document(opening: bytes, lines: list[bytes], place: str) -> Record | BadRow:
    try:
        attributes = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(opening.decode())}
        texts = [line.decode().strip() for line in lines]
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, not_utf8(error), place)
    # Depending on the version of WikiExtractor, the title is escaped in the tag, in the text, or in neither.
    title = attributes.get("title")
    body = texts[1:] if texts and html.unescape(texts[0]) == title else texts
    return Record({**attributes, "text": "\n".join(body)}, place)
