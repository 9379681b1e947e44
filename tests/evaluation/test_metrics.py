import pytest

from flan_jax.evaluation.metrics import METRICS, metric


def score(name, references, predictions):
    return next(iter(METRICS[name].fn(references, predictions).values()))


@pytest.mark.parametrize(
    ("name", "reference", "prediction", "wanted"),
    [
        ("exact_match", "The Cat!", "the  cat", 100),
        ("exact_match", "the cat", "cat", 0),  # Super-NI keeps articles, unlike SQuAD.
        ("exact_match", "co-op", "coop", 100),
        ("accuracy", "yes", " yes\n", 100),
        ("accuracy", "yes", "Yes", 0),
        ("f1", "the big red cat", "A red cat", 80),
        ("f1", "red red cat", "red cat cat", 200 * 2 / 6),
        ("f1", "", "the", 100),  # Both empty once articles are gone.
        ("f1", "", "cat", 0),
        ("squad", "the cat", "Cat.", 100),
        ("rouge_l", "police killed the gunman", "police kill the gunman", 100),  # Stemmed.
        ("rouge_l", "police killed the gunman", "the gunman kill police", 50),
        ("rouge_l", "!", "?", 0),  # No words at all.
        ("edit_similarity", "abc", "", 0),
        ("edit_similarity", "abcd", "bcde", 50),
        ("edit_similarity", "", "", 100),
    ],
)
def test_texts_score_as_their_papers_define(name, reference, prediction, wanted):
    assert score(name, [[reference]], [prediction]) == pytest.approx(wanted)


TEXT_METRICS = ["exact_match", "accuracy", "f1", "squad", "rouge_l", "rouge", "edit_similarity", "bleu"]


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_the_best_reference_of_a_row_counts_whatever_their_order(name):
    prediction = "a small red cat sat down"
    assert score(name, [["nothing alike", prediction]], [prediction]) == pytest.approx(100)
    assert score(name, [[prediction, "nothing alike"]], [prediction]) == pytest.approx(100)


@pytest.mark.parametrize("name", [*TEXT_METRICS, "macro_f1", "correlation"])
def test_right_answers_score_100_and_two_of_four_score_less(name):
    texts = ["1 1 1 1", "2 2 2 2", "3 3 3 3", "4 4 4 4"] if name == "bleu" else ["1", "2", "3", "4"]
    assert score(name, [[t] for t in texts], texts) == pytest.approx(100)
    assert 0 <= score(name, [[t] for t in texts], [*texts[:2], "9", "8"]) < 100


def test_a_mean_over_rows_is_in_percent():
    assert METRICS["exact_match"].fn([["1"], ["2"], ["3"], ["4"]], ["1", "2", "3", "9"]) == {"exact_match": 75.0}


def test_bleu_equals_sacrebleu_where_rows_have_unequal_numbers_of_references():
    import sacrebleu

    references = [["the cat is on the mat", "there is a cat on the mat"], ["it is a guide to action"]]
    predictions = ["the cat is on a mat", "it is a guide to the action"]
    wanted = sacrebleu.corpus_bleu(predictions, [[r[0] for r in references], [references[0][1], None]]).score
    assert METRICS["bleu"].fn(references, predictions) == {"bleu": pytest.approx(wanted)}
    assert 0 < wanted < 100


def test_macro_f1_weighs_rare_classes_as_much_as_common_ones():
    result = METRICS["macro_f1"].fn([["a"]] * 3 + [["b"]], ["a"] * 4)
    assert result == {"macro_f1": pytest.approx(100 * (6 / 7) / 2), "accuracy": 75.0}


def test_spearman_looks_at_order_alone_and_shares_tied_ranks():
    result = METRICS["correlation"].fn([["1"], ["2"], ["3"], ["4"]], ["1", "10", "10", "200"])
    assert result["spearman"] == pytest.approx(100 * 4.5 / (5 * 4.5) ** 0.5)
    assert result["pearson"] < result["spearman"]


def test_correlation_with_a_constant_or_with_words_is_zero():
    assert METRICS["correlation"].fn([["1"], ["2"]], ["3", "3"]) == {"pearson": 0.0, "spearman": 0.0}
    assert METRICS["correlation"].fn([["1"], ["2"]], ["high", "nan"]) == {"pearson": 0.0, "spearman": 0.0}


def test_an_unknown_metric_is_answered_with_the_nearest_name():
    assert metric("rouge_l").kind == "generate"
    with pytest.raises(KeyError, match="Unknown metric 'rouge_ll'. Did you mean 'rouge_l'.*Available: exact_match"):
        metric("rouge_ll")


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ([["a"]], ["a", "b"], "Got 2 predictions for 1 rows"),
        ([], [], "no predictions"),
        ([["a"], []], ["a", "b"], r"Row 1 must have .* references, got \[\]"),
        (["abc"], ["a"], "Row 0 must have .* references, got 'abc'"),
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "rouge_l", "bleu", "macro_f1", "correlation"])
def test_rows_that_do_not_fit_are_refused(name, references, predictions, message):
    with pytest.raises(ValueError, match=message):
        METRICS[name].fn(references, predictions)
