import functools
import logging

import pytest

from flan_jax.data.rates import ProportionalRate
from flan_jax.tasks import members
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def seqio(registries):
    """Tasks a, b, c with a train split, and d with a test split only."""
    import seqio

    for name in "abcd":
        source = InMemorySource(data={"test" if name == "d" else "train": [{"q": "1", "a": "2"}]})
        templates = (Template(inputs="{q}", targets="{a}"),)
        registries.register(TemplatedTask(name=name, source=source, cluster="toys", templates=templates))
    return seqio


COUNTS = {"a": 10, "b": 20, "c": 300}


def mixture(seqio, name, tasks, **more):
    return seqio.MixtureRegistry.add(name, tasks, **more)


def numbers(found):
    return {name: rate.rate for name, rate in found.items()}


def test_a_task_by_itself_is_a_mixture_of_one(seqio):
    assert numbers(members.rates(seqio.TaskRegistry.get("a"), counts={"a": 10})) == {"a": 1.0}
    assert list(members.select(seqio.TaskRegistry.get("a"), "train", on_missing_split="skip").tasks) == ["a"]


@pytest.mark.parametrize(
    ("inner", "outer", "wanted"),
    [
        ([("a", 1), ("b", 1)], [("inner", 1), ("c", 1)], {"a": 0.5, "b": 0.5, "c": 1}),
        ([("a", 1), ("b", 1)], [("inner", 1), ("c", 1), ("a", 1)], {"a": 1.5, "b": 0.5, "c": 1}),
        ([("a", 3), ("b", 1), ("d", 4)], [("inner", 2), ("c", 5)], {"a": 0.75, "b": 0.25, "c": 5}),
    ],
)
def test_nested_rates_are_those_of_seqio(seqio, inner, outer, wanted):
    mixture(seqio, "inner", inner)
    whole = mixture(seqio, "outer", outer)
    found = numbers(members.rates(whole, counts=COUNTS))
    assert found == wanted
    theirs = {task.name: whole.get_rate(task) for task in whole.tasks}
    assert found == {name: rate for name, rate in theirs.items() if name in COUNTS}


def test_rate_functions_see_measured_counts_and_their_cap_is_recorded(seqio):
    capped = ProportionalRate(maximum=100)
    theirs = functools.partial(seqio.mixing_rate_num_examples, maximum=15)
    whole = mixture(seqio, "m", [("a", capped), ("c", capped), ("b", theirs)])
    found = members.rates(whole, counts=COUNTS)
    assert numbers(found) == {"a": 10, "b": 15, "c": 100}
    assert {name: rate.cap for name, rate in found.items()} == {"a": 100, "b": 15, "c": 100}


def test_an_external_rate_function_is_called_with_the_task(seqio):
    whole = mixture(seqio, "m", ["a", "b"], default_rate=lambda task: 2.0 if task.name == "a" else 7.0)
    assert numbers(members.rates(whole, counts=COUNTS)) == {"a": 2, "b": 7}


def test_a_member_without_the_split_is_named_and_its_function_not_called(seqio):
    whole = mixture(seqio, "m", ["a", "d"], default_rate=ProportionalRate())
    selection = members.select(whole, "train", on_missing_split="skip")
    assert list(selection.tasks) == ["a"]
    assert selection.skipped == {"d": "has no split 'train', only test"}
    assert numbers(members.rates(whole, counts={"a": 10})) == {"a": 10}


def test_a_nested_mixture_without_the_split_weighs_nothing(seqio):
    mixture(seqio, "inner", ["d"], default_rate=ProportionalRate())
    whole = mixture(seqio, "m", [("a", 1), ("inner", 1)])
    assert numbers(members.rates(whole, counts={"a": 10})) == {"a": 1}


def test_a_split_that_no_task_has_is_refused_with_the_existing_ones(seqio):
    whole = mixture(seqio, "m", ["a", "d"], default_rate=1)
    with pytest.raises(
        ValueError,
        match=r"(?s)'m' cannot be exported for split 'dev': none of its tasks has it\..*1 task \(a\): has no split 'dev', only train",
    ):
        members.select(whole, "dev", on_missing_split="skip")
    assert not members.select(whole, "dev", on_missing_split="empty").tasks


def test_one_task_without_the_split_is_refused_if_requested(seqio):
    whole = mixture(seqio, "m", ["a", "d"], default_rate=1)
    with pytest.raises(
        ValueError, match=r"(?s)not all of its tasks have it\..*1 task \(d\): has no split 'train', only test"
    ):
        members.select(whole, "train", on_missing_split="error")


def test_a_task_at_rate_zero_is_left_out_and_named(seqio, caplog):
    mixture(seqio, "inner", [("b", 1), ("c", 0)])
    whole = mixture(seqio, "m", [("a", 1), ("c", 0), ("inner", 1)])
    assert members.zero_rate(whole) == {"c"}
    with caplog.at_level(logging.WARNING):
        assert numbers(members.rates(whole, counts=COUNTS)) == {"a": 1, "b": 1}
    assert "c has rate 0 in m: left out." in caplog.text


def test_a_task_at_rate_zero_on_one_path_only_is_exported(seqio):
    mixture(seqio, "inner", [("b", 1), ("a", 1)])
    whole = mixture(seqio, "m", [("a", 0), ("inner", 1)])
    assert members.zero_rate(whole) == set()
    mixture(seqio, "none", [("inner", 0), ("c", 1)])
    assert members.zero_rate(seqio.MixtureRegistry.get("none")) == {"a", "b"}


def test_invalid_rates_are_refused(seqio):
    with pytest.raises(ValueError, match=r"The rate of 'a' in the mixture 'below' is -1.0: it must not be below 0"):
        members.rates(mixture(seqio, "below", [("a", -1), ("b", 1)]), counts=COUNTS)
    with pytest.raises(ValueError, match=r"The mixture 'zero' has no member with a rate above 0"):
        members.rates(mixture(seqio, "zero", [("a", 0)]), counts=COUNTS)
    mixture(seqio, "inner", [("a", 1)])
    with pytest.raises(ValueError, match=r"The rate of the mixture 'inner' inside 'f' is a function"):
        members.rates(mixture(seqio, "f", [("inner", ProportionalRate()), ("b", 1)]), counts=COUNTS)
