import dataclasses
import functools
import json
from pathlib import Path

import pytest

from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.identity import described, identity
from flan_jax.tasks.label_names import LabelNames
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template

ROWS = [{"q": "a", "a": "1", "l": ["1"]}]
TASK = TemplatedTask(
    name="t",
    source=InMemorySource(data={"train": ROWS, "validation": ROWS}),
    cluster="c",
    templates=(Template(inputs="{q}", targets="{a}"), Template(inputs="{q}?", targets="{a}")),
    options=("1", "2"),
)


def upper(row):
    return {**row, "q": row["q"].upper()}


def lower(row):
    return {**row, "q": row["q"].lower()}


def adding(number, *, sign="+"):
    def normalize(row, *, extra="!"):
        return {**row, "q": f"{row['q']}{sign}{number}{extra}"}

    return normalize


class Adder:
    def __init__(self, number):
        self.number = number

    def add(self, row):
        return row


@pytest.mark.parametrize(
    "changes",
    [
        {"templates": TASK.templates[::-1]},
        {"templates": (TASK.templates[0], Template(inputs="{q}!", targets="{a}"))},
        {"source": InMemorySource(data={"train": [*ROWS, *ROWS]})},
        {"source": InMemorySource(data={"train": ROWS}, on_bad_row="skip")},
        {"options": ("1", "3")},
        {"options": "l"},
        {"references": "l"},
        {"normalizer": upper},
        {"normalizer": lower},
        {"templates_per_row": 2},
        {"max_rows": 1},
        {"evaluation": "rank"},
        {"ends_inputs": False},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_setting_that_changes_examples_changes_the_identity(changes):
    assert identity(dataclasses.replace(TASK, **changes), "train") != identity(TASK, "train")


def test_settings_that_change_no_example_do_not_change_the_identity():
    renamed = tuple(dataclasses.replace(template, name="x") for template in TASK.templates)
    other = dataclasses.replace(TASK, name="u", cluster="d", metrics=("f1",), license="CC0", templates=renamed)
    assert identity(other, "train") == identity(TASK, "train")
    assert json.loads(json.dumps(identity(TASK, "train"))) == identity(TASK, "train")


def test_evaluation_splits_do_not_depend_on_training_templates_per_row():
    assert identity(dataclasses.replace(TASK, templates_per_row=0), "validation") == identity(TASK, "validation")


def test_functions_differ_by_source_defaults_closures_and_arguments():
    functions = [
        upper, lower, adding(1), adding(2), adding(1, sign="-"), functools.partial(adding(1), extra="?"),
        LabelNames(names={"q": ("x", "y")}), LabelNames(names={"q": ("x", "z")}), Adder(1).add, Adder(2).add,
        Adder, frozenset("ab"), Path("x"), None,
    ]  # fmt: skip
    descriptions = [json.dumps(described(function)) for function in functions]
    assert len(set(descriptions)) == len(functions)


def test_descriptions_contain_no_address():
    for value in (adding(1), Adder(object()), [Adder(1)], functools.partial(adding(upper))):
        assert " at 0x" not in json.dumps(described(value))
    assert described(adding(1)) == described(adding(1)) and described(Adder(1)) == described(Adder(1))


def test_functions_without_source_are_named_and_recursive_objects_end():
    made = {}
    exec("def made(row): return row", made)
    assert described(made["made"])[1] == "builtins.made" or described(made["made"])[1].endswith(".made")

    def enclosing(row):
        return recursive(row)

    def recursive(row):
        return enclosing(row)

    assert described(enclosing)
