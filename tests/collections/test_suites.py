import pytest

from flan_jax.collections.flan2021.splits import CLUSTERS
from flan_jax.collections.suites import SUITES, members_of, suite, t0_dataset
from flan_jax.collections.t0.table import DATASETS
from flan_jax.evaluation.aggregation import AGGREGATIONS


def test_every_suite_names_a_published_aggregation_and_says_what_it_needs():
    assert all(one.aggregation in AGGREGATIONS for one in SUITES.values())
    assert [name for name, one in SUITES.items() if not one.needs] == ["embedded"]
    assert {f"flan2021/{cluster}" for cluster in CLUSTERS} < SUITES.keys()


@pytest.mark.tensorflow
def test_the_mixtures_of_suites_are_defined_where_their_data_are(registries, tmp_path, monkeypatch, shared_data):
    from flan_jax.collections import catalog

    monkeypatch.setenv("FLAN_JAX_SUPERNI_DIR", str(shared_data / "superni_default"))
    monkeypatch.setenv("FLAN_JAX_PROMPTSOURCE_DIR", str(shared_data / "promptsource" / "templates.zip"))
    catalog.install()
    registries.register_all()
    for name in ("embedded", "superni/default", "t0/held_out", "flan2021/entailment", "flan2021/math/five_shot"):
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
