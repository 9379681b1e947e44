"""Files whose rows have a published shape: what a format is, and the source that holds rows to it.

A format says which fields rows have and what examples they hold; it is the task's normaliser. Here every row is looked
at as it is read, so that one that breaks the format, or that has other fields than the rows before it, is refused with
its file and line, or counted. The formats themselves are in `instructions`, `chat` and `preferences`.
"""

import abc
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Literal

from flan_jax.errors import UserError
from flan_jax.names import nearest, shortened
from flan_jax.tasks.filters.rule import RowFilter
from flan_jax.tasks.sources.file_sources import FileSource, Paths
from flan_jax.tasks.sources.readers import reader_for
from flan_jax.tasks.sources.rows import BadRow, OnBadRow, Record, Row
from flan_jax.templates.render import Pattern

NOT_THE_FORMAT = "not of the format"
MIXED = "mixed schemas"
NOT_A_TEXT = "not a text"


class Unusable(Exception):
    """A row that does not hold what its format says.

    Attributes:
      reason: what it is counted under.
      detail: what is wrong with this one.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Shape:
    """The fields of one kind of rows.

    Attributes:
      needed: those that every row has.
      optional: those that a row may have or lack, from row to row.
    """

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


class Format(abc.ABC):
    """How the rows of a published kind of file are read; a frozen dataclass whose fields are its settings.

    Attributes:
      shapes: the kinds of rows that such files can have; one file has one kind.
      cluster: of a task that names none.
      metrics: likewise.
      options: the field that lists the answers to rank; None when there is nothing to rank.
      references: the field that lists all right answers; None when a row has one.
    """

    shapes: ClassVar[tuple[Shape, ...]]
    cluster: ClassVar[str] = "instructions"
    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "exact_match")
    options: ClassVar[str | None] = None
    references: ClassVar[str | None] = None

    @abc.abstractmethod
    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns the examples that a row holds, as fields that `templates` name.

        Raises:
          Unusable: it does not hold what it should.
        """

    @abc.abstractmethod
    def templates(self) -> tuple[Pattern, ...]:
        """Returns the format's own ways of asking."""

    def filters(self) -> tuple[RowFilter, ...]:
        """Returns rules that leave out examples on which nothing can be learnt; for a task's own to come after."""
        return ()

    def check(self, row: Row) -> None:
        """Refuses a row that does not hold what it should; cheaper than making its examples where that is dear.

        Raises:
          Unusable: what is wrong.
        """
        for _ in self(row):
            pass

    def evaluated(self, evaluation: Literal["generate", "rank"]) -> "Format":
        """Returns the format with the settings that a way of evaluation needs.

        Raises:
          UserError: there are no options to rank.
        """
        if evaluation == "rank" and self.options is None:
            raise UserError(f"{type(self).__name__} rows have no options to rank; evaluate by 'generate'.")
        return self


@dataclass(frozen=True, kw_only=True, init=False)
class FormattedSource(FileSource):
    """Files of a format: JSON lines, JSON lists, CSV, TSV or Parquet, as each file's name or first character says.

    Attributes:
      format: that rows are held to.
    """

    format: Format

    def __init__(self, *, files: Mapping[str, Paths], format: Format, on_bad_row: OnBadRow = "error"):
        object.__setattr__(self, "format", format)
        super().__init__(files=files, on_bad_row=on_bad_row)

    def read_stream(self, stream: BinaryIO, path: str) -> Iterator[Record | BadRow]:
        """Yields the rows of one file, by the reader for its name or content."""
        return reader_for(path)(stream, path)

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows with the files' own fields; places are those of the readers."""
        first: _First | None = None
        for record in super().read(split):
            if isinstance(record, BadRow):
                yield record
                continue
            bad = self._wrong(record, first)
            if bad is None and first is None:
                shape = next(s for s in self.format.shapes if _fits(s, record.row))
                first = _First(shape, tuple(record.row), record.place)
            yield record if bad is None else bad

    def _wrong(self, record: Record, first: "_First | None") -> BadRow | None:
        row, place = record
        bad = _mixed(first, row, place) if first is not None else _shapeless(self.format.shapes, row, place)
        if bad is not None:
            return bad
        try:
            self.format.check(row)
        except Unusable as error:
            return BadRow(error.reason, error.detail, place)
        return None


@dataclass(frozen=True)
class _First:
    """The first usable row of a split: those after it have the same fields."""

    shape: Shape
    fields: tuple[str, ...]
    place: str


def text(row: Mapping[str, Any], field: str, *, needed: bool = True) -> str:
    """Returns a field's text without white space around it; "" for one that may be absent, null or empty.

    Raises:
      Unusable: it holds something else, or nothing although it is needed.
    """
    value = row.get(field)
    if value is None and not needed:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or (needed and not value.strip()):
        raise Unusable(NOT_A_TEXT, f"the field {field!r} must hold a text{_unless(needed)}, got {shortened(value)}")
    return value.strip()


def items(row: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """Returns the objects that a field lists.

    Raises:
      Unusable: it does not, or lists none.
    """
    value = row.get(field)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise Unusable(NOT_THE_FORMAT, f"the field {field!r} must list objects, got {shortened(value)}")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise Unusable(NOT_THE_FORMAT, f"{field}[{index}] must be an object, got {shortened(item)}")
    return list(value)


def _unless(needed: bool) -> str:
    return "" if needed else " or nothing"


def _fits(shape: Shape, row: Mapping[str, Any]) -> bool:
    return all(row.get(field) is not None for field in shape.needed)


def _shapeless(shapes: Collection[Shape], row: Row, place: str) -> BadRow | None:
    if any(_fits(shape, row) for shape in shapes):
        return None
    kinds = "; or ".join(", ".join(shape.needed) for shape in shapes)
    missing = [field for shape in shapes for field in shape.needed if row.get(field) is None]
    near = next(filter(None, (nearest(field, row) for field in missing)), "")
    fields = ", ".join(row) or "none"
    return BadRow(NOT_THE_FORMAT, f"the row has the fields {fields}; needed are {kinds}.{near}".rstrip("."), place)


def _mixed(first: _First, row: Row, place: str) -> BadRow | None:
    different = set(first.fields) ^ set(row)
    lacking = [field for field in first.shape.needed if row.get(field) is None]
    if not different - set(first.shape.optional) and not lacking:
        return None
    detail = (
        f"the rows mix schemas: the first one ({first.place}) has the fields {', '.join(first.fields)}; this one has "
        f"{', '.join(row) or 'none'}"
    )
    null = [field for field in lacking if field in row]
    return BadRow(MIXED, detail + (f", with null in {', '.join(null)}" if null else ""), place)
