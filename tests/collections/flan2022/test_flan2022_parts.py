"""What rows become in Flan 2022's parts: the small sets, prompts of T0, instances of Super-NI, FLAN 2021's windows."""

import dataclasses
from collections import Counter

import pytest

from flan_jax.collections.flan2021.table import DATASETS
from flan_jax.collections.flan2022 import niv2 as flan2022_niv2
from flan_jax.collections.flan2022 import small_sets as flan2022_small
from flan_jax.collections.flan2022 import t0_prompts as flan2022_t0
from flan_jax.collections.flan2022.submixtures import uncapped
from flan_jax.collections.flan2022.variants import MIX, X_SHOT, ZERO_SHOT
from flan_jax.collections.t0.prompted import T0Settings
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.promptsource_files import open_archive
from tests.collections.flan2022.flan2022_synthetic import SHOWN, write_promptsource, write_superni

LAMBADA, SCIENCE = flan2022_small.records()


def rows_as(task, rows):
    return dataclasses.replace(task, source=InMemorySource(data={"train": rows}))


def texts(task, dropped=None):
    return [r.rendered for r in iter_rendered(task, "train", dropped=dropped)]


def test_lambada_predicts_the_last_word_under_ten_templates():
    dropped = Counter()
    found = texts(rows_as(LAMBADA, [{"passage": "She opened the old door "}] * 10 + [{"passage": "word"}]), dropped)
    assert {text.targets for text in found} == {"door"} and len({text.inputs for text in found}) == 10
    assert all("She opened the old" in text.inputs and "door" not in text.inputs for text in found)
    assert dropped == {"dropped by the normalizer": 1}


def test_science_questions_with_four_choices_are_retained():
    four = "Which is wet? \\n (A) sun (B) rain (C) sand (D) wind"
    rows = [
        {"input": four, "output": "rain"},
        {"input": four + " (E) fog", "output": "rain"},
        {"input": "Which is wet? \\n (A) sun (B) rain (C) sand", "output": "rain"},
    ]
    dropped = Counter()
    (shown,) = texts(rows_as(SCIENCE, rows), dropped)
    assert shown.inputs == "Which is wet?\nOPTIONS:\n- sun\n- rain\n- sand\n- wind" and shown.targets == "rain"
    assert dropped == {"dropped by the normalizer": 2}
    assert all(template.shows_options for template in SCIENCE.templates) and len(SCIENCE.templates) == 10


@pytest.mark.tensorflow
@pytest.mark.parametrize("task", [LAMBADA, SCIENCE], ids=lambda task: task.name)
def test_the_fields_of_the_small_sets_are_those_that_tfds_declares(task, tmp_path):
    from tests.tasks.mocked_rows import declared_features, mocked_rows

    features, _ = declared_features(task.source.name, data_dir=tmp_path)
    given = {"input": ["Q? \\n (A) a (B) b (C) c (D) d"]} if "input" in features else {"passage": ["one two three"]}
    assert len(texts(rows_as(task, mocked_rows(features, count=10, given=given)))) == 10


def t0_records(tmp_path, datasets=("quarel", "qasc", "wiqa", "race/high")):
    given = {dataset: flan2022_t0.DATASETS[dataset] for dataset in datasets}
    settings = T0Settings(archive=open_archive(write_promptsource(tmp_path / "prompts", datasets=given)))
    return {record.name: record for record in flan2022_t0.records(settings)}


def test_a_prompt_of_t0_is_the_question_of_ten_templates(tmp_path):
    task = t0_records(tmp_path)["wiqa_ask_2"]
    rows = [{"text": f"Text {i}.", "label": f"label {i}"} for i in range(10)]
    found = texts(rows_as(task, rows))
    assert [text.targets for text in found] == [f"label {i}" for i in range(10)]
    assert all(f"Text {i}. ask 2?" in text.inputs for i, text in enumerate(found))
    assert len({text.inputs.replace(f"Text {i}", "") for i, text in enumerate(found)}) == 10
    assert task.options is None and not any(template.shows_options for template in task.templates)
    assert task.ends_inputs


def test_choices_are_listed_where_the_prompt_has_some_and_does_not_show_them(tmp_path):
    records = t0_records(tmp_path)
    lists = {name for name, record in records.items() if record.options is not None}
    assert lists == {f"qasc_ask_{i}" for i in range(4, 8)} | {"race_high_ask_5"}
    assert SHOWN["qasc"] == 4
    found = texts(rows_as(records["qasc_ask_5"], [{"text": "T.", "label": "bad"}] * 10))
    assert all("OPTIONS:\n- good\n- bad" in text.inputs and text.targets == "bad" for text in found)
    assert {record.corpora for record in records.values()} == {("quarel",), ("qasc",), ("wiqa",), ("race",)}


def test_a_row_that_a_prompt_leaves_out_is_counted_under_the_prompts_reason(tmp_path):
    task = t0_records(tmp_path)["wiqa_ask_2"]
    dropped = Counter()
    rows = [{"text": "T.", "label": "yes"}, {"text": "T.", "label": ""}]
    assert len(texts(rows_as(task, rows), dropped)) == 1
    assert dropped == {"template 'ask 2' of wiqa gives an empty target": 1}


def test_a_datasets_own_normalizer_goes_before_the_prompt(tmp_path):
    task = t0_records(tmp_path)["wiqa_ask_2"]
    one = task.normalizer.prompt

    def both(row):
        yield {"text": row["first"], "label": "1"}
        yield {"text": row["second"], "label": "2"}

    for before, expected in ((both, 2), (lambda row: {"text": row["first"], "label": "1"}, 1), (lambda row: None, 0)):
        ask = flan2022_t0.AskPrompt(prompt=one, before=before)
        assert [row["answer"] for row in ask({"first": "a", "second": "b"})] == ["1", "2"][:expected]


@pytest.fixture
def superni(tmp_path):
    folder = write_superni(tmp_path / "superni")
    return flan2022_niv2.members(folder)["niv2_task001_sorting"]


def test_super_ni_has_prompts_without_examples_with_one_explained_and_with_two(superni):
    found = {v: texts(flan2022_niv2.record("niv2_x", superni, v)) for v in flan2022_niv2.VARIANTS}
    for variant, shown in found.items():
        assert len(shown) == 12
        assert len({text.inputs.replace(f"c{i}", "") for i, text in enumerate(shown)}) >= 10, variant
        for i, text in enumerate(shown):
            assert "Sort the letters of task001_sorting" in text.inputs and f"c{i}" in text.inputs
            assert text.targets in text.references == (f"{i}c", "x")
    solved = {
        variant: [
            sum(f"{a}" in text.inputs and b in text.inputs for a, b in (("ba", "ab"), ("dc", "cd"))) for text in shown
        ]
        for variant, shown in found.items()
    }
    assert set(solved[ZERO_SHOT]) == {0} and set(solved[MIX]) == {1} and set(solved[X_SHOT]) == {2}
    assert all("comes first" in text.inputs for text in found[MIX])
    assert not any("comes first" in text.inputs for text in found[X_SHOT])


def test_targets_and_examples_of_super_ni_are_drawn_by_the_instances_name(superni):
    def shown(variant, **given):
        return [(t.inputs, t.targets) for t in texts(flan2022_niv2.record("niv2_x", superni, variant, **given))]

    for variant in (MIX, X_SHOT):
        assert shown(variant) == shown(variant) != shown(variant, seed=1)
    assert {target[-1] for _, target in shown(ZERO_SHOT)} == {"c", "x"}


def test_an_instance_whose_file_has_no_example_to_show_is_dropped():
    row = {"id": "i", "Definition": "Do it.", "input": "a", "output": ["b"], "Positive Examples": []}
    bare = [{"input": "p", "output": "q", "explanation": None}]
    for examples, positive, is_kept in (
        ("none", [], True),
        ("explained", bare, False),
        ("several", [], False),
        ("several", bare, True),
    ):
        from flan_jax.templates.fewshot_formats import rotated

        ask = flan2022_niv2.Instance(task="t", examples=examples, formats=rotated("t"))
        assert (ask({**row, "Positive Examples": positive}) is not None) == is_kept, examples


def test_only_the_train_list_is_trained_on_and_mmlus_questions_are_not(tmp_path):
    found = flan2022_niv2.members(write_superni(tmp_path / "superni"))
    assert list(found) == ["niv2_task001_sorting", "niv2_task002_naming_things"]
    mmlu = [n for n in range(1, 1800) if flan2022_niv2.is_mmlu(f"task{n:03d}_any")]
    assert mmlu == [664, 665, 666, 667, *range(685, 738)]


def test_training_windows_of_flan_2021_lose_their_limit_but_exclude_other_splits():
    after = {name: uncapped(d.splits)["train"] for name, d in DATASETS.items() if "train" in d.splits}
    before = {name: d.splits["train"] for name, d in DATASETS.items() if "train" in d.splits}
    retained = {name for name in after if after[name] == before[name]}
    assert {name for name in retained if before[name].endswith(":30000]") or "[30200:" in before[name]} == {
        "true_case", "fix_punct", "para_crawl_enes",
    }  # fmt: skip
    assert after["sst2"] == "train[:-200]" and after["snli"] == "train" and after["winogrande"] == "train_xl[:-200]"
    assert after["word_segment"] == before["word_segment"] and after["rte"] == "train[:-200]" == before["rte"]


def test_the_small_sets_are_records_like_others():
    assert all(isinstance(task, TemplatedTask) and len(task.templates) == 10 for task in (LAMBADA, SCIENCE))
    assert SCIENCE.corpora == ("ai2_science", "arc") and LAMBADA.corpora == ("lambada",)
