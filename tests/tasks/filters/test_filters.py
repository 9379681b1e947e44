"""What every rule has in common: fields that are there, and a place in the order of a task's rules."""

from collections import Counter

import pytest

from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.filters.duplicates import Conflicts
from flan_jax.tasks.filters.row_rules import Length
from flan_jax.tasks.filters.rule import text_of
from flan_jax.tasks.identity import identity
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template

RULE = Length(field="question", min_words=1)


def test_a_field_is_a_text_a_number_or_null_and_must_be_there():
    assert [text_of({"q": value}, "q", rule=RULE) for value in ("a", 5, None)] == ["a", "5", ""]
    with pytest.raises(KeyError, match="Length needs the field 'questoin', .*Did you mean 'question'.*Fields: quest"):
        text_of({"question": "a"}, "questoin", rule=RULE)
    with pytest.raises(ValueError, match=r"Length needs a text in the field 'q', which holds \['a'\]"):
        text_of({"q": ["a"]}, "q", rule=RULE)


def task(*filters, rows):
    return TemplatedTask(
        name="t",
        source=InMemorySource(data={"train": rows}),
        cluster="c",
        templates=(Template(inputs="{q}", targets="{a}"),),
        filters=filters,
    )


def test_a_rule_that_reads_the_split_first_sees_what_the_rules_before_it_left():
    rows = [{"q": "x", "a": "1"}, {"q": "x", "a": ""}, {"q": "y", "a": "2"}, {"q": "y", "a": "3"}]
    has_answer, conflicts = Length(field="a", min_words=1), Conflicts(inputs=("q",), outputs=("a",))

    def left(*filters):
        dropped = Counter()
        found = [r.rendered.targets for r in iter_rendered(task(*filters, rows=rows), "train", dropped=dropped)]
        return found, dict(dropped)

    assert left(has_answer, conflicts) == (["1"], {"a: fewer than 1 words": 1, "conflicting answers": 2})
    with pytest.raises(ValueError, match="has no usable row .conflicting answers: 4"):
        left(conflicts, has_answer)


def test_rules_are_part_of_what_identifies_a_tasks_examples():
    rows = [{"q": "x", "a": "1"}]
    two, three = (identity(task(Length(field="q", max_words=n), rows=rows), "train") for n in (2, 3))
    assert two != three
