from collections import Counter

import pytest

from flan_jax.settings import Place, Section
from flan_jax.tasks.sources.file_sources import TfdsSource
from flan_jax.tasks.sources.settings import parse_rows


def test_declared_sources_read_files_next_to_the_one_that_declares_them(tmp_path):
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
    sources = parse_rows(Section(values=entries, place=Place(file=str(tmp_path / "my.yaml"), keys="rows")))
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
    (source,) = parse_rows(
        Section(values={"x": entry}, place=Place(file=str(tmp_path / "my.yaml"), keys="rows"))
    ).values()
    assert f"No file {tmp_path / 'gone.jsonl'}" in source.unavailable("train")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], r"rows.x: expected a mapping, got \[\]"),
        ({"splits": {}}, "rows.x: the key 'kind' is missing. Allowed: jsonl, json, csv, tsv, parquet, wiki, tfds"),
        ({"kind": "jsonl"}, "rows.x: the key 'splits' is missing; got kind"),
        ({"kind": "jsonll", "splits": {}}, r"rows.x: unknown kind 'jsonll'\. Did you mean 'jsonl'"),
        ({"kind": "jsonl", "splits": {"train": "x.jsonl"}, "field": {}}, r"rows.x: unknown key 'field'\. Did you mean 'fields'"),
        ({"kind": "jsonl", "splits": {"train": "x.jsonl"}, "columns": []}, "rows.x: unknown key 'columns'"),
        ({"kind": "jsonl", "splits": {"train": "x.jsonl"}, "fields": {"a": 1}}, "rows.x.fields.a: expected a text, got 1"),
        ({"kind": "jsonl", "splits": {"train": "x.jsonl"}, "classes": {"a": "b"}}, "rows.x.classes.a: expected a list, got 'b'"),
        ({"kind": "jsonl", "splits": {"train": "x.jsonl"}, "numbers": {"a": 1}}, "rows.x.numbers: expected a list, each item a text, got {'a': 1}"),
    ],
)  # fmt: skip
def test_invalid_declarations_are_errors(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message):
        parse_rows(Section(values={"x": entry}, place=Place(file=str(tmp_path / "my.yaml"), keys="rows")))
