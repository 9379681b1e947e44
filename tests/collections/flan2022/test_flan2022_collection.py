"""Flan 2022's mixtures: names, members, weights and the shares that follow from them; what cannot be had, by name."""

import pytest

from flan_jax.collections.flan2021.table import DATASETS
from flan_jax.collections.flan2022 import collection as flan2022
from flan_jax.collections.flan2022 import cot, dialog
from flan_jax.collections.flan2022 import t0_prompts as flan2022_t0
from flan_jax.collections.t0 import collection as t0
from flan_jax.data.rates import shares
from flan_jax.tasks import members
from tests.collections.flan2022.flan2022_synthetic import (
    name_all_folders,
    name_no_folder,
    write_promptsource,
    write_superni,
)

pytestmark = pytest.mark.tensorflow

# Training rows as the release counts them; FLAN 2021's are in its own records.
SMALL_SETS = {"lambada": 4_860, "unified_qa_science_inst": 590}
T0_ROWS = {
    "adversarial_qa/dbert": {10_000: 5}, "adversarial_qa/dbidaf": {10_000: 5}, "adversarial_qa/droberta": {10_000: 5},
    "amazon_polarity": {3_600_000: 9}, "app_reviews": {288_060: 4}, "cos_e/v1.11": {9_740: 11},
    "dbpedia_14": {560_000: 4}, "dream": {6_110: 5}, "duorc/ParaphraseRC": {69_520: 6, 58_750: 3},
    "duorc/SelfRC": {60_720: 6, 60_090: 3}, "kilt_tasks/hotpotqa": {88_860: 5}, "qasc": {8_130: 8},
    "quail": {10_240: 13}, "quarel": {1_940: 5}, "quartz": {2_690: 8}, "quoref": {19_390: 11},
    "race/high": {62_440: 8}, "race/middle": {25_420: 8}, "ropes": {10_920: 12}, "sciq": {11_670: 5},
    "social_i_qa": {33_410: 6}, "web_questions": {3_770: 5}, "wiki_bio": {582_630: 5},
    "wiki_hop/original": {43_730: 9}, "wiki_qa": {20_360: 5, 1_040: 6}, "wiqa": {29_800: 8},
}  # fmt: skip
COT_ROWS = {
    "gsm8k": 7_470, "strategyqa": 2_060, "creak": 6_910, "qasc": 1_080, "esnli": 36_170, "ecqa": 7_110,
    "sensemaking": 6_070, "aqua": 2_715, "qed": 5_145,
}  # fmt: skip
DIALOG_ROWS = {"wiki_dialog": 11_264_000, "qrecc": 10_170}


@pytest.fixture
def nowhere(registries, monkeypatch):
    """No folder is named; returns the registry."""
    name_no_folder(monkeypatch)
    return registries


@pytest.fixture
def everywhere(nowhere, monkeypatch, tmp_path):
    """All folders are named; returns the registry, with Flan 2022 declared."""
    name_all_folders(monkeypatch, tmp_path)
    flan2022.register()
    return nowhere


def published_counts(registries, name):
    """The release's training rows of every task of a mixture, whichever variant it is."""
    by_dataset = {name: d.size for name, d in DATASETS.items() if d.size} | SMALL_SETS
    for dataset, rows in T0_ROWS.items():
        prompts = [p.task for p in t0.Contents(t0.COLLECTION.settings()).prompts(dataset)]
        listed = [count for count, times in rows.items() for _ in range(times)]
        by_dataset |= dict(zip(prompts, listed, strict=True))
    for one in cot.SETS:
        by_dataset |= {one.task(inverted=inverted): COT_ROWS[one.name] for inverted in (False, True)}
    for one in dialog.SETS:
        by_dataset |= {one.task(inverted=inverted): DIALOG_ROWS[one.name] for inverted in (False, True)}
    tasks = [task.name for task in registries.mixture_or_task(name).tasks]
    return {task: by_dataset.get(task.rpartition("_template_")[0], 6_500) for task in tasks}


def measured(registries, name):
    """Each task's share of a mixture, in per cent, by the arithmetic that exports use."""
    rates = members.rates(registries.mixture_or_task(name), counts=published_counts(registries, name))
    return {task: 100 * share for task, share in shares({name: rate.rate for name, rate in rates.items()}).items()}


def test_the_submixtures_have_the_published_weights():
    nested = flan2022.nested_mixtures()
    assert nested["flan2022"] == {
        "flan2021_submix": 0.40, "t0_submix": 0.32, "niv2_submix": 0.20, "cot_submix": 0.05, "dialog_submix": 0.03,
    }  # fmt: skip
    assert nested["flan2022_proportion_a"] == {
        "flan2021_submix": 52, "t0_submix": 15, "cot_submix": 3, "niv2_submix": 30,
    }  # fmt: skip
    assert nested["flan2022_proportion_b"] == {
        "flan2021_submix": 46.0, "t0_submix": 27.9, "cot_submix": 1.8, "niv2_submix": 24.2,
    }  # fmt: skip


def test_kinds_of_prompts_are_equal_and_inverted_ones_have_three_tenths():
    nested = flan2022.nested_mixtures()
    for key, name in (("flan", "flan2021_submix"), ("t0", "t0_submix")):
        assert nested[name] == dict.fromkeys((f"{key}_zsopt", f"{key}_fsopt", f"{key}_zsnoopt", f"{key}_fsnoopt"), 1.0)
    for key in ("niv2", "cot", "dialog"):
        assert nested[f"{key}_submix"] == {f"{key}_zsopt": 1.0, f"{key}_fsopt": 1.0}
    assert nested["flan_fsnoopt"] == {"palmflan_flan_fs_noopt": 1.0}
    assert nested["cot_zsopt"] == {"palmflan_cot_zs_opt": 1.0, "palmflan_cot_ii_zs_opt": 0.3}
    assert nested["dialog_fsopt"] == {"palmflan_dialog_fs_opt": 1.0, "palmflan_dialog_ii_fs_opt": 0.3}


@pytest.mark.parametrize(
    ("mixture", "cap"),
    [
        ("palmflan_flan_zs_opt", 30_000),
        ("palmflan_t0_fs_noopt", 20_000),
        ("palmflan_niv2_zs_opt", 5_000),
        ("palmflan_cot_ii_fs_opt", 100_000),
        ("palmflan_dialog_fs_opt", 200_000),
    ],
)
def test_a_task_counts_with_its_rows_up_to_its_submixtures_cap(everywhere, mixture, cap):
    rates = everywhere.mixture_or_task(mixture).rate_per_task_name.values()
    assert {rate.of(10**9) for rate in rates} == {cap} and {rate.of(7) for rate in rates} == {7}


def test_shares_follow_as_published(everywhere):
    assert sum(min(30_000, n) for n in published_counts(everywhere, "palmflan_flan_zs_opt").values()) == 1_495_430
    assert sum(min(20_000, n) for n in published_counts(everywhere, "palmflan_t0_zs_opt").values()) == 2_724_840
    assert sum(published_counts(everywhere, "palmflan_cot_zs_opt").values()) == 74_730
    inside = measured(everywhere, "flan_zsopt")
    assert inside["gigaword_template_0to10_zero_shot"] == pytest.approx(2.0061, abs=5e-5)
    assert measured(everywhere, "t0_zsopt")["quoref_ask_1_template_0to10_zero_shot"] == pytest.approx(
        100 * 19_390 / 2_724_840
    )
    capped = "amazon_polarity_ask_1_template_0to10_zero_shot"
    assert measured(everywhere, "t0_zsopt")[capped] == pytest.approx(0.7340, abs=5e-5)
    dialogs = measured(everywhere, "palmflan_dialog_zs_opt")
    assert sorted(dialogs.values()) == pytest.approx([4.84, 95.16], abs=5e-3)
    forward = {task for task in measured(everywhere, "cot_zsopt") if "_input_inversion_" not in task}
    assert sum(measured(everywhere, "cot_zsopt")[task] for task in forward) == pytest.approx(76.92, abs=5e-3)


def test_the_total_shares_are_as_published(everywhere):
    whole = measured(everywhere, "flan2022")
    assert whole["gigaword_template_0to10_zero_shot"] == pytest.approx(0.2006, abs=5e-5)
    assert whole["cot_gsm8k_template_0to10_zero_shot"] == pytest.approx(0.1922, abs=5e-5)
    assert sum(whole.values()) == pytest.approx(100)
    niv2 = [share for task, share in whole.items() if task.startswith("niv2_")]
    assert sum(niv2) == pytest.approx(20.0) and len(niv2) == 2 * 3  # Two tasks in three variants.


def test_submixtures_have_the_published_numbers_of_datasets(everywhere):
    def datasets(mixture):
        return {task.name.rpartition("_template_")[0] for task in everywhere.mixture_or_task(mixture).tasks}

    flan = datasets("palmflan_flan_zs_noopt")
    assert len(flan) == 71 and "wsc273" not in flan and {"lambada", "unified_qa_science_inst"} <= flan
    assert len(datasets("palmflan_t0_zs_opt")) == 193
    assert datasets("palmflan_niv2_fs_opt") == {"niv2_task001_sorting", "niv2_task002_naming_things"}
    assert len(datasets("palmflan_cot_zs_opt")) == len(datasets("palmflan_cot_ii_zs_opt")) == 9
    assert datasets("dialog_fsopt") == {
        "wiki_dialog", "qrecc", "wiki_dialog_input_inversion", "qrecc_input_inversion",
    }  # fmt: skip


def test_a_dataset_has_one_task_in_each_kind_of_prompts_and_two_with_examples_and_options(everywhere):
    def tasks(mixture, dataset):
        names = [task.name for task in everywhere.mixture_or_task(mixture).tasks]
        return {name.removeprefix(dataset) for name in names if name.startswith(f"{dataset}_template_")}

    assert tasks("palmflan_flan_zs_opt", "rte") == {"_template_0to10_non_deter_opt_zero_shot"}
    assert tasks("palmflan_flan_zs_opt", "xsum") == {"_template_0to10_zero_shot"}
    assert tasks("palmflan_dialog_ii_zs_opt", "qrecc_input_inversion") == {"_template_0to10_non_deter_opt_zero_shot"}
    assert tasks("palmflan_flan_fs_opt", "rte") == {"_template_mix_five_shot", "_template_0to10_x_shot"}
    assert tasks("palmflan_flan_zs_noopt", "rte") == {"_template_0to10_no_opt_zero_shot"}
    assert tasks("palmflan_flan_fs_noopt", "rte") == {"_template_0to10_no_opt_x_shot"}
    assert tasks("palmflan_cot_zs_opt", "cot_gsm8k") == {"_template_0to10_zero_shot"}
    assert tasks("palmflan_cot_ii_fs_opt", "stream_input_inversion_aqua") == {
        "_template_mix_five_shot", "_template_0to10_x_shot",
    }  # fmt: skip


def test_every_name_that_is_listed_can_be_had_and_no_other(everywhere):
    names = everywhere.names()
    assert everywhere.defined_names() == set()
    for name in ("rte_template_0_five_shot", "rte_template_1_no_opt_two_shot", "rte_template_2_one_shot"):
        assert name in names and everywhere.task(name).name == name
    assert len(names) == len(set(names))
    for submixture in ("cot_submix", "dialog_submix", "flan2022_proportion_b"):
        assert submixture in names and everywhere.mixture_or_task(submixture).name == submixture
    for unknown in ("cot_gsm8k_template_0to10_no_opt_zero_shot", "rte_template_9_one_shot", "nothing_template_mix"):
        with pytest.raises(KeyError, match=f"Unknown task or mixture '{unknown}'"):
            everywhere.mixture_or_task(unknown)
    assert {everywhere.task(name).name for name in flan2022.Contents(flan2022.Settings()).covering()} <= set(names)


def test_a_submixture_of_which_nothing_can_be_had_is_named_with_what_to_do(nowhere):
    flan2022.register()
    with pytest.raises(
        ValueError, match="'flan2022' has no member of t0, niv2, cot on this machine. t0: Name promptsou"
    ):
        nowhere.mixture_or_task("flan2022")
    with pytest.raises(ValueError, match="'palmflan_cot_ii_zs_opt' has no member of cot .* FLAN_JAX_COT_DIR"):
        nowhere.mixture_or_task("palmflan_cot_ii_zs_opt")
    with pytest.raises(ValueError, match="niv2: Name the folder of Super-NaturalInstructions: FLAN_JAX_SUPERNI_DIR"):
        nowhere.mixture_or_task("niv2_submix")
    assert len(nowhere.mixture_or_task("flan_zsopt").tasks) == 71
    assert "flan2022" in nowhere.names() and nowhere.defined_names() >= {"flan_zsopt"}


def test_what_a_list_has_and_a_folder_lacks_is_noted_with_the_mixture(nowhere, monkeypatch, tmp_path):
    few = {name: flan2022_t0.DATASETS[name] for name in ("quarel", "wiqa")}
    monkeypatch.setenv(t0.ARCHIVE_VARIABLE, str(write_promptsource(tmp_path / "prompts", datasets=few)))
    monkeypatch.setenv("FLAN_JAX_SUPERNI_DIR", str(write_superni(tmp_path / "superni")))
    flan2022.register()
    assert len(nowhere.mixture_or_task("t0_zsopt").tasks) == 13
    (note,) = nowhere.notes_of("t0_zsopt")
    assert "has no prompts for 24 of 26 datasets: wiki_hop/original, wiki_qa" in note
    nowhere.mixture_or_task("niv2_submix")
    (note,) = nowhere.notes_of("niv2_submix")
    assert "1 of 5 tasks of the list 'train' are not in" in note and "task010_gone" in note


def test_a_yaml_file_names_the_folder_and_the_seed(nowhere, tmp_path):
    write_superni(tmp_path / "superni")
    path = tmp_path / "mine.yaml"
    path.write_text("collections:\n  flan2022: {superni_dir: superni, seed: 3}\n")
    nowhere.register_yaml(path)
    assert nowhere.templated("niv2_task001_sorting_template_0to10_x_shot").seed == 3
    assert nowhere.templated("rte_template_0to10_x_shot").seed == 3
    for text, message in (
        ("{superni: x}", "unknown key 'superni'. Did you mean 'superni_dir'"),
        ("{seed: two}", "collections.flan2022.seed: expected a whole number, got 'two'"),
    ):
        path.write_text(f"collections:\n  flan2022: {text}\n")
        with pytest.raises(ValueError, match=message):
            nowhere.register_yaml(path)
    path.write_text("collections:\n  flan2022: {superni_dir: elsewhere}\n")
    with pytest.raises(FileNotFoundError, match="collections.flan2022.superni_dir: no folder .*elsewhere"):
        nowhere.register_yaml(path)


@pytest.mark.shared_data
def test_all_193_prompts_are_in_promptsource_and_of_the_published_kinds(nowhere, shared_data, monkeypatch):
    from collections import Counter

    monkeypatch.setenv(t0.ARCHIVE_VARIABLE, str(shared_data / "promptsource" / "templates.zip"))
    collection = t0.Contents(t0.COLLECTION.settings())
    prompts = [prompt for dataset in flan2022_t0.DATASETS for prompt in collection.prompts(dataset)]
    assert len(prompts) == len({prompt.task for prompt in prompts}) == 193
    assert Counter(map(flan2022_t0.kind_of, prompts)) == {"free": 104, "shown": 70, "separate": 19}
    assert set(flan2022_t0.EXCEPTIONS) <= {prompt.task for prompt in prompts}
    flan2022.register()
    assert len(nowhere.mixture_or_task("t0_submix").tasks) == 193 * 5 and nowhere.notes_of("t0_submix") == ()


@pytest.mark.shared_data
def test_super_ni_is_a_task_a_file_without_mmlus_questions(nowhere, shared_data, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_SUPERNI_DIR", str(shared_data / "superni_default"))
    flan2022.register()
    tasks = [task.name for task in nowhere.mixture_or_task("niv2_zsopt").tasks]
    assert len(tasks) == 630  # Of 756 listed 687 can be read, 57 of them by MMLU's numbers.
    assert not any(f"_task{number}_" in name for name in tasks for number in (664, 667, 685, 737))


@pytest.mark.shared_data
def test_prompts_with_examples_export_from_real_rows_within_their_budget(nowhere, shared_data, monkeypatch, tmp_path):
    from flan_jax.data.manifest import Request
    from flan_jax.tasks.exporting.export import export_mixture

    monkeypatch.setenv("FLAN_JAX_SUPERNI_DIR", str(shared_data / "superni_default"))
    monkeypatch.setenv("FLAN_JAX_COT_DIR", str(shared_data / "flan_cot"))
    nowhere.use_vocabulary(shared_data / "vocab_t5" / "cc_all.32000.sentencepiece.model")
    flan2022.register()
    variants = ("0to10_x_shot", "mix_five_shot", "0to10_zero_shot")
    datasets = {
        "cot_qasc": 1084,
        "cot_input_inversion_qasc": 1084,
        "niv2_task100_concatenate_all_elements_from_index_i_to_j": 100,
    }
    members = [f"{dataset}_template_{variant}" for dataset in datasets for variant in variants]
    nowhere.register_mixture("some", members)
    lengths = {"inputs": 2048, "targets": 512}
    manifest = export_mixture(Request(name="some", split="train", lengths=lengths), export_dir=tmp_path)
    examples = {member.task: member.examples for member in manifest.members}
    for dataset, rows in datasets.items():
        # Of ten templates the query's is drawn by none of 25 for one row in fourteen.
        assert 0.88 * rows < examples[f"{dataset}_template_0to10_x_shot"] < (rows + 1)
        assert examples[f"{dataset}_template_mix_five_shot"] == rows == examples[f"{dataset}_template_0to10_zero_shot"]


def test_groups_of_t0s_datasets_are_the_published_ones():
    totals = {name: sum(datasets.values()) for name, datasets in flan2022_t0.GROUPS.items()}
    assert totals == {
        "wiki": 25, "duorc": 18, "race": 16, "adversarial_qa": 15, "quail": 13, "ropes": 12, "quoref": 11, "cos_e": 11,
        "amazon_polarity": 9, "qasc": 8, "quartz": 8, "wiqa": 8, "social_i_qa": 6, "dream": 5, "kilt_hotpotqa": 5,
        "quarel": 5, "sciq": 5, "web_questions": 5, "app_reviews": 4, "dbpedia_14": 4,
    }  # fmt: skip
    assert len(totals) == 20 and sum(totals.values()) == 193
