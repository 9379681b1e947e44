"""Rows of FLAN 2021's datasets: windows of TFDS splits that never overlap, or the first rows of a user's source.

The recipe (arXiv:2109.01652, 2.1): at most 30,000 training rows and, where a dataset has no labeled test split, the
last 200 of them for validation.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flan_jax.files import sha256_of
from flan_jax.tasks.sources.rows import BadRow, DerivedSource, Record
from flan_jax.tasks.sources.tfds import TfdsSource

MAX_TRAIN_ROWS = 30_000

_FIRST = re.compile(r"^(\w+)\[:(\d+)\]$")
_LAST = re.compile(r"^(\w+)\[-(\d+):(?:-\d+)?\]$")


class WindowedTfdsSource(TfdsSource):
    """A TFDS dataset with disjoint training and evaluation windows, whatever its size."""

    def window(self, split: str, *, sizes: Mapping[str, int]) -> str:
        """Returns the split's expression, shortened where another window begins."""
        others = [expression for name, expression in self.expressions.items() if name != split]
        return clipped(self.expressions[split], others, sizes=sizes)


def clipped(expression: str, others: Iterable[str], *, sizes: Mapping[str, int]) -> str:
    """Shortens a window of first rows to where a window of last rows of the same split begins, or to the split's end.

    In the released code these windows overlap for a dataset of 30,000 to 30,200 rows.

    >>> clipped("train[:30000]", ["train[-200:]"], sizes={"train": 30_100})
    'train[:29900]'
    >>> clipped("train[:30000]", ["train[-200:]"], sizes={"train": 90_000})
    'train[:30000]'

    Args:
      expression: Of TFDS.
      others: Those of the same task's other splits.
      sizes: Rows of each split of the dataset.
    """
    first = _FIRST.match(expression)
    if first is None or first[1] not in sizes:
        return expression
    last = [found for found in map(_LAST.match, others) if found and found[1] == first[1]]
    end = sizes[first[1]] - max((int(found[2]) for found in last), default=0)
    # Otherwise the windows are disjoint, or no row would remain, which the export reports.
    return f"{first[1]}[:{end}]" if 0 < end < int(first[2]) else expression


@dataclass(frozen=True, kw_only=True)
class PartOf(DerivedSource):
    """Some splits of a source, or their first rows.

    Attributes:
      selected: Names of splits.
      limits: The largest number of rows of a split.
    """

    selected: tuple[str, ...]
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return self.selected

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the source's first rows."""
        return itertools.islice(super().read(split), self.limits.get(split))

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the source's revision and the limit."""
        return sha256_of([super().revision(split), self.limits.get(split)])

    def num_rows(self, split: str) -> int | None:
        """Returns the source's number of rows, at most the limit."""
        rows = super().num_rows(split)
        return None if rows is None else min(rows, self.limits.get(split, rows))
