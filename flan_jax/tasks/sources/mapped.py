"""Another source's rows under other names: how a user's rows take the shape of a published dataset."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flan_jax.errors import UserError
from flan_jax.files import sha256_of
from flan_jax.names import nearest, shortened
from flan_jax.tasks.sources.rows import BadRow, DerivedSource, Record, Row

NO_SUCH_FIELD = "lacks a field"
NOT_A_CLASS = "value is no class"
NOT_A_NUMBER = "not a number"


@dataclass(frozen=True, kw_only=True)
class MappedSource(DerivedSource):
    """Another source's rows with other names of fields and splits.

    Attributes:
      fields: from the new name of a field to the source's; a dot leads into a mapping. The old name is removed, other
        fields are unchanged.
      classes: for a field the values that class numbers 0, 1, ... replace.
      numbers: fields whose texts become numbers.
      split_names: from the name of a split to the source's; {} for the source's own.
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
            yield record if isinstance(record, BadRow) else self._mapped(record)

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the source's revision and the mapping."""
        mapping = [dict(self.fields), {name: list(values) for name, values in self.classes.items()}, self.numbers]
        return sha256_of([super().revision(split), *mapping])

    def inner(self, split: str) -> str:
        """Returns the source's name of a split."""
        self.require_split(split)
        return self.split_names.get(split, split)

    def _mapped(self, record: Record) -> Record | BadRow:
        row = {name: value for name, value in record.row.items() if name not in self.fields.values()}
        for new, old in self.fields.items():
            value = _looked_up(record.row, old)
            if value is None:
                detail = f"the row lacks the field {old!r}.{nearest(old, record.row)} Fields: {', '.join(record.row)}"
                return BadRow(NO_SUCH_FIELD, detail, record.place)
            row[new] = value[0]
        return self._typed(row, record.place)

    def _typed(self, row: Row, place: str) -> Record | BadRow:
        for name, values in self.classes.items():
            # By type too, since True == 1.
            classes = [i for i, v in enumerate(values) if type(v) is type(row.get(name)) and v == row.get(name)]
            if not classes:
                detail = f"the field {name!r} holds {shortened(row.get(name))}, which is none of {list(values)}"
                return BadRow(NOT_A_CLASS, detail, place)
            row[name] = classes[0]
        for name in self.numbers:
            number = _number(row.get(name))
            if number is None:
                detail = f"the field {name!r} holds {shortened(row.get(name))}, which is not a number"
                return BadRow(NOT_A_NUMBER, detail, place)
            row[name] = number
        return Record(row, place)


def _looked_up(row: Mapping[str, Any], path: str) -> tuple[Any] | None:
    """Returns the value of a field in a tuple, since it may be None. A name that contains the dot has priority."""
    if path in row:
        return (row[path],)
    first, dot, rest = path.partition(".")
    inner = row.get(first)
    return _looked_up(inner, rest) if dot and isinstance(inner, Mapping) else None


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
        return float(value)
    except ValueError:
        return None
