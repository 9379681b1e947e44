import pytest

from flan_jax.evaluation.ranking import rank_options
from flan_jax.evaluation.task_scores import all_the_majority, chance, measure

ROWS = [
    {"inputs": "short", "targets": "no", "options": ["yes", "no"]},
    {"inputs": "a much longer input of this task", "targets": "it", "options": ["that", "it", "these", "those"]},
    {"inputs": "middle sized", "targets": "one", "options": ["one"]},
]


def ranking_scores(metrics, answers):
    return {name: score for one in measure(metrics, answers) for name, score in one.scores().items()}


def rank(task, score_fn, vocabulary, *, batch_size=2):
    ranked = rank_options(
        task, indices=range(len(task)), score_fn=score_fn, vocabulary=vocabulary, batch_size=batch_size
    )
    return sorted(ranked, key=lambda prediction: prediction.index)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_every_option_is_scored_with_its_own_input_whatever_the_batches(task, scoring, vocabulary, batch_size):
    score = scoring(lambda text, option: len(text) + len(option) / 100)
    ranked = rank(task(ROWS, evaluation="rank"), score, vocabulary, batch_size=batch_size)
    assert [r.scores for r in ranked] == [
        pytest.approx((5.03, 5.02)),
        pytest.approx((32.04, 32.02, 32.05, 32.05)),
        pytest.approx((12.03,)),
    ]
    assert [r.prediction for r in ranked] == ["yes", "these", "one"]
    assert [r.references for r in ranked] == [("no",), ("it",), ("one",)]


def test_the_end_of_sequence_is_scored_and_padding_is_not(task, scoring, vocabulary):
    score = scoring(lambda text, option: 0.0)
    rank(task(ROWS[:1], evaluation="rank"), score, vocabulary, batch_size=8)
    (batch,) = score.batches
    assert batch["decoder_target_tokens"][0, :5].tolist() == [*vocabulary.encode("yes"), vocabulary.eos_id, 0]
    assert batch["decoder_loss_weights"].sum(axis=1).tolist() == [4, 3, 0, 0, 0, 0, 0, 0]


def test_the_first_of_equal_scores_wins(task, scoring, vocabulary):
    ranked = rank(task(ROWS, evaluation="rank"), scoring(lambda text, option: 0.0), vocabulary)
    assert [r.prediction for r in ranked] == ["yes", "that", "one"]
    assert ranking_scores(["rank_accuracy"], ranked) == {"accuracy": pytest.approx(100 / 3)}


def test_metrics_of_texts_judge_the_chosen_option(task, scoring, vocabulary):
    ranked = rank(task(ROWS, evaluation="rank"), scoring(lambda text, option: -len(option)), vocabulary)
    assert [r.prediction for r in ranked] == ["no", "it", "one"]
    assert ranking_scores(["accuracy", "rank_accuracy"], ranked) == {"accuracy": 100.0}
    rows = [{"inputs": "q", "targets": "no", "options": ["no", "yes"], "group": "q1"}]
    ranked = rank(task(rows, evaluation="rank"), scoring(lambda text, option: -len(option)), vocabulary)
    assert ranking_scores(["multirc"], ranked) == {"f1a": 0.0, "em_by_question": 100.0}


def test_the_length_of_options_counts_only_for_the_metric_that_divides_by_it(task, scoring, vocabulary):
    rows = [{"inputs": "q", "targets": "a long one", "options": ["a", "a long one"]}]
    ranked = rank(task(rows, evaluation="rank"), scoring(lambda text, option: -len(option) - 1), vocabulary)
    assert ranking_scores(["rank_accuracy"], ranked) == {"accuracy": 0.0}
    ranked = rank(task(rows, evaluation="rank"), scoring(lambda text, option: -len(option)), vocabulary)
    assert ranking_scores(["rank_accuracy_by_length"], ranked) == {"accuracy_by_length": 0.0}
    ranked = rank(task(rows, evaluation="rank"), scoring(lambda text, option: -(len(option) ** 0.5)), vocabulary)
    assert ranking_scores(["rank_accuracy_by_length"], ranked) == {"accuracy_by_length": 100.0}


def test_options_longer_than_any_target_are_scored_whole(task, scoring, vocabulary):
    rows = [{"inputs": "q", "targets": "x", "options": ["x", "y" * 80]}]
    score = scoring(lambda text, option: len(option))
    (ranked,) = rank(task(rows, evaluation="rank"), score, vocabulary)
    assert ranked.scores == (1.0, 80.0)


def test_a_prediction_has_options_scores_and_the_right_ones(task, scoring, vocabulary):
    (ranked,) = rank(task(ROWS[:1], evaluation="rank"), scoring(lambda t, option: -float(len(option))), vocabulary)
    assert (ranked.options, ranked.gold, ranked.scores, ranked.tokens) == (("yes", "no"), (1,), (-3.0, -2.0), (4, 3))


@pytest.mark.parametrize(
    "row", [{"options": []}, {"options": ["a", "b"]}, {"options": ["x", "y"], "option_tokens": [[5, 1]]}]
)
def test_examples_that_cannot_be_ranked_are_refused(task, scoring, vocabulary, row):
    source = task([{"inputs": "q", "targets": "x", **row}], name="mine", evaluation="rank")
    with pytest.raises(
        ValueError, match=r"Task 'mine' is evaluated by ranking, but its example 0 .*references are \['x'\]"
    ):
        rank(source, scoring(lambda text, option: 0.0), vocabulary)


def test_a_score_that_is_not_a_number_is_refused_by_its_row(task, scoring, vocabulary):
    ranked = rank(task(ROWS, evaluation="rank"), scoring(lambda text, option: float("nan")), vocabulary)
    with pytest.raises(ValueError, match="Row 0 .*not a number"):
        ranking_scores(["rank_accuracy"], ranked)
    assert ranked[0].scores == (None, None)


def test_baselines_of_options_are_the_most_frequent_and_any(task, scoring, vocabulary):
    rows = [
        {"inputs": "1", "targets": "no", "options": ["yes", "no"]},
        {"inputs": "2", "targets": "no", "options": ["no", "yes", "maybe", "never"]},
        {"inputs": "3", "targets": "x", "options": ["y", "x"]},
    ]
    ranked = rank(task(rows, evaluation="rank"), scoring(lambda text, option: 0.0), vocabulary)
    assert [r.prediction for r in all_the_majority(ranked)] == ["no", "no", "y"]
    assert [r.scores[0] for r in all_the_majority(ranked)] == [0.0, 1.0, 1.0]
    assert chance(ranked) == pytest.approx(100 * (1 / 2 + 1 / 4 + 1 / 2) / 3)
