"""Violations of the schema name their field, and the rules of the authors are checked for a report."""

import re

import pytest

from flan_jax.collections.natural_instructions.schema import (
    head_problem,
    instance_problem,
    instances_problem,
    is_v1,
    is_v2,
    schema_problems,
)
from tests.tasks.superni_synthetic import task

EXAMPLE = {"input": "ba", "output": "ab", "explanation": "a comes first"}


def good(**changes):
    """A task that every rule of the repository likes."""
    instances = [{"id": f"i{i}", "input": f"c{i}", "output": [f"{i}c"]} for i in range(30)]
    return task("task001_toy_sorting", **{"Negative Examples": [EXAMPLE], "Instances": instances, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Definition": None}, r"^the task has no 'Definition'\. Fields: "),
        ({"Definition": None, "Definitions": ["x"]}, r"no 'Definition'\. Did you mean 'Definitions'\? Fields: "),
        ({"Definition": ""}, r"^the task has no 'Definition': got ''$"),
        ({"Definition": {"en": "x"}}, r"^'Definition' must be a list of texts, got \{'en': 'x'\}$"),
        ({"Definition": ["x", 3]}, r"^'Definition' must be a list of texts, got \['x', 3\]$"),
        ({"Categories": "Sorting"}, r"^'Categories' must be a list of texts, got 'Sorting'$"),
        ({"Source": "snli"}, r"^'Source' must be a list of texts, got 'snli'$"),
        ({"Instance License": [None]}, r"^'Instance License' must be a list of texts, got \[None\]$"),
        ({"Positive Examples": {}, "Negative Examples": None}, r"^the task has no 'Negative Examples'\. Fields"),
        ({"Positive Examples": "x"}, r"^'Positive Examples' must be a list of objects, got 'x'$"),
        (
            {"Negative Examples": ["-"]},
            r"^'Negative Examples'\[0\] must be an object with 'input' and 'output', got '-'$",
        ),
        (
            {"Positive Examples": [EXAMPLE, {"inputs": "x", "output": "y"}]},
            r"\[1\] has no 'input'\. Did you mean 'inputs'",
        ),
        ({"Positive Examples": [{"input": "x"}]}, r"^'Positive Examples'\[0\] has no 'output'\. Fields: input$"),
        ({"Positive Examples": [{**EXAMPLE, "output": ["y"]}]}, r"\[0\]\['output'\] must be a text, got \['y'\]$"),
        ({"Positive Examples": [{**EXAMPLE, "explanation": 3}]}, r"\[0\]\['explanation'\] must be a text, got 3$"),
    ],
)
def test_the_first_wrong_field_of_a_task_is_named(changes, message):
    assert re.search(message, head_problem(good(**changes)))


def test_a_definition_may_be_a_text_and_lists_of_examples_may_be_empty():
    assert head_problem(good(Definition="Sort.", **{"Positive Examples": [], "Negative Examples": []})) is None


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        (None, "the task has no 'Instances'. Fields: "),
        ([], "the task has no 'Instances': got []"),
        ({"a": 1}, "'Instances' must be a list of objects, got {'a': 1}"),
        ([{}, "x"], "'Instances'[1] must be an object with 'input' and 'output', got 'x'"),
    ],
)
def test_a_wrong_list_of_instances_is_named(instances, message):
    assert instances_problem(good(Instances=instances)).startswith(message)


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        (
            {"inputs": "x", "output": ["y"]},
            "the instance has no 'input'. Did you mean 'inputs'? Fields: inputs, output",
        ),
        ({"input": "x"}, "the instance has no 'output'. Fields: input"),
        ({"input": ["x"], "output": ["y"]}, "'input' must be a text, got ['x']"),
        ({"input": "x", "output": "y"}, "'output' must be a list of one or more texts, got 'y'"),
        ({"input": "x", "output": []}, "'output' must be a list of one or more texts, got []"),
        ({"input": "x", "output": ["y", 3]}, "'output' must be a list of one or more texts, got ['y', 3]"),
        ({"input": "", "output": [""]}, None),
    ],
)
def test_a_wrong_field_of_an_instance_is_named(instance, message):
    assert instance_problem(instance) == message


def test_a_good_task_has_no_problems():
    assert schema_problems(good(), name="task001_toy_sorting", size_bytes=50 * 2**20) == ()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Instances": good()["Instances"][:25]}, "25 instances, 26 to 6,500 are allowed"),
        ({"Positive Examples": [EXAMPLE]}, "1 positive examples, at least 2 are required"),
        ({"Negative Examples": []}, "no negative example, at least 1 is required"),
        (
            {"Instances": [*good()["Instances"], {"input": "c3", "output": ["x"]}]},
            "1 inputs are there more than once, as 'c3'",
        ),
        (
            {"Instances": [*good()["Instances"], {"input": "ba", "output": ["x"]}]},
            "the input 'ba' is in a positive example and in an instance",
        ),
        (
            {"Instances": [{"input": f"{i}", "output": ["yes"]} for i in range(30)]},
            "all instances have the output 'yes'",
        ),
        (  # 3 of 30: (0.1 log 10 + 0.9 log 10/9) / log 2 = 0.469
            {"Instances": [{"input": f"{i}", "output": ["yes" if i < 3 else "no"]} for i in range(30)]},
            "the 2 outputs are skewed: normalized entropy 0.47, above 0.8 is asked",
        ),
        (
            {"Instances": [*good()["Instances"], {"input": "x", "output": "y"}, {"input": "z"}]},
            "'Instances'[30]: 'output' must be a list of one or more texts, got 'y' (and 1 more instances)",
        ),
    ],
)
def test_each_violated_rule_is_reported(changes, problem):
    assert schema_problems(good(**changes)) == (problem,)


def test_the_name_and_the_size_are_judged_when_they_are_given():
    for name in ("Task001_toy_sorting", "task1_toy_sorting", "sorting", "task001"):
        assert schema_problems(good(), name=name) == (
            f"the name {name!r} must look like task001_source_type, in lower case",
        )
    big = schema_problems(good(), size_bytes=60 * 2**20)
    assert big == ("the file has 60 MiB, at most 50 are allowed",)


def test_the_two_versions_are_distinguished():
    first = {"Title": "t", "Prompt": "p", "Definition": "d", "Examples": {"Positive Examples": []}, "Instances": []}
    assert is_v1(first) and not is_v2(first)
    assert is_v2(good()) and not is_v1(good())
