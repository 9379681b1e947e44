"""One block of the mixture, packed into rows from lengths alone, before any token is read."""

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from flan_jax.data import packing, permutation
from flan_jax.data.mixture import MAX_BLOCK_EXAMPLES, Mixture
from flan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """The rows of a block: row i holds examples `starts[i]` to `starts[i + 1]` of the two parallel arrays."""

    task_ids: np.ndarray
    rows: np.ndarray
    starts: np.ndarray

    @property
    def num_rows(self) -> int:
        """The number of packed rows."""
        return len(self.starts) - 1

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples of a row: (task ids, example numbers)."""
        examples = slice(self.starts[number], self.starts[number + 1])
        return self.task_ids[examples], self.rows[examples]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockPlanner:
    """Plans any block of a mixture; immutable, so that threads may share it.

    Args:
      mixture: The mixture that is drawn from.
      lengths: The tokens of each task's examples, int [n, 2]: inputs, targets.
      limits: The tokens of a row, (S, T).
      strategy: Which examples share a row; see `packing`.

    Raises:
      UserError: An example is longer than a row.
    """

    mixture: Mixture
    lengths: Mapping[str, np.ndarray]
    limits: tuple[int, int]
    strategy: packing.Strategy

    def __post_init__(self) -> None:
        for name in self.mixture.names:
            longest = np.max(self.lengths[name], axis=0)
            if np.any(longest > np.array(self.limits)):
                raise UserError(
                    f"Task {name!r} has examples of up to {longest[0]} input and {longest[1]} target tokens; a row "
                    f"holds {self.limits[0]} and {self.limits[1]}. Export it again with these lengths, or raise them."
                )

    def plan(self, number: int) -> BlockPlan:
        """Returns block `number`, its rows in an order that the seed decides."""
        block = self.mixture.block(number)
        # Every process packs every block, 11 microseconds per example: with blocks shared out, processes would drift
        # apart.
        packed = self.strategy(self._lengths_of(block.task_ids, block.rows), self.limits)
        # Strategies fill the last rows poorly: unshuffled, the last batch of every block would hold few tokens.
        key = permutation.key_of(self.mixture.seed, "order of rows", number)
        ordered = [packed[i] for i in permutation.shuffled_order(key, len(packed)).tolist()]
        examples = np.concatenate(ordered)
        starts = np.cumsum([0, *(len(row) for row in ordered)])
        return BlockPlan(block.task_ids[examples], block.rows[examples], starts)

    @cached_property
    def examples_per_row(self) -> float:
        """The mean number of examples that share a row, measured on the first 1,024 draws or more."""
        num_examples = num_rows = number = 0
        # Measured on plans, because mean lengths do not show how well the examples fit together.
        while num_examples < MAX_BLOCK_EXAMPLES:
            plan = self.plan(number)
            num_examples, num_rows, number = num_examples + len(plan.rows), num_rows + plan.num_rows, number + 1
        return num_examples / num_rows

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the mixture and of every length: what the plans depend on besides seed, limits and strategy."""
        digest = hashlib.blake2b(self.mixture.fingerprint.encode(), digest_size=8)
        # Every length, since one other length anywhere changes the packing of its block.
        digest.update(self._flat_lengths.data)
        return digest.hexdigest()

    def _lengths_of(self, task_ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
        lengths: np.ndarray = self._flat_lengths[self._first[task_ids] + rows].astype(np.int64)
        return lengths

    @cached_property
    def _flat_lengths(self) -> np.ndarray:
        """The lengths of all tasks, one after the other: [sum of n, 2]."""
        # In two bytes each: the lengths of 100 million examples then take 400 MB, not 800 MB. Little-endian, since the
        # fingerprint reads the bytes.
        dtype = np.dtype("<u2" if max(self.limits) < 2**16 else "<u4")
        return np.concatenate([np.asarray(self.lengths[name]).astype(dtype) for name in self.mixture.names])

    @cached_property
    def _first(self) -> np.ndarray:
        """The index in `_flat_lengths` of the first example of each task."""
        sizes = np.array([self.mixture.sizes[name] for name in self.mixture.names])
        first: np.ndarray = np.cumsum(sizes) - sizes
        return first
