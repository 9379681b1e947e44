"""Files of a format: whatever their kind, rows are held to one shape, by file and line."""

import csv
import gzip
import json
from collections import Counter

import pytest

from flan_jax.tasks.formats.instructions import Alpaca, SelfInstruct
from flan_jax.tasks.formats.shape import FormattedSource, Shape, Unusable, items, text

ROWS = [{"instruction": "Add.", "input": "2, 3", "output": "5"}, {"instruction": "Greet.", "input": "", "output": "Hi"}]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def source(*paths, format=None, **settings):
    return FormattedSource(files={"train": paths}, format=format or Alpaca(), **settings)


def test_the_format_of_a_file_follows_from_its_name_or_first_character(tmp_path):
    lines = write_jsonl(tmp_path / "lines.json", ROWS)
    (tmp_path / "list.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROWS, indent=1).encode()))
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with open(tmp_path / name, "w", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([ROWS[0].keys(), *(row.values() for row in ROWS)])
    paths = [lines, *(tmp_path / name for name in ("list.jsonl.gz", "a.csv", "a.tsv"))]
    found = [list(source(path).rows("train")) for path in paths]
    assert found == [ROWS] * 4
    assert len(list(source(*paths).rows("train"))) == 8


@pytest.mark.tensorflow
def test_parquet_files_have_formats_too(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert list(source(tmp_path / "a.parquet").rows("train")) == ROWS


MIXED = [ROWS[0], {"instruction": "Say.", "context": "x", "output": "y"}, ROWS[1]]


def test_rows_that_mix_schemas_are_refused_by_line_with_both_schemas_or_counted(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", MIXED)
    with pytest.raises(
        ValueError,
        match=r"a\.jsonl:2: the rows mix schemas: the first one \(.*a\.jsonl:1\) has the fields instruction, input, output; "
        r"this one has instruction, context, output\. Fix the row, or set on_bad_row='skip'",
    ):
        list(source(path).rows("train"))
    dropped = Counter()
    assert list(source(path, on_bad_row="skip").rows("train", dropped=dropped)) == ROWS
    assert dropped == {"mixed schemas": 1}


def test_optional_fields_may_come_and_go_and_others_are_the_same_throughout(tmp_path):
    without = {"instruction": "Greet.", "output": "Hi"}
    assert len(list(source(write_jsonl(tmp_path / "a.jsonl", [ROWS[0], without])).rows("train"))) == 2
    scored = [{**row, "score": 1} for row in ROWS]
    assert len(list(source(write_jsonl(tmp_path / "b.jsonl", scored)).rows("train"))) == 2
    with pytest.raises(ValueError, match="this one has instruction, input, output, score"):
        list(source(write_jsonl(tmp_path / "c.jsonl", [ROWS[0], scored[1]])).rows("train"))


def test_schemas_are_compared_over_all_files_of_a_split(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    write_jsonl(tmp_path / "b.jsonl", [{"instruction": "Add.", "instances": [{"input": "2", "output": "2"}]}])
    with pytest.raises(ValueError, match=r"b\.jsonl:1: the rows mix schemas: the first one \(.*a\.jsonl:1\)"):
        list(source(tmp_path / "*.jsonl", format=SelfInstruct()).rows("train"))


def test_a_required_field_that_is_null_is_reported(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], {**ROWS[0], "output": None}])
    with pytest.raises(
        ValueError, match=r":2: the rows mix schemas.*this one has instruction, input, output, with null"
    ):
        list(source(path).rows("train"))


def test_a_first_row_of_another_format_is_an_error_that_names_the_required_fields(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instructions": "Add.", "output": "5"}, ROWS[0]])
    with pytest.raises(
        ValueError,
        match=r":1: the row has the fields instructions, output; required are instruction, output. Did you mean",
    ):
        list(source(path).rows("train"))
    dropped = Counter()
    assert list(source(path, on_bad_row="skip").rows("train", dropped=dropped)) == [ROWS[0]]
    assert dropped == {"not of the format": 1}


def test_invalid_utf8_and_malformed_json_are_reported_by_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"instruction": "a", "output": "b"}\n{"instruction": "\xff", "output": "b"}\n{"instr\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: not UTF-8"):
        list(source(path).rows("train"))
    dropped = Counter()
    assert len(list(source(path, on_bad_row="skip").rows("train", dropped=dropped))) == 1
    assert dropped == {"not Unicode": 1, "not JSON": 1}


def test_a_truncated_list_is_an_error(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ROWS)[:-20])
    with pytest.raises(ValueError, match=r"a\.json:1: not one JSON list .*download it again"):
        list(source(tmp_path / "a.json").rows("train"))


def test_a_value_of_the_wrong_kind_is_refused_by_line(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], {**ROWS[0], "input": ["2"]}])
    with pytest.raises(ValueError, match=r":2: the field 'input' must be a text or nothing, got \['2'\]"):
        list(source(path).rows("train"))


def test_texts_are_stripped_numbers_are_texts_and_needed_ones_are_not_blank():
    assert [text({"a": value}, "a", required=False) for value in (" x ", 5, None, "")] == ["x", "5", "", ""]
    for value in (" ", None, True, {}):
        with pytest.raises(Unusable, match="the field 'a' must be a text, got"):
            text({"a": value}, "a")


def test_lists_of_objects_are_that():
    assert items({"a": [{"b": 1}]}, "a") == [{"b": 1}]
    for value in ([], "text", None, 3):
        with pytest.raises(Unusable, match="the field 'a' must list objects, got"):
            items({"a": value}, "a")
    with pytest.raises(Unusable, match=r"a\[1\] must be an object, got 'x'"):
        items({"a": [{}, "x"]}, "a")


def test_a_source_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        list(source(write_jsonl(tmp_path / "a.jsonl", [])).rows("train"))
    assert Shape(("a",)).optional == ()
