"""Another source's rows under other names: how a user's rows take the shape of a published dataset."""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flan_jax.errors import UserError
from flan_jax.files import sha256_of
from flan_jax.names import nearest, shortened
from flan_jax.tasks.sources.rows import BadRow, DerivedSource, Record, Row, index_of

NO_SUCH_FIELD = "lacks a field"
TWICE = "two fields of one name"
NOT_A_CLASS = "value is no class"
NOT_A_NUMBER = "not a number"

_INDEX = re.compile(r"\[(\d{1,9})\](.*)$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class MappedSource(DerivedSource):
    """Another source's rows with other names of fields and splits.

    Attributes:
      fields: From the new name of a field to the source's, or to a path into it; see `looked_up`. The old name is
        removed, other fields are unchanged.
      classes: For a field the values that class numbers 0, 1, ... replace.
      numbers: Fields whose texts become numbers.
      split_names: From the name of a split to the source's; {} for the source's own.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    split_names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in self.classes.items():
            if not values:
                raise UserError(f"classes of the field {name!r}: give the values that class numbers replace; got none.")

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return tuple(self.split_names) or self.source.splits

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows under their new names, with the source's places."""
        for record in super().read(split):
            yield record if isinstance(record, BadRow) else self.mapped(record)

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the source's revision and the mapping."""
        mapping = [dict(self.fields), {name: list(values) for name, values in self.classes.items()}, self.numbers]
        return sha256_of([super().revision(split), *mapping])

    def inner(self, split: str) -> str:
        """Returns the source's name of a split."""
        self.require_split(split)
        return self.split_names.get(split, split)

    def mapped(self, record: Record, *, optional: Collection[str] = ()) -> Record | BadRow:
        """Returns a row of the source under its new names.

        Args:
          record: The row.
          optional: New names of fields that it may lack.
        """
        row = {name: value for name, value in record.row.items() if name not in self.fields.values()}
        for new, old in self.fields.items():
            value = looked_up(record.row, old)
            if new in row and new != _root(old):
                detail = f"the row has a field {new!r}, which {old!r} would replace: give it another name, too"
                return BadRow(TWICE, detail, record.place)
            if value is None and new in optional:
                continue
            if value is None:
                detail = f"the row lacks the field {old!r}.{nearest(old, record.row)} Fields: {', '.join(record.row)}"
                return BadRow(NO_SUCH_FIELD, detail, record.place)
            row[new] = value[0]
        return self._typed(row, record.place, optional)

    def _typed(self, row: Row, place: str, optional: Collection[str]) -> Record | BadRow:
        for name, values in self.classes.items():
            if name in optional and row.get(name) is None:
                continue
            number = index_of(row.get(name), values)
            if number is None:
                detail = f"the field {name!r} holds {shortened(row.get(name))}, which is none of {list(values)}"
                return BadRow(NOT_A_CLASS, detail, place)
            row[name] = number
        for name in self.numbers:
            if name in optional and row.get(name) is None:
                continue
            value = _number(row.get(name))
            if value is None:
                detail = f"the field {name!r} holds {shortened(row.get(name))}, which is not a number"
                return BadRow(NOT_A_NUMBER, detail, place)
            row[name] = value
        return Record(row, place)


def looked_up(row: Mapping[str, Any], path: str) -> tuple[Any] | None:
    """Returns the value of a field in a tuple, since it may be None; None where the row has no such field.

    A dot leads into a mapping, and into each mapping of a list; an index selects from a list. A name that contains the
    dot or the bracket has priority.

    >>> row = {"answers": {"text": ["Paris", "in Paris"]}, "spans": [{"at": 3}, {"at": 7}]}
    >>> looked_up(row, "answers.text[0]"), looked_up(row, "answers.text"), looked_up(row, "spans.at")
    (('Paris',), (['Paris', 'in Paris'],), ([3, 7],))
    """
    return _within(row, f".{path}")


def is_path(name: str) -> bool:
    """Returns whether a name may lead into a field."""
    return "." in name or "[" in name


def _within(value: Any, steps: str) -> tuple[Any] | None:
    """Returns the value that steps such as ".text[0]" lead to."""
    if not steps:
        return (value,)
    if steps.startswith("["):
        match = _INDEX.match(steps)
        if match is None or not isinstance(value, list) or int(match[1]) >= len(value):
            return None
        return _within(value[int(match[1])], match[2])
    if isinstance(value, list):
        found = [_within(item, steps) for item in value]
        return None if None in found else ([item[0] for item in found if item is not None],)
    path = steps.removeprefix(".")
    if not isinstance(value, Mapping):
        return None
    if path in value:
        return (value[path],)
    name = _root(path)
    return _within(value[name], path[len(name) :]) if name in value and name != path else None


def _root(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
