"""Files whose rows have a published shape: the interface of a format, and the source that checks rows against it.

A format defines the fields of rows and the examples that they contain; it is the task's normalizer. The source checks
every row as it reads it. A row that breaks the format, or has other fields than the rows before it, is an error with
its file and line, or is counted. The formats are in `instructions`, `chat` and `preferences`.
"""

import abc
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Literal

from flan_jax.errors import UserError
from flan_jax.names import nearest, shortened
from flan_jax.tasks.filters.rule import RowFilter
from flan_jax.tasks.sources.file_sources import FileSource, Paths, reader_for
from flan_jax.tasks.sources.rows import BadRow, OnBadRow, Record, Row, Unusable, require_plain
from flan_jax.templates.render import Pattern

NOT_THE_FORMAT = "not of the format"
MIXED = "mixed schemas"
NOT_A_TEXT = "not a text"


@dataclass(frozen=True)
class Shape:
    """The fields of one kind of rows.

    Attributes:
      required: The fields that every row has.
      optional: The fields that may be present or absent in each row.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


class Format(abc.ABC):
    """The interpretation of the rows of a published format; a frozen dataclass whose fields are its settings.

    Attributes:
      shapes: The kinds of rows that such files can have; one file has one kind.
      cluster: Default for tasks.
      metrics: Default for tasks.
      options: The field that lists the answers to rank; None when there is nothing to rank.
      references: The field that lists all correct answers; None when a row has one.
    """

    # Class variables, unlike fields, are neither settings in YAML nor part of an export's fingerprint.
    shapes: ClassVar[tuple[Shape, ...]]
    cluster: ClassVar[str] = "instructions"
    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "exact_match")
    options: ClassVar[str | None] = None
    references: ClassVar[str | None] = None

    @abc.abstractmethod
    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns the examples in a row, with the fields that `templates` name.

        Raises:
          Unusable: The row breaks the format.
        """

    @abc.abstractmethod
    def templates(self) -> tuple[Pattern, ...]:
        """Returns the format's own templates."""

    def filters(self) -> tuple[RowFilter, ...]:
        """Returns the rules that drop useless examples; they precede the task's own."""
        return ()

    def check(self, row: Row) -> None:
        """Rejects a row that breaks the format. Overridden where building the examples is expensive.

        Raises:
          Unusable: The row breaks the format.
        """
        for _ in self(row):
            pass

    def evaluated(self, evaluation: Literal["generate", "rank"]) -> "Format":
        """Returns the format with the settings for a kind of evaluation.

        Raises:
          UserError: There are no options to rank.
        """
        if evaluation == "rank" and self.options is None:
            raise UserError(f"{type(self).__name__} rows have no options to rank; evaluate by 'generate'.")
        return self


@dataclass(frozen=True, kw_only=True, init=False)
class FormattedSource(FileSource):
    """Files of a format: JSON lines, JSON lists, CSV, TSV or Parquet, by each file's name or first character.

    Attributes:
      format: That rows are checked against.
    """

    format: Format

    def __init__(self, *, files: Mapping[str, Paths], format: Format, on_bad_row: OnBadRow = "error"):
        object.__setattr__(self, "format", format)
        super().__init__(files=files, on_bad_row=on_bad_row)

    def read_stream(self, stream: BinaryIO, path: str) -> Iterator[Record | BadRow]:
        """Yields the rows of one file, by the reader for its name or content."""
        return reader_for(stream, path)(stream, path)

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
                # The first usable row decides, so that a broken first line does not make all others wrong.
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
    """The first usable row of a split; the following rows must have the same fields."""

    shape: Shape
    fields: tuple[str, ...]
    place: str


def text(row: Mapping[str, Any], field: str, *, required: bool = True) -> str:
    """Returns the stripped text of a field; "" if it is not required and absent, null or empty.

    Raises:
      Unusable: It holds something else, or is blank although required.
    """
    value = row.get(field)
    if value is None and not required:
        return ""
    # Tables and JSON hold numbers where a text is meant; a boolean has no text of its own.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or (required and not value.strip()):
        raise Unusable(
            NOT_A_TEXT, f"the field {field!r} must be a text{'' if required else ' or nothing'}, got {shortened(value)}"
        )
    return value.strip()


def items(row: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """Returns the objects in the list of a field, which may be JSON text, as in a column of a table.

    Raises:
      Unusable: It holds something else, or an empty list.
    """
    value = row.get(field)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parsed_json(value, field)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise Unusable(NOT_THE_FORMAT, f"the field {field!r} must list objects, got {shortened(value)}")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise Unusable(NOT_THE_FORMAT, f"{field}[{index}] must be an object, got {shortened(item)}")
    return list(value)


def parsed_json(value: str, place: str) -> Any:
    """Returns the value of a JSON text inside a row.

    Raises:
      Unusable: It is not JSON, or holds what no row may hold.
    """
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unusable(NOT_THE_FORMAT, f"{place} is a text that is not JSON ({error}): {shortened(value)}") from error
    require_plain({place: parsed})
    return parsed


def _fits(shape: Shape, row: Mapping[str, Any]) -> bool:
    return all(row.get(field) is not None for field in shape.required)


def _shapeless(shapes: Collection[Shape], row: Row, place: str) -> BadRow | None:
    if any(_fits(shape, row) for shape in shapes):
        return None
    kinds = "; or ".join(", ".join(shape.required) for shape in shapes)
    missing = [field for shape in shapes for field in shape.required if row.get(field) is None]
    near = next(filter(None, (nearest(field, row) for field in missing)), "")
    fields = ", ".join(row) or "none"
    return BadRow(NOT_THE_FORMAT, f"the row has the fields {fields}; required are {kinds}.{near}".rstrip("."), place)


def _mixed(first: _First, row: Row, place: str) -> BadRow | None:
    different = set(first.fields) ^ set(row)
    lacking = [field for field in first.shape.required if row.get(field) is None]
    # Optional fields may come and go within a file; any other difference means another schema.
    if not different - set(first.shape.optional) and not lacking:
        return None
    detail = (
        f"the rows mix schemas: the first one ({first.place}) has the fields {', '.join(first.fields)}; this one has "
        f"{', '.join(row) or 'none'}"
    )
    null = [field for field in lacking if field in row]
    return BadRow(MIXED, detail + (f", with null in {', '.join(null)}" if null else ""), place)
