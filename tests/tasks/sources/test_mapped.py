from collections import Counter

import pytest

from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.tasks.sources.mapped import MappedSource

ROWS = [
    {"text": "Ann met Eve.", "target": {"span": "Ann", "at": {"word": 0}}, "label": False, "score": "2.50"},
    {"text": "Bob fell.", "target": {"span": "Bob", "at": {"word": 1}}, "label": True, "score": "3"},
]


def mapped(rows=ROWS, **settings):
    return MappedSource(source=InMemorySource(data={"train": rows, "dev_r1": rows[:1]}), **settings)


def test_fields_are_renamed_from_within_mappings_too_and_the_others_stay():
    source = mapped(fields={"sentence": "text", "word": "target.at.word"})
    first = next(source.rows("train"))
    assert first == {
        "sentence": "Ann met Eve.",
        "word": 0,
        "target": ROWS[0]["target"],
        "label": False,
        "score": "2.50",
    }


def test_two_fields_can_change_names_with_each_other():
    source = mapped([{"a": 1, "b": 2}], fields={"a": "b", "b": "a"})
    assert list(source.rows("train")) == [{"a": 2, "b": 1}]


def test_paths_lead_into_lists_and_select_from_them():
    row = {"answers": {"text": ["Paris", "in Paris"]}, "spans": [{"at": 3}, {"at": 7}], "q": "?"}
    paths = {
        "first": "answers.text[0]",
        "all": "answers.text",
        "at": "spans.at",
        "last": "spans[1].at",
        "spans": "spans[0]",
    }
    (found,) = mapped([row], fields=paths).rows("train")
    answers = {"first": "Paris", "all": ["Paris", "in Paris"], "at": [3, 7], "last": 7, "spans": {"at": 3}}
    assert found == {"q": "?", "answers": row["answers"], **answers}
    for wrong in ("answers.text[2]", "answers.txt", "spans.to", "q[0]", "q.x", "spans[x]", "answers.", ".q", ""):
        with pytest.raises(ValueError, match="row 0: the row lacks the field"):
            list(mapped([row], fields={"x": wrong}).rows("train"))


def test_a_field_that_another_would_replace_is_refused_unless_it_is_its_own_origin():
    with pytest.raises(ValueError, match="row 0: the row has a field 'text', which 'body' would replace"):
        list(mapped([{"text": "a", "body": "b"}], fields={"text": "body"}).rows("train"))
    assert list(mapped([{"a": {"b": 1}}], fields={"a": "a.b"}).rows("train")) == [{"a": 1}]


def test_whole_floats_and_cells_of_tables_are_classes_and_no_number_is_infinite():
    source = mapped([{"label": 1.0}, {"label": "1"}, {"label": 1}], classes={"label": (0, 1)})
    assert [row["label"] for row in source.rows("train")] == [1, 1, 1]
    for value in ("nan", "inf", "1e999"):
        with pytest.raises(ValueError, match="which is not a number"):
            list(mapped([{"y": value}], numbers=("y",)).rows("train"))


def test_a_field_that_has_a_dot_in_its_name_is_found_under_it():
    assert list(mapped([{"a.b": 1, "a": {"b": 2}}], fields={"x": "a.b"}).rows("train")) == [{"a": {"b": 2}, "x": 1}]


def test_values_become_class_numbers_and_texts_numbers():
    source = mapped(fields={"y": "score"}, classes={"label": (False, True)}, numbers=("y",))
    assert [(row["label"], row["y"]) for row in source.rows("train")] == [(0, 2.5), (1, 3)]
    assert [type(row["y"]) for row in source.rows("train")] == [float, int]


def test_a_number_one_is_not_the_class_true():
    with pytest.raises(ValueError, match=r"row 0: the field 'label' holds 1, which is none of \[False, True\]"):
        list(mapped([{"label": 1}], classes={"label": (False, True)}).rows("train"))


def test_splits_can_have_other_names():
    source = mapped(split_names={"validation": "dev_r1"})
    assert (source.splits, source.num_rows("validation")) == (("validation",), 1)
    assert [row["text"] for row in source.rows("validation")] == ["Ann met Eve."]
    with pytest.raises(KeyError, match="the split must be one of validation; got 'dev_r1'"):
        list(source.rows("dev_r1"))


@pytest.mark.parametrize(
    ("settings", "reason", "detail"),
    [
        ({"fields": {"x": "txt"}}, "lacks a field", r"row 0: the row lacks the field 'txt'\. Did you mean 'text'"),
        ({"fields": {"x": "target.spam"}}, "lacks a field", "lacks the field 'target.spam'"),
        ({"classes": {"label": (True,)}}, "value is no class", r"'label' holds False, which is none of \[True\]"),
        ({"numbers": ("text",)}, "not a number", "'text' holds 'Ann met Eve.', which is not a number"),
        ({"numbers": ("label",)}, "not a number", "'label' holds False, which is not a number"),
    ],
)
def test_rows_that_do_not_fit_the_mapping_are_refused_or_counted(settings, reason, detail):
    with pytest.raises(ValueError, match=detail):
        list(mapped(**settings).rows("train"))
    dropped = Counter()
    list(mapped(on_bad_row="skip", **settings).rows("train", dropped=dropped))
    assert dropped[reason] >= 1


def test_the_revision_follows_rows_and_mapping():
    revisions = {
        mapped().revision("train"),
        mapped(ROWS[:1]).revision("train"),
        mapped(fields={"a": "text"}).revision("train"),
        mapped(classes={"label": (False, True)}).revision("train"),
        mapped(classes={"label": (True, False)}).revision("train"),
        mapped(numbers=("score",)).revision("train"),
    }
    assert len(revisions) == 6
    assert mapped(numbers=("score",)).revision("train") in revisions


def test_classes_without_values_are_refused():
    with pytest.raises(ValueError, match="classes of the field 'label': give the values"):
        mapped(classes={"label": ()})
