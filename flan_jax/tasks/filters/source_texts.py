"""Texts that rules for leaving rows out compare with: given in Python, or taken from files of their own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flan_jax.errors import UnknownNameError
from flan_jax.files import sha256_of
from flan_jax.names import nearest
from flan_jax.tasks.sources.rows import Source


@dataclass(frozen=True, kw_only=True)
class SourceTexts:
    """Texts of the rows of a source, those within lists and objects too.

    Attributes:
      source: where the rows come from.
      splits: which of its splits; () for all.
      fields: whose texts count; () for all.
    """

    source: Source
    splits: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", tuple(self.splits))
        object.__setattr__(self, "fields", tuple(self.fields))

    def texts(self) -> Iterator[str]:
        """Yields the texts.

        Raises:
          UnknownNameError: the rows lack a field.
          MissingFileError, UserError: as the source.
        """
        for split in self.splits or tuple(self.source.splits):
            for record in self.source.records(split):
                for field in self.fields:
                    if field not in record.row:
                        raise UnknownNameError(
                            f"{record.place}: a row without the field {field!r}."
                            f"{nearest(field, record.row)} Fields: {', '.join(record.row)}."
                        )
                for field in self.fields or record.row:
                    yield from _texts_within(record.row[field])

    def revision(self) -> str:
        """Returns a digest of the rows and of which of their texts count."""
        splits = self.splits or tuple(self.source.splits)
        return sha256_of([[self.source.revision(split) for split in splits], list(self.fields)])

    def files(self) -> tuple[str, ...]:
        """Returns the local files that the rows are read from."""
        return tuple(file for split in self.splits or self.source.splits for file in self.source.files(split))


Texts = SourceTexts | tuple[str, ...]


def texts_of(given: Texts) -> Iterator[str]:
    """Yields the texts, wherever they are."""
    yield from given.texts() if isinstance(given, SourceTexts) else given


def revision_of(given: Texts) -> str:
    """Returns a digest of what is read; "" for texts given as they are."""
    return given.revision() if isinstance(given, SourceTexts) else ""


def files_of(given: Texts) -> tuple[str, ...]:
    """Returns the local files that are read."""
    return given.files() if isinstance(given, SourceTexts) else ()


def _texts_within(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts_within(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts_within(inner)
