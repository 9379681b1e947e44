"""The interface of a source of rows: splits, rows in a fixed order, a digest of the data, and a policy for bad rows.

The kinds of sources are next to this module; a new one subclasses `Source`. Tasks interpret the rows.
"""

import abc
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from flan_jax.errors import MissingFileError, UnknownNameError, UserError
from flan_jax.names import nearest

Row = dict[str, Any]
OnBadRow = Literal["error", "skip"]

NOT_UNICODE = "not Unicode"


class Record(NamedTuple):
    """A row and its place, for messages: "train.jsonl:17"."""

    row: Row
    place: str


class BadRow(NamedTuple):
    """A row that cannot be used: the reason that it is counted under, what is wrong with it, and its place."""

    reason: str
    detail: str
    place: str


@dataclass(frozen=True, kw_only=True)
class Source(abc.ABC):
    """Rows by split. A new kind of source defines `splits`, `read` and `revision`.

    Attributes:
      on_bad_row: "error" stops at the first row that cannot be used; "skip" drops it and counts it by reason.
    """

    on_bad_row: OnBadRow = "error"

    def __post_init__(self) -> None:
        if self.on_bad_row not in get_args(OnBadRow):
            allowed = get_args(OnBadRow)
            raise UserError(
                f"on_bad_row must be one of {', '.join(allowed)}; got {self.on_bad_row!r}."
                f"{nearest(str(self.on_bad_row), allowed)}"
            )

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
          split: one of `splits`.
          dropped: counts the rows that `on_bad_row="skip"` drops, by reason.

        Raises:
          UnknownNameError: there is no such split.
          UserError: a bad row, or a split without rows.
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
          UserError: with the row's place, unless bad rows are skipped.
        """
        if self.on_bad_row == "skip":
            if dropped is not None:
                dropped[bad.reason] += 1
            return
        raise UserError(
            f"{bad.place}: {bad.detail}. Fix the row, or set on_bad_row='skip' to drop and count such rows."
        )

    def require_split(self, split: str) -> None:
        """Checks the name of a split.

        Raises:
          UnknownNameError: there is no such split; names the nearest and all.
        """
        if split not in self.splits:
            raise UnknownNameError(
                f"No split {split!r}.{nearest(split, self.splits)} Splits: {', '.join(self.splits) or 'none'}."
            )


@dataclass(frozen=True, kw_only=True)
class DerivedSource(Source):
    """Another source's rows, changed or selected; a kind of it overrides what differs.

    Its own `on_bad_row` applies, not that of `source`.

    Attributes:
      source: of the rows.
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
          UnknownNameError: there is no such split.
        """
        self.require_split(split)
        return split


def plain_record(row: Mapping[str, Any], *, place: str) -> Record | BadRow:
    """Returns a row with `str` texts and Python's own numbers and lists."""
    try:
        return Record({name: _plain(value) for name, value in row.items()}, place)
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, f"not UTF-8 ({error})", place)


def _plain(value: Any) -> Any:
    """Returns bytes as text, and NumPy's values as Python's."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
