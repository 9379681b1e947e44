"""Which rows of a task are left out, and why: what a rule is.

A rule is declared with a task and applied to its normalised rows in their order; what it leaves out is counted under
its reason in the export's manifest. Rules that look at one row at a time are in `row_rules`, those that compare rows in
`duplicates`, `novelty` and `contamination`, and their names in YAML files in `settings`.
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
    """A rule for leaving rows out. Its fields decide it, so that they are part of an export's fingerprint."""

    @abc.abstractmethod
    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns a function that is given a split's rows in order and returns why one is left out, or None.

        Args:
          split: whose rows they are.
          rows: reads once more all those that come to it, for a rule that has to see the whole split first.
        """

    def revision(self) -> str:
        """Returns a digest of what it reads besides the rows; "" when it reads nothing."""
        return ""

    def files(self) -> tuple[str, ...]:
        """Returns the local files that it reads besides the rows, as absolute paths."""
        return ()


class RowRule(RowFilter):
    """A rule that looks at one row at a time."""

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns `reason`."""
        del split, rows
        return self.reason

    @abc.abstractmethod
    def reason(self, row: Row) -> str | None:
        """Returns why a row is left out, or None."""


def text_of(row: Mapping[str, Any], field: str, *, rule: RowFilter) -> str:
    """Returns a field's text, a number's digits, "" for a field that is null.

    Raises:
      UnknownNameError: the rows have no such field: a rule that looks past them would leave nothing out, in silence.
      UserError: it holds something else.
    """
    if field not in row:
        raise UnknownNameError(
            f"{type(rule).__name__} looks at the field {field!r}, which the rows lack.{nearest(field, row)} "
            f"Fields: {', '.join(row)}."
        )
    value = row[field]
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise UserError(
            f"{type(rule).__name__} looks at the field {field!r}, which holds {shortened(value)}; it needs a text."
        )
    return str(value)


def plain(text: str) -> str:
    """Returns a text as rules compare it: case, width of characters and white space do not count.

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
