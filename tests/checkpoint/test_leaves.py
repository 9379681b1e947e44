"""Leaves read by parts: every view of a tensor gives the same numbers as NumPy on the whole of it."""

import itertools

import numpy as np
import pytest

from flan_jax.checkpoint import leaves

ARRAY = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


def parts(shape):
    """Some indices of a shape: all of it, its ends, its middle."""
    choices = [{(0, size), (0, max(1, size // 2)), (size // 3, size), (size // 2, size // 2 + 1)} for size in shape]
    return [tuple(slice(*pair) for pair in pairs) for pairs in itertools.product(*map(sorted, choices))]


def assert_reads(leaf, expected):
    assert leaf.shape == expected.shape
    np.testing.assert_array_equal(leaf.whole(), expected)
    for index in parts(expected.shape):
        np.testing.assert_array_equal(leaf.read(index), expected[index])


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (leaves.transposed, ARRAY.T),
        (lambda leaf: leaves.at(leaf, axis=1, position=2), ARRAY[:, 2]),
        (lambda leaf: leaves.at(leaf, axis=3, position=0), ARRAY[..., 0]),
        (lambda leaf: leaves.joined(leaf, axis=0), ARRAY.reshape(6, 4, 5)),
        (lambda leaf: leaves.joined(leaf, axis=2), ARRAY.reshape(2, 3, 20)),
        (lambda leaf: leaves.divided(leaf, axis=2, inner=2), ARRAY.reshape(2, 3, 2, 2, 5)),
        (lambda leaf: leaves.divided(leaves.joined(leaf, axis=1), axis=1, inner=4), ARRAY),
        (lambda leaf: leaves.cast(leaf, leaves.BFLOAT16), ARRAY.astype(leaves.BFLOAT16)),
        (
            lambda leaf: leaves.stacked([leaf, leaves.transposed(leaves.transposed(leaf))], axis=1),
            np.stack([ARRAY] * 2, 1),
        ),
    ],
)
def test_a_view_reads_as_the_same_view_of_the_full_array(view, expected):
    assert_reads(view(leaves.from_array(ARRAY)), expected)


@pytest.mark.parametrize("max_bytes", [1, 100, 240, 480, 10**6])
@pytest.mark.parametrize("chunk", [None, (2, 2)])
def test_blocks_cover_a_leaf_once_and_in_order(max_bytes, chunk):
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    leaf = leaves.Leaf(shape=array.shape, dtype=array.dtype, read=lambda index: array[index], chunk=chunk)
    blocks = list(leaf.blocks(max_bytes=max_bytes))
    np.testing.assert_array_equal(np.concatenate([leaf.read(index) for index in blocks]), array)
    assert all(leaf.read(index).nbytes <= max(max_bytes, 12) for index in blocks)
    if chunk and 48 <= max_bytes < array.nbytes:
        assert all(rows.start % chunk[0] == 0 for rows, _ in blocks)


def test_a_scalar_is_one_block():
    leaf = leaves.from_array(np.asarray(7, np.int32))
    assert [leaf.read(index).item() for index in leaf.blocks(max_bytes=1)] == [7]


def test_slices_without_ends_mean_all_of_a_dimension():
    leaf = leaves.from_array(ARRAY)
    np.testing.assert_array_equal(
        leaf.part((slice(None), slice(1, None), slice(None, 2), slice(0, 5))), ARRAY[:, 1:, :2]
    )


def test_a_stack_refuses_layers_that_differ():
    one, other = leaves.from_array(np.zeros((2, 3), np.float32)), leaves.from_array(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"got float32\[2, 4\] next to float32\[2, 3\] in one stack"):
        leaves.stacked([one, other], axis=0)


def test_heads_that_do_not_divide_a_kernel_are_refused():
    with pytest.raises(ValueError, match="dimension 1 has size 10, which is not a multiple of 4"):
        leaves.divided(leaves.from_array(np.zeros((2, 10))), axis=1, inner=4)


def test_equality_is_of_bits():
    zero, minus = (leaves.from_array(np.asarray([value], np.float32)) for value in (0.0, -0.0))
    assert leaves.same_values(zero, zero)
    assert not leaves.same_values(zero, minus)
    assert not leaves.same_values(zero, leaves.cast(zero, np.float64))


def test_types_are_grouped_the_most_frequent_first():
    f32, bf16 = leaves.from_array(np.zeros(1, np.float32)), leaves.from_array(np.zeros(1, leaves.BFLOAT16))
    assert leaves.same_dtypes({"a": bf16, "b": f32, "c": f32}) == {
        np.dtype(np.float32): ["b", "c"],
        leaves.BFLOAT16: ["a"],
    }
