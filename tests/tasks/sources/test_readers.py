"""Files to rows: JSON lists, CSV with quoted newlines, and what is wrong with one by file and line."""

import gzip
import json
from collections import Counter

import pytest

from flan_jax.tasks.sources.file_sources import CsvSource, JsonSource
from flan_jax.tasks.sources.readers import read_json, read_jsonl, reader_for

ROWS = [{"q": "2+2", "a": 4}, {"q": "a\u2028b 😀", "a": None}]


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(kind, path, **settings):
    dropped = Counter()
    rows = list(kind(files={"train": path}, **settings).rows("train", dropped=dropped))
    return rows, dropped


def test_a_json_list_is_read_plain_zipped_and_over_many_lines(tmp_path):
    plain = write(tmp_path / "a.json", "\ufeff" + json.dumps(ROWS, indent=2))
    zipped = write(tmp_path / "b.json.gz", gzip.compress(plain.read_bytes()))
    source = JsonSource(files={"train": [plain, zipped]})
    assert list(source.rows("train")) == ROWS + ROWS
    assert [record.place for record in source.records("train")][1:3] == [f"{plain}: row 1", f"{zipped}: row 0"]
    assert source.num_rows("train") is None and source.revision("train") == source.revision("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"q": 1},\n {"q": 2',
            r"a\.json:2: not one JSON list .*The file ends before its list does; download it again",
        ),
        ('[{"q": 1},\n {"q": 2}', r"a\.json:2: not one JSON list .*The file ends before its list does"),
        ('[{"q": 1},\n {q: 2}]', r"a\.json:2: not one JSON list .*Fix the file: a JSON list is read as one value"),
        ('{"q": 1}\n{"q": 2}\n', r"a\.json:2: not one JSON list .*It looks like JSON lines.*read it as jsonl"),
        ('{"data": []}', r"a\.json: expected one JSON list of objects, got {'data': \[\]}"),
        (b'[{"q": 1},\n\n {"q": "\xff"}]', r"a\.json:3: not UTF-8 .*a JSON list is read as one value"),
        ("", r"a\.json:1: not one JSON list .*ends before"),
    ],
)
def test_a_file_that_is_no_complete_list_is_an_error_with_its_line_whatever_the_policy(tmp_path, content, message):
    path = write(tmp_path / "a.json", content)
    for policy in ("error", "skip"):
        with pytest.raises(ValueError, match=message):
            read(JsonSource, path, on_bad_row=policy)


def test_items_of_a_list_that_are_no_rows_are_named_or_counted(tmp_path):
    path = write(tmp_path / "a.json", '[{"q": 1}, [2], {"q": "\\ud83d"}, {"q": 4}]')
    with pytest.raises(ValueError, match=r"a\.json: row 1: expected a JSON object, got \[2\]"):
        read(JsonSource, path)
    assert read(JsonSource, path, on_bad_row="skip") == (
        [{"q": 1}, {"q": 4}],
        {"not an object": 1, "not Unicode": 1},
    )


def test_a_quoted_csv_field_holds_newlines_commas_and_quotation_marks(tmp_path):
    content = '\ufeffq,a\r\n"one,\ntwo ""three""\n\nfour",1\n\nplain, 2 \n'
    path = write(tmp_path / "a.csv", content)
    source = CsvSource(files={"train": path})
    assert [(r.row, r.place) for r in source.records("train")] == [
        ({"q": 'one,\ntwo "three"\n\nfour', "a": "1"}, f"{path}:2"),
        ({"q": "plain", "a": " 2 "}, f"{path}:7"),
    ]
    named = CsvSource(files={"train": path}, columns=["x", "y"])
    assert [row["y"] for row in named.rows("train")] == ["a", "1", " 2 "]
    assert named.revision("train") != source.revision("train")


def test_a_csv_field_may_be_long(tmp_path):
    path = write(tmp_path / "a.csv", "q\n" + "x" * 200_000 + "\n")
    assert len(read(CsvSource, path)[0][0]["q"]) == 200_000


@pytest.mark.parametrize(
    ("content", "line"),
    [('q,a\nx,1\n"open,2\ny,3\n', 3), ('q,a\n"x" y,1\nz,2\n', 2), ('q,a\nx,1\n\n"a\nb"c,2\n', 4)],
)
def test_quotation_marks_that_do_not_pair_up_are_reported_with_the_line_of_their_row(tmp_path, content, line):
    path = write(tmp_path / "a.csv", content)
    for policy in ("error", "skip"):
        with pytest.raises(ValueError, match=rf"a\.csv:{line}: the quotation marks of the row .* do not pair up"):
            read(CsvSource, path, on_bad_row=policy)


def test_csv_rows_that_cannot_be_used_are_named_by_line_or_counted(tmp_path):
    path = write(tmp_path / "a.csv", b'q,a\n"x\ny",1\nz\n\xff,3\nw,4\n')
    with pytest.raises(ValueError, match=r"a\.csv:4: 1 fields between commas, expected 2 \(q, a\)"):
        read(CsvSource, path)
    assert read(CsvSource, path, on_bad_row="skip") == (
        [{"q": "x\ny", "a": "1"}, {"q": "w", "a": "4"}],
        {"wrong number of columns": 1, "not Unicode": 1},
    )
    with pytest.raises(ValueError, match=r"a\.csv:1: not UTF-8: 'q\\udcff'"):
        read(CsvSource, write(path, b"q\xff\nx\n"))


@pytest.mark.parametrize("content", ["\ufeff\n  [1]", '{"a": 1}', " \n"])
def test_a_json_file_is_a_list_if_its_content_begins_with_one(tmp_path, content):
    path = str(write(tmp_path / "a", content))
    assert reader_for(path) is (read_json if "[" in content else read_jsonl)
