"""Bytes to lines: opens and decompresses files, and recognizes other formats by their first bytes."""

import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from flan_jax.encodings import wide_text
from flan_jax.errors import UserError
from flan_jax.files import accessing

HEAD_BYTES = 2**16  # Of a stream, which are looked at before it is read.

_LINE_WITH_CONTENT = re.compile(rb"\S[^\n]*\n")
_GZIP = b"\x1f\x8b"
_UTF8_MARK = b"\xef\xbb\xbf"
_OTHER_CONTENT = {
    b"PAR1": "a Parquet file. Read it as parquet, under a name that ends in .parquet",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook. Unpack it, or save the sheet as CSV in UTF-8",
    b"\x28\xb5\x2f\xfd": "Zstandard data. Decompress it first: zstd -d FILE",
    b"BZh": "bzip2 data. Decompress it first: bunzip2 FILE",
    b"\xfd7zXZ\x00": "xz data. Decompress it first: unxz FILE",
    b"version https://git-lfs": "a pointer of Git LFS instead of the data. Get the data: git lfs pull",
}


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading; gzip is decompressed, whatever the file's name.

    Raises:
      UserError: The file cannot be opened or decompressed.
    """
    with accessing(path, setting="The file", action="read"):
        stream: BinaryIO = open(path, "rb", buffering=HEAD_BYTES)
    with stream, unzipped(stream, path) as content:
        yield content


@contextlib.contextmanager
def unzipped(stream: BinaryIO, path: str) -> Iterator[BinaryIO]:
    """Decompresses a stream if it is gzip.

    Args:
      stream: Of the file.
      path: Of the file, for messages; `.gz` promises gzip.

    Raises:
      UserError: It cannot be decompressed.
    """
    if not path.endswith(".gz") and not head_of(stream).startswith(_GZIP):
        yield stream
        return
    try:
        # Buffered once more, since `readline` of gzip is Python and as slow as all other work on a line.
        with gzip.GzipFile(fileobj=stream) as content, io.BufferedReader(content, HEAD_BYTES) as buffered:
            yield buffered
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be decompressed ({error}). The file is damaged or not gzip.") from error


def head_of(stream: BinaryIO) -> bytes:
    """Returns the first bytes of a stream, which stay unread."""
    if isinstance(stream, io.BufferedReader):
        return stream.peek(HEAD_BYTES)[:HEAD_BYTES]
    position = stream.tell()
    head = stream.read(HEAD_BYTES)
    stream.seek(position)
    return head


def with_whole_head(stream: BinaryIO) -> BinaryIO:
    """Returns a pipe whose head contains its first line with content, however slowly that line arrives.

    The head decides between text, JSON and other formats, and a pipe's buffer has only what has arrived.
    """
    head = b""
    while len(head) < HEAD_BYTES and not _LINE_WITH_CONTENT.search(head):
        block = stream.read1(HEAD_BYTES)  # type: ignore[attr-defined]  # Of a `BufferedReader`: what has arrived.
        if not block:
            break
        head += block
    return io.BufferedReader(_Rejoined(head, stream), HEAD_BYTES)


class _Rejoined(io.RawIOBase):
    """Bytes that were read already, followed by the rest of their stream."""

    def __init__(self, head: bytes, rest: BinaryIO):
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._head[: len(buffer)] or self._rest.read1(len(buffer))  # type: ignore[attr-defined]
        self._head = self._head[len(block) :]
        buffer[: len(block)] = block
        return len(block)


def text_lines(stream: BinaryIO, path: str) -> Iterator[bytes]:
    r"""Yields the lines with their ends, without a byte order mark.

    Bytes, so that only \n ends a line. In a file without any \n, as old spreadsheets write them, \r does.

    Raises:
      UserError: The stream is not UTF-8 text, by its first bytes; the message names the fix.
    """
    head = head_of(stream)
    _require_text(head, path)
    # The last byte may be the first half of \r\n.
    is_old_mac = b"\r" in head[:-1] and b"\n" not in head
    for index, line in enumerate(_ended_by_returns(stream) if is_old_mac else stream):
        yield line if index else line.removeprefix(_UTF8_MARK)


def numbered_lines(stream: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not blank, without their ends, with their numbers, counted from 1."""
    for number, line in enumerate(text_lines(stream, path), start=1):
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def _require_text(head: bytes, path: str) -> None:
    for start, content in _OTHER_CONTENT.items():
        if head.startswith(start):
            raise UserError(f"{path}: this is {content}.")
    wide = wide_text(head)
    if wide is not None:
        raise UserError(f"{path}: this {wide}.")


def _ended_by_returns(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(HEAD_BYTES):
        *lines, rest = re.split(rb"(?<=\r)", rest + block)
        yield from lines
    if rest:
        yield rest
