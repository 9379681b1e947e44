"""Chunks with several layers are decompressed once, in whatever order layers are read, with the same values."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from flan_jax.checkpoint import leaves
from flan_jax.checkpoint.leaves import Leaf
from flan_jax.checkpoint.t5x import unstacking
from flan_jax.checkpoint.t5x.unstacking import unstacked, unstacked_rows

SHAPE, CHUNK = (5, 4, 3), (2, 3, 2)


class Stored:
    """An array in parts; notes which part each read unpacks."""

    def __init__(self):
        self.values = np.arange(60, dtype=np.float32).reshape(SHAPE)
        self.unpacked = []
        self.leaf = Leaf(shape=SHAPE, dtype=np.dtype(np.float32), read=self.read, chunk=CHUNK)

    def read(self, index):
        touched = [range(s.start // c, -(-s.stop // c)) for s, c in zip(index, CHUNK, strict=True)]
        self.unpacked += itertools.product(*touched)
        return self.values[index]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_layer_is_the_same_and_every_part_is_unpacked_once(axis):
    stored = Stored()
    apart = unstacked(stored.leaf, axis=axis)
    for layer in reversed(range(SHAPE[axis])):
        got = leaves.at(apart, axis=axis, position=layer).whole()
        np.testing.assert_array_equal(got, stored.values.take(layer, axis=axis))
    np.testing.assert_array_equal(apart.whole(), stored.values)
    assert len(stored.unpacked) == len(set(stored.unpacked)) == 3 * 2 * 2
    assert (apart.chunk[axis], apart.shape, apart.dtype) == (1, stored.leaf.shape, stored.leaf.dtype)


def test_a_part_of_a_layer_unpacks_no_more_than_it_needs():
    stored = Stored()
    apart = unstacked(stored.leaf, axis=1)
    index = (slice(1, 4), slice(2, 4), slice(2, 3))
    np.testing.assert_array_equal(apart.read(index), stored.values[index])
    assert sorted(stored.unpacked) == [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)]


def test_blocks_of_rows_that_are_split_by_columns_decompress_every_chunk_once(monkeypatch):
    stored = Stored()
    assert unstacked_rows(stored.leaf) is stored.leaf  # Two rows are less than a block, so no part is read twice.
    monkeypatch.setattr(unstacking, "BLOCK_BYTES", 48)
    apart = unstacked_rows(stored.leaf)
    got = [apart.read(index) for index in apart.blocks(max_bytes=48)]
    assert len(got) == SHAPE[0]
    np.testing.assert_array_equal(np.concatenate(got), stored.values)
    assert len(stored.unpacked) == len(set(stored.unpacked))
    whole_rows = Leaf(shape=SHAPE, dtype=np.dtype(np.float32), read=stored.read, chunk=(2, 4, 3))
    assert unstacked_rows(whole_rows) is whole_rows


def test_a_leaf_with_cheap_parts_is_returned_unchanged():
    in_memory = leaves.from_array(np.zeros((2, 2), np.float32))
    assert unstacked(in_memory, axis=1) is in_memory
    assert unstacked_rows(in_memory) is in_memory
    stored = Stored()
    one_each = Leaf(shape=SHAPE, dtype=np.dtype(np.float32), read=stored.read, chunk=(5, 1, 3))
    assert unstacked(one_each, axis=1) is one_each


def test_without_room_for_temporary_files_layers_are_read_from_their_parts(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30))
    stored = Stored()
    assert unstacked(stored.leaf, axis=1) is stored.leaf
