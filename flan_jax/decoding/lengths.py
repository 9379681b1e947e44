"""The encoder lengths of a decoder: few, so that few programs are compiled, and close to those of the data."""

from collections.abc import Sequence

import numpy as np

MOST_LENGTHS = 3
"""Each length compiles three programs at most: to encode, to decode, and to pad shorter inputs."""
_MULTIPLE = 16


def best_lengths(lengths: Sequence[int], *, count: int) -> tuple[int, ...]:
    """Returns up to `count` lengths that pad rows the least, each rounded up to a multiple of 16.

    >>> best_lengths([3, 5, 14, 200, 210, 500], count=3), best_lengths([3, 500], count=1)
    ((16, 224, 512), (512,))
    """
    rounded = -(-np.asarray(lengths) // _MULTIPLE) * _MULTIPLE
    sizes, rows = np.unique(rounded, return_counts=True)
    # cost[j]: the positions of the rows up to size j if size j is a length; one pass per further length.
    before = np.concatenate([[0], np.cumsum(rows)])
    cost = before[1:] * sizes
    chosen = [(int(size),) for size in sizes]
    for _ in range(count - 1):
        options = cost[None, :] + (before[1:, None] - before[None, 1:]) * sizes[:, None]
        options = np.where(np.tri(len(sizes), k=-1, dtype=bool), options, np.iinfo(np.int64).max)
        best = options.argmin(axis=1)
        better = options[np.arange(len(sizes)), best] < cost
        chosen = [(*chosen[best[j]], int(sizes[j])) if better[j] else chosen[j] for j in range(len(sizes))]
        cost = np.where(better, options[np.arange(len(sizes)), best], cost)
    return chosen[-1]
