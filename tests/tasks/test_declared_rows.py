from collections import Counter

import pytest

from flan_jax.tasks.declared_rows import AbsentSource, MappedSource, declared_sources
from flan_jax.tasks.sources.file_sources import InMemorySource, TfdsSource

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
    with pytest.raises(KeyError, match="No split 'dev_r1'"):
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


def test_declared_sources_read_files_beside_the_one_that_declares_them(tmp_path):
    (tmp_path / "val.jsonl").write_text('{"target": {"s": "it"}, "label": true}\nnot json\n')
    (tmp_path / "sts.tsv").write_text("a\tb\t4.8\n")
    entries = {
        "super_glue/wsc.fixed": {
            "kind": "jsonl",
            "splits": {"validation": "val.jsonl"},
            "on_bad_row": "skip",
            "fields": {"s": "target.s"},
            "classes": {"label": [False, True]},
        },
        "glue/stsb": {"kind": "tsv", "columns": ["x", "y", "label"], "splits": {"train": ["sts.tsv"]}, "numbers": ["label"]},
        "piqa": {"kind": "tfds", "name": "piqa:1.0.0", "splits": {"train": "train[:10]"}},
    }  # fmt: skip
    sources = declared_sources(entries, base=tmp_path, where="my.yaml: rows")
    wsc, stsb, piqa = (sources[name] for name in entries)
    dropped = Counter()
    assert [row["s"] for row in wsc.rows("validation", dropped=dropped)] == ["it"]
    assert [row["label"] for row in wsc.rows("validation")] == [1]
    assert dropped == {"not JSON": 1}
    assert next(stsb.rows("train")) == {"x": "a", "y": "b", "label": 4.8}
    assert isinstance(piqa, TfdsSource)
    assert wsc.files("validation") == wsc.looked_for("validation") == (str(tmp_path / "val.jsonl"),)
    assert wsc.unavailable("validation") is None
    assert wsc.describe("validation") == str(tmp_path / "val.jsonl")


def test_rows_that_are_declared_and_not_there_are_unavailable(tmp_path):
    entry = {"kind": "jsonl", "splits": {"train": "gone.jsonl"}, "fields": {"a": "b"}}
    (source,) = declared_sources({"x": entry}, base=tmp_path, where="rows").values()
    assert f"No file {tmp_path / 'gone.jsonl'}" in source.unavailable("train")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], r"rows.x: expected names with values; got \[\]"),
        ({"splits": {}}, "rows.x: the key 'kind' is missing, one of jsonl, json, csv, tsv, parquet, tfds, wiki; got splits"),
        ({"kind": "jsonl"}, "rows.x: the key 'splits' is missing, a mapping from splits to files; got kind"),
        ({"kind": "jsonll", "splits": {}}, r"rows.x.source: unknown kind 'jsonll'\. Did you mean 'jsonl'"),
        ({"kind": "jsonl", "splits": {}, "field": {}}, r"rows.x: unknown key 'field'\. Did you mean 'fields'"),
        ({"kind": "jsonl", "splits": {}, "columns": []}, "rows.x: unknown key 'columns'"),
        ({"kind": "jsonl", "splits": {}, "fields": {"a": 1}}, "rows.x.fields.a: expected the name of a field, got 1"),
        ({"kind": "jsonl", "splits": {}, "classes": {"a": "b"}}, "rows.x.classes.a: expected a list of values, got 'b'"),
        ({"kind": "jsonl", "splits": {}, "numbers": "a"}, "rows.x.numbers: expected a list of fields, got 'a'"),
    ],
)  # fmt: skip
def test_declarations_that_cannot_be_right_are_refused(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message):
        declared_sources({"x": entry}, base=tmp_path, where="rows")


def test_an_absent_source_says_what_is_missing_and_gives_no_row():
    source = AbsentSource(why="Declare rows for 'x'.", split_names=("train",))
    assert source.unavailable("train") == source.describe("train") == "Declare rows for 'x'."
    for ask in (source.read, source.revision, source.files):
        with pytest.raises(FileNotFoundError, match="Declare rows for 'x'"):
            ask("train")
    with pytest.raises(KeyError, match="No split 'test'"):
        source.files("test")
