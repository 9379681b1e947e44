"""Files to rows: JSON lists, CSV with quoted newlines, and what is wrong with one by file and line."""

import gzip
import io
import json
from collections import Counter

import pytest

from flan_jax.errors import UserError
from flan_jax.tasks.sources.file_sources import CsvSource, JsonlSource, JsonSource, ParquetSource, TsvSource, reader_for
from flan_jax.tasks.sources.readers import read_json, read_jsonl, read_text_or_jsonl
from flan_jax.tasks.sources.streams import open_bytes

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


def test_a_carriage_return_and_an_endless_field_are_not_blamed_on_quotation_marks(tmp_path):
    with pytest.raises(ValueError, match=r"a\.csv:2: a carriage return inside a field that is not between quotation"):
        read(CsvSource, write(tmp_path / "a.csv", "q,a\nx\ry,1\n"))
    with pytest.raises(ValueError, match=r"b\.csv:2: a field has more than 16,777,216 characters"):
        read(CsvSource, write(tmp_path / "b.csv", 'q,a\n"' + "x" * (2**24 + 1) + '",1\n'))


def test_csv_rows_that_cannot_be_used_are_named_by_line_or_counted(tmp_path):
    path = write(tmp_path / "a.csv", b'q,a\n"x\ny",1\nz\n\xff,3\nw,4\n')
    with pytest.raises(ValueError, match=r"a\.csv:4: 1 fields between commas, expected 2 \(q, a\)"):
        read(CsvSource, path)
    assert read(CsvSource, path, on_bad_row="skip") == (
        [{"q": "x\ny", "a": "1"}, {"q": "w", "a": "4"}],
        {"wrong number of columns": 1, "not Unicode": 1},
    )
    with pytest.raises(ValueError, match=r"a\.csv:1: the names of the columns are not UTF-8 .*0xff.*: 'q\\udcff'"):
        read(CsvSource, write(path, b"q\xff\nx\n"))


@pytest.mark.parametrize("content", ["\ufeff\n  [1]", '{"a": 1}', " \n"])
def test_a_json_file_is_a_list_if_its_content_begins_with_one(tmp_path, content):
    path = str(write(tmp_path / "a", content))
    with open_bytes(path) as stream:
        assert reader_for(stream, path) is (read_json if "[" in content else read_jsonl)


ENCODED = [{"q": "2+2", "a": "4"}, {"q": "é 😀", "a": "y"}]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("zipped", [False, True])
def test_rows_are_the_same_whatever_ends_a_line_with_and_without_a_mark_and_gzip(tmp_path, ending, mark, zipped):
    csv = ["q,a", "2+2,4", '"é 😀",y']
    contents = {
        JsonlSource: [json.dumps(row, ensure_ascii=False) for row in ENCODED],
        CsvSource: csv,
        TsvSource: ["q\ta", "2+2\t4", "é 😀\ty"],
    }
    for last in ("", ending):
        for kind, lines in contents.items():
            content = (mark + ending.join(lines) + last).encode()
            # Gzip is recognized by its content, too.
            for name in ("a", "b.gz") if zipped else ("a",):
                path = write(tmp_path / name, gzip.compress(content) if zipped else content)
                source = kind(files={"train": path})
                assert list(source.rows("train")) == ENCODED, kind
                assert source.num_rows("train") in (2, None)
                first = next(source.records("train")).place
                assert first == f"{path}:{1 if kind is JsonlSource else 2}"


def test_only_newlines_end_a_json_line_of_a_file_that_has_one(tmp_path):
    text = "a\u2028b\x85c\x0bd"
    path = write(tmp_path / "a.jsonl", json.dumps({"q": text}, ensure_ascii=False) + "\n")
    assert read(JsonlSource, path)[0] == [{"q": text}]


OTHER_CONTENT = {
    "UTF-16": '{"q": 1}\n'.encode("utf-16"),
    "looks like UTF-16": '{"q": 1}\n'.encode("utf-16-le"),
    "UTF-32": '{"q": 1}\n'.encode("utf-32"),
    "an Excel workbook": b"PK\x03\x04\x14\0",
    "zstd -d": b"\x28\xb5\x2f\xfd\0",
    "a Parquet file": b"PAR1\0",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
}


@pytest.mark.parametrize("content", OTHER_CONTENT)
@pytest.mark.parametrize("kind", [JsonlSource, JsonSource, CsvSource, TsvSource])
def test_a_file_of_another_encoding_or_kind_is_named_with_what_to_do(tmp_path, kind, content):
    path = write(tmp_path / "a", OTHER_CONTENT[content])
    for policy in ("error", "skip"):
        with pytest.raises(UserError, match=rf"/a: .*{content}"):
            read(kind, path, on_bad_row=policy)


@pytest.mark.parametrize("kind", [JsonlSource, JsonSource, CsvSource, TsvSource])
def test_latin_1_is_named_with_the_letter_and_the_command_that_converts_it(tmp_path, kind):
    content = '[\n{"q": "é"}]' if kind is JsonSource else '{"q": "é"}\n' if kind is JsonlSource else "q\né\n"
    path = write(tmp_path / "a", content.encode("latin-1"))
    with pytest.raises(UserError, match=r"/a:\d: not UTF-8 .*in Latin-1 this byte is 'é'.*iconv -f WINDOWS-1252"):
        read(kind, path)


def test_a_json_list_is_read_where_json_lines_are_expected(tmp_path):
    for content in (json.dumps(ROWS), json.dumps(ROWS, indent=1), "[\n" + json.dumps(ROWS)[1:]):
        path = write(tmp_path / "a.jsonl", content)
        source = JsonlSource(files={"train": path})
        assert list(source.rows("train")) == ROWS and source.num_rows("train") is None


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        ("NaN", "not a finite number", "'x'"),
        ("-Infinity", "not a finite number", "'x'"),
        ("1e999", "not a finite number", "'x'"),
        ('{"y": [1, NaN]}', "not a finite number", r"'x\.y\[1\]'"),
        ('"\\ud83d"', "not Unicode", "'x'"),
        ('{"y": {"\\udc00": 1}}', "not Unicode", r"'x\.y'"),
        ('{"y": 1, "y": 2}', "repeated field", "'y' is given twice"),
        ('1, "x": 2', "repeated field", "'x' is given twice"),
        ('NaN, "x": 2', "repeated field", "'x' is given twice"),
        ('{"q": 0}, "q": 2', "repeated field", "'q' is given twice"),
        ("[" * 200 + "]" * 200, "nested too deep", "more than 100 levels"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested too deep", "more than 100 levels"),
        ("1" * 5000, "not JSON", "cannot be read"),
    ],
)
def test_values_that_no_prompt_can_hold_are_bad_rows_with_their_field(tmp_path, value, reason, field):
    row = '{"q": 1, "x": ' + value + "}"
    lines = write(tmp_path / "a.jsonl", '{"q": 0}\n' + row + '\n{"q": 2}\n')
    items = write(tmp_path / "a.json", '[{"q": 0}, ' + row + ', {"q": 2}]')
    with pytest.raises(UserError, match=rf"a\.jsonl:2: .*{field}"):
        read(JsonlSource, lines)
    assert read(JsonlSource, lines, on_bad_row="skip") == ([{"q": 0}, {"q": 2}], {reason: 1})
    if reason != "not JSON":
        with pytest.raises(UserError, match=rf"a\.json: row 1: .*{field}"):
            read(JsonSource, items)
        assert read(JsonSource, items, on_bad_row="skip") == ([{"q": 0}, {"q": 2}], {reason: 1})


def test_json_nested_a_hundred_thousand_deep_is_a_bad_row(tmp_path):
    for line in ("[" * 100_000, '{"a":' * 100_000, '{"q": ' + "[" * 100_000 + "]" * 100_000 + "}"):
        path = write(tmp_path / "a.jsonl", '{"q": 0}\n' + line + "\n")
        assert read(JsonlSource, path, on_bad_row="skip")[0] == [{"q": 0}]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (CsvSource, "q,a,a\n1,2,3\n", r"a:1: the columns 2 and 3 have the name 'a'"),
        (CsvSource, "\nq,,\n1,2,3\n", r"a:2: column 2 of 3 has no name"),
        (CsvSource, ",q,a\n0,x,y\n", r"a:1: column 1 of 3 has no name. Name it, .*index=False"),
        (CsvSource, "q, ,a\n0,x,y\n", r"a:1: column 2 of 3 has no name"),
        (TsvSource, "q\ta\t\n1\t2\t\n", r"a:1: column 3 of 3 has no name"),
        (TsvSource, "q\tq\n1\t2\n", r"a:1: the columns 1 and 2 have the name 'q'"),
    ],
)
def test_columns_of_one_name_or_of_none_are_refused(tmp_path, kind, content, message):
    path = write(tmp_path / "a", content)
    for policy in ("error", "skip"):
        with pytest.raises(UserError, match=message):
            read(kind, path, on_bad_row=policy)
    with pytest.raises(UserError, match="columns: the columns 1 and 2 have the name 'q'"):
        kind(files={"train": path}, columns=["q", "q"])


def test_another_delimiter_is_read_when_given_and_named_when_not(tmp_path):
    path = write(tmp_path / "a.csv", 'q;a\n"x;y";1,5\n')
    assert read(CsvSource, path, delimiter=";")[0] == [{"q": "x;y", "a": "1,5"}]
    with pytest.raises(UserError, match=r"a\.csv:1: the first row has no commas .*semicolons: 'q;a'.*delimiter: ';'"):
        read(CsvSource, path, on_bad_row="skip")
    with pytest.raises(UserError, match="it looks like a file with tabs.*read it as tsv"):
        read(CsvSource, write(path, "1\t2\n"), columns=["q", "a"])
    with pytest.raises(UserError, match="it looks like a file with commas.*read it as csv"):
        read(TsvSource, write(path, "q,a\n1,2\n"))
    assert read(CsvSource, write(path, "one column\n1\n"))[0] == [{"one column": "1"}]
    for delimiter in ("", ";;", '"', "\n", 5):
        with pytest.raises(UserError, match="delimiter must be one character"):
            CsvSource(files={"train": path}, delimiter=delimiter)
    one, other = (CsvSource(files={"train": path}, delimiter=d).revision("train") for d in ",;")
    assert one != other


def test_standard_input_is_json_lines_a_list_or_text_by_its_first_line():
    def rows(content):
        return [r.row if hasattr(r, "row") else r.reason for r in read_text_or_jsonl(io.BytesIO(content), "stdin")]

    assert rows(b'\n{"q": 1}\nbroken\n{"q": 2}') == [{"q": 1}, "not JSON", {"q": 2}]
    assert rows(b'[{"q": 1}]') == [{"q": 1}]
    assert rows(b"one\r\n\n{two}\n\xff\n") == [{"inputs": "one"}, {"inputs": "{two}"}, "not Unicode"]
    assert rows(b"{two}\n[1]\n") == [{"inputs": "{two}"}, {"inputs": "[1]"}]
    assert rows(b"") == []


@pytest.mark.tensorflow
def test_parquet_names_bad_numbers_and_gives_back_integers_with_gaps(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "label": pyarrow.array([1.0, None, 3.0]),  # As pandas stores integers with a missing one.
            "score": [1.0, 2.0, 3.0],
            "mixed": pyarrow.array([1.0, None, 0.5]),
        }
    )
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    rows = read(ParquetSource, path)[0]
    assert [repr(row["label"]) for row in rows] == ["1", "None", "3"]
    assert [repr(row["score"]) for row in rows] == ["1.0", "2.0", "3.0"]
    assert [repr(row["mixed"]) for row in rows] == ["1.0", "None", "0.5"]
    # Decided over all files of a split: a part without gaps holds the same kind of numbers.
    parquet.write_table(table.slice(2, 1), tmp_path / "b.parquet")
    both = ParquetSource(files={"train": str(tmp_path / "*.parquet")})
    assert [repr(row["label"]) for row in both.rows("train")] == ["1", "None", "3", "3"]
    nan = float("nan")
    parquet.write_table(pyarrow.table({"x": [0.5, nan], "l": [[1.0], [float("inf")]]}), path)
    with pytest.raises(UserError, match=r"a\.parquet: row 1: the field 'x' holds nan, which is not a finite number"):
        read(ParquetSource, path)
    assert read(ParquetSource, path, on_bad_row="skip") == ([{"x": 0.5, "l": [1.0]}], {"not a finite number": 1})
    parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"]), path)
    with pytest.raises(UserError, match=r"a\.parquet: the columns 1 and 2 have the name 'a'"):
        read(ParquetSource, path)


@pytest.mark.tensorflow
def test_parquet_dates_and_decimals_are_text_and_damaged_pages_are_an_error(tmp_path):
    import datetime
    import decimal

    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    row = {"day": datetime.date(2024, 1, 2), "price": decimal.Decimal("1.50"), "count": decimal.Decimal("7")}
    parquet.write_table(pyarrow.Table.from_pylist([row] * 5000), path)
    assert read(ParquetSource, path)[0][4999] == {"day": "2024-01-02", "price": "1.50", "count": 7}
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: .*cannot be read"):
        read(ParquetSource, path, on_bad_row="skip")


def test_floats_of_32_and_16_bits_are_the_decimals_that_they_were(tmp_path):
    import numpy as np
    import pyarrow
    from pyarrow import parquet

    columns = {
        "single": pyarrow.array([0.1, None, 2.7], pyarrow.float32()),
        "half": pyarrow.array(np.array([0.5, 1.25, 0.1], np.float16)),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    rows, _ = read(ParquetSource, str(tmp_path / "a.parquet"))
    assert [row["single"] for row in rows] == [0.1, None, 2.7] and [row["half"] for row in rows] == [0.5, 1.25, 0.1]


def test_excels_line_about_the_delimiter_is_no_row(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv:1: 'sep=;' is a line for Excel, not a row. Delete it"):
        read(CsvSource, write(tmp_path / "a.csv", "sep=;\nq;a\nx;1\n"))


def test_a_file_of_a_split_is_named_once(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"q": 1}\n')
    with pytest.raises(UserError, match=r"a\.jsonl is 2 times among the files of the split 'train'. Name it once"):
        list(JsonlSource(files={"train": [str(path), f"{tmp_path}/../{tmp_path.name}/a.jsonl"]}).rows("train"))
