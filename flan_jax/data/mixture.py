"""Which example comes next: a map from block numbers to (task, row), for thousands of tasks, without any state.

The endless sequence of draws is split into blocks of about `block_examples`. After b blocks task t has been drawn
floor(b W r_t + u_t) times, where W is the block's nominal size, r_t the task's share and u_t a fixed offset in [0,
1): over any stretch of blocks a task gets its share to within one example, and what block b holds is found without
looking at any other block. Draw k of a task with n rows is row k mod n of a permutation of its own epoch k div n.

Everything that is random about a task depends on its name and the seed, so adding a task does not reshuffle the others.
Who shares a padded row is `packing`'s business; which process reads which block, `loader`'s.
"""

import dataclasses
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from flan_jax.data import permutation, rates
from flan_jax.errors import UserError
from flan_jax.files import sha256_of

_FRACTION_BITS = 32  # Draws are counted in units of 2^-32 example, in integers: floats lose count near 2^53 / W blocks.
MAX_BLOCKS = 2**31


@dataclasses.dataclass(frozen=True)
class Block:
    """The draws of one block, in their final order: int64 [N] each."""

    task_ids: np.ndarray
    rows: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """A block-deterministic mixture of tasks; immutable, so that threads may share it.

    >>> mixture = Mixture(sizes={"a": 2, "b": 100}, rates={"a": 1.0, "b": 3.0}, seed=0, block_examples=8)
    >>> [mixture.block(b).task_ids.tolist().count(0) for b in range(4)]
    [2, 2, 2, 2]
    >>> sorted(mixture.block(5).rows[mixture.block(5).task_ids == 0].tolist())  # Each block is one epoch of "a".
    [0, 1]

    Args:
      sizes: rows of each task.
      rates: relative rates of the same tasks.
      seed: chooses all orders.
      block_examples: nominal draws in a block; a block's own number differs by the tasks' roundings.
    """

    sizes: Mapping[str, int]
    rates: Mapping[str, float]
    seed: int
    block_examples: int

    def __post_init__(self) -> None:
        assert self.rates.keys() == self.sizes.keys(), self.rates.keys() ^ self.sizes.keys()
        for name, size in self.sizes.items():
            if size < 1:
                raise UserError(f"Task {name!r} has no examples; remove it from the mixture or fix its source.")
        rates.flatten(list(self.rates.items()))  # Refuses an empty mixture and rates that are not positive.
        if self.block_examples < 1:
            raise UserError(f"block_examples must be at least 1; got {self.block_examples}.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tasks in the order of their ids: by name, whatever order they were given in."""
        return tuple(sorted(self.rates))

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the tasks, their sizes and how often they are drawn."""
        return sha256_of([[n, int(self.sizes[n]), int(s)] for n, s in zip(self.names, self._steps, strict=True)])

    def block(self, number: int) -> Block:
        """Returns the draws of block `number`, counted over the whole mixture and all streams."""
        assert 0 <= number < MAX_BLOCKS, number
        first = self._drawn_before(number)
        counts = self._drawn_before(number + 1) - first
        task_ids = np.repeat(np.arange(len(self.names)), counts)
        starts = np.cumsum(counts) - counts
        draws = np.arange(len(task_ids)) + np.repeat(first - starts, counts)
        sizes = self._sizes[task_ids]
        epochs, positions = np.divmod(draws, sizes)
        keys = permutation.mix(self._keys[task_ids] + epochs.astype(np.uint64))
        rows = permutation.permuted(positions, sizes=sizes, keys=keys)
        order = permutation.shuffled_order(permutation.key_of(self.seed, "order of block", number), len(rows))
        return Block(task_ids[order], rows[order])

    def _drawn_before(self, number: int) -> np.ndarray:
        """Returns how often each task is drawn in blocks 0..number-1: floor(number x step + offset), in integers."""
        b, bits = np.uint64(number), np.uint64(_FRACTION_BITS)
        whole, fraction = self._steps >> bits, self._steps & np.uint64(2**_FRACTION_BITS - 1)
        # No product overflows: number < 2^32, fraction and offset < 2^32, whole < 2^32.
        drawn: np.ndarray = (b * whole + ((b * fraction + self._offsets) >> bits)).astype(np.int64)
        return drawn

    @cached_property
    def _steps(self) -> np.ndarray:
        """Draws per block of each task, in units of 2^-32 example: uint64 [tasks]."""
        share_of = rates.shares(self.rates)
        units = self.block_examples * 2**_FRACTION_BITS
        # At least 1, so that a task with a tiny share is drawn eventually, not never.
        return np.array([max(1, round(share_of[n] * units)) for n in self.names], np.uint64)

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array([self.sizes[n] for n in self.names], np.int64)

    @cached_property
    def _keys(self) -> np.ndarray:
        return np.array([permutation.key_of(self.seed, "rows of", n) for n in self.names], np.uint64)

    @cached_property
    def _offsets(self) -> np.ndarray:
        # Without offsets all tasks of the same rate would come up in the same blocks.
        drop = 64 - _FRACTION_BITS
        return np.array([permutation.key_of(self.seed, "offset of", n) >> drop for n in self.names], np.uint64)
