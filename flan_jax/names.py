"""Names and values in error messages. A leaf: any module may import it."""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from flan_jax.errors import UserError

T = TypeVar("T")
_NAMES_IN_REASON = re.compile(r"'[^']*'|\S*[/:.]\S+")


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


def listed(names: Iterable[object], *, none: str = "none") -> str:
    """Returns names as a message lists them: "a, b"; `none` if there are none."""
    return ", ".join(map(str, names)) or none


def repeated(names: Iterable[T]) -> list[T]:
    """Returns the names that occur more than once.

    >>> repeated(["a", "b", "a"])
    ['a']
    """
    return [name for name, count in Counter(iter(names)).items() if count > 1]


def grouped(reasons: Mapping[str, str], *, noun: str, shown: int = 3) -> list[str]:
    """Returns a line for each kind of reason, with its names and the first one's reason.

    >>> grouped({"a": "no file 'a.json'", "b": "no file 'b.json'", "c": "is empty"}, noun="task")
    ["2 tasks (a, b): no file 'a.json'", '1 task (c): is empty']

    Args:
      reasons: A reason for each name. Reasons are of one kind if they differ in quoted texts, paths or versions only.
      noun: What the names are of.
      shown: Number of names of each reason.
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(_NAMES_IN_REASON.sub("", reason), []).append(name)
    lines = []
    for names in sorted(groups.values(), key=len, reverse=True):
        more = ", ..." if len(names) > shown else ""
        lines.append(f"{counted(len(names), noun)} ({', '.join(names[:shown])}{more}): {reasons[names[0]]}")
    return lines


def one_of(value: object, allowed: Iterable[str], what: str) -> str:
    """Returns the message that a value is none of those allowed; it names the nearest and all.

    >>> one_of("blue", ["bleu", "f1"], "a metric")
    "a metric must be one of bleu, f1; got 'blue'. Did you mean 'bleu'?"
    """
    names = list(allowed)
    return f"{what} must be one of {listed(names)}; got {value!r}.{nearest(str(value), names)}"


def require_choice(value: object, allowed: Collection[str], what: str, *, error: type[UserError] = UserError) -> None:
    """Refuses a value that is none of those allowed.

    Args:
      value: To check.
      allowed: The choices.
      what: The subject of the message, such as "dtype".
      error: The class of the error.

    Raises:
      UserError: It is none of them; names the nearest and all.
    """
    if value not in allowed:
        raise error(one_of(value, allowed, what))
