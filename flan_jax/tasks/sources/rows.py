"""What a source of rows is: splits, rows in a fixed order, a digest of what was read, and a policy for bad rows.

The kinds of sources are in `sources`; a new one subclasses `Source`. What rows mean is left to the task.
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
    """A row and where it was found, for messages: "train.jsonl:17"."""

    row: Row
    place: str


class BadRow(NamedTuple):
    """A row that cannot be used: the reason it is counted under, what is wrong with it, and where it is."""

    reason: str
    detail: str
    place: str


@dataclass(frozen=True, kw_only=True)
class Source(abc.ABC):
    """Rows by split. A new kind of source gives `splits`, `read` and `revision`.

    Attributes:
      on_bad_row: "error" stops at the first row that cannot be used; "skip" counts it by reason and goes on.
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
        """Yields the rows of a split in a fixed order, and in their places those that cannot be used."""

    @abc.abstractmethod
    def revision(self, split: str) -> str:
        """Returns a digest that changes when the rows do."""

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the local files that the rows are read from, as absolute paths."""
        self.require_split(split)
        return ()

    def unavailable(self, split: str) -> str | None:
        """Returns why the rows of a split cannot be had on this machine; None when they can. Reads no row."""
        try:
            self.files(split)
        except MissingFileError as error:
            return str(error)
        return None

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the paths, or patterns, that the rows would lie at, whether or not anything is there."""
        self.require_split(split)
        return ()

    def num_rows(self, split: str) -> int | None:
        """Returns the number of rows, bad ones included; None when only reading them tells."""
        self.require_split(split)
        return None

    def problems(self, split: str) -> tuple[str, ...]:
        """Returns departures from the rules that the rows' authors have for them, for a report; reads what it must."""
        self.require_split(split)
        return ()

    def describe(self, split: str) -> str:
        """Returns what a message calls the rows of a split."""
        return ", ".join(self.files(split)) or type(self).__name__

    def records(self, split: str, *, dropped: Counter[str] | None = None) -> Iterator[Record]:
        """Yields the usable rows with their places.

        Args:
          split: one of `splits`.
          dropped: where `on_bad_row="skip"` counts what it leaves out, by reason.

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
        """Raises for a row that cannot be used, or counts it, as `on_bad_row` says.

        Raises:
          UserError: naming the place, unless bad rows are to be skipped.
        """
        if self.on_bad_row == "skip":
            if dropped is not None:
                dropped[bad.reason] += 1
            return
        raise UserError(
            f"{bad.place}: {bad.detail}. Mend the row, or set on_bad_row='skip' to leave such rows out and count them."
        )

    def require_split(self, split: str) -> None:
        """Refuses the name of a split that there is not.

        Raises:
          UnknownNameError: naming the nearest and all splits.
        """
        if split not in self.splits:
            raise UnknownNameError(
                f"No split {split!r}.{nearest(split, self.splits)} Splits: {', '.join(self.splits) or 'none'}."
            )


@dataclass(frozen=True, kw_only=True)
class DerivedSource(Source):
    """Another source's rows in another cut or shape; a kind of it overrides what differs.

    Its own `on_bad_row` is the one that counts.

    Attributes:
      source: where the rows come from.
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
        """Returns why the source's rows cannot be had."""
        return self.source.unavailable(self.inner(split))

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the paths, or patterns, that the source's rows would lie at."""
        return self.source.looked_for(self.inner(split))

    def num_rows(self, split: str) -> int | None:
        """Returns the source's number."""
        return self.source.num_rows(self.inner(split))

    def describe(self, split: str) -> str:
        """Returns what the source calls its rows."""
        return self.source.describe(self.inner(split))

    def inner(self, split: str) -> str:
        """Returns the source's name of a split.

        Raises:
          UnknownNameError: there is no such split.
        """
        self.require_split(split)
        return split


def plain_record(row: Mapping[str, Any], *, place: str) -> Record | BadRow:
    """Returns a row with texts as `str`, and numbers and arrays as Python's."""
    try:
        return Record({name: _plain(value) for name, value in row.items()}, place)
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, f"not UTF-8 ({error})", place)


def _plain(value: Any) -> Any:
    """Turns bytes into text and NumPy's values into Python's."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
