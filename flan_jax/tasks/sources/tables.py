"""Tables to rows: CSV and TSV files, whose rows are cells under named columns."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from flan_jax.encodings import not_utf8
from flan_jax.errors import UserError
from flan_jax.names import shortened
from flan_jax.tasks.sources.rows import NOT_UNICODE, BadRow, Record, unique_columns
from flan_jax.tasks.sources.streams import numbered_lines, text_lines

Rows = Iterator[Record | BadRow]
Cells = Iterator[tuple[int, list[str] | str]]
"""Rows with the numbers of their first lines; a text in place of cells is why that row is bad."""

WRONG_COLUMNS = "wrong number of columns"
COMMA = ","
LONGEST_FIELD = 2**24  # Characters of a CSV field.

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def require_delimiter(delimiter: str) -> None:
    r"""Checks a delimiter that a user gave.

    >>> require_delimiter(";;")
    Traceback (most recent call last):
    flan_jax.errors.UserError: delimiter must be one character, such as ';' or '\t'; got ';;'.

    Raises:
      UserError: It is not one character, or one that cannot separate fields.
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UserError(f"delimiter must be one character, such as ';' or '\\t'; got {delimiter!r}.")


def read_csv(
    stream: BinaryIO, path: str, *, columns: Sequence[str] | None = None, delimiter: str = COMMA
) -> Iterator[Record | BadRow]:
    """Yields the rows of a file with a delimiter between fields, quoted as in RFC 4180.

    A quoted field may contain delimiters, newlines and doubled quotation marks. Places are "file:line" of a row's first
    line.

    Args:
      stream: Of the file.
      path: Of the file, for messages.
      columns: Names of the fields; None if the first row has them.
      delimiter: Between fields.

    Raises:
      UserError: Quotation marks that do not pair up: after them no row can be separated from the next; two columns of
        one name; or another delimiter between all fields.
    """
    yield from _table(_csv_cells(stream, path, delimiter), path, columns=columns, delimiter=delimiter)


def read_tsv(stream: BinaryIO, path: str, *, columns: Sequence[str] | None = None) -> Iterator[Record | BadRow]:
    """Yields the rows of a file with tabs between fields; a quotation mark is an ordinary character.

    Args:
      stream: Of the file.
      path: Of the file, for messages.
      columns: As in `read_csv`.

    Raises:
      UserError: Two columns of one name, or another delimiter between all fields.
    """
    yield from _table(_tsv_cells(stream, path), path, columns=columns, delimiter="\t")


def _table(numbered: Cells, path: str, *, columns: Sequence[str] | None, delimiter: str) -> Rows:
    """Yields rows of cells as records."""
    between = _DELIMITERS.get(delimiter, repr(delimiter))
    is_first = True
    for number, cells in numbered:
        place = f"{path}:{number}"
        if is_first and not isinstance(cells, str):
            _require_delimited(cells, columns, delimiter, place)
            is_first = False
        if isinstance(cells, str):
            if columns is None:  # Without names no row can be read.
                raise UserError(f"{place}: the names of the columns are {cells}.")
            yield BadRow(NOT_UNICODE, cells, place)
        elif columns is None:
            columns = cells
            unique_columns(columns, where=place)
        elif len(cells) == len(columns):
            yield Record(dict(zip(columns, cells, strict=True)), place)
        else:
            detail = f"{len(cells)} fields between {between}, expected {len(columns)} ({', '.join(columns)})"
            yield BadRow(WRONG_COLUMNS, detail, place)


def _require_delimited(cells: list[str], columns: Sequence[str] | None, delimiter: str, place: str) -> None:
    """Refuses a file whose first row is one cell that another delimiter would separate."""
    if len(cells) != 1 or (columns is not None and len(columns) == 1):
        return
    if re.fullmatch(r"sep=.", cells[0]):
        raise UserError(f"{place}: {cells[0]!r} is a line for Excel, not a row. Delete it, and give the delimiter.")
    for other, name in _DELIMITERS.items():
        names = cells[0].split(other)
        is_likely = len(names) == len(columns) if columns is not None else all(n and n == n.strip() for n in names)
        if other != delimiter and len(names) > 1 and is_likely:
            yaml = f"in YAML: source: {{kind: csv, delimiter: {other!r}}}; in infer: --delimiter={other!r}"
            fix = f"read it as csv with {other!r} as delimiter ({yaml})"
            fix = "read it as tsv" if other == "\t" else fix
            between = _DELIMITERS.get(delimiter, repr(delimiter))
            raise UserError(
                f"{place}: the first row has no {between} between fields; it looks like a file with {name}: "
                f"{shortened(cells[0])}. If so, {fix}."
            )


def _csv_cells(stream: BinaryIO, path: str, delimiter: str) -> Cells:
    """Yields the rows that are not blank."""
    # Python's own limit (131,072 characters, for the whole process) is shorter than many articles and dialogues.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    # Undecodable bytes are reported with their row, which is known only after the line has been split.
    lines: Iterable[str] = (line.decode(errors="surrogateescape") for line in text_lines(stream, path))
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field larger" in str(error):
                raise UserError(
                    f"{path}:{number}: a field has more than {LONGEST_FIELD:,} characters. A quotation mark without "
                    "its partner makes a field of all that follows; otherwise split the text."
                ) from error
            if "new-line" in str(error):
                raise UserError(
                    f"{path}:{number}: a carriage return inside a field that is not between quotation marks. Put the "
                    'field between quotation marks ("), or end all lines of the file alike.'
                ) from error
            raise UserError(
                f"{path}:{number}: the quotation marks of the row that starts here do not pair up ({error}). Put a "
                'field that contains a comma, a newline or a quotation mark between quotation marks ("), and double '
                "each mark inside."
            ) from error
        if cells:
            yield number, _undecodable(cells) or cells


def _undecodable(cells: list[str]) -> str | None:
    for cell in cells:
        if not cell.isascii():
            try:
                cell.encode("utf-8", "surrogateescape").decode()
            except UnicodeDecodeError as error:
                return f"{not_utf8(error)}: {shortened(cell)}"
    return None


def _tsv_cells(stream: BinaryIO, path: str) -> Cells:
    for number, line in numbered_lines(stream, path):
        try:
            yield number, line.decode().split("\t")
        except UnicodeDecodeError as error:
            yield number, not_utf8(error)
