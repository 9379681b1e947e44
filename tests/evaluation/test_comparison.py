import math

import numpy as np
import pytest

from flan_jax.evaluation.comparison import compare
from flan_jax.evaluation.directory import EvaluatedTask, EvaluationRecord, begin, write_finished
from flan_jax.evaluation.prediction import Prediction
from flan_jax.evaluation.task_scores import ScoredTask


def row(index, prediction, *, reference="yes", task="qa", **fields):
    return Prediction(
        task=task,
        split="test",
        index=index,
        input=f"q{index}",
        references=(reference,),
        prediction=prediction,
        **fields,
    )


@pytest.fixture
def evaluation(tmp_path):
    """Writes an evaluation: rows by task, scored with the given metrics."""

    def write(name, rows_by_task, *, metrics=("accuracy",)):
        directory = tmp_path / name
        directory.mkdir()
        tasks = [
            ScoredTask(task=task, split="test", cluster="c", label="t", evaluation="generate", metrics=metrics)
            for task in rows_by_task
        ]
        evaluated = tuple(EvaluatedTask(scored=task, identity="x", num_exported=9, num_examples=9) for task in tasks)
        begin(directory, EvaluationRecord(step=1, provenance={}, tasks=evaluated))
        for task, rows in rows_by_task.items():
            write_finished(directory, task, rows)
        return directory

    return write


def answers(right, count, *, task="qa", first=0):
    """Rows of which `right` from number `first` on are right."""
    return [row(i, "yes" if first <= i < first + right else "no", task=task) for i in range(count)]


def test_a_difference_has_wins_ties_losses_an_interval_and_a_p_value(evaluation):
    (one,) = compare(evaluation("a", {"qa": answers(50, 100)}), evaluation("b", {"qa": answers(60, 100, first=5)}))
    assert (one.name, one.metric, one.before, one.after, one.difference) == ("qa", "accuracy", 50.0, 60.0, 10.0)
    assert (one.wins, one.ties, one.losses) == (15, 80, 5)
    # The normal interval of the mean of 15 times +1, 5 times -1 and 80 times 0.
    error = 100 * math.sqrt((20 / 100 - 0.1**2) / 100)
    assert one.low == pytest.approx(10 - 1.96 * error, abs=0.8) and one.high == pytest.approx(
        10 + 1.96 * error, abs=0.8
    )
    z = 10 / error
    assert one.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)


def test_pairs_narrow_the_interval_of_evaluations_that_err_on_the_same_rows(evaluation):
    (one,) = compare(evaluation("a", {"qa": answers(50, 100)}), evaluation("b", {"qa": answers(53, 100)}))
    assert one.wins == 3 and one.high - one.low < 8  # Unpaired, it would be 28 wide.


def test_equal_evaluations_do_not_differ(evaluation):
    (one,) = compare(evaluation("a", {"qa": answers(50, 100)}), evaluation("b", {"qa": answers(50, 100)}))
    assert (one.difference, one.low, one.high, one.p_value, one.ties) == (0.0, 0.0, 0.0, 1.0, 100)


def test_a_difference_without_any_loss_is_significant_but_never_certain(evaluation):
    (one,) = compare(evaluation("a", {"qa": answers(0, 50)}), evaluation("b", {"qa": answers(50, 50)}))
    assert 0 < one.p_value < 0.01


def test_scores_of_the_corpus_and_of_classes_are_compared_too(evaluation):
    texts = ["the cat sat on the mat", "a dog ran in the park today", "birds fly over the blue sea"] * 5
    good = [row(i, text, reference=text) for i, text in enumerate(texts)]
    bad = [row(i, text.replace("the", "a"), reference=text) for i, text in enumerate(texts)]
    metrics = ("bleu", "macro_f1")
    result = compare(evaluation("a", {"qa": bad}, metrics=metrics), evaluation("b", {"qa": good}, metrics=metrics))
    by_metric = {one.metric: one for one in result}
    assert by_metric["bleu"].after == pytest.approx(100) and by_metric["bleu"].low > 0 and by_metric["bleu"].wins == 15
    # The labels that occur differ between the two, and with them the numbers of the classes.
    assert (by_metric["macro_f1"].before, by_metric["macro_f1"].after) == (0.0, 100.0)


def test_a_metric_of_several_tasks_has_a_mean(evaluation):
    before = evaluation("a", {"qa": answers(5, 10), "nli": answers(50, 100, task="nli")})
    after = evaluation("b", {"qa": answers(9, 10), "nli": answers(50, 100, task="nli")})
    *tasks, mean = compare(before, after)
    assert [one.name for one in tasks] == ["qa", "nli"] and mean.name == "mean of 2 tasks"
    assert (mean.before, mean.after, mean.wins, mean.ties) == (50.0, 70.0, 4, 106)
    assert mean.low == pytest.approx(tasks[0].low / 2, abs=2)
    assert np.isfinite(mean.p_value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (answers(5, 8), r"'qa': .*b has 2 rows missing \(index 8, 9\), compared with .*a. Evaluate both with the same"),
        (answers(5, 15), r"b has 5 rows extra \(index 10, 11, 12 and 2 more\)"),
        ([*answers(5, 9), row(11, "yes")], r"1 row missing \(index 9\) and 1 row extra \(index 11\)"),
        (
            [*answers(5, 9), row(9, "no", reference="no")],
            r"1 row of .*b \(index 9\) have another input or other references",
        ),
    ],
)
def test_other_rows_are_refused_with_their_numbers(evaluation, rows, message):
    with pytest.raises(ValueError, match=message):
        compare(evaluation("a", {"qa": answers(5, 10)}), evaluation("b", {"qa": rows}))


def test_other_tasks_and_unfinished_evaluations_are_refused(evaluation, tmp_path):
    one, two = evaluation("a", {"qa": answers(5, 10)}), evaluation("b", {"nli": answers(5, 10, task="nli")})
    with pytest.raises(ValueError, match="b lacks 1 task of .*a: qa"):
        compare(one, two)
    (one / "qa.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="a has no predictions of 'qa': the evaluation is not finished"):
        compare(one, one)
    with pytest.raises(FileNotFoundError, match="evaluation.json"):
        compare(tmp_path / "none", one)
