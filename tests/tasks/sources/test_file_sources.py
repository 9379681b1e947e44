import gzip
import json
from collections import Counter

import pytest

from flan_jax.errors import UserError
from flan_jax.tasks.sources import file_sources
from flan_jax.tasks.sources.file_sources import (
    InMemorySource,
    JsonlSource,
    ParquetSource,
    TfdsSource,
    TsvSource,
)

ROWS = [{"q": "2+2", "a": 4}, {"q": "a\u2028b 😀", "a": None}, {"q": "{x}", "a": [1, "b"]}]


def write_jsonl(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_jsonl_rows_are_the_same_plain_zipped_and_from_several_files(tmp_path):
    plain = write_jsonl(tmp_path / "a.jsonl")
    with gzip.open(tmp_path / "b.jsonl.gz", "wb") as file:
        file.write(plain.read_bytes())
    source = JsonlSource(files={"one": plain, "zipped": [tmp_path / "b.jsonl.gz"], "all": str(tmp_path / "*.jsonl*")})
    assert list(source.rows("one")) == list(source.rows("zipped")) == ROWS
    assert list(source.rows("all")) == ROWS + ROWS
    assert source.splits == ("one", "zipped", "all")
    assert [source.num_rows(split) for split in source.splits] == [3, 3, 6]
    assert source.files("all") == (str(plain), str(tmp_path / "b.jsonl.gz"))


def test_jsonl_ignores_blank_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"q": 1}\r\n\n  \n{"q": 2}')
    source = JsonlSource(files={"train": path})
    assert [(r.row["q"], r.place) for r in source.records("train")] == [(1, f"{path}:1"), (2, f"{path}:4")]
    assert source.num_rows("train") == 2


BAD_LINES = {
    b'{"q": 1': (
        "not JSON",
        r"not JSON \(Expecting ',' delimiter.*: '{\"q\": 1'\. Fix the row, or set on_bad_row='skip'",
    ),
    b"[": ("not JSON", "expected one object per line, not a list over several"),
    b"[1]": ("not an object", r"expected a JSON object, got \[1\]"),
    b'{"q": "\xff"}': ("not Unicode", "not UTF-8"),
    b"[" * 100_000: ("nested too deep", "nests values more than 100 levels deep"),
    b'{"q": ' + b"1" * 5000 + b"}": ("not JSON", "JSON that cannot be read"),
    b'{"q": "\\ud83d"}': ("not Unicode", "half a surrogate pair"),
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_by_file_and_number_or_counted(tmp_path, line):
    reason, message = BAD_LINES[line]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"q": 1}\n\n' + line + b'\n{"q": "\\ud83d\\ude00"}\n')
    with pytest.raises(ValueError, match=rf"a\.jsonl:3: .*{message}"):
        list(JsonlSource(files={"train": path}).rows("train"))
    dropped = Counter()
    lenient = JsonlSource(files={"train": path}, on_bad_row="skip")
    assert [row["q"] for row in lenient.rows("train", dropped=dropped)] == [1, "😀"]
    assert dropped == {reason: 1}


def test_damaged_gzip_names_the_file(tmp_path):
    whole = gzip.compress(b'{"q": 1}\n' * 1000)
    for damaged in (whole[:-20], b"plain text"):
        (tmp_path / "a.jsonl.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.jsonl\.gz: cannot be decompressed"):
            list(JsonlSource(files={"train": tmp_path / "a.jsonl.gz"}).rows("train"))


def test_tsv_cells_are_not_unquoted(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('\ufeffq\ta\nHe said "no\t4\n\\n \t\n')
    source = TsvSource(files={"train": path})
    assert list(source.rows("train")) == [{"q": 'He said "no', "a": "4"}, {"q": "\\n ", "a": ""}]
    assert source.num_rows("train") == 2
    named = TsvSource(files={"train": path}, columns=["x", "y"])  # The byte order mark is no text.
    assert next(named.rows("train")) == {"x": "q", "y": "a"} and named.num_rows("train") == 3
    assert named.revision("train") != source.revision("train")


def test_bad_tsv_rows_are_named_or_counted(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"q\ta\n1\t2\t3\n\xff\t4\nx\ty\n")
    with pytest.raises(ValueError, match=r"a\.tsv:2: 3 fields between tabs, expected 2 \(q, a\)"):
        list(TsvSource(files={"train": path}).rows("train"))
    dropped = Counter()
    assert list(TsvSource(files={"train": path}, on_bad_row="skip").rows("train", dropped=dropped)) == [
        {"q": "x", "a": "y"}
    ]
    assert dropped == {"wrong number of columns": 1, "not Unicode": 1}


@pytest.mark.tensorflow
def test_parquet_rows_are_plain_python(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [{"q": "a😀", "n": 1, "l": ["x"], "b": b"bytes"}, {"q": "b", "n": 2, "l": [], "b": b"\xff"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = ParquetSource(files={"train": tmp_path / "a.parquet"}, on_bad_row="skip")
    dropped = Counter()
    assert list(source.rows("train", dropped=dropped)) == [{"q": "a😀", "n": 1, "l": ["x"], "b": "bytes"}]
    assert dropped == {"not Unicode": 1} and source.num_rows("train") == 2
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file"):
        source.num_rows("train")


def test_memory_rows_may_be_a_list_or_a_function():
    source = InMemorySource(data={"train": ROWS, "made": lambda: iter(ROWS)})
    assert list(source.rows("train")) == list(source.rows("made")) == list(source.rows("made")) == ROWS
    assert source.revision("train") == source.revision("made")
    assert source.num_rows("train") == 3 and source.num_rows("made") is None
    assert source.files("train") == ()


def test_memory_rows_hold_finite_numbers_and_text_that_can_be_encoded():
    for value in (float("nan"), float("inf"), 10**5000, "\ud83d", [{"y": float("-inf")}]):
        rows = InMemorySource(data={"train": [{"x": 1}, {"x": value}]}, on_bad_row="skip")
        assert list(rows.rows("train")) == [{"x": 1}]


def test_memory_rows_that_are_no_rows_are_refused():
    with pytest.raises(ValueError, match="train rows in memory: row 1: expected fields by name, got 'b'"):
        list(InMemorySource(data={"train": [{"a": 1}, "b"]}).rows("train"))
    with pytest.raises(ValueError, match="'train' rows in memory cannot be fingerprinted: .*set"):
        InMemorySource(data={"train": [{"a": {1}}]}).revision("train")


@pytest.mark.parametrize("make", [JsonlSource, TsvSource])
def test_the_revision_changes_with_a_byte_and_not_with_the_path(tmp_path, make):
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    for path, text in ((first, "x\t1\n"), (second, "x\t1\n"), (third, "x\t2\n")):
        path.write_text(text)
    one, two, three = (make(files={"train": path}).revision("train") for path in (first, second, third))
    assert one == two != three


def test_nothing_is_opened_before_rows_are_requested():
    source = JsonlSource(files={"train": "/nowhere/train.jsonl"})
    assert source.splits == ("train",)
    with pytest.raises(FileNotFoundError, match=r"No file /nowhere/train\.jsonl .*There is no folder /nowhere"):
        next(source.rows("train"))


def test_a_missing_file_is_refused_with_the_nearest(tmp_path):
    write_jsonl(tmp_path / "train.jsonl")
    with pytest.raises(FileNotFoundError, match=r"trian\.jsonl to read rows from\. Did you mean 'train\.jsonl'\?"):
        JsonlSource(files={"train": tmp_path / "trian.jsonl"}).files("train")
    with pytest.raises(FileNotFoundError, match=r"dev\*\.jsonl"):
        JsonlSource(files={"train": tmp_path / "dev*.jsonl"}).revision("train")


@pytest.mark.parametrize("ask", ["files", "revision", "num_rows", "rows"])
def test_an_unknown_split_is_refused_with_the_nearest(tmp_path, ask):
    for source in (
        JsonlSource(files={"train": "a", "validation": "b"}),
        InMemorySource(data={"train": [], "validation": []}),
        TfdsSource(name="x", splits={"train": "train", "validation": "test"}),
    ):
        if ask == "rows":
            with pytest.raises(
                KeyError, match=r"the split must be one of train, validation; got 'valid'\. Did you mean 'validation'"
            ):
                list(source.rows("valid"))
        elif not isinstance(source, TfdsSource):
            with pytest.raises(KeyError, match="the split must be one of"):
                getattr(source, ask)("valid")


def test_an_empty_split_is_refused_by_name(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"The split 'train' of .*a\.jsonl is empty"):
        list(JsonlSource(files={"train": tmp_path / "a.jsonl"}).rows("train"))
    with pytest.raises(ValueError, match="The split 'train' of InMemorySource is empty"):
        list(InMemorySource(data={"train": []}).rows("train"))


def test_invalid_settings_are_errors():
    with pytest.raises(ValueError, match="on_bad_row: expected one of error, skip, got 'skp'. Did you mean 'skip'"):
        JsonlSource(files={"train": "a"}, on_bad_row="skp")
    for paths in (3, [3], {"a": "b"}, None, [["a.jsonl"]]):
        with pytest.raises(UserError, match="files of the split 'train': expected a path or a list of paths, got"):
            JsonlSource(files={"train": paths})
    with pytest.raises(ValueError, match="files must map splits to paths"):
        JsonlSource(files="train.jsonl")


@pytest.fixture(scope="module")
def tfds_data_dir(tmp_path_factory):
    """A dataset of six rows that TFDS has prepared."""
    tfds = pytest.importorskip("tensorflow_datasets")
    import importlib.resources.abc
    import sys

    import tensorflow as tf

    # To write, this version of TFDS asks for a backport that it does not require.
    sys.modules.setdefault("importlib_resources", importlib.resources)
    place = tmp_path_factory.mktemp("tfds")
    texts = [f"row {i} 😀" for i in range(6)]
    data = tf.data.Dataset.from_tensor_slices(
        {"text": texts, "label": list(range(6)), "pair": [[i, i] for i in range(6)]}
    )
    features = tfds.features.FeaturesDict(
        {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=6),
            "pair": tfds.features.Sequence(tf.int64),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_rows", version="1.0.0", data_dir=place, split_datasets={"train": data}, features=features
    )
    file_sources.set_tfds_data_dir(str(place))
    yield place
    file_sources.set_tfds_data_dir(None)


@pytest.mark.tensorflow
def test_tfds_rows_are_plain_python_in_the_order_on_disk(tfds_data_dir):
    source = TfdsSource(name="tiny_rows", splits={"train": "train[:4]", "validation": "train[4:]", "all": "train"})
    parts = [row for split in ("train", "validation") for row in source.rows(split)]
    assert json.loads(json.dumps(parts)) == parts == list(source.rows("all"))
    assert sorted(parts, key=lambda row: row["label"]) == [
        {"text": f"row {i} 😀", "label": i, "pair": [i, i]} for i in range(6)
    ]
    assert [source.num_rows(split) for split in source.splits] == [4, 2, 6]
    assert source.revision("train") != source.revision("validation")
    assert source.revision("train") == TfdsSource(name="tiny_rows:1.0.0", splits={"train": "train[:4]"}).revision(
        "train"
    )


@pytest.mark.tensorflow
def test_tfds_mistakes_name_the_nearest(tfds_data_dir):
    with pytest.raises(FileNotFoundError, match=r"has no 'tiny_row'.*Did you mean 'tiny_rows'\? Set --tfds_data_dir"):
        list(TfdsSource(name="tiny_row", splits={"train": "train"}).rows("train"))
    with pytest.raises(
        ValueError, match=r"tiny_rows has no split 'trian\[:1\]' \(requested as 'train'\)\. Did you mean 'train'"
    ):
        list(TfdsSource(name="tiny_rows", splits={"train": "trian[:1]"}).rows("train"))


@pytest.mark.tensorflow
def test_a_tfds_dataset_that_is_not_prepared_is_not_downloaded(tfds_data_dir):
    with pytest.raises(FileNotFoundError, match="'mnist' is not prepared: .*tfds build mnist"):
        TfdsSource(name="mnist", splits={"train": "train"}).num_rows("train")
