"""Instruction files: rows to examples, forms, Unnatural Instructions' marker, what is drawn."""

import json
from collections import Counter

import pytest

from flan_jax.tasks.formats.declare import format_task
from flan_jax.tasks.formats.generations import instances_of
from flan_jax.tasks.formats.instructions import Alpaca, Dolly, Prompted, SelfInstruct, Unnatural, forms
from flan_jax.tasks.formats.shape import Unusable
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.templates.render import Template


def test_the_forms_are_seven_with_an_input_and_six_without_and_all_show_the_fields():
    form = forms("constraints", "input", seed=0)
    numbers = {case.fields: len(case.templates) for case in form.cases}
    assert numbers == {("constraints",): 3, ("input",): 7, (): 6}
    for case in form.cases:
        shown = {"instruction", "output", *case.fields} | ({"input"} if case.fields else set())
        assert all(set(template.fields) == shown for template in case.templates)
        assert len({template.inputs for template in case.templates}) == len(case.templates)


def test_dolly_calls_the_same_things_otherwise():
    row = {"instruction": "Sum up.", "context": " A b. ", "response": "A.", "category": "summarization"}
    assert list(Dolly()(row)) == [
        {"instruction": "Sum up.", "input": "A b.", "output": "A.", "category": "summarization"}
    ]
    (form,) = Dolly().templates()
    assert "A b." in form.render(next(iter(Dolly()(row)))).inputs


TASK = {
    "id": "seed_task_0",
    "name": "sums",
    "instruction": "Add the numbers.",
    "instances": [{"input": "2, 3", "output": "5"}, {"input": "", "output": "none"}],
    "is_classification": False,
}


def test_an_instance_is_an_example():
    assert list(SelfInstruct()(TASK)) == [
        {"instruction": "Add the numbers.", "input": "2, 3", "output": "5"},
        {"instruction": "Add the numbers.", "input": "", "output": "none"},
    ]
    one = {"instruction": "Add the numbers.", "input": "1", "output": "1"}
    assert list(SelfInstruct()(one)) == [one]


def test_half_of_the_inputs_lose_their_only_label_if_requested():
    rows = [{"instruction": "Reply.", "input": f"Email: Hi {i}.\n\nBye.", "output": "x"} for i in range(400)]
    found = Counter("Email" in example["input"] for row in rows for example in SelfInstruct(strip_labels=0.5)(row))
    assert 160 < found[True] < 240 and sum(found.values()) == 400
    assert all("Email" in example["input"] for row in rows for example in SelfInstruct()(row))
    again = [list(SelfInstruct(strip_labels=0.5)(row)) for row in rows]
    assert again == [list(SelfInstruct(strip_labels=0.5)(row)) for row in rows]
    with pytest.raises(ValueError, match="strip_labels must be a probability from 0 to 1; got 2"):
        SelfInstruct(strip_labels=2)


def test_raw_generations_are_split_into_instances_without_a_truncated_last_one():
    raw = "Example 1\nInput: 2, 3\nOutput: 5\nExample 2\nInput: 4\nOutput: 4"

    def read(reason):
        metadata = {"response": {"choices": [{"finish_reason": reason}]}}
        row = {"instruction": "Add.", "raw_instances": raw, "instance_metadata": metadata}
        return [(e["input"], e["output"]) for e in SelfInstruct()(row)]

    assert read("stop") == [("2, 3", "5"), ("4", "4")]
    assert read("length") == [("2, 3", "5")]
    assert len(list(SelfInstruct()({"instruction": "Add.", "raw_instances": raw}))) == 2
    with pytest.raises(Unusable, match=r"instance_metadata must hold response.choices\[0\].finish_reason.*got {}"):
        list(SelfInstruct()({"instruction": "Add.", "raw_instances": raw, "instance_metadata": {}}))


@pytest.mark.parametrize(
    ("generated", "instances"),
    [
        ("Output: 5", [("", "5")]),
        ("Input: a\nOutput 1: b\nInput: c\nOutput: d", [("a", "b")]),
        ("Example 1\nFive apples.\nExample 2.\nSix.", [("", "Five apples."), ("", "Six.")]),
        ("no instance", []),
        ("Class label: good", [("", "good")]),
    ],
)
def test_generations_come_in_several_shapes(generated, instances):
    assert instances_of(generated) == instances


CORE = {
    "instruction": "Say it backwards.",
    "instances": [
        {"instruction_with_input": "Say it backwards.\nab", "input": "ab", "constraints": "One word.", "output": "ba"},
        {"instruction_with_input": "Say it backwards.\nc", "input": "c", "constraints": "None.", "output": "c"},
    ],
}
FULL = {
    **CORE,
    "reformulations": [
        {"instruction": "Turn {INPUT} around.", "instruction_with_input": "", "input": "ab", "output": "ba"},
        {"instruction": "Mirror this.", "instruction_with_input": "", "input": "ab", "output": "ba"},
    ],
}


def test_unnatural_instructions_are_instances_and_reformulations_with_the_input_at_its_mark():
    first, second, third, fourth = Unnatural()(FULL)
    assert first == {"instruction": "Say it backwards.", "input": "ab", "output": "ba", "constraints": "One word."}
    assert second["constraints"] == ""
    assert (third["instruction"], third["input"]) == ("Turn ab around.", "")
    assert (fourth["instruction"], fourth["input"]) == ("Mirror this.", "ab")
    assert len(list(Unnatural(reformulations=False)(FULL))) == len(list(Unnatural()(CORE))) == 2
    assert next(iter(Unnatural(constraints=False)(CORE)))["constraints"] == ""


def test_core_and_full_rows_may_be_in_one_file(tmp_path):
    path = tmp_path / "full.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (CORE, FULL, {**CORE, "reformulations": None})))
    found = [r.rendered for r in iter_rendered(format_task("t", path, format="unnatural"), "train")]
    assert [r.targets for r in found] == ["ba", "c", "ba", "c", "ba", "ba", "ba", "c"]
    assert "One word." in found[0].inputs and "None" not in found[1].inputs and "{INPUT}" not in found[4].inputs


def test_prompts_and_completions_are_copied_without_an_end_mark():
    row = {"prompt": "Add 2, 3\nOutput:", "completion": " 5<|endoftext|>"}
    assert list(Prompted()(row)) == [{"prompt": "Add 2, 3\nOutput:", "completion": "5"}]
    (template,) = Prompted().templates()
    assert template.render({"prompt": "{x}", "completion": "y"}).inputs == "{x}"


def test_a_blank_instruction_is_refused():
    with pytest.raises(Unusable, match="the field 'instruction' must be a text, got ' '"):
        list(Alpaca()({"instruction": " ", "output": "x"}))


def test_a_users_own_templates_replace_the_forms(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "Add.", "input": "", "output": "5"}]))
    own = (Template(inputs="Q: {instruction} {input}", targets="{output}"),)
    task = format_task("t", tmp_path / "a.json", format="alpaca", templates=own)
    assert [r.rendered.inputs for r in iter_rendered(task, "train")] == ["Q: Add. "]
