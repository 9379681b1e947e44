import dataclasses
import math

import pytest

from flan_jax.evaluation.aggregation import AGGREGATIONS, Spread, aggregate


@dataclasses.dataclass
class Scored:
    group: str
    metrics: dict
    num_examples: int = 100

    @property
    def main_metric(self):
        return next(iter(self.metrics))


def accuracies(**scores):
    return [Scored(group.replace("__", "/"), {"accuracy": score}) for group, score in scores.items()]


def test_flans_cluster_score_counts_each_round_of_anli_as_a_dataset():
    # Figure 1 of arXiv:2109.01652, from the scores of the datasets in its appendix.
    results = accuracies(
        entailment__anli_r1=47.7, entailment__anli_r2=43.9, entailment__anli_r3=47.0, entailment__cb=64.1,
        entailment__rte=78.3,
    )  # fmt: skip
    assert aggregate("flan2021", results).score == pytest.approx(56.2, abs=0.05)


def test_flan_takes_the_mean_of_templates_then_of_datasets_then_of_clusters():
    templates = [Scored("nli/rte", {"accuracy": score}) for score in (10.0, 20.0, 60.0)]
    result = aggregate("flan2021", [*templates, *accuracies(nli__cb=70.0, sentiment__sst2=90.0)])
    assert result.clusters == {"nli": 50.0, "sentiment": 90.0} and result.score == 70.0
    assert (result.datasets["nli/rte"].mean, result.datasets["nli/rte"].count) == (30.0, 3)


def test_t0s_score_counts_the_rounds_of_anli_as_one_dataset():
    # Means over prompts of T0-11B by arXiv:2110.08207: with one prompt each, median and mean are the same.
    results = accuracies(
        anli__r1=43.6, anli__r2=38.7, anli__r3=41.3, hellaswag=33.6, story_cloze=92.4, cb=70.1, copa=91.5, rte=81.0,
        wic=56.1, wsc=61.1, winogrande=59.9,
    )  # fmt: skip
    result = aggregate("t0", results)
    assert result.clusters["anli"] == pytest.approx(41.2) and result.score == pytest.approx(65.2, abs=0.05)


def test_t0_takes_the_median_of_prompts_and_reports_their_spread():
    prompts = [Scored("rte", {"accuracy": score}) for score in (40.0, 50.0, 90.0, 60.0)]
    result = aggregate("t0", [*prompts, *accuracies(cb=15.0)])
    assert result.clusters == {"rte": 55.0, "cb": 15.0} and result.score == 35.0
    spread = result.datasets["rte"]
    assert (spread.mean, spread.minimum, spread.maximum, spread.iqr) == (60.0, 40.0, 90.0, 20.0)


def test_super_ni_weighs_instances_equally_and_takes_rouge_l_whatever_the_main_metric_is():
    results = [
        Scored("entailment/task190", {"superni_exact_match": 0.0, "rouge_l": 60.0}, 100),
        Scored("title/task1", {"rouge_l": 30.0, "superni_exact_match": 99.0}, 50),
        Scored("title/task2", {"rouge_l": 0.0, "superni_exact_match": 99.0}, 10),
    ]
    result = aggregate("superni", results)
    assert result.score == pytest.approx((60 * 100 + 30 * 50) / 160)
    assert result.clusters == {"entailment": 60.0, "title": 25.0}
    xlingual = aggregate("superni", [Scored("a/t", {"rouge_l_xlingual": 12.0})])
    assert xlingual.score == 12.0


def test_mmlu_weighs_subjects_equally_and_bbh_tasks_of_several_files_once():
    subjects = [Scored("stem/astronomy", {"accuracy": 50.0}, 10), Scored("other/virology", {"accuracy": 20.0}, 1000)]
    assert aggregate("mmlu", [*subjects, Scored("stem/anatomy", {"accuracy": 20.0})]).score == 30.0
    files = accuracies(navigate=60.0, logical_deduction__three=60.0, logical_deduction__five=30.0)
    assert aggregate("bbh", [*files, *accuracies(logical_deduction__seven=0.0)]).score == 45.0


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_scores_that_are_not_defined_are_left_out(name):
    metric = AGGREGATIONS[name].metrics[0].replace("main", "accuracy")
    results = [Scored("a/x", {metric: 40.0}), Scored("a/y", {metric: math.nan}), Scored("b/z", {"other": math.nan})]
    result = aggregate(name, results)
    assert (result.score, result.num_tasks) == (40.0, 1)
    assert math.isnan(aggregate(name, []).score) and math.isnan(Spread.of([]).median)
