import json

import pytest

from flan_jax.evaluation.prediction import prediction_of
from flan_jax.evaluation.rank_metrics import NORMALIZATIONS, OptionScores
from flan_jax.evaluation.ranking import normalizations_of, rank_options
from flan_jax.evaluation.task_scores import all_the_majority, chance, measure
from flan_jax.settings import Place

ROWS = [
    {"inputs": "short", "targets": "no", "options": ["yes", "no"]},
    {"inputs": "a much longer input of this task", "targets": "it", "options": ["that", "it", "these", "those"]},
    {"inputs": "middle sized", "targets": "one", "options": ["one", "four"]},
]


def ranking_scores(metrics, answers):
    return {name: score for one in measure(metrics, answers) for name, score in one.scores().items()}


def rank(task, score_fn, vocabulary, *, metrics=()):
    ranked = rank_options(
        task,
        indices=range(len(task)),
        score_fn=score_fn,
        vocabulary=vocabulary,
        normalizations=normalizations_of(metrics),
    )
    return sorted(ranked, key=lambda prediction: prediction.index)


def test_every_option_is_scored_with_its_own_input_in_whatever_order(task, scoring, vocabulary):
    score = scoring(lambda text, option: len(text) + len(option) / 100)
    for backwards in (score, lambda rows: reversed(list(score(rows)))):
        ranked = rank(task(ROWS, evaluation="rank"), backwards, vocabulary)
        assert [r.scores for r in ranked] == [
            pytest.approx((5.03, 5.02)),
            pytest.approx((32.04, 32.02, 32.05, 32.05)),
            pytest.approx((12.03, 12.04)),
        ]
        assert [r.prediction for r in ranked] == ["yes", "these", "four"]
        assert [r.references for r in ranked] == [("no",), ("it",), ("one",)]


def test_an_option_is_scored_with_its_end_of_sequence(task, scoring, vocabulary):
    score = scoring(lambda text, option: 0.0)
    rank(task(ROWS[:1], evaluation="rank"), score, vocabulary)
    ((_, _, options),) = score.rows
    assert [list(option) for option in options] == [
        [*vocabulary.encode(text), vocabulary.eos_id] for text in ("yes", "no")
    ]


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
    long = ["rank_accuracy", "rank_accuracy_per_token", "rank_accuracy_per_byte"]
    ranked = rank(task(rows, evaluation="rank"), scoring(lambda text, option: -len(option) - 1), vocabulary)
    assert ranking_scores(long, ranked) == {
        "accuracy": 0.0,
        "accuracy_per_token": 0.0,  # Equal: the first wins.
        "accuracy_per_byte": 100.0,
    }


def test_options_are_compared_with_their_score_after_empty_inputs(task, scoring, vocabulary):
    """What is likely anyway gets no credit: the second option gains more from the inputs."""
    scores = {("q", "the"): -1.0, ("q", "rare"): -5.0, ("", "the"): -1.5, ("", "rare"): -9.0}
    score = scoring(lambda text, option: scores[text, option])
    rows = [{"inputs": "q", "targets": "rare", "options": ["the", "rare"]}] * 2
    ranked = rank(task(rows, evaluation="rank"), score, vocabulary, metrics=["rank_accuracy_unconditional"])
    assert [(number, list(inputs), len(options)) for number, inputs, options in score.rows[:1]] == [
        (0, [vocabulary.eos_id], 2)
    ]
    assert ranking_scores(["rank_accuracy", "rank_accuracy_unconditional"], ranked) == {
        "accuracy": 0.0,
        "accuracy_unconditional": 100.0,
    }
    with pytest.raises(ValueError, match="Row 0 has 2 scores of options and 0 unconditional_scores"):
        ranking_scores(["rank_accuracy_unconditional"], rank(task(rows, evaluation="rank"), score, vocabulary))


def test_the_end_of_sequence_counts_unless_a_metric_leaves_it_out(task, scoring, vocabulary):
    rows = [{"inputs": "q", "targets": "cat", "options": ["cat", "cats"]}]
    score = scoring(lambda text, option: {"cat": -6.0, "cats": -5.0}[option], eos=lambda option: -3.0 + len(option) / 4)
    ranked = rank(task(rows, evaluation="rank"), score, vocabulary)
    assert ranked[0].eos_scores == (-2.25, -2.0)
    assert ranking_scores(["rank_accuracy", "rank_accuracy_no_eos"], ranked) == {
        "accuracy": 0.0,
        "accuracy_no_eos": 0.0,
    }
    score = scoring(lambda text, option: {"cat": -6.0, "cats": -5.0}[option], eos=lambda option: 3.0 * len(option) - 14)
    ranked = rank(task(rows, evaluation="rank"), score, vocabulary)
    assert ranking_scores(["rank_accuracy", "rank_accuracy_no_eos"], ranked) == {
        "accuracy": 0.0,
        "accuracy_no_eos": 100.0,
    }


def test_the_first_rank_metric_chooses_the_option(task, scoring, vocabulary):
    rows = [{"inputs": "q", "targets": "a long one", "options": ["a", "a long one"]}]
    score = scoring(lambda text, option: -len(option) - 1)
    chosen = [
        rank(task(rows, evaluation="rank"), score, vocabulary, metrics=metrics)[0].prediction
        for metrics in ([], ["f1", "rank_accuracy_per_byte"], ["rank_accuracy", "rank_accuracy_per_byte"])
    ]
    assert chosen == ["a", "a long one", "a"]


def test_a_row_has_what_any_normalization_needs(task, scoring, vocabulary):
    rows = [{"inputs": "q", "targets": "né", "options": ["yes", "né"]}]
    score = scoring(lambda t, option: -float(len(option)), eos=lambda option: -0.5)
    (ranked,) = rank(
        task(rows, evaluation="rank"), score, vocabulary, metrics=["rank_accuracy", "rank_accuracy_unconditional"]
    )
    assert ranked.option_scores() == OptionScores(
        scores=(-3.0, -2.0),
        eos_scores=(-0.5, -0.5),
        tokens=(4, 4),
        bytes=(3, 3),
        unconditional_scores=(-3.0, -2.0),
        unconditional_eos_scores=(-0.5, -0.5),
    )
    assert (ranked.options, ranked.gold, ranked.prediction) == (("yes", "né"), (1,), "né")
    assert prediction_of(json.loads(ranked.line()), Place(file="f", syntax="JSON")) == ranked


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"options": []}, r"it needs at least two different options, got \[\]"),
        ({"options": ["x"]}, r"it needs at least two different options, got \['x'\]"),
        ({"options": ["a", "b"]}, r"none of the options \['a', 'b'\] is right; the references are \['x'\]"),
        ({"options": ["x", "y"], "gold": 2}, r"its right options are \[0, 2\] of 2"),
        ({"options": ["x", "x"]}, r"it needs at least two different options, got \['x', 'x'\]"),
        ({"options": ["x", "y"], "option_tokens": [[5, 1]]}, "it has 2 options and 1 token lists"),
        ({"options": ["x", ""], "option_tokens": [[5, 1], []]}, "the option '' has no tokens"),
    ],
)
def test_examples_that_cannot_be_ranked_are_refused(task, scoring, vocabulary, row, reason):
    source = task([*ROWS, {"inputs": "q", "targets": "x", **row}], name="mine", evaluation="rank")
    with pytest.raises(ValueError, match=rf"Task 'mine' .* its example 3 \(row 3 .*cannot be ranked: {reason}"):
        rank(source, scoring(lambda text, option: 0.0), vocabulary)


def test_an_empty_option_is_not_divided_by_its_length(task, scoring, vocabulary):
    rows = [*ROWS, {"inputs": "q", "targets": "", "options": ["x", ""]}]
    ranked = rank(task(rows, evaluation="rank"), scoring(lambda text, option: -1.0 - len(option)), vocabulary)
    assert ranking_scores(["rank_accuracy", "rank_accuracy_per_token"], ranked)["accuracy"] == 100.0
    for name, lengths in (("per_byte", "bytes"), ("per_token_no_eos", "tokens")):
        with pytest.raises(ValueError, match=rf"Row 3: options of \[1, 0\] {lengths}"):
            ranking_scores([f"rank_accuracy_{name}"], ranked)


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
    majority = all_the_majority(ranked)
    assert [r.prediction for r in majority] == ["no", "no", "y"]
    assert [r.scores[0] for r in majority] == [0.0, 1.0, 1.0]
    assert chance(ranked) == pytest.approx(100 * (1 / 2 + 1 / 4 + 1 / 2) / 3)
    for suffix in NORMALIZATIONS:
        assert ranking_scores([f"rank_accuracy{suffix}"], majority) == {f"accuracy{suffix}": pytest.approx(200 / 3)}
