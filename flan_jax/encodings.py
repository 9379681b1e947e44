"""Names the encoding of bytes that are not UTF-8, with the command that converts them. A leaf."""

_UTF16 = "UTF-16 text. Convert it to UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE"
_UTF32 = "UTF-32 text. Convert it to UTF-8: iconv -f UTF-32 -t UTF-8 FILE > NEW_FILE"
_MARKS = {  # In this order: the mark of UTF-32 begins with that of UTF-16.
    b"\xff\xfe\x00\x00": _UTF32,
    b"\x00\x00\xfe\xff": _UTF32,
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
}


def wide_text(head: bytes) -> str | None:
    r"""Returns what bytes are that begin as UTF-16 or UTF-32 text, with the fix; None for all others.

    >>> wide_text("tasks:".encode("utf-16-le"))
    'looks like UTF-16 text. Convert it to UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE'

    Args:
      head: The first bytes of a file.
    """
    for mark, content in _MARKS.items():
        if head.startswith(mark):
            return f"is {content}"
    # Without a byte order mark, UTF-16 of mostly Latin letters shows as every other byte zero.
    sample = head[:512]
    if len(sample) >= 4 and max(sample[::2].count(0), sample[1::2].count(0)) > len(sample) // 4:
        return f"looks like {_UTF16}"
    return None


def not_utf8(error: UnicodeDecodeError) -> str:
    """Returns what is wrong with bytes that are not UTF-8, and the encoding that they may have."""
    byte = error.object[error.start : error.start + 1]
    hint = ""
    if byte >= b"\xa0":  # Letters and signs of Latin-1, which Windows-1252 shares.
        hint = (
            f"; in Latin-1 this byte is {byte.decode('latin-1')!r}: if so, convert the file with "
            "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW_FILE"
        )
    return f"not UTF-8 ({error.reason} 0x{byte.hex()} at byte {error.start}{hint})"
