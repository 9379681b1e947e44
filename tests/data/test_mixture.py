import doctest
from fractions import Fraction

import numpy as np
import pytest

from flan_jax.data import mixture as mixture_module
from flan_jax.data.mixture import Mixture

SIZES = {"a": 3, "b": 50, "c": 1000}
RATES = {"a": 1.0, "b": 2.0, "c": 4.0}


def make(sizes=SIZES, rates=RATES, seed=0):
    return Mixture(sizes=sizes, rates=rates, seed=seed)


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


@pytest.mark.parametrize(
    ("sizes", "examples"),
    [
        ({"a": 100}, 100),  # One epoch.
        ({"a": 3000}, 1000),  # A third of one.
        ({"a": 50, "b": 900}, 100),  # At equal rates: one epoch of the smaller task.
        ({"a": 1, "b": 900}, 900),  # The only row of a task has but one order.
        ({"a": 1}, 1024),
    ],
)
def test_a_block_is_an_equal_part_of_the_shortest_epoch_of_at_most_1024_draws(sizes, examples):
    assert make(sizes, dict.fromkeys(sizes, 1.0)).block_examples == examples


def random_mixture(seed):
    """1 to 8 tasks of 1 to 10,000 rows; rates from 0.1 to 10, or the sizes."""
    rng = np.random.default_rng(seed)
    sizes = {f"t{i}": int(10 ** rng.uniform(0, 4)) for i in range(rng.integers(1, 9))}
    return make(sizes, {n: size if seed % 3 == 0 else 10 ** rng.uniform(-1, 1) for n, size in sizes.items()}, seed)


@pytest.mark.parametrize("seed", range(12))
def test_a_block_holds_at_most_one_epoch_of_each_task_and_the_blocks_of_an_epoch_hold_each_row_once(seed):
    mixture = random_mixture(seed)
    left = {name: set(range(size)) for name, size in mixture.sizes.items()}
    for number in range(60):
        for name, rows in drawn(mixture, [number]).items():
            if mixture.sizes[name] > 1:
                assert len(set(rows)) == len(rows) and left[name].issuperset(rows)
                left[name] = left[name].difference(rows) or set(range(mixture.sizes[name]))


@pytest.mark.parametrize("seed", range(12))
def test_any_range_of_blocks_gives_each_task_its_share_to_within_its_draws_in_a_block(seed):
    mixture = random_mixture(seed)
    for first, last in [(0, 1), (0, 17), (5, 12), (1000, 1030)]:
        counts = {name: len(rows) for name, rows in drawn(mixture, range(first, last)).items()}
        for name, rate in mixture.rates.items():
            per_block = mixture.block_examples * rate / sum(mixture.rates.values())
            assert abs(counts[name] - (last - first) * per_block) <= per_block + 1


def test_counts_are_exact_beyond_a_billion_blocks():
    """Blocks meet without gap or overlap: the draws before block b are floor(b x step + offset), exactly."""
    sizes = {"a": 1000, "b": 10**9, "c": 2 * 10**9}
    mixture = make(sizes)
    for number in (0, 1, 10**9, mixture_module.MAX_BLOCKS - 1):
        for i in (1, 2):
            step, offset = Fraction(int(mixture._steps[i]), 2**32), Fraction(int(mixture._offsets[i]), 2**32)
            assert mixture._drawn_before(number)[i] == (number * step + offset) // 1
        counts = mixture._drawn_before(number + 1) - mixture._drawn_before(number)
        assert np.bincount(mixture.block(number).task_ids, minlength=3).tolist() == counts.tolist()


def test_every_epoch_of_a_task_visits_each_row_once_in_another_order():
    mixture = make(sizes={"a": 10, "b": 7}, rates={"a": 1, "b": 1})
    rows = [row for number in range(12) for row in sorted_by_draw(mixture, number, "a")]
    epochs = [rows[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def sorted_by_draw(mixture, number, name):
    """The rows of one task in one block, in the order of its draws rather than the block's."""
    from flan_jax.data import permutation

    count = len(mixture.block(number).rows)
    order = permutation.shuffled_order(permutation.key_of(mixture.seed, "order of block", number), count)
    rows, task_ids = np.empty(count, int), np.empty(count, int)
    rows[order], task_ids[order] = mixture.block(number).rows, mixture.block(number).task_ids
    return rows[task_ids == mixture.names.index(name)].tolist()


def test_where_rates_are_sizes_all_epochs_end_with_the_same_block():
    sizes = {"a": 5, "b": 8, "c": 3000, "d": 1}
    mixture = make(sizes, sizes)
    per_epoch = sum(sizes.values()) / mixture.block_examples
    rows = drawn(mixture, range(2 * int(per_epoch)))
    assert per_epoch == 3 and all(np.bincount(rows[name]).tolist() == [2] * size for name, size in sizes.items())


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
    less = make(sizes={"b": 50}, rates={"b": 1})
    more = make(sizes={"a": 30, "b": 50}, rates={"a": 1, "b": 1})
    orders = [[row for number in range(4) for row in sorted_by_draw(one, number, "b")] for one in (less, more)]
    assert orders[0][:100] == orders[1][:100] and len(orders[1]) >= 100


def test_the_order_within_a_block_mixes_the_tasks():
    task_ids = make(sizes={"a": 300, "b": 600, "c": 1000}).block(0).task_ids
    assert len(task_ids) == 875
    assert np.count_nonzero(np.diff(task_ids)) > 400


def test_tasks_far_rarer_than_a_block_are_still_drawn_at_their_rate():
    rates = {f"t{i:04}": 1.0 for i in range(2000)} | {"often": 100.0}
    mixture = make(sizes=dict.fromkeys(rates, 90), rates=rates)
    assert mixture.block_examples == 945
    counts = {name: len(rows) for name, rows in drawn(mixture, range(8)).items()}
    assert counts.pop("often") == 360 and set(counts.values()) <= {3, 4} and abs(sum(counts.values()) - 7200) < 100


def test_the_fingerprint_tells_sizes_rates_and_names_apart():
    others = [make(rates=RATES | {"a": 1.5}), make(sizes=SIZES | {"a": 4})]
    others.append(make(sizes={"a": 3, "b": 50, "d": 1000}, rates={"a": 1.0, "b": 2.0, "d": 4.0}))
    assert len({make().fingerprint, *(other.fingerprint for other in others)}) == 4
    scaled = make(rates={name: 10 * rate for name, rate in RATES.items()})
    assert scaled.fingerprint == make().fingerprint  # Rates are relative.


def test_a_task_without_examples_is_named():
    with pytest.raises(ValueError, match="Task 'b' has no examples"):
        make(sizes={"a": 3, "b": 0}, rates={"a": 1.0, "b": 1.0})


def test_a_mixture_needs_members_and_positive_rates():
    with pytest.raises(ValueError, match="at least one member"):
        make(sizes={}, rates={})
    with pytest.raises(ValueError, match="The rate of a must be positive"):
        make(sizes={"a": 3}, rates={"a": 0.0})


def test_the_epochs_of_many_tasks_are_a_range_with_its_median():
    sizes = {f"t{i}": 1000 * (i + 1) for i in range(5)}
    lines = make(sizes, dict.fromkeys(sizes, 1.0)).epoch_lines(steps=1000, examples_per_row=2.0, batch_size=50)
    assert lines == [
        "epochs in 1,000 steps: 4 (t4) to 20 (t0), median 6.7 of 5 tasks; each has every row of its task once"
    ]
    lines = make(sizes, sizes).epoch_lines(steps=10, examples_per_row=1.0, batch_size=3)
    assert lines == ["epochs in 10 steps: 0.002; each has every row of its task once"]


@pytest.mark.parametrize(("examples_per_row", "num_lines"), [(1.0, 1), (4.0, 2)])
def test_blocks_too_small_to_fill_rows_are_reported_where_rows_are_shared(examples_per_row, num_lines):
    sizes = {"a": 1, "b": 20, "c": 5000}
    mixture = make(sizes, dict.fromkeys(sizes, 1.0))
    lines = mixture.epoch_lines(steps=10, examples_per_row=examples_per_row, batch_size=3)
    assert len(lines) == num_lines
    assert lines[1:] in (
        [],
        ["packed in blocks of 60 examples, one epoch of b; larger blocks would fill the rows more"],
    )
