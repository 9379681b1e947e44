"""T0's datasets and what its mixtures weigh, against the published table and counts."""

import pytest

from flan_jax.collections.t0.prompted import TRAIN_MIXTURES, Contents, T0Settings, rate
from flan_jax.collections.t0.table import DATASETS, HELD_OUT_CLUSTERS, HELD_OUT_CORPORA, T0Dataset
from flan_jax.templates.promptsource_files import open_archive

# Dataset, templates (all/original/with choices), rate, weight: as published.
TABLE = """\
crows_pairs 8/0/6 0 0
jigsaw_toxicity_pred 0/0/0 0 0
super_glue/axg 10/10/10 0 0
wino_bias/type1_anti 7/7/0 0 0
wino_bias/type2_anti 7/7/0 0 0
wino_bias/type1_pro 7/7/0 0 0
wino_bias/type2_pro 7/7/0 0 0
super_glue/wsc.fixed 10/10/10 554 5540
winogrande/winogrande_xl 6/5/6 40398 242388
super_glue/cb 15/15/15 250 3750
super_glue/rte 10/10/10 2490 24900
anli 15/15/15 162865 2442975
glue/mrpc 7/5/5 3668 25676
glue/qqp 6/5/6 363846 2183076
paws/labeled_final 12/11/11 49401 592812
ai2_arc/ARC-Challenge 6/5/5 1119 6714
ai2_arc/ARC-Easy 6/5/5 2251 13506
kilt_tasks/hotpotqa 5/0/0 88869 444345
trivia_qa/unfiltered 5/4/0 87622 438110
web_questions 5/5/0 3778 18890
wiki_qa 11/6/5 20360 223960
adversarial_qa/dbidaf 5/4/0 10000 50000
adversarial_qa/dbert 5/4/0 10000 50000
adversarial_qa/droberta 5/4/0 10000 50000
duorc/SelfRC 9/5/0 60721 546489
duorc/ParaphraseRC 9/5/0 69524 625716
ropes 12/10/0 10924 131088
squad_v2 12/4/1 130319 1563828
super_glue/record 20/18/20 100730 2014600
quoref 11/10/0 19399 213389
cos_e/v1.11 11/6/6 9741 107151
cosmos_qa 13/10/12 25262 328406
dream 5/2/2 6116 30580
openbookqa/main 7/7/7 4957 34699
qasc 8/5/8 8134 65072
quail 13/10/13 10246 133198
quarel 5/0/5 1941 9705
quartz 8/8/8 2696 21568
race/high 8/5/6 62445 499560
race/middle 8/5/6 25421 203368
sciq 5/4/5 11679 58395
social_i_qa 6/5/5 33410 200460
super_glue/boolq 10/10/10 9427 94270
super_glue/copa 12/12/12 400 4800
super_glue/multirc 10/10/10 27243 272430
wiki_hop/original 9/5/5 43738 393642
wiqa 8/2/4 29808 238464
piqa 11/5/7 16113 177243
amazon_polarity 9/9/9 55555 499995
app_reviews 4/0/2 288065 1152260
imdb 11/10/11 25000 275000
rotten_tomatoes 10/10/10 8530 85300
yelp_review_full 7/7/7 71428 499996
story_cloze/2016 6/5/6 0 0
hellaswag 11/4/8 39905 438955
common_gen 9/6/0 67389 606501
wiki_bio 5/1/0 100000 500000
cnn_dailymail/3.0.0 9/7/0 287113 2584017
gigaword 9/7/0 55555 499995
multi_news 6/5/0 44972 269832
samsum 7/6/0 14732 103124
xsum 10/10/0 204045 2040450
ag_news 7/7/7 120000 840000
dbpedia_14 4/4/4 125000 500000
trec 18/7/18 5452 98136
super_glue/wic 10/10/10 5428 54280
"""
ROWS = [line.split() for line in TABLE.splitlines()]


@pytest.fixture(scope="module")
def collection(shared_data):
    return Contents(T0Settings(archive=open_archive(shared_data / "promptsource" / "templates.zip")))


@pytest.mark.shared_data
def test_templates_rates_and_weights_are_those_of_the_table(collection):
    assert list(DATASETS) == [name for name, *_ in ROWS]
    found = []
    for name, *published in ROWS:
        templates = () if name == "jigsaw_toxicity_pred" else [p.template for p in collection.prompts(name)]
        count = len(templates) // len(DATASETS[name].rounds)  # ANLI's are there once a round.
        original = sum(t.metadata.original_task for t in templates) // len(DATASETS[name].rounds)
        choices = sum(t.gives_options for t in templates) // len(DATASETS[name].rounds)
        share = rate(DATASETS[name].train_size, count) if count else 0
        ours = [f"{count}/{original}/{choices}", str(share), str(share * count)]
        if ours != published:
            found.append((name, ours, published))
    assert not found


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("group", "datasets", "templates", "weight"),
    [("BASE", 38, 313, 17_277_798), ("GPT_EVAL", 10, 79, 3_394_873), ("SGLUE", 6, 72, 2_445_920)],
)
def test_groups_have_the_published_size_and_weight(collection, group, datasets, templates, weight):
    of = [d for d in DATASETS.values() if d.train_group == group]
    rated = {}
    for dataset in of:
        prompts = collection.prompts(dataset.name)
        rated |= {prompt.task: rate(dataset.train_size, len(prompts)) for prompt in prompts}
    assert (len(of), len(rated), sum(rated.values())) == (datasets, templates, weight)


@pytest.mark.parametrize(
    ("size", "templates", "published", "divided"),
    [
        (3_600_000, 9, 55_555, 55_555.6),
        (3_803_957, 9, 55_555, 55_555.6),
        (650_000, 7, 71_428, 71_428.6),
        (582_659, 5, 100_000, 100_000.0),
        (560_000, 4, 125_000, 125_000.0),
        (287_113, 9, 287_113, 31_901.4),
        (500_000, 4, 500_000, 125_000.0),
    ],
)
def test_rates_of_datasets_about_the_limit(size, templates, published, divided):
    assert rate(size, templates) == published
    assert rate(size, templates, rule="divided") == pytest.approx(divided, abs=0.05)


def test_what_is_evaluated_is_what_is_held_out():
    held_out = [d for d in DATASETS.values() if d.eval_group == "BASE"]
    assert len(held_out) + 2 == 11  # ANLI's three rounds are one entry.
    assert {corpus for d in held_out for corpus in d.corpora} == set(HELD_OUT_CORPORA)
    assert {d.cluster for d in held_out if d.name != "super_glue/copa"} == set(HELD_OUT_CLUSTERS)
    assert all(groups[0] == "BASE" for groups in TRAIN_MIXTURES.values())
    base = [d for d in DATASETS.values() if d.train_group == "BASE"]
    assert not {d.cluster for d in base} & set(HELD_OUT_CLUSTERS)
    assert not {corpus for d in base for corpus in d.corpora} & set(HELD_OUT_CORPORA)


@pytest.mark.parametrize(
    ("name", "corpora"),
    [
        ("glue/mrpc", ("mrpc",)),
        ("super_glue/wsc.fixed", ("wsc",)),
        ("ai2_arc/ARC-Easy", ("arc",)),
        ("race/high", ("race",)),
        ("squad_v2", ("squad",)),
        ("rotten_tomatoes", ("rotten_tomatoes", "sst2")),
        ("Mine/own", ("mine",)),
    ],
)
def test_corpora_are_named_as_elsewhere(name, corpora):
    assert T0Dataset(name=name, cluster="x").corpora == corpora
