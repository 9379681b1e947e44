import json
from collections import Counter

import pytest

from flan_jax.errors import UserError
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.label_names import LabelNames
from flan_jax.tasks.rendering import iter_rendered, num_examples, preview
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource
from flan_jax.templates.render import Template

ROWS = [{"q": q, "a": a} for q, a in ("a1", "b2", "c3")]
TEMPLATES = (
    Template(inputs="0 {q}", targets="{a}"),
    Template(inputs="1 {a}", targets="{q}", direction="inverted"),
    Template(inputs="2 {q}", targets="{a}"),
)


def task_of(rows=ROWS, **changes):
    source = rows if not isinstance(rows, list) else InMemorySource(data={"train": rows, "validation": rows})
    return TemplatedTask(**({"name": "t", "source": source, "cluster": "c", "templates": TEMPLATES} | changes))


def jsonl(tmp_path, lines, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return JsonlSource(files={"train": path, "validation": path}, **settings)


def inputs(task, split="train", dropped=None):
    return [rendered.inputs for _, rendered, *_ in iter_rendered(task, split, dropped=dropped)]


@pytest.mark.parametrize(
    ("per_row", "expected"),
    [
        (1, ["0 a", "1 2", "2 c"]),
        (2, ["0 a", "1 1", "1 2", "2 b", "2 c", "0 c"]),
        (0, ["0 a", "1 1", "2 a", "1 2", "2 b", "0 b", "2 c", "0 c", "1 3"]),
    ],
)
def test_training_rows_use_the_templates_in_turn(per_row, expected):
    task = task_of(templates_per_row=per_row)
    assert inputs(task) == expected
    assert num_examples(task, "train") == len(expected)


def test_an_evaluation_row_is_rendered_once_under_a_forward_template():
    task = task_of(templates_per_row=0)
    assert inputs(task, "validation") == ["0 a", "2 b", "0 c"]
    assert [(row, template) for row, _, template, *_ in iter_rendered(task, "validation")] == [(0, 0), (1, 2), (2, 0)]
    assert num_examples(task, "validation") == 3


def test_a_normalizer_changes_drops_and_multiplies_rows():
    def normalize(row):
        return {"a1": row, "b2": None, "c3": [{"q": "x", "a": "8"}, None, {"q": "y", "a": "9"}, row]}[
            row["q"] + row["a"]
        ]

    task = task_of(normalizer=normalize, templates=TEMPLATES[:1])
    dropped = Counter()
    assert inputs(task, dropped=dropped) == ["0 a", "0 x", "0 y", "0 c"]
    assert dropped == {"dropped by the normalizer": 2}
    assert num_examples(task, "train") == 4


def test_a_row_without_any_row_of_the_normalizer_is_counted():
    dropped = Counter()
    task = task_of(normalizer=lambda row: [] if row["q"] == "a" else row, templates=TEMPLATES[:1])
    assert inputs(task, dropped=dropped) == ["0 b", "0 c"] and dropped == {"dropped by the normalizer": 1}


def test_max_rows_counts_usable_rows():
    task = task_of(normalizer=lambda row: row if row["q"] != "a" else None, templates=TEMPLATES[:1], max_rows=1)
    assert inputs(task) == ["0 b"] and num_examples(task, "train") == 1
    assert num_examples(task_of(max_rows=2), "train") == 2 and num_examples(task_of(max_rows=9), "train") == 3


def test_options_and_references_come_from_the_declaration_or_the_row():
    rows = [{"q": "a", "a": "1", "choices": ["1", 2], "all": ["1", "one"]}]
    ask = Template(inputs="{q} {options_}", targets="{a}")
    invert = Template(inputs="{a}", targets="{q}", direction="inverted")
    task = task_of(rows, templates=(ask, invert), options="choices", references="all", templates_per_row=0)
    first, second = (rendered for _, rendered, *_ in iter_rendered(task, "train"))
    assert (first.inputs, first.options, first.references) == ("a OPTIONS:\n- 1\n- 2", ("1", "2"), ("1", "one"))
    assert second.references == ()
    assert next(iter_rendered(task_of(rows, options=("1", "3")), "train")).rendered.options == ("1", "3")


def test_a_field_that_no_row_has_is_the_templates_mistake(tmp_path):
    wrong = (TEMPLATES[0], Template(inputs="{qq}", targets="{a}", name="typo"))
    message = (
        r"Task 't': template 1 \('typo'\) names the field 'qq', which the rows of the split 'train' lack\. "
        r"Did you mean 'q'\? Fields: q, a\. Literal braces are written twice: {{ }}"
    )
    for source in (ROWS, jsonl(tmp_path, ROWS, on_bad_row="skip")):
        with pytest.raises(KeyError, match=message):
            next(iter_rendered(task_of(source, templates=wrong), "train"))
    with pytest.raises(KeyError, match="its options are the field 'choice', which the rows .* lack"):
        inputs(task_of(options="choice"))
    with pytest.raises(KeyError, match="its references are the field 'aa', which the rows .* lack"):
        inputs(task_of(references="aa"))


@pytest.mark.parametrize("bad", [{"q": "b"}, {"q": "b", "a": None}])
def test_a_field_that_one_row_lacks_is_the_rows_mistake(tmp_path, bad):
    lines = [ROWS[0], bad, ROWS[2]]
    with pytest.raises(
        ValueError, match=r"rows\.jsonl:2: the row lacks the field 'a'\. Fields: q\. Fix the row, or set"
    ):
        inputs(task_of(jsonl(tmp_path, lines)))
    lenient = task_of(jsonl(tmp_path, [*lines, "{"], on_bad_row="skip"), templates_per_row=0)
    dropped = Counter()
    # Left out under every template, also under those that do not name the field: rows keep their turns.
    assert inputs(lenient, dropped=dropped) == ["0 a", "1 1", "2 a", "1 3", "2 c", "0 c"]
    assert dropped == {"lacks a field": 1, "not JSON": 1}
    assert num_examples(lenient, "train") == 6


def test_a_split_without_usable_rows_is_refused(tmp_path):
    task = task_of(jsonl(tmp_path, ["{", {"q": "b", "a": "1"}], on_bad_row="skip"), normalizer=lambda row: None)
    with pytest.raises(
        ValueError, match=r"the split 'train' of .*rows\.jsonl has no usable row \(dropped by the .*: 1, not JSON: 1"
    ):
        inputs(task)


def test_a_normalizer_that_fails_names_the_row(tmp_path):
    lines = [{"q": "a", "a": "1"}, {"q": "b", "b": "x"}]

    def asks_for_a(row):
        return {"q": row["q"], "a": int(row["a"])}

    with pytest.raises(
        ValueError, match=r"rows\.jsonl:2: the normalizer of task 't' needs the field 'a'\..* Fields: q, b\. Fix"
    ):
        inputs(task_of(jsonl(tmp_path, lines), normalizer=asks_for_a))
    dropped = Counter()
    assert inputs(task_of(jsonl(tmp_path, lines, on_bad_row="skip"), normalizer=asks_for_a), dropped=dropped) == ["0 a"]
    assert dropped == {"lacks a field": 1}
    lines[1]["a"] = "two"
    with pytest.raises(
        ValueError,
        match=r"rows\.jsonl:2: .* failed on {'q': 'b'.*test_rendering\.py, line \d+: ValueError: invalid literal",
    ):
        inputs(task_of(jsonl(tmp_path, lines), normalizer=asks_for_a))
    assert inputs(task_of(jsonl(tmp_path, lines, on_bad_row="skip"), normalizer=asks_for_a), dropped=dropped) == ["0 a"]
    assert dropped == {"lacks a field": 1, "the normalizer failed": 1}


def test_a_row_that_a_normalizer_refuses_is_an_error_or_counted(tmp_path):
    lines = [{"q": "a", "a": 1}, {"q": "b", "a": -1}, {"q": "c", "a": 1.0}]
    named = LabelNames(names={"a": ("no", "yes")})
    with pytest.raises(
        UserError, match=r"rows\.jsonl:2: .*the field 'a' holds -1, which has no name.*on_bad_row: skip"
    ):
        inputs(task_of(jsonl(tmp_path, lines), normalizer=named))
    dropped = Counter()
    lenient = jsonl(tmp_path, lines, on_bad_row="skip")
    assert inputs(task_of(lenient, normalizer=named), dropped=dropped) == ["0 a", "1 yes"]
    assert dropped == {"value without a name": 1}

    def refuses(row):
        if row["a"] == -1:
            raise UserError("no label.")
        return row

    dropped = Counter()
    assert inputs(task_of(lenient, normalizer=refuses), dropped=dropped) == ["0 a", "1 1.0"]
    assert dropped == {"refused by the normalizer": 1}


def test_ranking_needs_the_target_among_the_options(tmp_path):
    ask = Template(inputs="{q}", targets="{a}.")
    task = task_of(jsonl(tmp_path, ROWS), templates=(TEMPLATES[0], ask), options=("1", "2"), evaluation="rank")
    assert len(inputs(task)) == 3  # Training ranks nothing.
    with pytest.raises(
        ValueError, match=r"rows\.jsonl:1: task 't', template 1: the target '1\.' is none of the options"
    ):
        inputs(task, "validation")
    dropped = Counter()
    lenient = task_of(jsonl(tmp_path, ROWS, on_bad_row="skip"), options=("1", "2"), evaluation="rank")
    assert inputs(lenient, "validation", dropped) == ["0 a", "2 b"]
    assert dropped == {"target is not an option": 1}


@pytest.mark.parametrize("options", [["1"], ["1", "1"]])
def test_ranking_needs_two_different_options_and_accepts_equal_ones_among_others(tmp_path, options):
    rows = [{"q": "a", "a": "1", "list": ["1", "2", "2"]}, {"q": "b", "a": "1", "list": options}]
    assert len(inputs(task_of(jsonl(tmp_path, rows), options="list", evaluation="rank"))) == 2
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: .* needs two different options, got \['1'"):
        inputs(task_of(jsonl(tmp_path, rows), options="list", evaluation="rank"), "validation")
    dropped = Counter()
    lenient = task_of(jsonl(tmp_path, rows, on_bad_row="skip"), options="list", evaluation="rank")
    assert len(inputs(lenient, "validation", dropped)) == 1 and dropped == {"fewer than two options": 1}


@pytest.mark.parametrize("value", ["12", [], {"x": 1}, [["1"]]])
def test_lists_of_options_and_references_must_be_lists_of_texts(tmp_path, value):
    lines = [{"q": "a", "a": "1", "list": ["1"]}, {"q": "b", "a": "2", "list": value}]
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: the field 'list' must list the options, got "):
        inputs(task_of(jsonl(tmp_path, lines), options="list"))
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: the field 'list' must list the references, got "):
        inputs(task_of(jsonl(tmp_path, lines), references="list"))


def test_an_unanswerable_question_has_an_empty_list_of_references(tmp_path):
    lines = [{"q": "a", "a": "1", "list": ["1"]}, {"q": "b", "a": "", "list": []}]
    task = task_of(jsonl(tmp_path, lines), references="list")
    texts = [(text.targets, text.references) for _, text, *_ in iter_rendered(task, "validation")]
    assert texts == [("1", ("1",)), ("", ())]
    assert len(inputs(task)) == 2  # Training is not refused for it either.


def test_an_unrenderable_value_is_reported_with_task_and_template():
    with pytest.raises(ValueError, match=r"Task 't', template 0: template '0 {q}': the field 'q' .* holds \['x'\]"):
        inputs(task_of([{"q": ["x"], "a": "1"}]))


def test_preview_shows_a_row_from_the_file_to_the_text(tmp_path):
    task = task_of(jsonl(tmp_path, ROWS), normalizer=lambda row: {**row, "q": row["q"].upper()})
    shown = preview(task, "validation", index=1)
    assert shown.place.endswith("rows.jsonl:2")
    assert (shown.raw, shown.row) == ({"q": "b", "a": "2"}, {"q": "B", "a": "2"})
    assert {i: r.inputs for i, r in shown.rendered.items()} == {0: "0 B", 2: "2 B"}
    with pytest.raises(ValueError, match="the split 'train' has fewer than 4 rows"):
        preview(task, "train", index=3)
