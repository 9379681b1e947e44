"""Names and values in error messages. A leaf: any module may import it."""

import difflib
from collections.abc import Iterable


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the closest candidate, or "" when none is close.

    >>> nearest("sentimet", ["sentiment", "topic"])
    " Did you mean 'sentiment'?"
    >>> nearest("zzz", ["sentiment"])
    ''
    """
    if len(name) > 200:  # A text in the wrong field; comparing it takes long.
        return ""
    names = sorted(set(candidates))
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not found:  # Gin and SeqIO names often differ in case or in a missing prefix only.
        found = [c for c in names if name and name.lower() in c.lower()][:1]
    return f" Did you mean {found[0]!r}?" if found else ""


def shortened(value: object, *, characters: int = 100) -> str:
    """Returns a value's `repr`, truncated to `characters`, as an error message shows it."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # Nested too deep, or a number of more digits than Python writes.
        text = f"a value of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= characters else text[: characters - 3] + "..."


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun.

    >>> counted(1, "task"), counted(1200, "entry")
    ('1 task', '1,200 entries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
