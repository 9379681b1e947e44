import numpy as np
import pytest

from flan_jax.evaluation.metrics import METRICS
from flan_jax.evaluation.rank_metrics import OptionScores, auc_pr, auc_roc, rank_classification

TWO = [(0.1, 0.5), (1.0, 1.1), (0.3, 0.1), (0.6, 0.5)]
TWO_GOLD = [{0}, {1}, {0}, {0}]
THREE = [(0.1, 0.5, 0), (-2, -1, -3), (3, 3.1, 3.2)]
THREE_GOLD = [{1}, {0}, {2}]
VARIABLE = [(0.1, 0.5), (-2, -1, -3), (3,)]
VARIABLE_GOLD = [{1}, {0, 2}, {0}]


def fn(name, scores, gold, *, tokens=None):
    """The metric's scores of log-likelihoods, of options of 2 tokens unless given."""
    rows = [
        OptionScores(
            scores=tuple(row),
            eos_scores=(0.0,) * len(row),
            tokens=(2,) * len(row) if tokens is None else tokens[number],
            bytes=(2,) * len(row),
        )
        for number, row in enumerate(scores)
    ]
    return METRICS[name].fn(rows, gold)


# The numbers of T5's own tests of its rank metric.
@pytest.mark.parametrize(
    ("scores", "gold", "num_classes", "weights", "wanted"),
    [
        (TWO, TWO_GOLD, 2, None, {"accuracy": 75, "positive_f1": 66.667, "auc_roc": 66.667, "auc_pr": 50}),
        (
            TWO,
            TWO_GOLD,
            2,
            [0.2, 1, 0.8, 0.5],
            {"accuracy": 92, "positive_f1": 90.909, "auc_roc": 86.667, "auc_pr": 83.333},
        ),
        (THREE, THREE_GOLD, 3, None, {"accuracy": 66.667, "mean_f1": 55.556}),
        (THREE, THREE_GOLD, 3, [0.2, 0.5, 1], {"accuracy": 70.588, "mean_f1": 48.148}),
        (VARIABLE, VARIABLE_GOLD, None, None, {"accuracy": 66.667}),
        (VARIABLE, VARIABLE_GOLD, None, [0.2, 0.5, 1], {"accuracy": 70.588}),
    ],
)
def test_t5_vectors(scores, gold, num_classes, weights, wanted):
    got = rank_classification(scores, gold, num_classes=num_classes, weights=weights).scores()
    assert got == pytest.approx(wanted, abs=1e-3)


def test_t5_vector_normalized_by_length():
    scores, lengths = [(0.5, 5), (2, 3.3), (1.5, 0.6), (1.8, 1)], [(5, 10), (2, 3), (5, 6), (3, 2)]
    assert fn("rank_accuracy_per_token", scores, TWO_GOLD, tokens=lengths) == {"accuracy_per_token": 75.0}
    assert fn("rank_accuracy", scores, TWO_GOLD, tokens=lengths) == {"accuracy": 75.0}
    assert fn("rank_accuracy_per_token", [(-4, -3)], [{0}], tokens=[(4, 1)]) == {"accuracy_per_token": 100.0}
    assert fn("rank_accuracy", [(-4, -3)], [{0}], tokens=[(4, 1)]) == {"accuracy": 0.0}


def test_the_first_of_tied_options_is_chosen():
    assert fn("rank_accuracy", [[1.0, 1.0], [2.0, 2.0]], [{0}, {1}]) == {"accuracy": 50.0}


def test_classes_follow_from_the_number_of_options():
    assert list(fn("rank_classes", TWO, TWO_GOLD)) == ["accuracy", "positive_f1", "auc_roc", "auc_pr"]
    assert list(fn("rank_classes", THREE, THREE_GOLD)) == ["accuracy", "mean_f1"]
    assert list(fn("rank_classes", TWO, [{0, 1}, {1}, {0}, {0}])) == ["accuracy"]  # Several right options.
    assert fn("rank_classes", [[0.0]], [{0}]) == {"accuracy": 100.0}


def test_auc_counts_ties_half_and_equals_the_pairwise_definition():
    random = np.random.default_rng(0)
    values, positive = random.integers(0, 5, 40).astype(float), random.integers(0, 2, 40).astype(bool)
    weight = random.uniform(0.5, 2, 40)
    pairs = [
        (weight[i] * weight[j], 1.0 if values[i] > values[j] else 0.5 if values[i] == values[j] else 0.0)
        for i in np.flatnonzero(positive)
        for j in np.flatnonzero(~positive)
    ]
    wanted = 100 * sum(w * b for w, b in pairs) / sum(w for w, _ in pairs)
    assert auc_roc(positive, values, weight) == pytest.approx(wanted)


def test_average_precision_treats_tied_values_as_one_threshold():
    one = np.ones(4)
    assert auc_pr(np.array([True, False, True, False]), np.array([1.0, 1.0, 0.0, 0.0]), one) == pytest.approx(50)
    assert auc_pr(np.array([True, True, False, False]), np.array([3.0, 2.0, 1.0, 0.0]), one) == pytest.approx(100)


def test_areas_that_are_not_defined_are_not_numbers():
    one, values = np.ones(2), np.array([0.0, 1.0])
    assert np.isnan(auc_roc(np.array([True, True]), values, one))
    assert np.isnan(auc_pr(np.array([False, False]), values, one))


@pytest.mark.parametrize(
    ("scores", "gold", "message"),
    [
        ([[1.0], []], [{0}, {0}], "Row 1 has 0 option scores, expected at least 1"),
        ([[1.0, float("nan")]], [{0}], "Row 0 .*not a number"),
    ],
)
def test_rows_that_do_not_fit_are_refused(scores, gold, message):
    with pytest.raises(ValueError, match=message):
        fn("rank_accuracy", scores, gold)


def test_classes_need_the_same_number_of_options_in_every_row():
    with pytest.raises(ValueError, match="Row 1 has 3 option scores, expected 2"):
        fn("rank_classes", [[1.0, 2.0], [1.0, 2.0, 3.0]], [{0}, {0}])
