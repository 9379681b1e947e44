"""Texts that filter rules compare rows with: given as they are, or read from files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flan_jax.errors import UnknownNameError
from flan_jax.files import sha256_of
from flan_jax.names import nearest
from flan_jax.tasks.sources.file_sources import FileSource, JsonlSource, JsonSource

SPLIT = "texts"


@dataclass(frozen=True, kw_only=True)
class FileTexts:
    """Texts of the rows of JSON files, including those inside lists and objects.

    Attributes:
      files: JSON lines, or JSON lists if all of them end in .json; `.gz` files are decompressed.
      fields: The fields whose texts count; () for all.
    """

    files: tuple[Path, ...]
    fields: tuple[str, ...] = ()

    @property
    def source(self) -> FileSource:
        """The rows of the files."""
        are_lists = all(path.name.removesuffix(".gz").endswith(".json") for path in self.files)
        return (JsonSource if are_lists else JsonlSource)(files={SPLIT: self.files})

    def texts(self) -> Iterator[str]:
        """Yields the texts.

        Raises:
          UnknownNameError: A row lacks a field.
          MissingFileError, UserError: As the source.
        """
        for record in self.source.records(SPLIT):
            for field in self.fields:
                if field not in record.row:
                    raise UnknownNameError(
                        f"{record.place}: the row has no field {field!r}."
                        f"{nearest(field, record.row)} Fields: {', '.join(record.row)}."
                    )
            for field in self.fields or record.row:
                yield from _texts_within(record.row[field])


Texts = FileTexts | tuple[str, ...]


def texts_of(given: Texts) -> Iterator[str]:
    """Yields the texts."""
    yield from given.texts() if isinstance(given, FileTexts) else given


def revision_of(given: Texts) -> str:
    """Returns a digest of the files' content and the fields; "" for texts given as they are."""
    return sha256_of([given.source.revision(SPLIT), list(given.fields)]) if isinstance(given, FileTexts) else ""


def files_of(given: Texts) -> tuple[str, ...]:
    """Returns the paths of the files that are read."""
    return given.source.files(SPLIT) if isinstance(given, FileTexts) else ()


def _texts_within(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts_within(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts_within(inner)
