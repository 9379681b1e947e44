"""Rows are written so that a killed process can continue, and only one process writes."""

import json

import pytest

from flan_jax.locks import locked
from flan_jax.run.predictions import Predictions, write_predictions


def predictions(identity="a", count=3):
    def compute(first):
        return ({"row": row} for row in range(first, count))

    return Predictions(identity=lambda: identity, count=count, compute=compute)


def rows(path):
    return [json.loads(line)["row"] for line in path.read_text().splitlines()]


def test_only_the_output_remains_and_what_a_killed_process_left_is_removed(tmp_path):
    for name in (".out.jsonl.partial.77.tmp", ".out.jsonl.partial.identity.77.tmp"):
        (tmp_path / name).write_text("half")
    write_predictions(predictions(), str(tmp_path / "out.jsonl"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"] and rows(tmp_path / "out.jsonl") == [0, 1, 2]


def test_a_partial_output_is_continued_by_the_same_job_only(tmp_path):
    (tmp_path / "out.jsonl.partial").write_text('{"row": 0}\n{"ro')
    (tmp_path / "out.jsonl.partial.identity").write_text("a")
    with pytest.raises(ValueError, match="was written with another checkpoint, input, template or setting"):
        write_predictions(predictions("b"), str(tmp_path / "out.jsonl"))
    write_predictions(predictions("a"), str(tmp_path / "out.jsonl"))
    assert rows(tmp_path / "out.jsonl") == [0, 1, 2]


def test_a_second_process_with_the_same_output_is_refused_before_it_computes(tmp_path):
    with locked(tmp_path / ".out.jsonl.lock", what="--output"):
        with pytest.raises(ValueError, match=r"--output=.*out.jsonl is in use by process \d+ on .* since 20"):
            write_predictions(predictions(), str(tmp_path / "out.jsonl"))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_output(tmp_path):
    with pytest.raises(ValueError, match="--output is .*, which is a directory. Give the path of a .jsonl file"):
        write_predictions(predictions(), str(tmp_path))
