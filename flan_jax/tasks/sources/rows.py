"""Rows and the interface of their sources: splits, rows in a fixed order, a digest of the data, a policy for bad rows.

The kinds of sources are next to this module; a new one subclasses `Source`. Tasks interpret the rows. A row holds texts
that can be encoded, finite numbers, lists and mappings, not nested too deep: everything else is a bad row, with the
field that holds it. A reader that makes only such values calls `require_plain` where a look at the text shows that it
may be needed; the others call `plain_record`.
"""

import abc
import datetime
import decimal
import math
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from flan_jax.annotations import check_fields
from flan_jax.errors import MissingFileError, UnknownNameError, UserError
from flan_jax.names import require_choice

Row = dict[str, Any]
OnBadRow = Literal["error", "skip"]

NOT_UNICODE = "not Unicode"
NOT_FINITE = "not a finite number"
TOO_LARGE = "number of too many digits"
TOO_DEEP = "nested too deep"
REPEATED = "repeated field"

MAX_NESTING = 100  # Python's own limit, of about a thousand, depends on who calls.
MAX_DIGITS = 4300  # Python refuses to write longer numbers.


class Unusable(UserError):
    """A row that cannot be used; sources and normalizers raise it, and whoever knows the row's place catches it.

    Attributes:
      reason: The category that it is counted under.
      detail: The fault of this row.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Record(NamedTuple):
    """A row and its place, for messages: "train.jsonl:17"."""

    row: Row
    place: str


class BadRow(NamedTuple):
    """A row that cannot be used.

    Attributes:
      reason: The name that it is counted under.
      detail: The fault.
      place: File and line.
      cause: The exception of a user's function, whose traceback `--traceback` shows.
    """

    reason: str
    detail: str
    place: str
    cause: Exception | None = None


@dataclass(frozen=True, kw_only=True)
class Source(abc.ABC):
    """Rows by split. A new kind of source defines `splits`, `read` and `revision`.

    Attributes:
      on_bad_row: "error" stops at the first row that cannot be used; "skip" drops it and counts it by reason.
    """

    on_bad_row: OnBadRow = "error"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    @abc.abstractmethod
    def splits(self) -> Collection[str]:
        """Names of the splits."""

    @abc.abstractmethod
    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows of a split in a fixed order, with a `BadRow` in place of one that cannot be used."""

    @abc.abstractmethod
    def revision(self, split: str) -> str:
        """Returns a digest that changes when the rows do."""

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the local files that the rows are read from, as absolute paths."""
        self.require_split(split)
        return ()

    def unavailable(self, split: str) -> str | None:
        """Returns why the rows of a split are not available on this machine; None if they are. Reads no row."""
        try:
            self.files(split)
        except MissingFileError as error:
            return str(error)
        return None

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the paths or patterns where rows are expected, whether or not the files exist."""
        self.require_split(split)
        return ()

    def num_rows(self, split: str) -> int | None:
        """Returns the number of rows, including bad ones; None if that requires reading them."""
        self.require_split(split)
        return None

    def problems(self, split: str) -> tuple[str, ...]:
        """Returns violations of the rules of the rows' authors, for a report. May read the rows."""
        self.require_split(split)
        return ()

    def describe(self, split: str) -> str:
        """Returns a name for the rows of a split, for messages."""
        return ", ".join(self.files(split)) or type(self).__name__

    def records(self, split: str, *, dropped: Counter[str] | None = None) -> Iterator[Record]:
        """Yields the usable rows with their places.

        Args:
          split: One of `splits`.
          dropped: Counts the rows that `on_bad_row="skip"` drops, by reason.

        Raises:
          UnknownNameError: There is no such split.
          UserError: A bad row, or a split without rows.
        """
        self.require_split(split)
        empty = True
        for record in self.read(split):
            empty = False
            if isinstance(record, BadRow):
                self.refuse(record, dropped=dropped)
            else:
                yield record
        if empty:
            raise UserError(
                f"The split {split!r} of {self.describe(split)} is empty. Give it rows or leave the split out."
            )

    def rows(self, split: str, *, dropped: Counter[str] | None = None) -> Iterator[Row]:
        """Yields the usable rows; see `records`."""
        for record in self.records(split, dropped=dropped):
            yield record.row

    def refuse(self, bad: BadRow, *, dropped: Counter[str] | None) -> None:
        """Raises for a row that cannot be used, or counts it, according to `on_bad_row`.

        Raises:
          UserError: With the row's place, unless bad rows are skipped.
        """
        if self.on_bad_row == "skip":
            if dropped is not None:
                dropped[bad.reason] += 1
            return
        raise UserError(
            f"{bad.place}: {bad.detail}. Fix the row, or set on_bad_row='skip' (in YAML, the task's key on_bad_row: "
            "skip) to drop and count such rows."
        ) from bad.cause

    def require_split(self, split: str) -> None:
        """Checks the name of a split.

        Raises:
          UnknownNameError: There is no such split; names the nearest and all.
        """
        require_choice(split, self.splits, "the split", error=UnknownNameError)


@dataclass(frozen=True, kw_only=True)
class DerivedSource(Source):
    """Another source's rows, changed or selected; a kind of it overrides what differs.

    Its own `on_bad_row` applies, not that of `source`.

    Attributes:
      source: Of the rows.
    """

    source: Source

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return self.source.splits

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the source's rows."""
        return self.source.read(self.inner(split))

    def revision(self, split: str) -> str:
        """Returns the source's digest."""
        return self.source.revision(self.inner(split))

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the source's files."""
        return self.source.files(self.inner(split))

    def unavailable(self, split: str) -> str | None:
        """Returns why the source's rows are not available."""
        return self.source.unavailable(self.inner(split))

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the paths or patterns where the source's rows are expected."""
        return self.source.looked_for(self.inner(split))

    def num_rows(self, split: str) -> int | None:
        """Returns the source's number."""
        return self.source.num_rows(self.inner(split))

    def describe(self, split: str) -> str:
        """Returns the source's name for its rows."""
        return self.source.describe(self.inner(split))

    def inner(self, split: str) -> str:
        """Returns the source's name for a split.

        Raises:
          UnknownNameError: There is no such split.
        """
        self.require_split(split)
        return split


def plain_record(row: Mapping[Any, Any], *, place: str) -> Record | BadRow:
    """Returns a row with `str` texts, dates as text, and Python's own numbers and lists; see `require_plain`."""
    try:
        return Record(
            {_name(name, "a field's name"): _plain(value, str(name), 1) for name, value in row.items()}, place
        )
    except Unusable as error:
        return BadRow(error.reason, error.detail, place)


def require_plain(row: Mapping[Any, Any]) -> None:
    """Refuses values that no prompt can hold: NaN, infinity, half a surrogate pair, very deep or very long ones.

    Raises:
      Unusable: With the field.
    """
    for name, value in row.items():
        _plain(value, _name(name), 1)


def unique_columns(names: list[str], *, where: str) -> None:
    """Refuses columns of one name, of which all but one would be lost, and columns without a name.

    Args:
      names: Of the columns.
      where: The names' origin, for the message.

    Raises:
      UserError: Two have one name, or one has none.
    """
    for index, name in enumerate(names):
        if not name.strip():
            raise UserError(
                f"{where}: column {index + 1} of {len(names)} has no name. Name it, or leave it out: pandas writes "
                "such a column unless index=False."
            )
        if name in names[:index]:
            first = names.index(name) + 1
            raise UserError(
                f"{where}: the columns {first} and {index + 1} have the name {name!r}. Give every column a name of its "
                "own."
            )


def index_of(value: object, listed: Sequence[object]) -> int | None:
    """Returns the position of the listed value that a row's value means; None if it means none of them.

    An equal value of the same type comes first. Numbers are compared as numbers, since integers with gaps become
    floats in many tools, and the text of a table's cell may be a number. True and false are no numbers.

    >>> index_of(1.0, [0, 1]), index_of("1", [0, 1]), index_of(True, [0, 1])
    (1, 1, None)
    """
    for i, item in enumerate(listed):
        if type(item) is type(value) and item == value:
            return i
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    numbers = (
        i for i, n in enumerate(listed) if isinstance(n, (int, float)) and not isinstance(n, bool) and n == value
    )
    return next(numbers, None)


def _name(name: object, field: str = "name of a field") -> str:
    return str(_plain(name, field, 1))


def _plain(value: Any, field: str, depth: int) -> Any:
    """Returns bytes and dates as text, and NumPy's values as Python's."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise Unusable(NOT_UNICODE, f"the field {field!r} holds half a surrogate pair ({error})") from error
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Compared by size first, which costs nothing for ordinary numbers.
        if value.bit_length() > 3 * MAX_DIGITS and abs(value) >= 10**MAX_DIGITS:
            raise Unusable(TOO_LARGE, f"the field {field!r} holds a number of more than {MAX_DIGITS:,} digits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unusable(NOT_FINITE, f"the field {field!r} holds {float(value)!r}, which is not a finite number")
        return float(value)
    if depth > MAX_NESTING:
        raise Unusable(TOO_DEEP, f"the field {field!r} nests values more than {MAX_NESTING} levels deep")
    if isinstance(value, Mapping):
        return {
            _name(name, field): _plain(inner, f"{field}.{name}" if depth < 9 else field, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{field}[{i}]" if depth < 9 else field, depth + 1) for i, item in enumerate(value)]
    return _plain_of_library(value, field, depth)


def _plain_of_library(value: Any, field: str, depth: int) -> Any:
    """Returns a value of a class that JSON does not have as one that it has."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise Unusable(NOT_UNICODE, f"the field {field!r} is not UTF-8 ({error})") from error
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), field, depth)
    if isinstance(value, np.generic):
        return _plain(value.item(), field, depth)
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            raise Unusable(NOT_FINITE, f"the field {field!r} holds {value}, which is not a finite number")
        return int(value) if value.as_tuple().exponent == 0 else str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value) if isinstance(value, (datetime.timedelta, uuid.UUID)) else value
