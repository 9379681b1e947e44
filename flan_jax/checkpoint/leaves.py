"""Lazy tensors: shape and type are known, values are read on demand, a part at a time.

Every format opens into named leaves, and every writer and every restore takes them. Where a format differs (transposed,
stacked, split heads), a leaf reads through another leaf. So a conversion never holds more than the part that it moves.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import ml_dtypes
import numpy as np

from flan_jax.errors import UserError

Index = tuple[slice, ...]
"""One slice per dimension, with start and stop in range and no step."""

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One lazy tensor.

    Attributes:
      shape: Sizes of the dimensions.
      dtype: Element type; bfloat16 is the one of `ml_dtypes`.
      read: Returns the part at an `Index`, as an array of that part's shape.
      chunk: Shape of the chunks in which it is stored, so that a reader can align to them; None where every part
        costs the same.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]
    chunk: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize

    def whole(self) -> np.ndarray:
        """Returns all values."""
        return self.read(tuple(slice(0, size) for size in self.shape))

    def part(self, index: Sequence[slice]) -> np.ndarray:
        """Returns a part; slices may omit start and stop, as those of `jax.Sharding` do."""
        return self.read(tuple(slice(*s.indices(size)[:2]) for s, size in zip(index, self.shape, strict=True)))

    def blocks(self, *, max_bytes: int) -> Iterator[Index]:
        """Yields the indices of blocks of at most `max_bytes` (or of one row), in C order.

        >>> leaf = from_array(np.zeros((5, 2), np.float32))
        >>> [(rows.start, rows.stop) for rows, _ in leaf.blocks(max_bytes=16)]
        [(0, 2), (2, 4), (4, 5)]
        """
        if not self.shape or self.nbytes <= max_bytes:
            yield tuple(slice(0, size) for size in self.shape)
            return
        rows = max(1, max_bytes * self.shape[0] // max(self.nbytes, 1))
        if self.chunk and rows > self.chunk[0]:
            rows -= rows % self.chunk[0]  # Aligned, so that no chunk is read twice.
        rest = tuple(slice(0, size) for size in self.shape[1:])
        for start in range(0, self.shape[0], rows):
            yield (slice(start, min(start + rows, self.shape[0])), *rest)


def from_array(array: Any) -> Leaf:
    """Returns a leaf over an array in memory."""
    return Leaf(shape=tuple(array.shape), dtype=np.dtype(array.dtype), read=lambda index: np.asarray(array[index]))


def cast(leaf: Leaf, dtype: Any) -> Leaf:
    """Returns the leaf in another type."""
    target = np.dtype(dtype)
    if target == leaf.dtype:
        return leaf
    # Rounds to nearest even, as XLA does, so that casting here or on a device gives the same bits.
    return dataclasses.replace(leaf, dtype=target, read=lambda index: leaf.read(index).astype(target))


def transposed(leaf: Leaf) -> Leaf:
    """Returns the leaf with its dimensions in reverse order."""
    return Leaf(
        shape=leaf.shape[::-1],
        dtype=leaf.dtype,
        chunk=leaf.chunk and leaf.chunk[::-1],
        read=lambda index: leaf.read(index[::-1]).T,
    )


def at(leaf: Leaf, *, axis: int, position: int) -> Leaf:
    """Returns one layer of a stack: the leaf at a position of an axis, without that axis."""

    def read(index: Index) -> np.ndarray:
        inner = (*index[:axis], slice(position, position + 1), *index[axis:])
        return np.squeeze(leaf.read(inner), axis=axis)

    chunk = leaf.chunk and (*leaf.chunk[:axis], *leaf.chunk[axis + 1 :])
    return Leaf(shape=(*leaf.shape[:axis], *leaf.shape[axis + 1 :]), dtype=leaf.dtype, chunk=chunk, read=read)


def stacked(parts: Sequence[Leaf], *, axis: int) -> Leaf:
    """Returns leaves of one shape as one leaf with a new axis; the inverse of `at`.

    Raises:
      UserError: The leaves differ in shape or type.
    """
    first = parts[0]
    for part in parts:
        if (part.shape, part.dtype) != (first.shape, first.dtype):
            raise UserError(f"got {part.dtype}{list(part.shape)} next to {first.dtype}{list(first.shape)} in one stack")

    def read(index: Index) -> np.ndarray:
        # Only the layers of the index are read.
        chosen = parts[index[axis]]
        inner = (*index[:axis], *index[axis + 1 :])
        return np.stack([part.read(inner) for part in chosen], axis=axis)

    shape = (*first.shape[:axis], len(parts), *first.shape[axis:])
    return Leaf(shape=shape, dtype=first.dtype, read=read)


def joined(leaf: Leaf, *, axis: int) -> Leaf:
    """Returns the leaf with dimensions `axis` and `axis + 1` merged, as heads and head size are in a kernel."""
    inner = leaf.shape[axis + 1]
    shape = (*leaf.shape[:axis], leaf.shape[axis] * inner, *leaf.shape[axis + 2 :])

    def read(index: Index) -> np.ndarray:
        start, stop = index[axis].start, index[axis].stop
        # Complete inner dimensions are read and then cropped: a part may begin within a head.
        outer = slice(start // inner, -(-stop // inner))
        values = leaf.read((*index[:axis], outer, slice(0, inner), *index[axis + 1 :]))
        values = values.reshape(*values.shape[:axis], -1, *values.shape[axis + 2 :])
        offset = outer.start * inner
        return values[(slice(None),) * axis + (slice(start - offset, stop - offset),)]

    return Leaf(shape=shape, dtype=leaf.dtype, read=read)


def divided(leaf: Leaf, *, axis: int, inner: int) -> Leaf:
    """Returns the leaf with dimension `axis` split in two, the second of size `inner`; the inverse of `joined`.

    Raises:
      UserError: The dimension is not a multiple of `inner`.
    """
    if leaf.shape[axis] % inner:
        raise UserError(f"dimension {axis} has size {leaf.shape[axis]}, which is not a multiple of {inner}")
    shape = (*leaf.shape[:axis], leaf.shape[axis] // inner, inner, *leaf.shape[axis + 1 :])

    def read(index: Index) -> np.ndarray:
        outer, within = index[axis], index[axis + 1]
        flat = slice(outer.start * inner, outer.stop * inner)
        values = leaf.read((*index[:axis], flat, *index[axis + 2 :]))
        values = values.reshape(*values.shape[:axis], -1, inner, *values.shape[axis + 1 :])
        return values[(slice(None),) * (axis + 1) + (within,)]

    return Leaf(shape=shape, dtype=leaf.dtype, read=read)


def same_values(a: Leaf, b: Leaf, *, max_bytes: int = 2**26) -> bool:
    """Whether two leaves are equal bit for bit; stops at the first part that differs."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return all(_bits(a.read(index)) == _bits(b.read(index)) for index in a.blocks(max_bytes=max_bytes))


def same_dtypes(leaves: Mapping[str, Leaf]) -> dict[np.dtype, list[str]]:
    """Returns the names of the leaves of each type, the most frequent type first."""
    named = sorted(leaves, key=lambda name: str(leaves[name].dtype))
    groups = {dtype: list(names) for dtype, names in itertools.groupby(named, key=lambda name: leaves[name].dtype)}
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _bits(array: np.ndarray) -> bytes:
    # Compared as bytes, because NaN differs from itself and -0.0 equals 0.0.
    return np.ascontiguousarray(array).tobytes()
