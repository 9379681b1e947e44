import pytest

from flan_jax.evaluation import generation
from flan_jax.evaluation.generation import generate_predictions
from flan_jax.evaluation.task_scores import all_the_majority, measure

ROWS = [{"inputs": "a" * n, "targets": "A" * n} for n in (3, 40, 1, 8, 20)]


def generation_scores(metrics, answers):
    return {name: score for one in measure(metrics, answers) for name, score in one.scores().items()}


def predict(task, decode, vocabulary, *, indices=None):
    predictions = generate_predictions(
        task, indices=range(len(task)) if indices is None else indices, decode=decode, vocabulary=vocabulary
    )
    return sorted(predictions, key=lambda prediction: prediction.index)


def test_predictions_meet_their_examples_whatever_order_they_are_computed_in(task, answering, vocabulary, monkeypatch):
    for chunk in (generation.CHUNK_EXAMPLES, 2):
        monkeypatch.setattr(generation, "CHUNK_EXAMPLES", chunk)
        results = predict(task(ROWS), answering(lambda text: str(len(text))), vocabulary)
        assert [r.index for r in results] == [0, 1, 2, 3, 4]
        assert [r.prediction for r in results] == ["3", "40", "1", "8", "20"]


def test_only_the_examples_asked_for_are_generated(task, answering, vocabulary):
    decode = answering(str.upper)
    results = predict(task(ROWS), decode, vocabulary, indices=[1, 3])
    assert [(r.index, r.input) for r in results] == [(1, "a" * 40), (3, "a" * 8)]
    assert sorted(decode.decoded) == [1, 3]


def test_several_predictions_are_all_in_the_row_and_the_first_one_is_scored(task, answering, vocabulary):
    (result,) = predict(task(ROWS[:1], postprocessor="lower"), answering(lambda text: ["AAA", "b"]), vocabulary)
    assert (result.prediction, result.generated, result.truncated) == ("aaa", "AAA", False)
    assert [(one.prediction, one.generated, one.score, one.score_per_token) for one in result.predictions] == [
        ("aaa", "AAA", -4.0, -1.0),
        ("b", None, -2.0, -1.0),
    ]


def test_the_postprocessor_reads_predictions_and_references_alike(task, answering, vocabulary):
    rows = [{"inputs": "q", "targets": "One and one. The answer is 2."}]
    source = task(rows, postprocessor="chain_of_thought")
    (result,) = predict(source, answering(lambda text: "so: answer is 2"), vocabulary)
    assert (result.generated, result.prediction, result.references) == ("so: answer is 2", "2", ("2",))
    assert generation_scores(["accuracy"], [result]) == {"accuracy": 100.0}


def test_a_prediction_that_did_not_end_is_marked(task, answering, vocabulary):
    (result,) = predict(task(ROWS[:1]), answering(lambda text: "dddddd", length=4), vocabulary)
    assert result.truncated and result.generated is None and result.prediction == "dddd"


def test_a_external_vocabulary_compares_ids(task, answering, vocabulary):
    results = predict(
        task([{"inputs": "x", "targets": "A"}, {"inputs": "y", "targets": "B"}]), answering(lambda t: "A"), None
    )
    assert [r.prediction for r in results] == ["68 1", "68 1"]
    assert generation_scores(["exact_match"], results) == {"exact_match": 50.0}


def test_metrics_of_options_are_refused_for_generated_texts(task, answering, vocabulary):
    results = predict(task(ROWS), answering(str.upper), vocabulary)
    with pytest.raises(ValueError, match="'rank_accuracy' judges scores of options, which 5 of 5 rows lack"):
        generation_scores(["accuracy", "rank_accuracy"], results)


def test_scores_of_all_metrics_come_in_the_order_of_their_names(task, answering, vocabulary):
    results = predict(task(ROWS), answering(str.upper), vocabulary)
    assert list(generation_scores(["rouge_l", "squad", "accuracy"], results)) == ["rouge_l", "em", "f1", "accuracy"]


def test_metrics_of_rows_are_given_their_postprocessed_options_and_groups(task, answering, vocabulary):
    rows = [
        {"inputs": "a", "targets": "Yes.", "options": ["No.", "Yes."], "group": "q1"},
        {"inputs": "b", "targets": "No.", "options": ["No.", "Yes."], "group": "q1"},
        {"inputs": "c", "targets": "Yes.", "options": ["No.", "Yes."], "group": "q2"},
    ]
    results = predict(task(rows, postprocessor="first_word"), answering(lambda text: "Yes, I think"), vocabulary)
    assert results[0].options == ("No", "Yes")
    assert generation_scores(["multirc"], results) == {"f1a": 80.0, "em_by_question": 50.0}
    assert generation_scores(["record"], results) == {"em": 100.0, "f1": 100.0}


def test_the_majority_baseline_gives_the_most_frequent_reference(task, answering, vocabulary):
    rows = [{"inputs": t, "targets": t} for t in ("a", "b", "b", "")]
    results = predict(task(rows), answering(lambda text: text), vocabulary)
    assert [answer.prediction for answer in all_the_majority(results)] == ["b"] * 4
    assert all_the_majority(results[:2]) == []
