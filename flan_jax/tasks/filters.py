"""Which rows of a task are left out, and why: duplicates, copies of evaluation rows, what is too long or too like others.

A filter is declared with a task and applied to its normalised rows in their order; what it leaves out is counted under
its reason in the export's manifest.
"""

import abc
from collections.abc import Callable, Iterable

from flan_jax.tasks.rows import Row

Judge = Callable[[Row], str | None]


class RowFilter(abc.ABC):
    """A rule for leaving rows out. Its fields decide it, so that they are part of an export's fingerprint."""

    @abc.abstractmethod
    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns a function that is given a split's rows in order and returns why one is left out, or None.

        Args:
          split: whose rows they are.
          rows: reads all of them once more, for a rule that has to see the whole split first.
        """

    def revision(self) -> str:
        """Returns a digest of what it reads besides the rows; "" when it reads nothing."""
        return ""
