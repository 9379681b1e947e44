import doctest

import numpy as np
import pytest

from flan_jax.data import packing

ALL = [packing.bin_centered, packing.fewest_rows, packing.scarce_side_first, packing.one_per_row]
LIMITS = (64, 32)


def log_normal(count, limits=LIMITS):
    normal = np.random.default_rng(0).standard_normal((count, 2))
    return np.clip(np.round(np.array(limits) / 9 * np.exp(normal)), 1, np.array(limits)).astype(np.int64)


def test_examples_in_docstrings():
    assert doctest.testmod(packing).failed == 0


@pytest.mark.parametrize("strategy", ALL)
def test_every_pair_has_exactly_one_row_and_no_row_overflows(strategy):
    for count in (1, 2, 300):
        lengths = log_normal(count)
        rows = strategy(lengths, LIMITS)
        assert sorted(np.concatenate(rows).tolist()) == list(range(count))
        assert all(np.all(lengths[row].sum(axis=0) <= LIMITS) for row in rows)


@pytest.mark.parametrize("strategy", ALL)
def test_full_rows_and_empty_sides_are_packed(strategy):
    lengths = np.array([[64, 32], [0, 32], [64, 0], [0, 0]])
    rows = strategy(lengths, LIMITS)
    assert sorted(np.concatenate(rows).tolist()) == [0, 1, 2, 3]
    assert all(np.all(lengths[row].sum(axis=0) <= LIMITS) for row in rows)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("pair", [[65, 1], [1, 33]])
def test_a_pair_longer_than_a_row_is_our_own_mistake(strategy, pair):
    with pytest.raises(AssertionError, match="longer than"):
        strategy(np.array([pair]), LIMITS)


def test_both_sides_count():
    """All inputs would fit into one row; the targets need two."""
    lengths = np.array([[1, 20], [1, 20], [1, 12], [1, 12]])
    for strategy in (packing.bin_centered, packing.fewest_rows):
        assert sorted(len(row) for row in strategy(lengths, LIMITS)) == [2, 2]


def test_complementary_pairs_share_a_row():
    lengths = np.array([[60, 2], [4, 30], [60, 2], [4, 30]])
    assert [row.tolist() for row in packing.bin_centered(lengths, LIMITS)] == [[0, 1], [2, 3]]


def reference_bin_centered(lengths, limits):
    """The definition, pair by pair, in Python's integers; the first of equals."""
    left, rows = list(range(len(lengths))), []
    while left:
        room, row = list(limits), []
        while True:
            fitting = [i for i in left if lengths[i][0] <= room[0] and lengths[i][1] <= room[1]]
            if not fitting:
                break
            weights = (room[0] * limits[1] ** 2, room[1] * limits[0] ** 2)
            best = max(fitting, key=lambda i, w=weights: (lengths[i][0] * w[0] + lengths[i][1] * w[1], -i))
            left.remove(best)
            row.append(best)
            room = [room[0] - lengths[best][0], room[1] - lengths[best][1]]
        rows.append(sorted(row))
    return rows


@pytest.mark.parametrize("seed", range(8))
def test_bin_centered_is_its_definition_to_the_last_tie_for_positions_of_runs_hang_on_it(seed):
    rng = np.random.default_rng(seed)
    limits = tuple(rng.integers(1, 40, 2).tolist())
    lengths = rng.integers(0, np.array(limits) + 1, (60, 2))
    got = [row.tolist() for row in packing.bin_centered(lengths, limits)]
    assert got == reference_bin_centered(lengths.tolist(), limits)


def test_where_answers_are_short_the_scarce_side_alone_packs_better_and_elsewhere_worse():
    rng = np.random.default_rng(0)
    inputs = np.clip(np.round(250 * np.exp(0.7 * rng.standard_normal(1000))), 1, 1024)
    short = np.stack([inputs, rng.integers(1, 4, 1000)], axis=1).astype(np.int64)
    rows = {strategy.__name__: len(strategy(short, (1024, 128))) for strategy in ALL}
    assert rows["scarce_side_first"] < rows["bin_centered"]
    both = log_normal(1000, limits=(512, 128))
    assert len(packing.scarce_side_first(both, (512, 128))) > len(packing.bin_centered(both, (512, 128)))
    for lengths, limits in ((short, (1024, 128)), (both, (512, 128)), (both[:, ::-1], (128, 512))):
        tried = (packing.scarce_side_first(lengths, limits), packing.bin_centered(lengths, limits))
        assert len(packing.fewest_rows(lengths, limits)) == min(map(len, tried))


def test_bin_centered_comes_within_a_tenth_of_the_fewest_rows_that_sums_allow():
    limits = (512, 128)
    lengths = log_normal(1000, limits=limits)
    bound = (lengths.sum(axis=0) / np.array(limits)).max()
    assert bound / len(packing.bin_centered(lengths, limits)) > 0.9


def test_packing_is_the_same_for_every_integer_type():
    lengths = log_normal(200)
    for strategy in ALL:
        wanted = [row.tolist() for row in strategy(lengths, LIMITS)]
        assert [row.tolist() for row in strategy(lengths.astype(np.uint16), LIMITS)] == wanted
