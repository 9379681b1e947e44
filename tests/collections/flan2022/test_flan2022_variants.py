"""Variants of a task: names, templates, options and examples; draws that depend on seed, task, row and pass alone."""

import dataclasses
import random
from collections import Counter

import pytest

from flan_jax.collections.flan2022.variants import (
    FIXED,
    FIXED_NO_OPTIONS,
    MIX,
    NO_OPTIONS,
    NO_OPTIONS_X_SHOT,
    STYLED,
    X_SHOT,
    ZERO_SHOT,
    variants,
    varied,
)
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.rendering import iter_rendered, preview
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template, option_block

OPTIONS = ("yes", "no")
ROWS = [{"q": f"Is {i} even" + " really" * (i % 3) + "?", "a": OPTIONS[i % 2]} for i in range(60)]
TEMPLATES = tuple(Template(inputs=f"({i}) {{q}}\n{{options_}}", targets="{a}") for i in range(9)) + (
    Template(inputs="Ask for {a}.", targets="{q}", direction="inverted"),
)
ALL = (STYLED, ZERO_SHOT, NO_OPTIONS, MIX, X_SHOT, NO_OPTIONS_X_SHOT, *FIXED, *FIXED_NO_OPTIONS)


def base(**changes):
    given = {
        "name": "even",
        "source": InMemorySource(data={"train": ROWS, "validation": ROWS[:9]}),
        "cluster": "numbers",
        "templates": TEMPLATES,
        "options": OPTIONS,
    }
    return TemplatedTask(**{**given, **changes})


def words(text):
    return len(text.split())


def rendered(task, split="train", **given):
    return list(iter_rendered(task, split, count_tokens=words, **given))


def asked(inputs):
    """The rows whose questions a prompt shows, in order."""
    return [int(part.split()[0]) for part in inputs.split("Is ")[1:]]


def test_variants_have_the_published_names():
    with_options = variants(varies=True, has_no_options=True)
    assert [variant.name("rte") for variant in with_options] == [
        "rte_template_0to10_non_deter_opt_zero_shot",
        "rte_template_mix_five_shot",
        "rte_template_0to10_x_shot",
        "rte_template_0_five_shot",
        "rte_template_1_two_shot",
        "rte_template_2_one_shot",
        "rte_template_0to10_no_opt_zero_shot",
        "rte_template_0to10_no_opt_x_shot",
        "rte_template_0_no_opt_five_shot",
        "rte_template_1_no_opt_two_shot",
        "rte_template_2_no_opt_one_shot",
    ]
    plain = variants(varies=False, has_no_options=False)
    assert [variant.name("cot_gsm8k") for variant in plain] == [
        "cot_gsm8k_template_0to10_zero_shot",
        "cot_gsm8k_template_mix_five_shot",
        "cot_gsm8k_template_0to10_x_shot",
        "cot_gsm8k_template_0_five_shot",
        "cot_gsm8k_template_1_two_shot",
        "cot_gsm8k_template_2_one_shot",
    ]
    assert Counter(variant.setting for variant in with_options) == {
        "zs_opt": 1, "fs_opt": 2, "zs_noopt": 1, "fs_noopt": 1, None: 6,
    }  # fmt: skip


def test_examples_are_as_many_and_as_chosen_as_published():
    settings = {v.suffix: varied(base(), v, dataset="even").few_shot for v in ALL}
    assert all(settings[variant.suffix] is None for variant in (STYLED, ZERO_SHOT, NO_OPTIONS))
    drawn = {suffix: (few_shot.num_exemplars, few_shot.templates) for suffix, few_shot in settings.items() if few_shot}
    assert drawn == {
        "template_mix_five_shot": (5, "mixed"),
        "template_0to10_x_shot": (25, "matching"),
        "template_0to10_no_opt_x_shot": (25, "matching"),
        "template_0_five_shot": (5, "query"),
        "template_1_two_shot": (2, "query"),
        "template_2_one_shot": (1, "query"),
        "template_0_no_opt_five_shot": (5, "query"),
        "template_1_no_opt_two_shot": (2, "query"),
        "template_2_no_opt_one_shot": (1, "query"),
    }
    assert all(few_shot.max_tokens == 1920 and few_shot.drop_without for few_shot in settings.values() if few_shot)
    assert {len(few_shot.formats) for few_shot in settings.values() if few_shot} == {11, 9, 1}


def test_a_task_of_many_templates_uses_ten_with_examples_and_all_without():
    eighteen = base(templates=TEMPLATES[:9] * 2)
    assert len(varied(eighteen, ZERO_SHOT, dataset="even").templates) == 18
    assert len(varied(eighteen, X_SHOT, dataset="even").templates) == 10
    assert varied(eighteen, FIXED[1], dataset="even").templates == TEMPLATES[1:2]


def test_options_vary_in_zero_shot_training_and_answers_are_what_the_block_calls_them():
    shown = [r for r in rendered(varied(base(), STYLED, dataset="even")) if r.template != 9]
    blocks = {r.rendered.inputs.partition("?\n")[2] for r in shown}
    assert len(blocks) > 40
    for r in shown:
        assert all(option in r.rendered.inputs for option in OPTIONS)
        truth = ROWS[r.row]["a"]
        if r.rendered.targets != truth:
            assert f"{r.rendered.targets} {truth}" in r.rendered.inputs
    assert 20 < sum(r.rendered.targets not in OPTIONS for r in shown) < len(shown)


def test_options_never_vary_in_evaluation_or_with_exemplars():
    fixed = option_block(OPTIONS)
    for variant in (STYLED, ZERO_SHOT):
        for r in rendered(varied(base(), variant, dataset="even"), "validation"):
            assert r.rendered.inputs.endswith("?\n" + fixed) and r.rendered.targets in OPTIONS
    for variant in (MIX, X_SHOT, *FIXED):
        for r in rendered(varied(base(), variant, dataset="even")):
            if "(9)" not in r.rendered.inputs and "Ask for" not in r.rendered.inputs:
                assert r.rendered.inputs.count("OPTIONS:") == r.rendered.inputs.count(fixed) > 1
                assert r.rendered.targets in OPTIONS


def test_without_options_no_prompt_lists_them():
    for variant in (NO_OPTIONS, NO_OPTIONS_X_SHOT, *FIXED_NO_OPTIONS):
        task = varied(base(), variant, dataset="even")
        assert task.options is None and not any(template.shows_options for template in task.templates)
        assert all("OPTIONS" not in r.rendered.inputs for r in rendered(task))
    needing = varied(base(metrics=("positive_f1",)), NO_OPTIONS, dataset="even")
    assert needing.options == OPTIONS  # For the metric, not for the prompt.


def test_a_prompt_of_x_shot_has_its_own_template_throughout_and_some_are_dropped():
    dropped = Counter()
    found = rendered(varied(base(), X_SHOT, dataset="even"), dropped=dropped)
    assert len(found) + sum(dropped.values()) == 60 and set(dropped) == {"no exemplar fits"}
    for r in found:
        if r.template != 9:
            assert r.rendered.inputs.count(f"({r.template}) Is") == r.rendered.inputs.count(") Is") > 1
    shots = [len(asked(r.rendered.inputs)) - 1 for r in found if r.template != 9]
    assert 2.0 < sum(shots) / len(shots) < 3.5  # 2.5 of those drawn, more without the dropped.


def test_a_mixed_prompt_has_five_examples_under_any_template_and_one_separator():
    task = varied(base(), MIX, dataset="even")
    found = [r for r in rendered(task) if r.template != 9]
    assert any(len({part for part in r.rendered.inputs.split() if part.startswith("(")}) > 3 for r in found)
    assert len({form.separator for form in task.few_shot.formats}) == 1


@pytest.mark.parametrize("variant", [MIX, X_SHOT, NO_OPTIONS_X_SHOT, *FIXED], ids=lambda v: v.suffix)
def test_no_prompt_with_examples_is_zero_shot_and_none_shows_its_own_row(variant):
    dropped = Counter()
    task = varied(base(), variant, dataset="even")
    # Room for the shortest query and the shortest example, and for one word more.
    few_shot = dataclasses.replace(task.few_shot, max_tokens=20 if variant.shows_options else 10)
    found = rendered(dataclasses.replace(task, few_shot=few_shot), dropped=dropped)
    assert len(found) + dropped["no exemplar fits"] == 60 and dropped["no exemplar fits"] > 0
    for r in found:
        if r.template != 9:
            *examples, query = asked(r.rendered.inputs)
            assert query == r.row and examples != [] and r.row not in examples


@pytest.mark.parametrize("variant", [STYLED, MIX, X_SHOT], ids=lambda v: v.suffix)
def test_the_same_seed_task_row_and_pass_give_the_same_text_whatever_was_rendered_before(variant):
    def texts(task):
        return {(r.row, r.template): (r.rendered.inputs, r.rendered.targets) for r in rendered(task)}

    task = varied(base(), variant, dataset="even")
    first = texts(task)
    random.seed(1)
    for row in (41, 3, 17):  # In another order, and alone.
        for template, shown in preview(task, "train", index=row, count_tokens=words).rendered.items():
            if (row, template) in first:
                assert first[row, template] == (shown.inputs, shown.targets)
    assert texts(varied(base(), variant, dataset="even")) == first
    other_seed = texts(dataclasses.replace(task, seed=1))
    other_name = texts(varied(base(), variant, dataset="odd"))
    assert other_seed != first and other_name != first


def test_each_pass_over_a_row_has_new_draws():
    task = dataclasses.replace(varied(base(templates=TEMPLATES[:1] * 2), STYLED, dataset="even"), templates_per_row=2)
    by_row = {}
    for r in rendered(task):
        by_row.setdefault(r.row, set()).add(r.rendered.inputs)
    assert sum(len(texts) == 2 for texts in by_row.values()) > 50
