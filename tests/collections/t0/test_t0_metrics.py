import pytest

from flan_jax.collections.t0.metric_names import GLUE, NAMED, metrics_of, rank_metrics_of
from flan_jax.evaluation.metrics import METRICS
from flan_jax.templates.promptsource import PromptMetadata, PromptTemplate


def template(*metrics, choices=None):
    return PromptTemplate(
        id="1", name="a", dataset="b", jinja="c", answer_choices=choices, metadata=PromptMetadata(metrics=metrics)
    )


def test_every_metric_is_one_of_ours_for_written_answers():
    names = {*NAMED.values(), *(name for names in GLUE.values() for name in names), "positive_f1"}
    assert all(METRICS[name].kind == "generate" for name in names)


@pytest.mark.parametrize(
    ("dataset", "asked", "metrics"),
    [
        ("xsum", template("ROUGE", "BLEU"), ("rouge", "bleu(tokenizer=intl)")),
        ("common_gen", template("Other", "Accuracy", "BLEU"), ("accuracy", "bleu(tokenizer=intl)")),
        ("stsb_multi_mt/en", template("Pearson Correlation", "Spearman Correlation"), ("correlation",)),
        ("head_qa", template("AUC"), ("accuracy",)),
        ("head_qa", template(), ("accuracy",)),
        ("glue/mrpc", template("BLEU", choices="no ||| yes"), ("positive_f1",)),
        ("glue/mrpc", template("BLEU"), ("accuracy",)),
        ("glue/qqp", template(choices="{{a}} ||| {{b}}"), ("accuracy",)),
        ("super_glue/cb", template("Accuracy"), ("macro_f1",)),
        ("super_glue/record", template("Squad"), ("record",)),
        ("super_glue/wsc.fixed", template("BLEU"), ("accuracy",)),
        ("super_glue/multirc", template("MultiRC"), ("accuracy",)),
    ],
)
def test_benchmarks_have_their_own_metrics_and_others_what_the_template_names(dataset, asked, metrics):
    assert metrics_of(dataset, asked) == metrics


def test_choices_that_are_the_same_for_every_row_are_classes():
    assert rank_metrics_of(template(choices="no ||| yes")) == ("rank_classes",)
    assert rank_metrics_of(template(choices="{{a}} ||| {{b}}")) == ("rank_accuracy",)
