import gzip
from collections import Counter

import pytest

from flan_jax.tasks.sources.file_sources import WikiSource
from flan_jax.tasks.sources.rows import Record

RAIN = '<doc id="7" url="?curid=7" title="Rain &amp; snow">\nRain & snow\n\nIt falls.\nSection.\n\nMore.\n\n</doc>\n'


def source(tmp_path, content, *, name="wiki_00", **more):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return WikiSource(files={"train": path}, **more)


def test_a_document_has_its_title_and_its_text_without_it(tmp_path):
    assert list(source(tmp_path, RAIN).rows("train")) == [
        {"id": "7", "url": "?curid=7", "title": "Rain & snow", "text": "It falls.\nSection.\nMore."}
    ]


@pytest.mark.parametrize("first", ["Rain &amp; snow", "Rain & snow"])
def test_a_title_is_recognized_however_it_is_escaped(tmp_path, first):
    content = RAIN.replace("\nRain & snow\n", f"\n{first}\n")
    assert next(source(tmp_path, content).rows("train"))["text"].startswith("It falls.")


def test_a_title_with_a_quotation_mark_is_read_completely(tmp_path):
    content = '<doc id="1" url="u" title="The "big" one">\nThe "big" one\n\nText.\n</doc>\n'
    row = next(source(tmp_path, content).rows("train"))
    assert (row["title"], row["text"]) == ('The "big" one', "Text.")


def test_documents_are_in_order_and_stubs_are_empty(tmp_path):
    content = "".join(f'<doc id="{i}" title="T{i}">\nT{i}\n\n\n</doc>\n\n' for i in range(3))
    rows = list(source(tmp_path, content).rows("train"))
    assert [(row["id"], row["text"]) for row in rows] == [("0", ""), ("1", ""), ("2", "")]


def test_gzip_is_read_and_rows_are_located_by_line(tmp_path):
    zipped = source(tmp_path, gzip.compress(("\n" + RAIN + RAIN).encode()), name="wiki_00.gz")
    records = list(zipped.read("train"))
    assert all(isinstance(record, Record) for record in records)
    assert [record.place.rpartition(":")[2] for record in records] == ["2", "11"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RAIN.removesuffix("</doc>\n"), r"wiki_00:1: the file ends before its </doc>. Fix the row"),
        (RAIN.replace("</doc>", "") + RAIN, "wiki_00:1: another document begins before its </doc>"),
        (RAIN + "stray\n", "wiki_00:10: expected <doc ...>"),
        (RAIN.encode().replace(b"falls", b"f\xffalls"), "wiki_00:1: not UTF-8"),
        (b"", "is empty"),
    ],
)
def test_text_outside_documents_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        list(source(tmp_path, content).rows("train"))


def test_text_outside_documents_can_be_skipped(tmp_path):
    lenient = source(tmp_path, "stray\n" + RAIN + RAIN.replace("</doc>", ""), on_bad_row="skip")
    dropped = Counter()
    assert len(list(lenient.rows("train", dropped=dropped))) == 1
    assert dropped == {"text outside a document": 1, "document is not closed": 1}


@pytest.mark.shared_data
def test_all_of_the_shared_wikipedia_is_read(shared_data):
    counted = WikiSource(files={"train": shared_data / "wiki_pretrain" / "wiki_*.gz"})
    rows = list(counted.rows("train"))
    assert len(rows) == 37_225
    assert all(row["title"] and not row["text"].startswith(row["title"] + "\n") for row in rows)
