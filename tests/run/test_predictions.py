"""Outputs of inference: continued for the same rows only, in constant memory."""

import dataclasses
import itertools
import json
import os
import tracemalloc
from collections import Counter

import pytest

from flan_jax.errors import UserError
from flan_jax.locks import locked
from flan_jax.run.predictions import Predictions, write_predictions
from flan_jax.tasks.prompting import PromptedInput, TemplatePrompts

ODD = "a\u2028b\x85c\x0bd\x1ee"


def predictions_of(path, *, identity="same", stop_after=None):
    prompted = PromptedInput(input=str(path), prompts=TemplatePrompts(template="{q}"))

    def predict(rows):
        for done, (_, row, prompt) in enumerate(rows):
            if done == stop_after:
                raise KeyboardInterrupt
            yield {**row, "prediction": f"{prompt} {ODD}"}

    return Predictions(identity=lambda: identity, rows=lambda: prompted.rows(Counter()), predict=predict)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


ROWS = [{"q": f"{ODD} {i}", "id": i} for i in range(20)]


@pytest.fixture
def killed(tmp_path):
    """An input, and an output in which five rows and half of a sixth are written."""
    path, output = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(predictions_of(path, stop_after=5), str(output))
    partial = tmp_path / "out.jsonl.partial"
    assert partial.read_bytes().count(b"\n") == 5
    with open(partial, "ab") as file:
        file.write('{"q": "é'.encode()[:-1])
    return path, output, partial


def test_finished_rows_are_not_predicted_again_whatever_characters_they_hold(killed):
    path, output, partial = killed
    seen = []
    again = predictions_of(path)

    def predict(rows):
        for prompted in rows:
            seen.append((prompted.number, prompted.row["id"]))
            yield from again.predict(iter([prompted]))

    assert write_predictions(dataclasses.replace(again, predict=predict), str(output)) == 20
    assert seen == [(n, n) for n in range(5, 20)] and not partial.exists()
    lines = output.read_bytes().decode().split("\n")
    assert [json.loads(line) for line in lines[:-1]] == list(predictions_of(path))


@pytest.mark.parametrize(
    "rows",
    [
        [{**row, "id": row["id"] + 100} for row in ROWS],  # Equal prompts.
        [{**row, "id": float(row["id"])} for row in ROWS],
        [{"id": row["id"], "q": row["q"]} for row in ROWS],
        [{**row, "more": 1} for row in ROWS],
        ROWS[1:],
        ROWS[:3],
    ],
)
def test_an_output_is_continued_only_for_the_rows_that_it_has(killed, rows):
    path, output, partial = killed
    before = partial.read_bytes()
    with pytest.raises(UserError, match="was written with another checkpoint, input, template or setting"):
        write_predictions(predictions_of(write_rows(path, rows)), str(output))
    assert partial.read_bytes() == before and not output.exists()


def test_an_output_is_continued_only_for_the_same_settings(killed):
    path, output, _ = killed
    with pytest.raises(UserError, match="was written with another checkpoint, input, template or setting"):
        write_predictions(predictions_of(path, identity="other"), str(output))


def test_nothing_is_left_when_no_row_was_written(tmp_path):
    path, output = write_rows(tmp_path / "in.jsonl", [{"x": 1}]), tmp_path / "out.jsonl"
    with pytest.raises(UserError, match=r"in\.jsonl:1: .*lacks"):
        write_predictions(predictions_of(path), str(output))
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")} == {"in.jsonl"}


def test_rows_are_streamed(tmp_path):
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    line = json.dumps({"q": "x" * 200}) + "\n"
    peaks = []
    for count in (20, 2_000, 20_000):  # The first one fills caches of the console.
        with open(path, "w") as file:
            file.writelines(itertools.repeat(line, count))
        tracemalloc.start()
        write_predictions(predictions_of(path), str(output))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert output.read_bytes().count(b"\n") == count
    assert peaks[2] < peaks[1] + 100_000  # 20,000 rows of 200 characters would be 4 MB.


def test_only_the_output_remains_and_what_a_killed_process_left_is_removed(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    for name in (".out.jsonl.partial.77.tmp", ".out.jsonl.partial.identity.77.tmp"):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0))
    write_predictions(predictions_of(path), str(tmp_path / "out.jsonl"))
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_a_second_process_with_the_same_output_is_refused_before_it_computes(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    with locked(tmp_path / ".out.jsonl.lock", what="--output"):
        with pytest.raises(ValueError, match=r"--output=.*out.jsonl is in use by process \d+ on .* since 20"):
            write_predictions(predictions_of(path, stop_after=0), str(tmp_path / "out.jsonl"))
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


def test_a_directory_is_no_output(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(ValueError, match="--output is .*, which is a directory. Give a .jsonl file"):
        write_predictions(predictions_of(path), str(tmp_path))


def test_an_output_replaces_neither_its_input_nor_a_link_nor_a_pipe(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    before = path.read_text()
    same = dataclasses.replace(predictions_of(path), reads=path)
    with pytest.raises(UserError, match="the file that the rows are read from"):
        write_predictions(same, str(tmp_path / ".." / tmp_path.name / "in.jsonl"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        write_predictions(predictions_of(path), str(tmp_path / "pipe"))
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    write_predictions(predictions_of(path), str(tmp_path / "link.jsonl"))
    assert (tmp_path / "link.jsonl").is_symlink() and (tmp_path / "real.jsonl").is_file()
    assert path.read_text() == before
