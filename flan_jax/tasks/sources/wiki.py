"""Plain text as WikiExtractor writes it: many documents a file, each between `<doc ...>` and `</doc>`."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from flan_jax.tasks.sources.file_rows import numbered_lines
from flan_jax.tasks.sources.file_sources import FileSource
from flan_jax.tasks.sources.rows import NOT_UNICODE, BadRow, Record

NOT_CLOSED = "document is not closed"
OUTSIDE = "text outside a document"
_OPENING = re.compile(rb"<doc\s[^>]*>\s*$")
_ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+=|\s*>)')


@dataclass(frozen=True, kw_only=True, init=False)
class WikiSource(FileSource):
    r"""Documents of WikiExtractor; `.gz` files are decompressed.

    A row has the opening tag's attributes (`id`, `url`, `title`) and `text`, without the title that stands in its first
    line; blank lines are left out. A file with the lines `<doc id="7" title="Rain">`, `Rain`, an empty one, `It falls.`
    and `</doc>` is the row {"id": "7", "title": "Rain", "text": "It falls."}. The text of many an article is "".

    Args:
      files: for each split a path, a pattern with `*`, or several of them.
    """

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the documents; places are "file:line" of the opening tag."""
        for path in self.files(split):
            yield from _documents(path)


def _documents(path: str) -> Iterator[Record | BadRow]:
    opening, place, lines = b"", path, list[bytes]()
    for number, line in numbered_lines(path):
        if _OPENING.match(line):
            if opening:
                yield BadRow(NOT_CLOSED, "another document begins before its </doc>", place)
            opening, place, lines = line, f"{path}:{number}", []
        elif not opening:
            yield BadRow(OUTSIDE, "expected <doc ...>", f"{path}:{number}")
        elif line.strip() == b"</doc>":
            yield _row(opening, lines, place)
            opening = b""
        else:
            lines.append(line)
    if opening:
        yield BadRow(NOT_CLOSED, "the file ends before its </doc>", place)


def _row(opening: bytes, lines: list[bytes], place: str) -> Record | BadRow:
    try:
        attributes = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(opening.decode())}
        texts = [line.decode().strip() for line in lines]
    except UnicodeDecodeError as error:
        return BadRow(NOT_UNICODE, f"not UTF-8 ({error})", place)
    # The title is escaped in the tag and not in the text, or the other way round, depending on the extractor's version.
    title = attributes.get("title")
    body = texts[1:] if texts and html.unescape(texts[0]) == title else texts
    return Record({**attributes, "text": "\n".join(body)}, place)
