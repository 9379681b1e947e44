import pytest

from flan_jax.evaluation.score_names import require_form, require_known


@pytest.mark.parametrize(
    "name",
    [
        "eval/mean/accuracy",
        "eval/label/trained/rouge_l",
        "eval/cluster/a/b/f1",
        "eval/task/t/bleu(tokenizer=zh)",
        "eval/normalized_average",
        "eval/suite/trained",
    ],
)
def test_names_of_scores_have_one_of_the_forms(name):
    require_form(name, setting="keep_best", labels=["trained"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my_questions/exact_match",
            "keep_best watches 'my_questions/exact_match', which is no score .*eval/mean/METRIC",
        ),
        ("eval/mean", "which is no score"),
        ("eval/mean/", "which is no score|no metric's score"),
        ("eval/label/trained", "which is no score"),
        ("eval/means/f1", "which is no score"),
        ("eval/mean/acuracy", "'acuracy' is no metric's score. Did you mean 'accuracy'"),
        ("eval/label/traind/f1", "no suite 'traind'. Did you mean 'trained'"),
        ("eval/normalized_average/f1", "which is no score"),
        ("eval/suite/trainde", "which is no score"),
        ("eval/suite", "which is no score"),
        ("", "which is no score"),
    ],
)
def test_a_name_that_no_evaluation_could_have_is_refused(name, message):
    with pytest.raises(KeyError, match=message):
        require_form(name, setting="keep_best", labels=["trained"])


def test_a_name_that_this_evaluation_will_not_have_is_refused_with_those_it_has(task):
    rows = [{"inputs": "a", "targets": "a"}]
    exported = task(rows, name="copy", metrics=("accuracy", "squad"))
    tasks = [("trained", "copy", exported.manifest.metadata)]
    for name in ("eval/mean/f1", "eval/task/copy/em", "eval/cluster/toys/accuracy", "eval/normalized_average"):
        require_known(name, tasks, setting="early_stopping")
    with pytest.raises(KeyError, match=r"early_stopping watches 'eval/task/copie/f1', .*mean 'eval/task/copy/f1'"):
        require_known("eval/task/copie/f1", tasks, setting="early_stopping")
    with pytest.raises(KeyError, match="It has: eval/mean/accuracy, eval/mean/em"):
        require_known("eval/mean/rouge_l", tasks, setting="early_stopping")


def test_the_best_checkpoint_is_not_chosen_by_a_score_that_is_better_the_lower_it_is():
    with pytest.raises(ValueError, match="'mean_edit' is better the lower it is"):
        require_form("eval/mean/mean_edit", setting="manager.CheckpointPolicy.keep_best", labels=["trained"])
    require_form("eval/mean/mean_edit", setting="EarlyStopping", labels=["trained"])  # Its mode may be "min".


def test_the_score_of_a_published_suite_is_known_under_its_label(task):
    exported = task([{"inputs": "a", "targets": "a"}], name="copy", metrics=("accuracy",))
    tasks = [("bbh", "copy", exported.manifest.metadata)]
    require_known("eval/suite/bbh", tasks, suites=["bbh"], setting="keep_best")
    with pytest.raises(KeyError, match="keep_best watches 'eval/suite/bbh', which the evaluation will not have"):
        require_known("eval/suite/bbh", tasks, setting="keep_best")
