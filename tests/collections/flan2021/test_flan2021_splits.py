"""FLAN 2021's splits against published figures: cluster sizes, held-out counts and weights, members of released splits."""

import pytest

from flan_jax.collections.flan2021.splits import CLUSTER_OF, CLUSTERS, COLLAPSED, SUPERGLUE, splits, units
from flan_jax.collections.flan2021.table import DATASETS
from flan_jax.data.rates import ProportionalRate

CLUSTER_SIZES = {
    "summarization": 11, "structure_to_text": 4, "reading_comprehension": 6, "open_domain_qa": 4, "paraphrase": 4,
    "sentiment": 4, "text_formatting": 3, "common_sense": 4, "translation": 8, "coreference": 3, "entailment": 10,
    "math": 1, "conversational_qa": 2, "word_disambiguation": 1, "linguistic_acceptability": 1,
    "question_classification": 1, "read_comp_and_common_sense": 2,
}  # fmt: skip
# Held out -> datasets tested, datasets trained on, sum of min(training rows, 3,000) over the latter.
HELD_OUT = {
    "summarization": (11, 58, 156_680),
    "structure_to_text": (4, 65, 176_330),
    "reading_comprehension": (6, 61, 164_330),
    "open_domain_qa": (4, 65, 179_380),
    "paraphrase": (4, 55, 152_240),
    "sentiment": (4, 65, 176_330),
    "text_formatting": (3, 66, 179_330),
    "common_sense": (4, 63, 174_310),
    "translation": (8, 61, 164_330),
    "coreference": (3, 66, 183_710),
    "entailment": (10, 55, 152_240),
    "math": (1, 68, 185_330),
    "conversational_qa": (2, 67, 182_330),
    "word_disambiguation": (1, 68, 185_330),
    "linguistic_acceptability": (1, 68, 185_330),
    "question_classification": (1, 68, 185_330),
    "read_comp_and_common_sense": (2, 57, 156_310),
}
BELOW_THE_CAP = {
    "rte": 2_290, "arc_easy": 2_040, "story_cloze": 1_670, "opinion_abstracts_idebate": 1_650,
    "definite_pronoun_resolution": 1_120, "arc_challenge": 910, "wnli": 600, "wsc": 500, "copa": 350, "cb": 200,
}  # fmt: skip
ALSO_REMOVED = {
    "reading_comprehension": ("read_comp_and_common_sense",),
    "common_sense": ("read_comp_and_common_sense",),
    "read_comp_and_common_sense": ("reading_comprehension", "common_sense"),
    "paraphrase": ("entailment",),
    "entailment": ("paraphrase",),
}
# What the released code, run, holds out: NumPy's permutations and Python's shuffle decide these.
INTRA_TEST = {
    0: "dart gigaword glue_mrpc imdb_reviews natural_questions openbookqa qnli quac record story_cloze true_case "
       "winogrande wmt16_translate_ruen",
    1: "coqa cosmos_qa definite_pronoun_resolution e2e_nlg fix_punct glue_qqp hellaswag mnli_matched mnli_mismatched "
       "para_crawl_enes sentiment140 squad_v1 squad_v2 trivia_qa wiki_lingua_english_en",
    5: "anli_r1 anli_r2 anli_r3 arc_challenge arc_easy coqa cosmos_qa e2e_nlg glue_qqp hellaswag openbookqa "
       "sentiment140 wmt14_enfr word_segment wsc xsum",
    9: "cb coqa cosmos_qa drop e2e_nlg glue_qqp hellaswag natural_questions para_crawl_enes samsum sentiment140 "
       "true_case winogrande",
}  # fmt: skip
SUPERGLUE_FIRST_TEN = "ag_news_subset anli_r1 cola natural_questions newsroom piqa sentiment140 snli squad_v1 squad_v2"
DIVERSITY_FOUR_LIMITED = (
    "aeslc cnn_dailymail drop gigaword imdb_reviews multi_news multirc para_crawl_enes sentiment140 squad_v1 "
    "squad_v2 sst2 wmt14_enfr wmt16_translate_deen yelp_polarity_reviews"
)


def split(pattern):
    return splits()[pattern]


def inter(cluster):
    return split(f"flan_inter_cluster_split_{list(CLUSTERS).index(cluster)}_{{n}}templates{{shot}}")


def intra(index):
    return split(f"flan_intra_cluster_split_{index}_{{n}}templates{{shot}}")


def test_clusters_have_the_published_sizes_and_the_tables_agree():
    assert {name: len(members) for name, members in CLUSTERS.items()} == CLUSTER_SIZES
    assert sum(CLUSTER_SIZES.values()) == len(CLUSTER_OF) == 69
    assert {d.name: d.cluster for d in DATASETS.values() if d.name != "wsc273"} == dict(CLUSTER_OF)
    assert len(DATASETS) == 70 and DATASETS["wsc273"].cluster == ""
    assert set(DATASETS["wsc273"].splits) == {"test"}


def test_holding_a_cluster_out_leaves_the_published_datasets_and_weights(subtests):
    for cluster in HELD_OUT:
        with subtests.test(cluster):
            tested, trained, weight = HELD_OUT[cluster]
            held_out = inter(cluster)
            assert (len(held_out.test), len(held_out.train)) == (tested, trained)
            assert set(held_out.test) == set(CLUSTERS[cluster])
            away = {cluster, *ALSO_REMOVED.get(cluster, ())}
            assert {CLUSTER_OF[name] for name in held_out.train} == set(CLUSTERS) - away
            rate = ProportionalRate(maximum=3_000)
            assert sum(rate.of(DATASETS[name].size) for name in held_out.train) == pytest.approx(weight, rel=1e-3)


def test_ten_datasets_are_below_the_cap():
    sizes = {name: d.size for name, d in DATASETS.items() if d.size is not None and d.size < 3_000}
    assert sizes == BELOW_THE_CAP


def test_related_datasets_are_in_the_same_unit():
    assert len(units("summarization")) == 10 and len(units("entailment")) == 7 and len(units("coreference")) == 3
    assert {len(units(cluster)) for cluster in ("math", "word_disambiguation", "linguistic_acceptability")} == {1}
    for cluster, members in CLUSTERS.items():
        assert sorted(name for unit in units(cluster) for name in unit) == sorted(members)
    for index in range(10):
        for group in COLLAPSED.values():
            assert len({name in intra(index).test for name in group}) == 1


def test_ten_intra_cluster_splits_hold_one_unit_of_every_cluster_out_and_wrap_round():
    for cluster in CLUSTERS:
        there = units(cluster)
        turns = [[unit for unit in there if set(unit) <= set(intra(index).test)] for index in range(10)]
        assert all(len(held_out) == (len(there) > 1) for held_out in turns)
        if len(there) > 1:
            order = [held_out[0] for held_out in turns]
            assert len(set(order[: len(there)])) == len(there)
            assert order == [order[i % len(there)] for i in range(10)]
    assert {name for index in range(10) for name in intra(index).test} >= set(CLUSTERS["summarization"])


@pytest.mark.parametrize("index", INTRA_TEST)
def test_intra_cluster_splits_are_the_released_ones(index):
    assert list(intra(index).test) == INTRA_TEST[index].split()
    assert sorted((*intra(index).test, *intra(index).train)) == sorted(CLUSTER_OF)


def test_superglue_is_held_out_dataset_by_dataset():
    assert set(SUPERGLUE) == {"bool_q", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"}
    whole = split("flan_superglue_split_{n}templates{shot}")
    assert set(whole.test) == set(SUPERGLUE) and {"mnli_matched", "snli", "wnli"} <= set(whole.train)
    assert len(whole.train) == 61 and whole.template_counts == (1, 2, 4, 7, 10)
    parts = [split(f"flan_superglue_split{{shot}}_{{n}}templates_{n}train_tasks") for n in range(5, 56, 5)]
    assert [len(part.train) for part in parts] == list(range(5, 56, 5))
    assert all(set(small.train) < set(large.train) for small, large in zip(parts, parts[1:], strict=False))
    assert list(parts[1].train) == SUPERGLUE_FIRST_TEN.split()


def test_diversity_grows_by_clusters_and_takes_fifteen_datasets_in_turns():
    test = {*CLUSTERS["entailment"], *CLUSTERS["common_sense"], *CLUSTERS["open_domain_qa"]}
    order = ("summarization", "translation", "reading_comprehension", "sentiment", "structure_to_text", "coreference",
             "conversational_qa")  # fmt: skip
    for count in range(1, 8):
        whole = split(f"flan_diversity_split{count}_{{n}}templates{{shot}}")
        limited = split(f"flan_diversity_split{count}_{{n}}templates_15task_limit{{shot}}")
        assert set(whole.test) == set(limited.test) == test
        assert {CLUSTER_OF[name] for name in whole.train} == set(order[:count])
        assert len(whole.train) == sum(CLUSTER_SIZES[name] for name in order[:count])
        assert len(limited.train) == min(15, len(whole.train)) and set(limited.train) <= set(whole.train)
    four = split("flan_diversity_split4_{n}templates_15task_limit{shot}")
    assert list(four.train) == DIVERSITY_FOUR_LIMITED.split()


def test_datasets_per_cluster_takes_the_first_of_seven_clusters():
    for count, total in zip((1, 2, 3, 4), (7, 14, 20, 25), strict=True):
        taken = split(f"flan_inter_split_{{n}}templates_{count}tpc{{shot}}")
        assert len(taken.train) == total
        assert {name for name in taken.train if CLUSTER_OF[name] == "translation"} == set(
            CLUSTERS["translation"][:count]
        )


def test_only_what_overlaps_by_design_overlaps():
    overlapping = [pattern for pattern, s in splits().items() if set(s.train) & set(s.test)]
    assert overlapping == ["flan_all_overlap_{n}templates{shot}"]
    everything = split(overlapping[0])
    assert everything.train == everything.test == tuple(sorted(CLUSTER_OF)) and everything.unit is None
    # 17 + 10 + 1 + (1 + 11) + 7 x 2 + 4 kinds of names.
    assert len(splits()) == 58


def test_splits_are_the_same_every_time():
    splits.cache_clear()
    first = dict(splits())
    splits.cache_clear()
    assert dict(splits()) == first and all(list(s.train) == sorted(s.train) for s in first.values())
