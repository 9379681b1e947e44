import numpy as np
import pytest

from flan_jax.evaluation.examples import read_examples, select, spell


@pytest.mark.parametrize("num_examples", [7, 200, 1001])
def test_a_selection_has_the_size_asked_for_and_grows_with_the_limit(num_examples):
    smaller, larger = (select(num_examples, limit=limit) for limit in (5, 7))
    assert len(set(smaller)) == 5 and len(set(larger)) == 7
    assert set(smaller) < set(larger)
    assert (np.diff(larger) > 0).all() and 0 <= larger[0] and larger[-1] < num_examples


@pytest.mark.parametrize("cycle", [2, 3, 4, 5, 8, 10])
def test_a_selection_falls_in_step_with_no_cycle_of_templates(cycle):
    counts = np.bincount(select(400, limit=40) % cycle, minlength=cycle)
    assert counts.min() >= 0.6 * 40 / cycle and counts.max() <= 1.4 * 40 / cycle


def test_a_selection_covers_the_whole_split():
    assert np.diff(select(1000, limit=50)).max() <= 2 * 1000 / 50


@pytest.mark.parametrize("limit", [None, 3, 4])
def test_no_limit_or_a_high_one_takes_all(limit):
    assert select(3, limit=limit).tolist() == [0, 1, 2]


def test_a_selection_of_nothing_is_refused():
    with pytest.raises(ValueError, match="At least one example .* got a limit of 0"):
        select(3, limit=0)


def test_texts_come_from_the_export_and_are_decoded_where_it_has_none(task, vocabulary):
    source = task(
        [{"inputs": "ask", "targets": "x", "references": ["x", "y"]}, {"inputs": "b", "targets": "c", "meta": 0}]
    )
    first, second = read_examples(source, np.array([0, 1]), vocabulary=vocabulary)
    assert (first.inputs, first.references, first.template, first.row) == ("ask", ("x", "y"), 0, 0)
    assert (second.inputs, second.references, second.template, second.row) == ("b", ("c",), -1, -1)


def test_without_references_the_target_is_one(task, vocabulary):
    source = task([{"inputs": "ask", "targets": "x", "references": []}])
    assert read_examples(source, np.array([0]), vocabulary=vocabulary)[0].references == ("x",)


def test_every_option_that_is_a_reference_is_right(task, vocabulary):
    options = {"options": ["a", "b", "c"], "references": ["c", "a"]}
    source = task([{"inputs": "q", "targets": "a", **options}, {"inputs": "q", "targets": "b", "options": ["a", "b"]}])
    examples = read_examples(source, np.array([0, 1]), vocabulary=vocabulary)
    assert [sorted(e.gold) for e in examples] == [[0, 2], [1]]


def test_in_an_external_vocabulary_references_are_ids(task):
    source = task([{"inputs": "ask", "targets": "x"}])
    (example,) = read_examples(source, np.array([0]), vocabulary=None)
    assert example.inputs == "ask"
    assert example.references == (spell(source.pairs[0][1], None),)
    assert spell([5, 1, 0], None) == "5 1"
