"""Windows of rows that never overlap, and the first rows of what a user declares."""

from collections import Counter

import pytest

from flan_jax.collections.flan2021.table import DATASETS
from flan_jax.collections.flan2021.windows import MAX_TRAIN_ROWS, PartOf, WindowedTfdsSource, clipped
from flan_jax.tasks.sources import file_sources
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource

LAST_200 = ["train[-200:]", "validation"]


@pytest.mark.parametrize(
    ("expression", "others", "size", "wanted"),
    [
        ("train[:30000]", LAST_200, 30_200, "train[:30000]"),
        ("train[:30000]", LAST_200, 30_199, "train[:29999]"),
        ("train[:30000]", LAST_200, 30_000, "train[:29800]"),
        ("train[:30000]", LAST_200, 12_000, "train[:11800]"),
        ("train[:30000]", ["validation[:200]", "test"], 12_000, "train[:12000]"),
        ("train[:30000]", ["train[-1200:-1000]", "train[-1000:]"], 30_900, "train[:29700]"),
        ("train_xl[:30000]", ["train_xl[-200:]"], 20_000, "train_xl[:30000]"),
        ("train[:-200]", LAST_200, 30_100, "train[:-200]"),
        ("train", LAST_200, 30_100, "train"),
        ("train[30200:60200]", LAST_200, 90_000, "train[30200:60200]"),
        # Fewer rows than the validation window: an error of TFDS.
        ("train[:30000]", LAST_200, 150, "train[:30000]"),
    ],
)
def test_first_rows_end_where_last_rows_begin(expression, others, size, wanted):
    assert clipped(expression, others, sizes={"train": size, "validation": 9}) == wanted


def test_no_dataset_of_the_collection_trains_on_its_validation_rows():
    """Whatever the size: windows of the tables' expressions, resolved as TFDS would, have no row in common."""
    for dataset in DATASETS.values():
        for size in (95_000, 100_000, 30_000, 30_100, 30_200, 31_500):
            windows = []
            others = dict(dataset.splits)
            for split, expression in dataset.splits.items():
                rest = [e for name, e in others.items() if name != split]
                base, _, inside = clipped(expression, rest, sizes={expression.partition("[")[0]: size}).partition("[")
                start, _, end = inside.rstrip("]").partition(":")
                windows.append((split, base, range(size)[slice(int(start or 0), int(end) if end else None)]))
            for i, (one, base, rows) in enumerate(windows):
                for other, same, more in windows[i + 1 :]:
                    shared = base == same and range(max(rows.start, more.start), min(rows.stop, more.stop))
                    # The windows of the Danish ParaCrawl lie at fixed places of 2.4 million rows.
                    assert not shared or "enda" in dataset.tfds, (dataset.name, size, one, other)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A dataset of 40 rows that TFDS has prepared."""
    tfds = pytest.importorskip("tensorflow_datasets")
    import importlib.resources.abc
    import sys

    import tensorflow as tf

    sys.modules.setdefault("importlib_resources", importlib.resources)
    place = tmp_path_factory.mktemp("tfds")
    data = tf.data.Dataset.from_tensor_slices({"n": list(range(40))})
    features = tfds.features.FeaturesDict({"n": tf.int64})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="forty_rows", version="1.0.0", data_dir=place, split_datasets={"train": data}, features=features
    )
    file_sources.set_tfds_data_dir(str(place))
    yield place
    file_sources.set_tfds_data_dir(None)


@pytest.mark.tensorflow
def test_windows_are_clipped_by_the_size_that_the_dataset_has(prepared):
    splits = {"train": "train[:30000]", "validation": "train[-15:-10]", "test": "train[-10:]"}
    source = WindowedTfdsSource(name="forty_rows", splits=splits)
    assert [source.num_rows(split) for split in splits] == [25, 5, 10]
    numbers = [row["n"] for split in splits for row in source.rows(split)]
    assert sorted(numbers) == list(range(40))
    assert source.describe("train") == "forty_rows train[:30000]" and source.unavailable("train") is None
    narrower = WindowedTfdsSource(name="forty_rows", splits={**splits, "validation": "train[-20:-10]"})
    assert narrower.num_rows("train") == 20 and narrower.revision("train") != source.revision("train")


@pytest.mark.tensorflow
def test_a_dataset_too_small_for_its_validation_rows_is_an_error_of_tfds(prepared):
    source = WindowedTfdsSource(name="forty_rows", splits={"train": "train[:30000]", "validation": "train[-200:]"})
    with pytest.raises(ValueError, match=r"forty_rows has no split 'train\[-200:\]'.*On disk: train"):
        source.num_rows("validation")


def test_part_of_a_source_is_its_first_rows(tmp_path):
    rows = [{"n": i} for i in range(5)]
    whole = InMemorySource(data={"train": rows, "test": rows, "extra": rows})
    part = PartOf(source=whole, selected=("train", "test"), limits={"train": 3})
    assert part.splits == ("train", "test") and [part.num_rows(s) for s in part.splits] == [3, 5]
    assert list(part.rows("train")) == rows[:3] and list(part.rows("test")) == rows
    assert part.revision("train") != part.revision("test")
    assert part.describe("train") == whole.describe("train")
    with pytest.raises(KeyError, match="the split must be one of train, test; got 'extra'"):
        list(part.rows("extra"))
    with pytest.raises(KeyError, match="the split must be one of train, test; got 'extra'"):
        part.revision("extra")
    absent = PartOf(source=JsonlSource(files={"train": tmp_path / "no.jsonl"}), selected=("train",))
    assert "no.jsonl" in absent.unavailable("train") and absent.looked_for("train")
    (tmp_path / "no.jsonl").write_text('{"n": 1}\nnot JSON\n')
    skipping = PartOf(
        source=JsonlSource(files={"train": tmp_path / "no.jsonl"}), selected=("train",), on_bad_row="skip"
    )
    dropped = Counter()
    assert list(skipping.rows("train", dropped=dropped)) == [{"n": 1}] and dropped == {"not JSON": 1}
    assert skipping.files("train") == (str(tmp_path / "no.jsonl"),)


def test_the_limit_is_the_papers():
    assert MAX_TRAIN_ROWS == 30_000
