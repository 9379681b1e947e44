"""`flan-jax infer` through the command line: what it reads, asks and writes."""

import dataclasses
import io
import itertools
import json
import sys

import pytest

import flan_jax
from flan_jax import cli
from flan_jax.run.predictions import write_predictions
from tests.integration.conftest import arguments

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def run_dir(export_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("inference") / "run"
    options = [f"MODEL_DIR={path}", f"EXPORT_DIR={export_dir}", "run_config.RunConfig.evaluation=None"]
    assert cli.run(arguments("TRAIN_STEPS=1", *options)) == 0
    return path


def test_inference_continues_where_it_was_killed(run_dir, tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(json.dumps({"question": f"What is {n}?", "id": n}) + "\n" for n in range(20)))
    ask = [
        "infer",
        str(run_dir),
        f"--input={rows}",
        f"--output={out}",
        "--template=Q: {question}",
        "--batch_size=8",
    ]
    assert cli.run(ask) == 0
    uninterrupted = out.read_text()
    assert [json.loads(line)["id"] for line in uninterrupted.splitlines()] == list(range(20))
    assert all("prediction" in json.loads(line) for line in uninterrupted.splitlines())
    # Killed within the sixth row; the same call from Python has the same identity as the command line.
    predictions = flan_jax.infer(
        flan_jax.ModelOptions(model_dir=str(run_dir), batch_size=8), input=str(rows), template="Q: {question}"
    )

    def killed(rows):
        yield from itertools.islice(predictions.predict(rows), 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(dataclasses.replace(predictions, predict=killed), f"{tmp_path}/again.jsonl")
    partial = tmp_path / "again.jsonl.partial"
    assert len(partial.read_text().splitlines()) == 5
    with open(partial, "a") as file:
        file.write(uninterrupted.splitlines()[5][:7])
    again = [*ask[:3], f"--output={tmp_path}/again.jsonl", *ask[4:]]
    for changed in (
        "--template=A: {question}",
        "--task_feature_lengths={'inputs': 8, 'targets': 8}",
        "--scores",
        "--max_decode_length=3",
        "--min_new_tokens=1",
    ):
        assert cli.run([*again, changed]) == 2
        assert "was written with another checkpoint, input, template or setting" in capsys.readouterr().err
    assert cli.run(again) == 0
    assert not partial.exists()
    assert (tmp_path / "again.jsonl").read_text() == uninterrupted
    assert cli.run([*again[:2], *again[3:], "--input=nowhere.jsonl"]) == 2
    assert "No file" in capsys.readouterr().err


def test_rows_say_what_was_truncated_and_how_likely_a_prediction_is(run_dir, tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"inputs": "short"}\n' + json.dumps({"inputs": "many words " * 99}) + "\n")
    out.write_text("earlier\n")
    lengths = "--task_feature_lengths={'inputs': 16, 'targets': 8}"
    ask = ["infer", str(run_dir), f"--input={rows}", "--batch_size=8", lengths, "--max_decode_length=2"]
    assert cli.run([*ask, f"--output={out}", "--scores"]) == 0
    short, long = map(json.loads, out.read_text().splitlines())
    assert "input_truncated" not in short and long["input_truncated"] is True
    for row in (short, long):
        assert row["score"] == pytest.approx(2 * row["score_per_token"], abs=1e-4) and row["score"] < 0
        assert row["truncated"] is True  # The untrained network does not end within two tokens.
    err = capsys.readouterr().err
    assert "out.jsonl exists; the new predictions replace it when all are computed" in err
    assert "1 of 2 inputs were longer than 16 tokens and were truncated" in err
    assert "2 of 2 predictions reached 2 tokens without ending" in err and "2 rows in" in err
    rows.write_text('{"inputs": "short", "score": 3}\n')
    assert cli.run(ask) == 0
    assert json.loads(capsys.readouterr().out)["score"] == 3
    assert cli.run([*ask, "--scores"]) == 2
    assert "rows.jsonl:1: the row has a field 'score', which predictions add; rename it" in capsys.readouterr().err


def test_samples_of_a_continued_output_are_those_of_an_uninterrupted_one(run_dir, tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(json.dumps({"inputs": f"row {n}"}) + "\n" for n in range(11)))
    sampled = {"temperature": 2.0, "num_samples": 3, "max_decode_length": 6, "batch_size": 8}
    options = [f"--{name}={value}" for name, value in sampled.items()]
    ask = ["infer", str(run_dir), f"--input={rows}", "--scores", *options]
    assert cli.run([*ask, f"--output={out}"]) == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    for row in written:
        first = row["predictions"][0]
        assert len(row["predictions"]) == 3 and (row["prediction"], row["score"]) == (
            first["prediction"],
            first["score"],
        )
    assert len({one["prediction"] for row in written for one in row["predictions"]}) > 11
    predictions = flan_jax.infer(flan_jax.ModelOptions(model_dir=str(run_dir), **sampled), input=str(rows), scores=True)

    def killed(rows):
        yield from itertools.islice(predictions.predict(rows), 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        write_predictions(dataclasses.replace(predictions, predict=killed), f"{tmp_path}/again.jsonl")
    assert "4 rows are in" in stopped.value.__notes__[0] and "again.jsonl.partial" in stopped.value.__notes__[0]
    assert cli.run([*ask, f"--output={tmp_path}/again.jsonl"]) == 0
    assert (tmp_path / "again.jsonl").read_text() == out.read_text()
    assert cli.run([*ask, f"--output={tmp_path}/other.jsonl", "--seed=1"]) == 0
    assert (tmp_path / "other.jsonl").read_text() != out.read_text()


def test_options_of_decoding_that_contradict_each_other_are_one_message(run_dir, capsys):
    for verb in ("infer", "evaluate"):
        assert cli.run([verb, str(run_dir), "--num_beams=4", "--temperature=0.7"]) == 2
        assert "num_beams is an option of beam search, and temperature one of sampling" in capsys.readouterr().err
        assert cli.run([verb, str(run_dir), "--top_p=1.5"]) == 2
        assert "top_p: expected a number of at least 0 and at most 1, got 1.5" in capsys.readouterr().err


def test_a_row_that_cannot_be_read_is_found_before_anything_is_computed_or_skipped(run_dir, tmp_path, capsys):
    rows, out = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    rows.write_text("question,id\n1+1,1\n2+2\n3+3,3\n")
    ask = ["infer", str(run_dir), f"--input={rows}", f"--output={out}", r"--template={question}\nAnswer:"]
    assert cli.run(ask) == 2
    assert f"{rows}:3: 1 fields between commas, expected 2" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert cli.run([*ask, "--on_bad_row=skip"]) == 0
    captured = capsys.readouterr()
    assert "Rows that were left out: 1 (wrong number of columns: 1)." in captured.err
    assert "The first prompt: '1+1" + r"\nAnswer:'" in captured.err  # Shown as Python writes a newline.
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["1", "3"]


def test_a_task_asks_with_its_own_words_and_standard_input_is_text(run_dir, tmp_path, capsys, monkeypatch):
    (tmp_path / "t.jsonl").write_text('{"q": "1+1", "a": "2"}\n')
    (tmp_path / "t.yaml").write_text(
        "tasks: {sums: {source: jsonl, splits: {train: t.jsonl}, "
        'templates: [{inputs: "How much is {q}?\\nAnswer:", targets: "{a}"}]}}'
    )
    ask = ["infer", str(run_dir), f"--input={tmp_path}/t.jsonl", "--task=sums"]
    assert cli.run([*ask, f"--mixture_or_task_module={tmp_path}/t.yaml"]) == 0
    captured = capsys.readouterr()
    assert r"The first prompt: 'How much is 1+1?\nAnswer:'" in captured.err
    assert json.loads(captured.out)["q"] == "1+1"
    for wrong, message in (
        (["--task=sums", "--template={q}"], "Give --template or --task, not both"),
        (["--template_index=1"], "belong to a task"),
        (["--task=smus", f"--mixture_or_task_module={tmp_path}/t.yaml"], "Did you mean 'sums'?"),
        (["--on_bad_row=skp"], "--on_bad_row: expected one of error, skip"),
    ):
        assert cli.run([*ask[:3], *wrong]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    assert cli.run(["infer", str(run_dir)]) == 0
    assert [json.loads(line)["inputs"] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]


def test_a_terminal_is_asked_for_inputs_and_shows_answers(run_dir, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for options, answers in (([], 1), (["--num_samples=3"], 3), (["--num_beams=2"], 1)):
        lines = iter(["good morning"])
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr("builtins.input", lambda prompt, lines=lines: next_line(lines))
        assert cli.run(["infer", str(run_dir), "--max_decode_length=4", *options]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert shown[0].startswith(f"{run_dir}, step 1, ") and "Ctrl-D leaves" in shown[1]
        assert len(shown) == 2 + answers + 1


def next_line(lines):
    try:
        return next(lines)
    except StopIteration:
        raise EOFError from None
