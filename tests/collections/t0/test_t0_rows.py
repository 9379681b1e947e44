"""T0's rows: that those of TFDS have the shape that promptsource's templates ask about, and where the others come from."""

import pytest

from flan_jax.collections.t0 import tfds_rows as t0_rows
from flan_jax.collections.t0.table import DATASETS
from flan_jax.collections.t0.tfds_rows import TFDS, AbsentSource, declared_rows, usual_rows
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.promptsource_files import open_archive
from flan_jax.templates.render import NotApplicable
from tests.tasks.mocked_rows import declared_features, mocked_rows

# What the declared shape does not say.
GIVEN = {
    "race/high": {"answers": (list("ABCD"),)},
    "race/middle": {"answers": (list("ABCD"),)},
    "qasc": {"choices": ({"label": list("ABCDEFGH"), "text": [f"choice {i}" for i in range(8)]},), "answerKey": ("C",)},
    "cos_e/v1.11": {"choices": (["ice", "air"],), "answer": ("air",)},
    "super_glue/record": {"entities": (["Ann", "Eve"],), "answers": (["Eve"],)},
    "super_glue/copa": {"question": ("cause", "effect")},
    "winogrande/winogrande_xl": {"sentence": ("Ann thanked Eve because _ had helped.",)},
}


def rows_of(name, data_dir):
    """Made-up rows of a builder, as a task's templates get them."""
    rows = TFDS[name]
    features, _ = declared_features(rows.name, data_dir=data_dir)
    for row in mocked_rows(features, count=4, given=GIVEN.get(name)):
        for new, old in rows.fields.items():
            row[new] = row.pop(old)
        made = row if rows.normalizer is None else rows.normalizer(row)
        yield from [made] if isinstance(made, dict) else made


@pytest.mark.shared_data
@pytest.mark.tensorflow
def test_every_template_finds_its_fields_in_the_rows_of_tfds(subtests, shared_data, tmp_path):
    for name in TFDS:
        with subtests.test(name):
            archive = open_archive(shared_data / "promptsource" / "templates.zip")
            rows = list(rows_of(name, tmp_path))
            for template in archive.templates("anli" if name.startswith("anli/") else name):
                assert set(template.variables) <= rows[0].keys(), template
                rendered = []
                for row in rows:
                    try:
                        rendered.append(template.render(row))
                    except NotApplicable:
                        continue
                assert rendered, f"{template} leaves all rows out"
                if template.gives_options and template.metadata.original_task:
                    assert all(r.targets in r.options for r in rendered), f"{template}: {rendered[0]}"


def test_rows_that_tfds_does_not_have_are_absent_with_a_word_on_what_to_do():
    absent = [name for name in DATASETS if isinstance(usual_rows(name)[0], AbsentSource) and name != "anli"]
    assert set(absent) | set(TFDS) | {"anli"} == {*DATASETS, "anli/r1", "anli/r2", "anli/r3"}
    source, normalizer = usual_rows("trec")
    assert (source.splits, normalizer) == (("train", "test"), None)
    assert "no rows of trec" in source.unavailable("test")
    assert "collections: {t0: {rows: {trec: {kind: ..., splits: ...}}}}" in source.unavailable("test")
    assert usual_rows("wino_bias/type1_pro")[0].splits == ("validation", "test")
    assert usual_rows("quoref")[0].splits == ("train", "validation")


def test_rows_of_tfds_are_under_our_names_for_splits_and_fields():
    source, normalizer = usual_rows("anli", round_="r3", on_bad_row="skip")
    assert (source.source.name, source.fields, source.on_bad_row) == ("anli/r3", {"premise": "context"}, "skip")
    source, normalizer = usual_rows("race/high")
    assert (source.expressions["validation"], normalizer) == ("dev", t0_rows.race)


def test_declared_rows_of_anli_are_parted_by_round():
    rows = InMemorySource(data={f"{split}_r{i}": [{"i": i}] for split in ("train", "dev") for i in (1, 2)})
    second = declared_rows("anli", rows, round_="r2")
    assert second.splits == ("train", "validation")
    assert list(second.rows("validation")) == [{"i": 2}]
    third = declared_rows("anli", rows, round_="r3")
    assert third.unavailable("train") == (
        "The rows declared for anli have no split train_r3 or dev_r3 or test_r3, only train_r1, train_r2, dev_r1, dev_r2."
    )
    assert declared_rows("rte", rows) is rows


def test_an_absent_source_reports_what_is_missing_and_yields_no_row():
    source = AbsentSource(why="Declare rows for 'x'.", split_names=("train",))
    assert source.unavailable("train") == source.describe("train") == "Declare rows for 'x'."
    for ask in (source.read, source.revision, source.files):
        with pytest.raises(FileNotFoundError, match="Declare rows for 'x'"):
            ask("train")
    with pytest.raises(KeyError, match="the split must be one of train; got 'test'"):
        source.files("test")
