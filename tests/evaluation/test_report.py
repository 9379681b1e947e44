import dataclasses
import json
import re

import pytest
from rich.console import Console

from flan_jax.evaluation import report
from flan_jax.evaluation.directory import predictions_path
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
        task_result("sort_numbers", 70.0, num_truncated=3, notes=("token ids compared",)),
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


def test_tasks_stand_under_their_clusters_with_both_scores_their_change_and_spread():
    shown = lines(report.task_table(BEFORE, AFTER))
    assert shown[0] == "Tasks, metric accuracy, examples 1,200".split()
    assert shown[1] == "task step 0 step 2,000 change spread".split()
    assert [line for line in shown[2:] if line] == [
        ["sorting"],
        "sort_words 5.0 90.0 +85.0 80-100".split(),
        "sort_numbers - 70.0 -".split(),
        ["rhymes", "(held", "out)"],
        "[rhyme] 45.5 40.0 -5.5".split(),
    ]
    notes = "sort_numbers: token ids compared; 3 predictions truncated"
    assert notes.split() in lines(report.compare(BEFORE, AFTER), width=80)


def test_clusters_and_labels_have_means_and_held_out_ones_are_marked():
    assert [line for line in lines(report.cluster_table(BEFORE, AFTER))[2:] if line] == [
        "sorting 5.0 80.0 +75.0 2 2,400".split(),
        "mean of tasks 5.0 80.0 +75.0 2 2,400".split(),
        "rhymes (held out) 45.5 40.0 -5.5 1 1,200".split(),
        "mean of tasks (held out) 45.5 40.0 -5.5 1 1,200".split(),
    ]


BOTH = dataclasses.replace(
    task_result("questions", 0.0),
    metrics={"exact_match": 50.0, "f1": 60.0},
    main_metric="exact_match",
    standard_errors={"exact_match": 6.0, "f1": 5.0},
    majority={"exact_match": 10.0, "f1": 12.5},
)
CHOICE = task_result(
    "sst2", 69.3, standard_errors={"accuracy": 5.9}, majority={"accuracy": 69.3}, chance={"accuracy": 50.0}
)


def test_every_metric_is_shown_with_its_standard_error_and_its_baselines():
    after = SuiteResult(step=1, tasks=(BOTH, CHOICE))
    shown = lines(report.task_table(dataclasses.replace(after, step=0), after), width=80)
    assert shown[1] == "task step 0 step 1 change majority chance".split()
    wanted = [
        "exact_match 50.0 50.0 ± 6.0 +0.0 10.0",
        "f1 60.0 60.0 ± 5.0 +0.0 12.5",
        "accuracy 69.3 69.3 ± 5.9 +0.0 69.3 50.0",
    ]
    assert shown[3:] == [["sorting"], ["questions"], wanted[0].split(), wanted[1].split(), ["sst2"], wanted[2].split()]
    alone = lines(report.task_table(None, dataclasses.replace(after, tasks=(CHOICE,))), width=80)
    assert alone[-1] == "sst2 69.3 ± 5.9 69.3 50.0".split()


def test_means_are_of_one_metric_each_with_the_number_of_its_tasks():
    after = SuiteResult(step=1, tasks=(BOTH, CHOICE, task_result("b", 30.7)))
    shown = lines(report.cluster_table(None, after), width=80)
    start = shown.index(["mean", "of", "tasks"])
    means = ["exact_match 50.0 ± 6.0 10.0 1 1,200", "f1 60.0 ± 5.0 12.5 1 1,200", "accuracy 50.0 2 2,400"]
    assert shown[start + 1 :] == [line.split() for line in means]
    assert report.in_words("trained", {"accuracy": after.means()["accuracy"]}) == "trained accuracy 50.0 (2 tasks)"
    shown = report.in_words("held_out", SuiteResult(step=1, tasks=(CHOICE,)).means())
    assert shown == "held_out accuracy 69.3 ± 5.9 (majority 69.3, chance 50.0, 1 task)"


def test_one_evaluation_alone_has_no_column_for_change():
    shown = lines(report.compare(None, AFTER))
    assert not any("change" in line for line in shown)
    assert "sort_words 90.0 80-100".split() in shown
    assert "mean of tasks 80.0 2 2,400".split() in shown


def test_labels_other_than_ours_are_shown_as_they_are():
    other = SuiteResult(step=1, tasks=(task_result("a", 1.0, label="seen_in_part"),))
    assert "sorting (seen_in_part) 1.0 1".split() in lines(report.cluster_table(None, other))


def test_tables_of_long_names_fit_a_terminal_of_80_columns():
    task = task_result(
        "embedded_product_recommendation",
        50.0,
        by_template={0: 1.0, 1: 99.0},
        standard_errors={"accuracy": 1.4},
        majority={"accuracy": 33.3},
        chance={"accuracy": 25.0},
    )
    after = SuiteResult(step=2000, tasks=(task,))
    shown = lines(report.compare(dataclasses.replace(after, step=0), after), width=80)
    assert "embedded_product_recommendation 50.0 50.0 ± 1.4 +0.0 33.3 25.0 1-99".split() in shown


@pytest.fixture
def directory(tmp_path):
    for task in AFTER.tasks:
        row = {"input": f"do\n{task.task} " + "x" * 400 + " please", "references": ["[a] b"], "prediction": "[a] b"}
        if task.label == "held_out":
            row |= {"options": ["p", "[q]"], "scores": [-1.25, None], "prediction": ""}
        predictions_path(tmp_path, task.task).write_text(json.dumps(row) + "\n")
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


def test_a_single_evaluation_shows_the_interval_of_each_score_within_80_columns():
    task = task_result(
        "a_task_with_a_name_of_thirty_lt", 70.0, standard_errors={"accuracy": 4.6}, intervals={"accuracy": (60.6, 79.0)},
        majority={"accuracy": 50.0}, chance={"accuracy": 50.0}, by_template={0: 60.0, 1: 80.0},
    )  # fmt: skip
    result = SuiteResult(step=2000, tasks=(task,))
    shown = lines(report.task_table(None, result), width=80)
    assert shown[1] == "task step 2,000 95 % majority chance spread".split()
    assert "a_task_with_a_name_of_thirty_lt 70.0 ± 4.6 61-79 50.0 50.0 60-80".split() in shown
    assert (
        lines(report.task_table(result, result))[1]
        == "task step 2,000 step 2,000 change majority chance spread".split()
    )


def test_a_published_suite_has_a_table_of_its_rule():
    tasks = [
        task_result(name, score, label="flan2021/nli", group=group, aggregation="flan2021")
        for name, group, score in (("rte_0", "nli/rte", 40.0), ("rte_1", "nli/rte", 60.0), ("qa", "qa/arc", 90.0))
    ]
    shown = lines(report.compare(None, SuiteResult(step=1, tasks=tuple(tasks))))
    start = shown.index("Suites by their own rules".split())
    assert [line for line in shown[start + 2 :] if line][:3] == [
        "flan2021/nli (flan2021) 70.0 3".split(), ["nli", "50.0"], ["qa", "90.0"],
    ]  # fmt: skip
