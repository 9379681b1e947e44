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
        ("rouge_l_xlingual", "кошки спят", "кошка спит", 700 / 9),  # Seven of nine letters stand.
        ("rouge_l_xlingual", "原因", "结果", 0),
        ("rouge_l_xlingual", "killed the Gunman", "kill the gunman", 100 / 3),  # Neither stemmed nor lower-cased.
        ("rouge_l_xlingual", "déjà vu", "de\u0301ja\u0300 vu", 100),  # Composed or not.
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
        ([["a"], []], ["a", "b"], r"Row 1 must have .* references, got \[\]"),
        (["abc"], ["a"], "Row 0 must have .* references, got 'abc'"),
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "rouge_l", "bleu", "macro_f1", "correlation"])
def test_rows_that_do_not_fit_are_refused(name, references, predictions, message):
    with pytest.raises(ValueError, match=message):
        METRICS[name].fn(references, predictions)


@pytest.mark.parametrize(
    ("reference", "prediction", "squad", "trivia_qa"),
    [
        ("rock-and-roll", "rock and roll", 0, 100),  # A space for each mark, or nothing.
        ("O’Neill", "O'Neill", 0, 100),  # The typographic apostrophe is no ASCII punctuation.
        ("U.S.", "US", 100, 0),
        ("the_end", "end", 0, 100),
    ],
)
def test_trivia_qa_reads_punctuation_as_space_where_squad_removes_it(reference, prediction, squad, trivia_qa):
    assert METRICS["squad"].fn([[reference]], [prediction])["em"] == squad
    assert METRICS["trivia_qa"].fn([[reference]], [prediction])["em"] == trivia_qa


def test_record_counts_a_group_once_with_the_answers_of_all_its_rows():
    references, predictions = [["Rome"], ["Roma"], ["Pisa"]], ["Roma", "Roma", "Bari"]
    assert METRICS["record"].fn(references, predictions, groups=["q1", "q1", "q2"])["em"] == 50
    assert METRICS["record"].fn(references, predictions, groups=[None] * 3)["em"] == pytest.approx(100 / 3)
    assert METRICS["record"].fn(references, predictions)["em"] == pytest.approx(100 / 3)


PAIR = ("not_duplicate", "duplicate")


@pytest.mark.parametrize(
    ("wanted", "got", "f1", "accuracy"),
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], 200 / 3, 75),
        ([1, 1, 0, 0], [1, 0, 1, 0], 50, 50),
        ([0, 0], [0, 0], 0, 100),  # No positive is there, none is found.
    ],
)
def test_positive_f1_is_of_the_second_option(wanted, got, f1, accuracy):
    result = METRICS["positive_f1"].fn([[PAIR[w]] for w in wanted], [PAIR[g] for g in got], options=[PAIR] * len(got))
    assert result == {"positive_f1": pytest.approx(f1), "accuracy": accuracy}


def test_an_answer_that_is_no_option_counts_as_the_wrong_one():
    references = [[PAIR[w]] for w in (1, 0, 0)]
    result = METRICS["positive_f1"].fn(references, [PAIR[1], "eh", PAIR[0]], options=[PAIR] * 3)
    assert result["positive_f1"] == pytest.approx(100 * 2 / 3)  # A false positive, by T5's definition.


def test_options_may_differ_by_row_as_templates_word_them():
    options = [("no", "yes"), ("false", "true")]
    result = METRICS["positive_f1"].fn([["yes"], ["true"]], ["yes", "false"], options=options)
    assert result["positive_f1"] == pytest.approx(100 * 2 / 3)


def test_multirc_takes_f1_over_all_answers_and_exact_match_by_question():
    yes_no = {"options": [("no", "yes")] * 5, "groups": ["q1", "q1", "q2", "q2", "q3"]}
    wanted = [["yes"], ["no"], ["yes"], ["no"], ["no"]]
    got = ["yes", "no", "yes", "yes", "no"]
    assert METRICS["multirc"].fn(wanted, got, **yes_no) == {"f1a": 80.0, "em": pytest.approx(200 / 3)}


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        (
            "positive_f1",
            {"options": [("a", "b", "c")]},
            r"Row 0 must have two options .* 'a', among .* \['a', 'b', 'c'",
        ),
        ("positive_f1", {"options": [("b", "c")]}, r"Row 0 must have two options with the right one, 'a'"),
        ("positive_f1", {"options": [("a", "a")]}, r"Row 0 must have two options"),
        ("positive_f1", {"options": []}, "0 options for 1 rows"),
        ("multirc", {"options": [("a", "b")], "groups": [None]}, "Row 0 belongs to no group"),
        ("multirc", {"options": [("a", "b")], "groups": ["x", "y"]}, "2 groups for 1 rows"),
        ("record", {"groups": []}, "0 groups for 1 rows"),
    ],
)
def test_facts_about_rows_that_do_not_fit_are_refused(name, more, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        METRICS[name].fn([["a"]], ["a"], **more)


def test_a_metric_says_what_it_must_know_about_rows():
    assert {name: m.needs for name, m in METRICS.items() if m.needs} == {
        "positive_f1": ("options",),
        "multirc": ("options", "groups"),
    }
    assert {name: m.takes for name, m in METRICS.items() if m.takes} == {"record": ("groups",)}
