"""Decompresses each chunk once where several parts of a leaf share it: layers of a stack, and rows split by columns.

T5X compresses many layers into one chunk, so that reading a single layer costs as much as the stack, and reading a
model of 24 layers 24 times its size. A run on several hosts writes chunks with some columns of every row. Here a chunk
is decompressed when a part of it is first read, two at a time, into a temporary file with its layers (or rows) one
after the other. The file has no name, and disappears with the leaf or the process.
"""

import itertools
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np

from flan_jax.checkpoint.leaves import Index, Leaf

BLOCK_BYTES = 2**26
# Left for other users of the disk.
_SPARE_BYTES = 2**30
_UNPACKERS = 2

Position = tuple[int, ...]


def unstacked(leaf: Leaf, *, axis: int) -> Leaf:
    """Returns the leaf with reads of one position of `axis` that cost only that part.

    If the folder for temporary files (TMPDIR) has no room for the leaf, it is returned unchanged.

    Args:
      leaf: Stored in chunks of several layers; others are returned unchanged.
      axis: Counts the layers.
    """
    if leaf.chunk is None or leaf.chunk[axis] == 1:
        return leaf
    if shutil.disk_usage(tempfile.gettempdir()).free < leaf.nbytes + _SPARE_BYTES:
        return leaf
    chunk = (*leaf.chunk[:axis], 1, *leaf.chunk[axis + 1 :])
    return Leaf(shape=leaf.shape, dtype=leaf.dtype, read=_Unpacked(leaf, axis).read, chunk=chunk)


def unstacked_rows(leaf: Leaf) -> Leaf:
    """Returns the leaf with reads of blocks of rows that cost only those rows.

    Args:
      leaf: Each row is split over several chunks, and the chunks of a row hold more than `BLOCK_BYTES` together; others
        are returned unchanged.
    """
    if leaf.chunk is None or leaf.chunk[1:] == leaf.shape[1:]:
        return leaf
    if leaf.chunk[0] * math.prod(leaf.shape[1:]) * leaf.dtype.itemsize <= BLOCK_BYTES:
        return leaf
    return unstacked(leaf, axis=0)


class _Unpacked:
    """The temporary file of one leaf: chunk after chunk, each of them layer after layer."""

    def __init__(self, leaf: Leaf, axis: int) -> None:
        assert leaf.chunk is not None
        self._leaf = leaf
        self._axis = axis
        self._chunk = leaf.chunk
        self._grid = [-(-size // piece) for size, piece in zip(leaf.shape, leaf.chunk, strict=True)]
        self._tile = (*leaf.chunk[:axis], *leaf.chunk[axis + 1 :])
        self._tile_bytes = math.prod(self._tile) * leaf.dtype.itemsize
        self._file: IO[bytes] | None = None
        self._unpacked: set[Position] = set()
        self._lock = threading.Lock()

    def read(self, index: Index) -> np.ndarray:
        positions = list(self._touched(index))
        # Held while unpacking, so that two readers of one chunk do not both decompress it.
        with self._lock:
            file = self._file = self._file or tempfile.TemporaryFile(prefix="flan_jax-layers-")
            missing = [position for position in positions if position not in self._unpacked]
            with ThreadPoolExecutor(_UNPACKERS) as pool:
                for position, _ in zip(missing, pool.map(lambda p: self._unpack(p, file), missing), strict=True):
                    self._unpacked.add(position)
        # Outside of the lock: a chunk that is unpacked does not change any more.
        values = np.empty([s.stop - s.start for s in index], self._leaf.dtype)
        for position in positions:
            self._copy(position, index, file, values)
        return values

    def _touched(self, index: Index) -> Iterator[Position]:
        """Yields the positions, in the grid of chunks, that an index overlaps."""
        return itertools.product(
            *(range(s.start // piece, -(-s.stop // piece)) for s, piece in zip(index, self._chunk, strict=True))
        )

    def _part(self, position: Position) -> Index:
        return tuple(
            slice(p * piece, min((p + 1) * piece, size))
            for p, piece, size in zip(position, self._chunk, self._leaf.shape, strict=True)
        )

    def _unpack(self, position: Position, file: IO[bytes]) -> None:
        layers = np.moveaxis(self._leaf.read(self._part(position)), self._axis, 0)
        for number, layer in enumerate(layers):
            # With an explicit offset, because two threads write to one file.
            os.pwrite(file.fileno(), np.ascontiguousarray(layer).tobytes(), self._offset(position, number))

    def _offset(self, position: Position, layer: int) -> int:
        before = 0
        for p, count in zip(position, self._grid, strict=True):
            before = before * count + p
        # Incomplete chunks at the edges get the room of complete ones, so that offsets need no table; the file is
        # sparse.
        return (before * self._chunk[self._axis] + layer) * self._tile_bytes

    def _copy(self, position: Position, index: Index, file: IO[bytes], values: np.ndarray) -> None:
        """Copies the intersection of a chunk and an index into `values`."""
        part = self._part(position)
        shared = [slice(max(p.start, i.start), min(p.stop, i.stop)) for p, i in zip(part, index, strict=True)]
        to = [slice(s.start - i.start, s.stop - i.start) for s, i in zip(shared, index, strict=True)]
        within = [slice(s.start - p.start, s.stop - p.start) for s, p in zip(shared, part, strict=True)]
        del within[self._axis]
        tile_shape = [p.stop - p.start for p in part]
        del tile_shape[self._axis]
        size = math.prod(tile_shape) * self._leaf.dtype.itemsize
        for layer in range(shared[self._axis].start, shared[self._axis].stop):
            data = os.pread(file.fileno(), size, self._offset(position, layer - part[self._axis].start))
            at = layer - index[self._axis].start
            to[self._axis] = slice(at, at + 1)
            tile = np.frombuffer(data, self._leaf.dtype).reshape(tile_shape)[tuple(within)]
            values[tuple(to)] = np.expand_dims(tile, self._axis)
