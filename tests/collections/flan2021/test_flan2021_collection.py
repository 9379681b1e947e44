"""The collection FLAN 2021: which names there are, what each is, and its mixtures."""

import gzip
import json

import pytest

from flan_jax.collections.flan2021 import collection as flan2021
from flan_jax.collections.flan2021 import variants as flan2021_variants
from flan_jax.collections.flan2021.collection import Contents, templates
from flan_jax.collections.flan2021.mixtures import SHARED_CORPORA, mixture_names
from flan_jax.collections.flan2021.splits import CLUSTER_OF, CLUSTERS
from flan_jax.collections.flan2021.table import DATASETS
from flan_jax.collections.flan2021.variants import FLAN, PLAIN, RANK_METRICS, Settings, without_options
from flan_jax.data.holdout import with_origins
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.vocab import ByteVocabulary

pytestmark = pytest.mark.tensorflow

# The released code registers so many tasks, with 37 datasets that have options; 234 are continuation baselines.
RELEASED_TASKS, CONTINUATIONS, WITH_OPTIONS = 10_984, 234, 37
RTE = [{"premise": f"Premise {i}.", "hypothesis": f"Hypothesis {i}.", "label": i % 2, "idx": i} for i in range(12)]


@pytest.fixture
def collection(registries):
    """The collection declared afresh; call it with settings to declare it with them."""

    def declare(**settings):
        flan2021.COLLECTION.use(Settings(**settings))
        return registries

    return declare


@pytest.fixture
def rte(collection):
    """The collection with RTE's rows in memory."""
    return collection(sources={"rte": InMemorySource(data={"train": RTE, "validation": RTE[:3]})})


def names():
    return list(Contents(Settings()).names())


def prompts(registry, name, split, **settings):
    return [e.rendered.inputs for e in iter_rendered(registry.templated(name), split, **settings)]


def test_the_catalog_is_the_released_one_less_what_makes_no_sense():
    found = names()
    assert len(found) == len(set(found))
    tasks = [name for name in found if name not in mixture_names() and name != "flan2021"]
    per_dataset, per_classification = 10 * 7 + 5 * 7 + 1, 10 * 7 + 10 + 10
    assert 70 * per_dataset + WITH_OPTIONS * per_classification + CONTINUATIONS == RELEASED_TASKS
    classification = [d for d in DATASETS.values() if d.is_classification]
    assert len(classification) == WITH_OPTIONS
    inverted = sum(t.direction == "inverted" for d in classification for t in templates()[d.template_set])
    assert inverted == 45
    # WSC273 has test rows only: each template can be asked and ranked, and there is nothing to train on.
    wsc273 = per_dataset + per_classification - 10 * 4
    assert len(tasks) == RELEASED_TASKS - CONTINUATIONS - inverted * (7 + 2) - wsc273
    assert sum(name.startswith("wsc273_") for name in tasks) == 40
    # 7 shots, two sides, of (17 + 10 + 1 + 11) splits at ten templates and (1 + 14 + 4) at five counts.
    assert len(found) - len(tasks) - 1 == 7 * 2 * (39 + 19 * 5) == 1_876


def test_nothing_is_registered_before_it_is_requested(collection):
    registry = collection()
    assert registry.defined_names() == set() and registry.collections() == {"flan2021": 12_066}
    assert registry.task("rte_10templates").name == "rte_10templates"
    assert registry.defined_names() == {"rte_10templates"}


def test_every_name_of_the_catalog_can_be_registered(collection):
    registry = collection()
    for name in names()[::7]:
        assert registry.mixture_or_task(name).name == name


def test_names_beyond_the_catalog_are_defined_just_so(collection):
    registry = collection()
    assert registry.templated("rte_type_2_score_flan_no_options_two_shot").few_shot.num_exemplars == 2
    assert registry.templated("rte_all_prompts_one_shot").few_shot.num_exemplars == 1
    assert len(registry.mixture_or_task("flan_inter_cluster_split_3_4templates_eval").tasks) == 4


@pytest.mark.parametrize(
    "name",
    ["rte_3templates", "rte_type_10", "etr_type_1", "xsum_type_1_scoring_eval", "wsc273_10templates",
     "wsc273_type_1_one_shot", "continuations_rte_type_1", "flan_inter_cluster_split_17_10templates_train"],
)  # fmt: skip
def test_names_without_a_task_are_unknown(collection, name):
    with pytest.raises(KeyError, match=f"Unknown task or mixture '{name}'. Did you mean "):
        collection().mixture_or_task(name)


def test_ranking_under_an_inverted_template_is_refused_and_not_in_the_catalog(collection):
    registry = collection()
    for name in ("rte_type_9_scoring_eval", "rte_type_9_score_flan_no_options", "rte_type_9_scoring_eval_one_shot"):
        assert name not in registry.names()
        with pytest.raises(ValueError, match=f"Task '{name}': template .* of rte is inverted. Its target is none of "
                                             "the options.*Rank a forward one: 0, 1, 2, 3, 4, 5, 6, 7, 8"):  # fmt: skip
            registry.task(name)
    assert "rte_type_8_scoring_eval" in registry.names()


def test_tasks_with_an_inverted_template_have_training_rows_only(rte):
    assert set(rte.task("rte_type_9").splits) == {"train"} and set(rte.task("rte_type_8").splits) > {"train"}
    assert len(prompts(rte, "rte_type_9", "train")) == 12


def test_the_first_templates_are_taken_and_rows_take_turns_and_none_is_lost(rte):
    for count in (1, 2, 4, 7, 10):
        task = rte.templated(f"rte_{count}templates")
        assert task.templates == templates()["rte"][:count] and task.templates_per_row == 1
        assert [e.template for e in iter_rendered(task, "train")] == [i % count for i in range(12)]
    asked = rte.templated("rte_type_3")
    assert asked.templates == templates()["rte"][3:4] and asked.evaluation == "generate"
    assert rte.templated("rte_all_prompts").templates == templates()["rte"]
    assert {e.template for e in iter_rendered(rte.templated("rte_10templates"), "validation")} <= set(range(9))


def test_training_tasks_are_judged_like_the_datasets_own(collection):
    registry = collection()
    for dataset in DATASETS.values():
        if "train" in dataset.splits:
            task = registry.templated(f"{dataset.name}_10templates")
            assert (task.metrics, task.references, task.group) == (
                dataset.metrics, dataset.references, dataset.group
            )  # fmt: skip
            assert (task.cluster, task.corpora, task.license) == (dataset.cluster, dataset.corpora, dataset.license)
    assert registry.templated("wsc273_type_0").cluster == "coreference"


def test_ranking_shows_options_or_hides_them(rte):
    shown = rte.templated("rte_type_0_scoring_eval")
    assert shown.evaluation == "rank" and shown.metrics == RANK_METRICS
    for name in ("rte_type_0_score_flan_no_options", "rte_type_0_score_eval_no_options"):
        hidden = rte.templated(name)
        assert hidden.evaluation == "rank" and not hidden.templates[0].shows_options
        for with_options, example in zip(
            iter_rendered(shown, "validation"), iter_rendered(hidden, "validation"), strict=True
        ):
            assert "OPTIONS:" in with_options.rendered.inputs and "OPTIONS:" not in example.rendered.inputs
            assert with_options.rendered.inputs.startswith(example.rendered.inputs)
            assert example.rendered.options == with_options.rendered.options == ("yes", "no")


def test_options_are_taken_out_with_the_white_space_at_the_ends():
    assert without_options("\n{options_}\n\nWhich?\n\n{options_str} ") == "Which?"
    for dataset in DATASETS.values():
        for template in templates()[dataset.template_set]:
            left = without_options(template.inputs)
            assert left == left.strip() and "{options_" not in left


def test_few_shot_prompts_are_plain_unless_the_papers_marks_are_requested(rte, collection):
    first = {"count_tokens": len}
    task = rte.templated("rte_1templates_two_shot")
    assert task.few_shot.num_exemplars == 2 and task.few_shot.max_tokens == 960 and not task.few_shot.drop_without
    assert task.few_shot.formats == (PLAIN,)
    plain = prompts(rte, "rte_1templates_two_shot", "validation", **first)
    zero = prompts(rte, "rte_1templates", "validation")
    for shown, query in zip(plain, zero, strict=True):
        *exemplars, last = shown.split("\n\n\n")
        assert last == query and len(exemplars) == 2 and all(e.endswith(("\n\nyes", "\n\nno")) for e in exemplars)
    marked = collection(sources={"rte": InMemorySource(data={"train": RTE, "validation": RTE[:3]})}, format="flan")
    assert prompts(marked, "rte_1templates", "validation") == [f"0 {query} X 1 FLAN" for query in zero]
    for shown, query in zip(prompts(marked, "rte_1templates_two_shot", "validation", **first), zero, strict=True):
        assert shown.startswith("0 ") and shown.endswith(f" X 0 {query} X 1 FLAN") and shown.count(" X 1 ") == 3
    baseline, ours = "rte_type_0_score_eval_no_options", "rte_type_0_score_flan_no_options"
    assert prompts(marked, ours, "validation") == [f"0 {p} X 1 FLAN" for p in prompts(marked, baseline, "validation")]


def test_the_papers_marks_are_the_published_literals():
    assert FLAN.join([("q1", "a1"), ("q2", "a2")], "q3") == "0 q1 X 1 a1 X 0 q2 X 1 a2 X 0 q3 X 1 FLAN"
    assert FLAN.join([], "q") == "0 q X 1 FLAN" and PLAIN.join([], "q") == "q"


def test_exemplars_that_do_not_fit_leave_a_zero_shot_row(collection):
    long = [{**row, "premise": "word " * 200} for row in RTE]
    for form in ("plain", "flan"):
        registry = collection(sources={"rte": InMemorySource(data={"train": long, "validation": RTE[:2]})}, format=form)
        asked = prompts(registry, "rte_1templates_multi_shot", "validation", count_tokens=len)
        assert asked == prompts(registry, "rte_1templates", "validation")
    sixteen = registry.templated("rte_1templates_multi_shot").few_shot
    assert sixteen.num_exemplars == 16


def test_prompts_are_the_same_every_time_and_depend_on_the_seed(collection):
    def asked(seed):
        rows = InMemorySource(data={"train": RTE, "validation": RTE[:3]})
        return prompts(
            collection(sources={"rte": rows}, seed=seed), "rte_10templates_five_shot", "train", count_tokens=len
        )

    assert asked(0) == asked(0) != asked(1)


def test_the_training_mixtures_have_the_papers_members_and_rates(collection):
    registry = collection()
    train = registry.mixture_or_task("flan_inter_cluster_split_10_10templates_train")
    test = registry.mixture_or_task("flan_inter_cluster_split_10_10templates_eval")
    assert {t.name for t in test.tasks} == {f"{d}_10templates" for d in CLUSTERS["entailment"]}
    assert len(train.tasks) == 55
    assert {str(rate) for rate in train._task_to_rate.values()} == {
        "ProportionalRate(maximum=3000, temperature=1.0, scale=1.0, minimum=None)"
    }
    assert {rate.maximum for rate in test._task_to_rate.values()} == {None}
    everything = registry.mixture_or_task("flan2021")
    assert {t.name for t in everything.tasks} == {f"{d}_10templates" for d in CLUSTER_OF}
    assert {rate.maximum for rate in everything._task_to_rate.values()} == {3_000}
    shots = registry.mixture_or_task("flan_superglue_split_five_shot_10templates_20train_tasks_train")
    assert len(shots.tasks) == 20 and all(t.name.endswith("_10templates_five_shot") for t in shots.tasks)


def test_every_mixture_holds_out_its_datasets_and_names_accepted_leaks(collection):
    registry = collection()
    for pattern, shot in (
        ("flan_inter_cluster_split_{}_10templates{}_train", ""),
        ("flan_intra_cluster_split_{}_10templates{}_train", "_one_shot"),
    ):
        for index in range(10):
            name = pattern.format(index, shot)
            registry.mixture_or_task(name)
            held_out = registry.hold_out_of(name)
            assert (
                held_out["clusters"]
                and held_out["corpora"]
                and bool(held_out["allowed"]) == bool(held_out["allow_leak"])
            )
    assert registry.hold_out_of("flan_inter_cluster_split_6_10templates_train")["allowed"] == [
        "'para_crawl_enes_10templates' is made from the held-out corpus 'para_crawl'"
    ]
    assert registry.hold_out_of("flan_inter_cluster_split_2_10templates_train")["allowed"] == [
        "'qnli_10templates' is made from the held-out corpus 'squad'"
    ]
    assert registry.hold_out_of("flan_inter_cluster_split_0_10templates_eval") == {}
    registry.mixture_or_task("flan_all_overlap_10templates_train")
    assert registry.hold_out_of("flan_all_overlap_10templates_train") == {}


def test_what_the_published_splits_share_is_all_written_down():
    shared = set()
    for name in mixture_names().values():
        if name.split.unit is not None:
            trained, tested = (
                {corpus for dataset in side for corpus in with_origins(DATASETS[dataset].corpora)}
                for side in (name.split.train, name.split.test)
            )
            shared |= trained & tested
    # Who shares QNLI with itself shares SQuAD: only what lies on both sides counts, and nothing in the table is idle.
    assert shared == set(SHARED_CORPORA)


RTE_YAML = """
collections:
  flan2021:
    rows:
      rte:
        kind: jsonl
        splits: {{train: {train}, validation: {validation}}}
        classes: {{label: [entailment, not_entailment]}}
        on_bad_row: skip
    format: flan
    seed: 3
mixtures:
  mine: {{members: [rte_10templates, rte_10templates_one_shot], cap: 3000}}
"""


@pytest.mark.shared_data
def test_rows_may_come_from_files(collection, tmp_path, shared_data):
    with gzip.open(shared_data / "superglue_rte" / "val.jsonl.gz", "rt") as file:
        (tmp_path / "val.jsonl").write_text(file.read())
    train = shared_data / "superglue_rte" / "fewglue_train.jsonl"
    path = tmp_path / "mine.yaml"
    path.write_text(RTE_YAML.format(train=train, validation="val.jsonl"))
    registry = collection()
    registry.register_yaml(path)
    assert len(prompts(registry, "rte_10templates", "validation")) == 277
    rendered = list(iter_rendered(registry.templated("rte_type_0_scoring_eval"), "validation"))
    assert {e.rendered.targets for e in rendered} == {"yes", "no"}
    assert len(prompts(registry, "rte_10templates_one_shot", "train", count_tokens=len)) == 32
    assert registry.templated("rte_10templates").seed == 3
    # Under another vocabulary the collection is declared anew, with the file's settings.
    registry.use_vocabulary(ByteVocabulary(extra_ids=7))
    registry.register_all()
    assert len(prompts(registry, "rte_10templates", "validation")) == 277


def test_at_most_30000_declared_rows_are_trained_on(collection, monkeypatch):
    monkeypatch.setattr(flan2021_variants, "MAX_TRAIN_ROWS", 5)
    registry = collection(sources={"rte": InMemorySource(data={"train": RTE, "validation": RTE})})
    assert [len(prompts(registry, "rte_1templates", split)) for split in ("train", "validation")] == [5, 12]


def test_a_files_own_vocabulary_stays(collection, tmp_path):
    (tmp_path / "rte.jsonl").write_text("".join(json.dumps(row) + "\n" for row in RTE))
    path = tmp_path / "mine.yaml"
    rows = RTE_YAML.format(train="rte.jsonl", validation="rte.jsonl").replace(
        "        classes: {label: [entailment, not_entailment]}\n", ""
    )
    path.write_text("vocabulary: embedded\n" + rows)
    registry = collection()
    registry.register_yaml(path)
    feature = registry.task("rte_10templates").output_features["inputs"]
    assert type(feature.vocabulary).__name__ == "SentencePieceVocabulary"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{row: {}}", "collections.flan2021: unknown key 'row'. Did you mean 'rows'"),
        ("{seed: x}", "collections.flan2021.seed: expected a whole number, got 'x'"),
        ("{format: flam}", "collections.flan2021.format: expected one of plain, flan, got 'flam'. Did you mean 'flan'"),
        (
            "{on_bad_row: skp}",
            "collections.flan2021.on_bad_row: expected one of error, skip, got 'skp'. Did you mean 'skip'",
        ),
        ("{rows: {ret: {kind: jsonl, splits: {train: x}}}}", "rows: FLAN 2021 has no dataset 'ret'. Did you mean "),
        (
            "{rows: {rte: {kind: jsnl, splits: {train: x}}}}",
            "collections.flan2021.rows.rte.* unknown kind 'jsnl'. Did you mean 'jsonl'",
        ),
    ],
)
def test_invalid_settings_are_errors(collection, tmp_path, entry, message):
    path = tmp_path / "mine.yaml"
    path.write_text(f"collections: {{flan2021: {entry}}}")
    with pytest.raises(ValueError, match=message):
        collection().register_yaml(path)


def test_unprepared_rows_are_named_by_the_dataset(collection):
    registry = collection()
    assert "super_glue/rte:1.0.2" in registry.templated("rte_10templates").source.unavailable("train")


def test_every_template_is_covered_by_existing_tasks_also_if_rows_are_for_evaluation_only(collection):
    registry = collection(sources={"rte": InMemorySource(data={"validation": RTE[:3]})})
    covering = [name for name in registry.covering_names() if name.startswith(("rte_", "cb_"))]
    assert covering == ["cb_10templates", *(f"rte_type_{i}" for i in range(9))]  # The tenth is inverted: trained on.
    assert [registry.task(name).name for name in covering] == covering
