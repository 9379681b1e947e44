"""Filter rules: which rows of a task are dropped, and why.

A rule is declared with a task and applied to its normalized rows in order; the export's manifest counts the dropped
rows by reason. Rules that inspect one row at a time are in `row_rules`, those that compare rows in `duplicates`,
`novelty` and `contamination`, and their names in YAML files in `settings`.
"""

import abc
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import nearest, shortened
from flan_jax.tasks.sources.rows import Row

Judge = Callable[[Row], str | None]


class RowFilter(abc.ABC):
    """A rule that drops rows. Its fields determine its result and are part of an export's fingerprint."""

    # State is in the returned function: the rule itself is frozen, part of a fingerprint, and shared by splits.
    @abc.abstractmethod
    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns a function that takes a split's rows in order and returns why a row is dropped, or None.

        Args:
          split: Of the rows.
          rows: Reads all rows of the split again, for a rule that needs the complete split first.
        """

    def revision(self) -> str:
        """Returns a digest of what it reads in addition to the rows; "" when it reads nothing."""
        return ""

    def files(self) -> tuple[str, ...]:
        """Returns the local files that it reads in addition to the rows, as absolute paths."""
        return ()


class RowRule(RowFilter):
    """A rule that inspects one row at a time."""

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns `reason`."""
        del split, rows
        return self.reason

    @abc.abstractmethod
    def reason(self, row: Row) -> str | None:
        """Returns why a row is dropped, or None."""


def text_of(row: Mapping[str, Any], field: str, *, rule: RowFilter) -> str:
    """Returns the text of a field, the digits of a number, or "" for null.

    Raises:
      UnknownNameError: The rows have no such field: ignoring that would silently disable the rule.
      UserError: The field holds something else.
    """
    if field not in row:
        raise UnknownNameError(
            f"{type(rule).__name__} needs the field {field!r}, which the rows lack.{nearest(field, row)} "
            f"Fields: {', '.join(row)}."
        )
    value = row[field]
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise UserError(f"{type(rule).__name__} needs a text in the field {field!r}, which holds {shortened(value)}.")
    return str(value)


def plain(text: str) -> str:
    """Returns a text in the form that rules compare: without case, character width or extra white space.

    >>> plain("  What\\n is THIS? ")
    'what is this?'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """Returns a text's words without case and punctuation.

    >>> words_of("It's 5 o'clock, NOW!")
    ['it', 's', '5', 'o', 'clock', 'now']
    """
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
