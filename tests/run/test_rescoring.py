"""Scores of predictions that other programs wrote: which fields are read, and which files are refused."""

import csv
import json

import pytest

from flan_jax.errors import UserError
from flan_jax.run.rescoring import rescore

ROWS = [{"prediction": "a", "references": ["A", "b"]}, {"prediction": "c", "target": "d"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def scores(*args, **options):
    return {task.task: dict(task.metrics) for task in rescore(*args, **options).tasks}


def test_a_file_needs_only_predictions_and_references(tmp_path):
    path = write(tmp_path / "mine.jsonl", ROWS)
    assert scores(path) == {"mine": {"exact_match": 50.0}}
    assert scores(path, metrics=["accuracy", "squad"]) == {"mine": {"accuracy": 0.0, "em": 50.0, "f1": 50.0}}


def test_fields_may_have_other_names_or_be_nested_and_others_do_not_matter(tmp_path):
    rows = [{"output": "a", "answers": {"text": ["a", "b"]}, "input": "q", "metrics": 3, "model": "x"}]
    fields = {"prediction": "output", "references": "answers.text"}
    assert scores(write(tmp_path / "mine.jsonl", rows), fields=fields) == {"mine": {"exact_match": 100.0}}
    with open(tmp_path / "table.csv", "w") as file:
        csv.writer(file).writerows([["out", "target", "index"], ["x", "x", "7"], ["y", "z", "3"]])
    assert scores(str(tmp_path / "table.csv"), fields={"prediction": "out"}) == {"table": {"exact_match": 50.0}}


def test_tasks_are_named_by_their_field_or_their_file(tmp_path):
    write(tmp_path / "one.jsonl", ROWS)
    write(tmp_path / "two.jsonl", [{**row, "task": name} for name in ("b", "a") for row in ROWS[:1]])
    assert list(scores(str(tmp_path))) == ["one", "b", "a"]


def test_ranked_rows_are_scored_from_scores_and_the_right_options(tmp_path):
    rows = [{"scores": [-1.0, -2.0], "gold": 0, "target": "yes", "options": ["yes", "no"]}]
    rows += [{"scores": [-1.0, -2.0], "gold": [1], "target": "no", "options": ["yes", "no"]}]
    path = write(tmp_path / "ranked.jsonl", rows)
    (task,) = rescore(path).tasks
    assert (task.evaluation, task.metrics, task.chance) == ("rank", {"accuracy": 50.0}, {"accuracy": 50.0})
    assert scores(path, metrics=["accuracy"]) == {"ranked": {"accuracy": 50.0}}  # Of the chosen options' texts.


RANKED = {"scores": [-1.0, -2.0], "gold": 0, "target": "yes"}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"prediction": "a"}], {}, r"mine.jsonl:1: the row has neither 'references' nor 'target'"),
        ([{"target": "a"}], {}, r"mine.jsonl:1: the row has neither 'prediction' nor 'scores'"),
        ([*ROWS, {"prediction": 3, "target": "a"}], {}, r"mine.jsonl:3: prediction: expected a text, got 3"),
        ([{**ROWS[0], "index": 1.5}], {}, r"mine.jsonl:1: index: expected a whole number, got 1.5"),
        ([{**ROWS[0], "index": 4}] * 2, {}, r"1 row repeated \(index 4\)"),
        (ROWS, {"fields": {"prediction": "answer"}}, r"mine.jsonl:1: the row lacks the field 'answer'"),
        (ROWS, {"fields": {"predictoin": "a"}}, r"'predictoin' is no field of a row. Did you mean 'prediction'"),
        (ROWS, {"metrics": ["rank_accuracy"]}, r"judges scores of options, which 2 of 2 rows lack"),
        (ROWS, {"metrics": ["squd"]}, r"squd.*Did you mean 'squad'"),
        (ROWS, {"metrics": ["positive_f1"]}, r"Row 0 must have two options"),
        ([RANKED, ROWS[1]], {}, r"1 of the 2 rows of 'mine' have 'scores' of options"),
        ([{**RANKED, "gold": 2}], {}, r"mine.jsonl:1: gold must list numbers of options, 0 to 1"),
        ([], {}, r"has no rows"),
    ],
)
def test_files_that_cannot_be_scored_are_refused(tmp_path, rows, options, message):
    with pytest.raises(UserError, match=message):
        rescore(write(tmp_path / "mine.jsonl", rows), **options)


def test_lines_and_paths_that_are_no_rows_are_named(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prediction": "a", "target": "a"}\n{"prediction": \n')
    with pytest.raises(UserError, match=r"bad.jsonl:2: "):
        rescore(str(tmp_path / "bad.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is a directory without .jsonl files"):
        rescore(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="nowhere.jsonl"):
        rescore(str(tmp_path / "nowhere.jsonl"))
