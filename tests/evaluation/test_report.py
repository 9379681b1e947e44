import dataclasses
import json
import re

import pytest
from rich.console import Console

from flan_jax.evaluation import report
from flan_jax.evaluation.results import SuiteResult, TaskResult


def task_result(name, score, *, cluster="sorting", label="trained", **fields):
    return TaskResult(
        task=name,
        split="validation",
        cluster=cluster,
        label=label,
        evaluation="generate",
        metrics={"accuracy": score},
        main_metric="accuracy",
        num_examples=1200,
        **fields,
    )


AFTER = SuiteResult(
    step=2000,
    tasks=(
        task_result("sort_words", 90.0, by_template={0: 80.0, 1: 100.0}),
        task_result("sort_numbers", 70.0, num_truncated=3, notes=("external metrics not run",)),
        task_result("[rhyme]", 40.0, cluster="rhymes", label="held_out"),
    ),
)
BEFORE = dataclasses.replace(
    AFTER,
    step=0,
    tasks=(task_result("sort_words", 5.0), task_result("[rhyme]", 45.5, cluster="rhymes", label="held_out")),
)


def lines(renderable, width=200):
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)
    console.print(renderable)
    console.file.close()
    return [re.sub(r"[│┃|━─]| +", " ", line).split() for line in console.export_text().splitlines() if line.strip()]


def test_tasks_stand_under_their_clusters_with_both_scores_their_change_spread_and_notes():
    shown = lines(report.task_table(BEFORE, AFTER))
    assert shown[0] == "Tasks, metric accuracy, examples 1,200".split()
    assert shown[1] == "task step 0 step 2,000 change templates notes".split()
    assert shown[3:] == [
        ["sorting"],
        "sort_words 5.0 90.0 +85.0 80-100".split(),
        "sort_numbers - 70.0 - external metrics not run; 3 predictions truncated".split(),
        ["rhymes", "(held", "out)"],
        "[rhyme] 45.5 40.0 -5.5".split(),
    ]


def test_clusters_and_labels_have_means_and_held_out_ones_are_marked():
    assert lines(report.cluster_table(BEFORE, AFTER))[3:] == [
        "sorting 5.0 80.0 +75.0 2 2,400".split(),
        "mean of tasks 5.0 80.0 +75.0 2 2,400".split(),
        "rhymes (held out) 45.5 40.0 -5.5 1 1,200".split(),
        "mean of tasks (held out) 45.5 40.0 -5.5 1 1,200".split(),
    ]


def test_where_main_metrics_differ_the_shared_ones_have_a_line_over_all_tasks():
    one = dataclasses.replace(task_result("a", 1.0), metrics={"em": 1.0, "rouge_l": 10.0}, main_metric="em")
    two = dataclasses.replace(task_result("b", 2.0), metrics={"rouge_l": 30.0, "em": 5.0}, main_metric="rouge_l")
    after = SuiteResult(step=1, tasks=(one, two))
    shown = lines(report.cluster_table(None, after))
    assert "rouge_l of all tasks 20.0 2".split() in shown and "em of all tasks 3.0 2".split() in shown
    assert not any("all" in line for line in lines(report.cluster_table(None, SuiteResult(step=1, tasks=(one,)))))
    assert after.as_metrics()["eval/metric/rouge_l"] == 20.0
    other = dataclasses.replace(two, metrics={"accuracy": 5.0}, main_metric="accuracy")
    assert SuiteResult(step=1, tasks=(one, other)).metrics() == {}


def test_one_evaluation_alone_has_no_column_for_change():
    shown = lines(report.compare(None, AFTER))
    assert not any("change" in line for line in shown)
    assert "sort_words 90.0 80-100".split() in shown
    assert "mean of tasks 80.0 2 2,400".split() in shown


def test_metrics_that_differ_get_a_column_and_empty_columns_are_left_out():
    other = dataclasses.replace(task_result("b", 2.0), metrics={"rouge_l": 2.0}, main_metric="rouge_l")
    shown = lines(report.task_table(None, SuiteResult(step=1, tasks=(task_result("a", 1.0), other))))
    assert shown[:2] == ["Tasks, examples 1,200".split(), "task metric step 1".split()]
    assert shown[4:] == [["a", "accuracy", "1.0"], ["b", "rouge_l", "2.0"]]


def test_labels_other_than_ours_are_shown_as_they_are():
    other = SuiteResult(step=1, tasks=(task_result("a", 1.0, label="seen_in_part"),))
    assert "sorting (seen_in_part) 1.0 1".split() in lines(report.cluster_table(None, other))


def test_tables_of_long_names_fit_a_terminal_of_80_columns():
    task = task_result("embedded_product_recommendation", 50.0, by_template={0: 1.0, 1: 99.0})
    after = SuiteResult(step=2000, tasks=(task,))
    shown = lines(report.task_table(dataclasses.replace(after, step=0), after), width=80)
    assert "embedded_product_recommendation 50.0 50.0 +0.0 1-99".split() in shown


@pytest.fixture
def directory(tmp_path):
    for task in AFTER.tasks:
        row = {"input": f"do\n{task.task} " + "x" * 400 + " please", "references": ["[a] b"], "prediction": "[a] b"}
        if task.label == "held_out":
            row |= {"options": ["p", "[q]"], "scores": [-1.25, None], "prediction": ""}
        name = task.task.replace("[", "_").replace("]", "_")
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def test_predictions_to_read_come_from_each_label_whole_or_shortened(directory):
    shown = lines(report.predictions(directory, AFTER, per_label=3))
    assert [line for line in shown if line[0] == "task"] == [
        ["task", "sort_words"],
        ["task", "sort_numbers"],
        ["task", "sort_words"],
        ["task", "[rhyme]", "(held", "out)"],
        ["task", "[rhyme]", "(held", "out)"],
        ["task", "[rhyme]", "(held", "out)"],
    ]
    assert ["target", "[a]", "b"] in shown and ["prediction", "[a]", "b"] in shown
    assert ["option", "-1.2", "p"] in shown and ["option", "-", "[q]"] in shown
    assert ["prediction", "(empty)"] in shown
    text = " ".join(word for line in shown for word in line)
    assert max(len(word) for line in shown for word in line if set(word) == {"x"}) < 150
    assert "do sort_words xxx" in text and "xxx ... xxx" in text and "xxx please" in text
