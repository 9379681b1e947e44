import doctest

import numpy as np
import pytest

from flan_jax.data import blocks, packing
from flan_jax.data.mixture import Mixture

RNG = np.random.default_rng(0)
LENGTHS = {name: np.stack([RNG.integers(1, 9, n), RNG.integers(1, 5, n)], 1) for name, n in (("a", 7), ("b", 90))}


def make(lengths=LENGTHS, *, rates=None, limits=(16, 8), strategy=packing.bin_centered, seed=0):
    sizes = {name: len(array) for name, array in lengths.items()}
    mixture = Mixture(sizes=sizes, rates=rates or dict.fromkeys(sizes, 1.0), seed=seed)
    return blocks.BlockPlanner(mixture=mixture, lengths=lengths, limits=limits, strategy=strategy)


def lengths_of(planner, plan):
    names = planner.mixture.names
    return np.array([planner.lengths[names[t]][r] for t, r in zip(plan.task_ids, plan.rows, strict=True)])


def test_examples_in_docstrings():
    assert doctest.testmod(blocks).failed == 0


@pytest.mark.parametrize("strategy", [packing.bin_centered, packing.fewest_rows, packing.one_per_row])
def test_rows_hold_exactly_the_blocks_draws_and_do_not_overflow(strategy):
    planner = make(strategy=strategy)
    plan, block = planner.plan(3), planner.mixture.block(3)
    drawn = sorted(zip(block.task_ids.tolist(), block.rows.tolist(), strict=True))
    assert sorted(zip(plan.task_ids.tolist(), plan.rows.tolist(), strict=True)) == drawn
    sums = np.add.reduceat(lengths_of(planner, plan), plan.starts[:-1], axis=0)
    assert len(sums) == plan.num_rows and plan.starts[-1] == len(drawn)
    assert np.all(sums <= (16, 8))


def test_rows_do_not_come_in_the_order_in_which_they_were_packed():
    """Packing leaves the poorly filled rows to the end."""
    planner = make({"b": np.tile(LENGTHS["b"], (6, 1))})
    plan = planner.plan(0)
    sums = np.add.reduceat(lengths_of(planner, plan).sum(axis=1), plan.starts[:-1])
    halves = sums[: len(sums) // 2].mean(), sums[len(sums) // 2 :].mean()
    assert abs(halves[0] - halves[1]) < 1.5


def test_the_examples_per_row_are_those_of_the_first_blocks():
    planner = make()
    plans = [planner.plan(number) for number in range(74)]
    assert planner.mixture.block_examples == 14
    assert planner.examples_per_row == sum(len(p.rows) for p in plans) / sum(p.num_rows for p in plans)
    assert make(strategy=packing.one_per_row).examples_per_row == 1.0


def test_rows_longer_than_two_bytes_can_count_are_planned():
    planner = make({"a": np.array([[70_000, 3], [5, 3], [70_000, 3], [5, 3]])}, limits=(70_001, 8))
    assert planner.plan(0).num_rows == 3  # Four draws: each long one alone, the short ones together.


def test_the_fingerprint_depends_on_every_length():
    changed = {name: array.copy() for name, array in LENGTHS.items()}
    changed["b"][3, 1] += 1
    assert make(changed).fingerprint != make().fingerprint == make(dict(reversed(LENGTHS.items()))).fingerprint


def test_an_example_longer_than_a_row_names_its_task():
    with pytest.raises(
        ValueError, match="Task 'a' has examples of up to 7 input and 4 target tokens; a row holds 16 and"
    ):
        make(limits=(16, 3))
