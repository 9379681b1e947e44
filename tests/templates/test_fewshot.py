"""Solved examples in front of a query: how many fit, and how they are joined."""

import pytest

from flan_jax.templates.fewshot import FewShotFormat, num_fitting


def test_the_published_vectors_of_pruning():
    exemplars = [(1, 1), (2, 1), (3, 1)]
    kept = {limit: num_fitting(5, exemplars, max_tokens=limit) for limit in (15, 13, 10, 8, 1)}
    assert kept == {15: 3, 13: 2, 10: 2, 8: 1, 1: 0}


def test_the_first_exemplar_that_does_not_fit_ends_the_list():
    assert num_fitting(1, [(9, 1), (1, 1)], max_tokens=5) == 0


def test_every_part_of_a_format_has_its_place():
    form = FewShotFormat(
        name="all",
        input_prefix="I:",
        target_prefix="T: ",
        delimiter="/",
        separator="|",
        suffix="!",
        wrapper="<{prompt}>",
    )
    assert form.join([("a", "b"), ("c", "d")], "q") == "<I:a/T: b|I:c/T: d|I:q/T:!>"


def test_without_a_target_prefix_the_prompt_ends_with_the_query():
    assert FewShotFormat(name="plain").join([("a", "b")], "q") == "a\n\nb\n\n\nq"
    assert FewShotFormat(name="plain").join([], "q") == "q"


def test_a_wrapper_holds_the_prompt_once():
    with pytest.raises(ValueError, match=r"The wrapper of few-shot format 'x' must have \{prompt\} once: 'no'"):
        FewShotFormat(name="x", wrapper="no")


def test_texts_with_braces_are_left_alone():
    assert FewShotFormat(name="w", wrapper="[{prompt}]").join([("{prompt}", "{a}")], "{b}") == (
        "[{prompt}\n\n{a}\n\n\n{b}]"
    )
