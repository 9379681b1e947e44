"""Random choices that depend on names alone: equal keys give equal choices, on every host, before and after a restart.

A key identifies a draw: (seed, task, row, pass, purpose). Nothing here has a state between keys.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def hash64(*parts: object) -> int:
    """Returns 64 bits that depend on the parts' `repr` and on nothing else."""
    # `repr` separates 1 from "1" and ("a", "b") from ("ab",). Exported bytes depend on this function and on every
    # caller's key: a change of either makes all exports different.
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


class Draws:
    """A sequence of choices under one key.

    >>> Draws(0, "rte", 17, 0, "exemplars").sample(10, 3) == Draws(0, "rte", 17, 0, "exemplars").sample(10, 3)
    True
    """

    def __init__(self, *key: object):
        """Starts the sequence of a key: numbers and texts."""
        self._key, self._drawn = key, 0

    def below(self, n: int) -> int:
        """Returns a whole number from 0 to n - 1; the remainder of 64 bits, so even to 1 in 2^64 / n."""
        assert n >= 1, n
        self._drawn += 1
        return hash64(*self._key, self._drawn) % n

    def unit(self) -> float:
        """Returns a number in [0, 1)."""
        return self.below(2**53) / 2**53

    def choice(self, items: Sequence[Item]) -> Item:
        """Returns one of the items."""
        return items[self.below(len(items))]

    def sample(self, n: int, k: int) -> list[int]:
        """Returns min(n, k) different numbers below n, in the order drawn; costs k draws, whatever n is."""
        moved: dict[int, int] = {}  # A Fisher-Yates shuffle that keeps only what it has moved.
        found = []
        for i in range(min(n, k)):
            j = i + self.below(n - i)
            found.append(moved.get(j, j))
            moved[j] = moved.get(i, i)
        return found
