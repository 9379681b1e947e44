"""Which example comes next: a map from block numbers to (task, row), for thousands of tasks, without any state.

The endless sequence of draws is split into blocks of about W. Before block b, task t has been drawn b W r_t + u_t
times, rounded down, where r_t is its share and u_t a fixed offset in [0, 1). Draw k of a task with n rows is row
k mod n of a permutation of its epoch k div n. A block is computed without looking at any other block.

**An epoch is an epoch**: a block holds draws of at most one epoch of each task, unless the task has one row. Packing
may therefore reorder a block, and still, at any moment of a run, after e epochs of draws of a task each of its rows has
been seen floor(e) or ceil(e) times. Two rules ensure it. W is at most the shortest epoch of any task. And the block
boundary that is nearest to the end of a task's epoch is moved there, for this task alone, by at most half of its draws
in a block. Over any range of blocks a task therefore gets its share to within its draws in one block.

Everything that is random about a task depends on its name and the seed, so adding a task does not reshuffle the others.
`packing` decides which examples share a row; `loader`, which process reads which rows.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from flan_jax.data import permutation, rates
from flan_jax.errors import UserError
from flan_jax.files import sha256_of

_FRACTION_BITS = 32  # Draws are counted in units of 2^-32 example, in integers: floats lose count near 2^53 / W blocks.
# So that `number + 1` times a fraction of 32 bits fits 64 bits.
MAX_BLOCKS = 2**31
MAX_BLOCK_EXAMPLES = 1024
FULL_ROWS_EXAMPLES = 256  # Smaller blocks are reported: their rows are over 1 % less full than those of larger ones.


@dataclasses.dataclass(frozen=True)
class Block:
    """The draws of one block, in their final order: int64 [N] each."""

    task_ids: np.ndarray
    rows: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """A block-deterministic mixture of tasks; immutable, so that threads may share it.

    >>> mixture = Mixture(sizes={"a": 2, "b": 100}, rates={"a": 1.0, "b": 3.0}, seed=0)
    >>> mixture.block_examples
    8.0
    >>> [mixture.block(b).task_ids.tolist().count(0) for b in range(4)]
    [2, 2, 2, 2]
    >>> sorted(mixture.block(5).rows[mixture.block(5).task_ids == 0].tolist())  # Each block is one epoch of "a".
    [0, 1]

    Args:
      sizes: Rows of each task.
      rates: Relative rates of the same tasks.
      seed: The seed of all orders.

    Raises:
      UserError: A task has no examples, a rate is not positive, or there is no task.
    """

    sizes: Mapping[str, int]
    rates: Mapping[str, float]
    seed: int

    def __post_init__(self) -> None:
        assert self.rates.keys() == self.sizes.keys(), self.rates.keys() ^ self.sizes.keys()
        for name, size in self.sizes.items():
            if size < 1:
                raise UserError(f"Task {name!r} has no examples; remove it from the mixture or fix its source.")
        rates.flatten(list(self.rates.items()))  # Refuses an empty mixture and rates that are not positive.

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tasks in the order of their ids: by name, whatever order they were given in."""
        return tuple(sorted(self.rates))

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the tasks, their sizes and how often they are drawn."""
        # Steps and not rates: rates that differ by a rounding error draw the same examples.
        return sha256_of([[n, int(self.sizes[n]), int(s)] for n, s in zip(self.names, self._steps, strict=True)])

    @cached_property
    def block_examples(self) -> float:
        """Nominal draws in a block: the shortest epoch of any task, in equal parts of at most 1,024.

        Equal parts end this task's epochs at block boundaries, and those of all tasks when rates are sizes. A smaller
        block packs a little worse (log-normal lengths of spread 1.0 fill 512/128 to 95 % in blocks of 1,024, 94 % of
        256, 92 % of 100, 81 % of 22); a larger one delays the first batch.
        """
        share_of = rates.shares(self.rates)
        # The only row of a task may be drawn any number of times in a block: its order is the same.
        epochs = [size / share_of[name] for name, size in self.sizes.items() if size > 1]
        shortest = min(epochs, default=float(MAX_BLOCK_EXAMPLES))
        return shortest / math.ceil(shortest / MAX_BLOCK_EXAMPLES)

    def epoch_lines(self, *, steps: int, examples_per_row: float, batch_size: int) -> list[str]:
        """Describes for a person the epochs of each task in a run, and blocks that are too small to fill rows.

        >>> mixture = Mixture(sizes={"a": 300, "b": 10}, rates={"a": 3.0, "b": 1.0}, seed=0)
        >>> for line in mixture.epoch_lines(steps=10, examples_per_row=5.0, batch_size=20):
        ...     print(line)
        epochs in 10 steps: 2.5 (a) to 25 (b); each has every row of its task once
        packed in blocks of 40 examples, one epoch of b; larger blocks would fill the rows more

        Args:
          steps: Steps of the run.
          examples_per_row: Mean number of examples that share a row.
          batch_size: Rows per step.
        """
        drawn = rates.member_shares(
            self.rates, num_examples=self.sizes, examples_drawn=steps * batch_size * examples_per_row
        )
        ordered = sorted(drawn, key=lambda member: member.expected_epochs)
        (fewest, least), (most, last) = ((_rounded(m.expected_epochs), m.name) for m in (ordered[0], ordered[-1]))
        shown = fewest if fewest == most else f"{fewest} ({least}) to {most} ({last})"
        if fewest != most and len(ordered) > 2:
            median = statistics.median(member.expected_epochs for member in ordered)
            shown += f", median {_rounded(median)} of {len(ordered):,} tasks"
        lines = [f"epochs in {steps:,} steps: {shown}; each has every row of its task once"]
        if examples_per_row > 1 and self.block_examples < FULL_ROWS_EXAMPLES:
            shortest = next(member.name for member in reversed(ordered) if member.num_examples > 1)
            lines.append(
                f"packed in blocks of {self.block_examples:.0f} examples, one epoch of {shortest}; larger blocks would "
                "fill the rows more"
            )
        return lines

    def block(self, number: int) -> Block:
        """Returns the draws of block `number`."""
        assert 0 <= number < MAX_BLOCKS, number
        first = self._drawn_before(number)
        counts = self._drawn_before(number + 1) - first
        task_ids = np.repeat(np.arange(len(self.names)), counts)
        starts = np.cumsum(counts) - counts
        draws = np.arange(len(task_ids)) + np.repeat(first - starts, counts)
        sizes = self._sizes.astype(np.int64)[task_ids]
        epochs, positions = np.divmod(draws, sizes)
        # A key per epoch, so that no two epochs of a task have the same order.
        keys = permutation.mix(self._keys[task_ids] + epochs.astype(np.uint64))
        rows = permutation.permuted(positions, sizes=sizes, keys=keys)
        # Until here the draws are sorted by task, and a packer that breaks ties by position would favor the first
        # tasks.
        order = permutation.shuffled_order(permutation.key_of(self.seed, "order of block", number), len(rows))
        return Block(task_ids[order], rows[order])

    def _drawn_before(self, number: int) -> np.ndarray:
        """Returns how often each task is drawn in blocks 0..number-1, int64 [tasks].

        floor(number x step + offset), or the end of an epoch that is at most half a step away. Such windows around two
        ends of epochs never overlap, since a step is at most an epoch, and each holds exactly one block boundary.
        """
        b, bits, mask = np.uint64(number), np.uint64(_FRACTION_BITS), np.uint64(2**_FRACTION_BITS - 1)
        # No product overflows: number < 2^32, fraction and offset < 2^32, whole < 2^32, sizes < 2^32.
        parts = b * (self._steps & mask) + self._offsets
        drawn = b * (self._steps >> bits) + (parts >> bits)
        rows = drawn % self._sizes
        since, epoch, half = (rows << bits) | (parts & mask), self._sizes << bits, self._steps >> np.uint64(1)
        # Strictly below on this side and inclusive on the other: together the windows are one step wide, also if it is
        # odd, so that exactly one boundary falls into them.
        drawn -= np.where(since < self._steps - half, rows, np.uint64(0))
        drawn += np.where((since >= self._steps - half) & (epoch - since <= half), self._sizes - rows, np.uint64(0))
        before: np.ndarray = drawn.astype(np.int64)
        return before

    @cached_property
    def _steps(self) -> np.ndarray:
        """Draws per block of each task, in units of 2^-32 example: uint64 [tasks]."""
        share_of = rates.shares(self.rates)
        units = self.block_examples * 2**_FRACTION_BITS
        # At least 1, so that a task with a tiny share is drawn eventually, not never.
        return np.array([max(1, round(share_of[n] * units)) for n in self.names], np.uint64)

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array([self.sizes[n] for n in self.names], np.uint64)

    @cached_property
    def _keys(self) -> np.ndarray:
        return np.array([permutation.key_of(self.seed, "rows of", n) for n in self.names], np.uint64)

    @cached_property
    def _offsets(self) -> np.ndarray:
        # Without offsets all tasks of the same rate would come up in the same blocks.
        drop = 64 - _FRACTION_BITS
        return np.array([permutation.key_of(self.seed, "offset of", n) >> drop for n in self.names], np.uint64)


def _rounded(epochs: float) -> str:
    return f"{epochs:.2g}" if epochs < 10 else f"{epochs:,.0f}"
