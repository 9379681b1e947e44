import pytest

from flan_jax.collections.flan2021.splits import CLUSTERS
from flan_jax.collections.suites import SUITES, describe, members_of, suite, t0_dataset
from flan_jax.collections.t0.table import DATASETS
from flan_jax.evaluation.aggregation import AGGREGATIONS


def test_every_suite_names_a_published_aggregation_and_says_what_it_needs():
    assert all(one.aggregation in AGGREGATIONS for one in SUITES.values())
    assert [name for name, one in SUITES.items() if not one.needs] == ["embedded/held_out"]
    assert {f"flan2021/{cluster}" for cluster in CLUSTERS} < SUITES.keys()


@pytest.mark.tensorflow
def test_the_mixtures_of_suites_are_defined_where_their_data_are(registries, tmp_path, monkeypatch, shared_data):
    from flan_jax.collections import catalog

    monkeypatch.setenv("FLAN_JAX_SUPERNI_DIR", str(shared_data / "superni_default"))
    monkeypatch.setenv("FLAN_JAX_PROMPTSOURCE_DIR", str(shared_data / "promptsource" / "templates.zip"))
    catalog.install()
    registries.register_all()
    for name in (
        "embedded/held_out",
        "superni/default",
        "t0/held_out",
        "flan2021/entailment",
        "flan2021/math/five_shot",
    ):
        one = SUITES[name]
        tasks = registries.mixture_or_task(one.mixture).tasks
        groups = [one.group_of(task.name, registries.resolve(task.name).metadata.cluster) for task in tasks]
        assert tasks and all(one.split in task.splits for task in tasks[:3]), name
        if name == "t0/held_out":  # 11 datasets, of which ANLI has three rounds.
            assert len({group.partition("/")[0] for group in groups}) == 9 and "anli/r2" in groups
        if name == "superni/default":
            assert len(groups) == 103 and len({group.partition("/")[0] for group in groups}) == 12
        if name == "flan2021/entailment":
            assert set(groups) == {f"entailment/{dataset}" for dataset in CLUSTERS["entailment"]}


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.eval_group])
def test_a_task_of_t0_belongs_to_its_dataset(name):
    prefix = name.replace("/", "_")
    suffix = "_r3" if name == "anli" else ""
    assert t0_dataset(f"{prefix}_GPT_3_style{suffix}_score_eval", "x") == prefix + suffix.replace("_", "/")


def test_a_plan_may_name_suites_which_bring_their_split():
    listed = members_of({"mine": ("a",), "held_out": ("superni/default", "b")}, split="validation")
    assert [(one.label, one.name, one.split) for one in listed] == [
        ("mine", "a", "validation"),
        ("held_out", "superni_test", "test"),
        ("held_out", "b", "validation"),
    ]
    assert [one.suite for one in listed] == [None, SUITES["superni/default"], None]
    with pytest.raises(KeyError, match="no suite 'superni/defualt'. Did you mean 'superni/default'"):
        suite("superni/defualt")


@pytest.mark.tensorflow
def test_a_description_says_which_rows_are_missing_and_what_a_suite_needs(registries, tmp_path, monkeypatch):
    from flan_jax.collections import catalog

    (tmp_path / "bbh").mkdir()
    (tmp_path / "bbh" / "navigate.json").write_text('{"examples": [{"input": "a", "target": "b"}]}')
    monkeypatch.setenv("FLAN_JAX_BBH_DIR", str(tmp_path))
    catalog.install()
    registries.register_all()
    (embedded,), notes = describe("embedded/held_out")
    assert (embedded["tasks"], embedded["available"], embedded["missing"], notes) == (4, 4, {}, [])
    (bbh, three_shot, *_), notes = describe("bbh*")
    assert (bbh["tasks"], bbh["available"]) == (27, 1) and "bbh_snarks" in bbh["missing"]
    # Its prompts are missing.
    assert three_shot["available"] == 0 and len(notes) == 1 and "FLAN_JAX_BBH_DIR" in notes[0]
    (mmlu, *_), notes = describe("mmlu/direct")
    assert mmlu["tasks"] == 0 and "The collection 'mmlu' has no data on this machine" in notes[0]
    assert describe("nothing") == ([], [])
