import doctest
import functools

import pytest

from flan_jax.data import rates

SIZES = (4_000_000, 50_000, 250)


def test_examples_in_docstrings():
    assert doctest.testmod(rates).failed == 0


@pytest.mark.parametrize(
    ("temperature", "expected_rates", "expected_percents"),
    [
        (1.0, (30_000, 30_000, 250), (49.79, 49.79, 0.415)),
        (2.0, (173.205, 173.205, 15.811), (47.82, 47.82, 4.365)),
    ],
)
def test_the_cap_comes_before_the_temperature(temperature, expected_rates, expected_percents):
    got = {n: rates.proportional_rate(n, maximum=30_000, temperature=temperature) for n in SIZES}
    assert tuple(got.values()) == pytest.approx(expected_rates, abs=1e-3)
    percents = [100 * share for share in rates.shares(got).values()]
    assert percents == pytest.approx(expected_percents, abs=6e-3)


def test_the_scale_comes_before_the_cap():
    assert rates.proportional_rate(100, scale=10.0, maximum=500) == 500
    assert rates.proportional_rate(100, scale=0.1, maximum=500) == 10


def test_the_minimum_lifts_small_tasks_before_the_temperature():
    assert rates.proportional_rate(4, minimum=9, temperature=2.0) == 3
    assert rates.proportional_rate(16, minimum=9, temperature=2.0) == 4


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"num_examples": 0}, "num_examples"),
        ({"num_examples": 5, "temperature": 0.0}, "temperature"),
        ({"num_examples": 5, "maximum": -1}, "maximum"),
        ({"num_examples": 5, "minimum": 0}, "minimum"),
        ({"num_examples": 5, "scale": float("nan")}, "scale"),
    ],
)
def test_a_number_that_is_not_positive_is_named(arguments, name):
    num_examples = arguments.pop("num_examples")
    with pytest.raises(ValueError, match=f"needs a positive, finite {name}; got"):
        rates.proportional_rate(num_examples, **arguments)


class _Task:
    name = "rte"
    cache_dir = None

    def __init__(self, num_rows):
        self._num_rows = num_rows

    def num_input_examples(self, split):
        assert split == "train"
        return self._num_rows


def test_a_rate_function_reads_the_tasks_training_rows():
    assert rates.ProportionalRate(maximum=3000)(_Task(2290)) == 2290
    assert rates.ProportionalRate(maximum=3000)(_Task(9000)) == 3000


def test_a_rate_function_refuses_a_task_of_unknown_size():
    with pytest.raises(ValueError, match="training rows of task 'rte' are not known"):
        rates.ProportionalRate()(_Task(None))


def test_counted_tasks_show_rate_functions_the_measured_count_and_otherwise_the_task():
    counted = rates.Counted(_Task(9000), 120)
    assert rates.ProportionalRate()(counted) == 120
    assert counted.name == "rte"


@pytest.mark.tensorflow
def test_rates_agree_with_seqios_own_rate_function():
    import seqio

    for kwargs in ({}, {"maximum": 3000}, {"maximum": 3000, "temperature": 3.0, "scale": 2.0}):
        theirs = functools.partial(seqio.mixing_rate_num_examples, **kwargs)
        for num_examples in (7, 2290, 40_000):
            counted = rates.Counted(_Task(1), num_examples)
            assert rates.ProportionalRate(**kwargs)(counted) == theirs(counted)


def test_nested_mixtures_multiply_and_two_paths_add_up():
    ab = [("a", 1), ("b", 1)]
    assert rates.flatten([(ab, 1), ("c", 1)]) == {"a": 0.5, "b": 0.5, "c": 1.0}
    assert rates.flatten([(ab, 1), ("c", 1), ("a", 1)]) == {"a": 1.5, "b": 0.5, "c": 1.0}
    assert rates.flatten([([(ab, 2), ("d", 2)], 8)]) == {"a": 2.0, "b": 2.0, "d": 4.0}


def test_flan_2022_shares_of_one_capped_dataset():
    zero_shot_options = [("one", 30_000), ("rest", 1_495_430 - 30_000)]
    others = [("no options", 3), (zero_shot_options, 1)]
    flat = rates.shares(rates.flatten([(others, 0.40), ("everything else", 0.60)]))
    assert 100 * flat["one"] == pytest.approx(0.2006, abs=5e-5)


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan")])
def test_a_members_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="The rate of b must be positive and finite"):
        rates.flatten([("a", 1), ("b", rate)])


def test_an_empty_mixture_is_refused_also_inside_another():
    with pytest.raises(ValueError, match="at least one member"):
        rates.flatten([([], 1), ("a", 1)])
