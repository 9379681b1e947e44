import doctest
from fractions import Fraction

import numpy as np
import pytest

from flan_jax.data import mixture as mixture_module
from flan_jax.data.mixture import Mixture

SIZES = {"a": 3, "b": 50, "c": 1000}
RATES = {"a": 1.0, "b": 2.0, "c": 4.0}


def make(sizes=SIZES, rates=RATES, seed=0, block_examples=20):
    return Mixture(sizes=sizes, rates=rates, seed=seed, block_examples=block_examples)


def drawn(mixture, numbers):
    """All draws of some blocks as {task: its rows}."""
    rows = {name: [] for name in mixture.names}
    for number in numbers:
        block = mixture.block(number)
        for task_id, row in zip(block.task_ids.tolist(), block.rows.tolist(), strict=True):
            rows[mixture.names[task_id]].append(row)
    return rows


def test_examples_in_docstrings():
    assert doctest.testmod(mixture_module).failed == 0


def test_any_stretch_of_blocks_gives_each_task_its_share_to_one_example():
    mixture = make()
    for first, last in [(0, 1), (0, 7), (5, 12), (1000, 1100)]:
        counts = {name: len(rows) for name, rows in drawn(mixture, range(first, last)).items()}
        for name, rate in RATES.items():
            assert abs(counts[name] - (last - first) * 20 * rate / 7) < 1 + 1e-6


def test_counts_are_exact_beyond_a_milliard_blocks():
    """Blocks meet without gap or overlap: before block b there are floor(b x step + offset) draws, exactly."""
    mixture = make(block_examples=1024)
    for number in (0, 1, 10**9, mixture_module.MAX_BLOCKS - 1):
        for i in range(3):
            step, offset = Fraction(int(mixture._steps[i]), 2**32), Fraction(int(mixture._offsets[i]), 2**32)
            assert mixture._drawn_before(number)[i] == (number * step + offset) // 1
        counts = mixture._drawn_before(number + 1) - mixture._drawn_before(number)
        assert np.bincount(mixture.block(number).task_ids, minlength=3).tolist() == counts.tolist()


def test_every_epoch_of_a_task_visits_each_row_once_in_another_order():
    mixture = make(sizes={"a": 10, "b": 7}, rates={"a": 1, "b": 1}, block_examples=20)
    rows = [row for number in range(6) for row in sorted_by_draw(mixture, number, "a")]
    epochs = [rows[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs[1:-1])
    assert len({tuple(epoch) for epoch in epochs}) == 6


def sorted_by_draw(mixture, number, name):
    """The rows of one task in one block, in the order of its draws rather than the block's."""
    from flan_jax.data import permutation

    count = len(mixture.block(number).rows)
    order = permutation.shuffled_order(permutation.key_of(mixture.seed, "order of block", number), count)
    rows, task_ids = np.empty(count, int), np.empty(count, int)
    rows[order], task_ids[order] = mixture.block(number).rows, mixture.block(number).task_ids
    return rows[task_ids == mixture.names.index(name)].tolist()


def test_rows_of_a_whole_number_of_epochs_are_level():
    rows = drawn(make(sizes={"a": 5, "b": 8}, rates={"a": 5, "b": 8}, block_examples=13), range(40))
    assert set(np.bincount(rows["a"]).tolist()) <= {39, 40, 41}
    assert set(np.bincount(rows["b"]).tolist()) <= {39, 40, 41}


def test_a_block_depends_on_nothing_but_seed_and_number():
    one, other = make(), make()
    other.block(3)
    assert one.block(5).rows.tolist() == other.block(5).rows.tolist()
    assert one.block(5).rows.tolist() != make(seed=1).block(5).rows.tolist()


def test_the_order_in_which_tasks_are_listed_does_not_matter():
    backwards = make(sizes=dict(reversed(SIZES.items())), rates=dict(reversed(RATES.items())))
    assert backwards.block(2).task_ids.tolist() == make().block(2).task_ids.tolist()
    assert backwards.block(2).rows.tolist() == make().block(2).rows.tolist()
    assert backwards.fingerprint == make().fingerprint


def test_adding_a_task_does_not_reshuffle_the_others():
    less = make(sizes={"b": 50}, rates={"b": 1}, block_examples=50)
    more = make(sizes={"a": 3, "b": 50}, rates={"a": 1, "b": 1}, block_examples=100)
    for number in range(4):
        assert sorted_by_draw(less, number, "b") == sorted_by_draw(more, number, "b")


def test_the_order_within_a_block_mixes_the_tasks():
    task_ids = make(block_examples=1000).block(0).task_ids
    assert np.count_nonzero(np.diff(task_ids)) > 400


def test_tasks_far_rarer_than_a_block_are_still_drawn_at_their_rate():
    rates = {f"t{i:04}": 1.0 for i in range(2000)}
    mixture = make(sizes=dict.fromkeys(rates, 9), rates=rates, block_examples=16)
    counts = [len(rows) for rows in drawn(mixture, range(250)).values()]
    assert set(counts) <= {1, 2, 3} and abs(sum(counts) - 4000) < 100


def test_the_fingerprint_tells_sizes_rates_and_names_apart():
    others = [make(rates=RATES | {"a": 1.5}), make(sizes=SIZES | {"a": 4}), make(block_examples=40)]
    others.append(make(sizes={"a": 3, "b": 50, "d": 1000}, rates={"a": 1.0, "b": 2.0, "d": 4.0}))
    assert len({make().fingerprint, *(other.fingerprint for other in others)}) == 5
    scaled = make(rates={name: 10 * rate for name, rate in RATES.items()})
    assert scaled.fingerprint == make().fingerprint  # Rates are relative.


def test_a_task_without_examples_is_named():
    with pytest.raises(ValueError, match="Task 'b' has no examples"):
        make(sizes={"a": 3, "b": 0}, rates={"a": 1.0, "b": 1.0})


def test_a_mixture_needs_members_positive_rates_and_a_block():
    with pytest.raises(ValueError, match="at least one member"):
        make(sizes={}, rates={})
    with pytest.raises(ValueError, match="The rate of a must be positive"):
        make(sizes={"a": 3}, rates={"a": 0.0})
    with pytest.raises(ValueError, match="block_examples must be at least 1; got 0"):
        make(block_examples=0)
