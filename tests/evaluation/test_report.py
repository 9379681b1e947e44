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
        task_result("sort_numbers", 70.0, num_cut=3, notes=("foreign metrics not run",)),
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
    return [re.sub(r"[│┃|]| +", " ", line).split() for line in console.export_text().splitlines() if line.strip()]


def test_tasks_stand_with_both_scores_their_change_spread_and_notes():
    shown = lines(report.task_table(BEFORE, AFTER))
    assert any("0" in line and "2,000" in line and "change" in line for line in shown)
    rows = {line[0]: line for line in shown}
    assert rows["sort_words"] == "sort_words sorting accuracy 5.0 90.0 +85.0 80 to 100 1,200".split()
    assert rows["sort_numbers"][:6] == "sort_numbers sorting accuracy - 70.0 -".split()
    assert rows["sort_numbers"][-7:] == "foreign metrics not run; 3 predictions cut".split()
    assert rows["[rhyme]"][:8] == "[rhyme] rhymes held out accuracy 45.5 40.0 -5.5".split()


def test_clusters_and_labels_have_means_and_held_out_ones_are_marked():
    rows = lines(report.cluster_table(BEFORE, AFTER))
    assert "sorting 5.0 80.0 +75.0 2 2,400".split() in rows
    assert "rhymes held out 45.5 40.0 -5.5 1 1,200".split() in rows
    assert "mean of tasks 5.0 80.0 +75.0 2 2,400".split() in rows
    assert "mean of tasks held out 45.5 40.0 -5.5 1 1,200".split() in rows


def test_one_evaluation_alone_has_no_column_for_change():
    shown = lines(report.compare(None, AFTER))
    assert not any("change" in line for line in shown)
    assert "sort_words sorting accuracy 90.0 80 to 100 1,200".split() in shown
    assert "mean of tasks 80.0 2 2,400".split() in shown


def test_labels_other_than_ours_are_shown_as_they_are():
    other = SuiteResult(step=1, tasks=(task_result("a", 1.0, label="seen_in_part"),))
    assert "sorting seen_in_part 1.0 1 1,200".split() in lines(report.cluster_table(None, other))


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
        ["task", "[rhyme]", "held", "out"],
        ["task", "[rhyme]", "held", "out"],
        ["task", "[rhyme]", "held", "out"],
    ]
    assert ["target", "[a]", "b"] in shown and ["prediction", "[a]", "b"] in shown
    assert ["option", "-1.2", "p"] in shown and ["option", "-", "[q]"] in shown
    assert ["prediction", "(empty)"] in shown
    text = " ".join(word for line in shown for word in line)
    assert "do sort_words xxx" in text and "xxx ... xxx" in text and "xxx please" in text
