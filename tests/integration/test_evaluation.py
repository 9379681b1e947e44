"""`flan-jax evaluate` through the command line: killed evaluations, and predictions that are scored without a model."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from flan_jax import cli
from tests.integration.conftest import INSTRUMENTED, arguments
from tests.waiting import wait_for

pytestmark = pytest.mark.tensorflow

NAME = "embedded_held_out"


@pytest.fixture(scope="module")
def run_dir(export_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation") / "run"
    options = [f"MODEL_DIR={path}", f"EXPORT_DIR={export_dir}", "run_config.RunConfig.evaluation=None"]
    assert cli.run(arguments("TRAIN_STEPS=1", *options)) == 0
    return path


def command(run_dir):
    return ["evaluate", str(run_dir), f"--mixture_or_task_name={NAME}", "--max_examples_per_task=16", "--batch_size=8"]


@pytest.fixture(scope="module")
def evaluated(run_dir):
    """The directory of an evaluation."""
    assert cli.run(command(run_dir)) == 0
    return run_dir / "eval" / f"{NAME}-validation" / "1"


def scores_of(capsys):
    return json.loads(capsys.readouterr().out)["evaluations"][0]


def test_an_evaluation_that_is_killed_at_any_moment_continues_to_the_same_files(run_dir, evaluated, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy, ignore=shutil.ignore_patterns("eval"))
    directory = copy / "eval" / f"{NAME}-validation" / "1"
    for moment in (1, 20):  # Predictions that the killed process still writes.
        process = subprocess.Popen(
            [sys.executable, INSTRUMENTED, *command(copy)],
            env={**os.environ, "STALLS_AFTER_PREDICTIONS": str(moment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(lambda p=process: (directory / "stalled").exists() or p.poll() is not None)
            assert process.poll() is None, process.stdout.read()
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.communicate()
        (directory / "stalled").unlink()
        assert not (directory / "summary.json").exists()
    assert cli.run(command(copy)) == 0
    names = sorted(path.name for path in evaluated.iterdir())
    assert sorted(path.name for path in directory.iterdir()) == names
    for name in names:
        if name.endswith(".jsonl"):
            assert (directory / name).read_bytes() == (evaluated / name).read_bytes(), name
    ours, theirs = (json.loads((path / "summary.json").read_text()) for path in (directory, evaluated))
    assert ours["tasks"] == theirs["tasks"]
    assert ours["performance"]["examples_reused"] == 21 and ours["performance"]["examples"] == 64 - 21


def test_a_finished_evaluation_is_scored_again_without_computing(run_dir, evaluated, capsys):
    before = json.loads((evaluated / "summary.json").read_text())
    assert cli.run(command(run_dir)) == 0
    after = json.loads((evaluated / "summary.json").read_text())
    assert after["performance"]["examples"] == 0 and after["performance"]["programs"] == 0
    assert after | {"performance": None} == before | {"performance": None}
    assert "16 of them from an earlier evaluation" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_predictions_of_an_evaluation_have_its_scores_without_a_model_or_a_device(evaluated):
    environment = {**os.environ, "JAX_PLATFORMS": "none_of_these"}  # A device would be looked for and not found.
    ask = [sys.executable, "-m", "flan_jax", "evaluate", f"--from_predictions={evaluated}", "--json"]
    done = subprocess.run(ask, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout)["evaluations"][0], json.loads((evaluated / "summary.json").read_text())
    assert ours == theirs | {"performance": {}}


def test_other_metrics_and_single_files_of_an_evaluation_are_scored(evaluated, capsys):
    file = min(evaluated.glob("*.jsonl"))
    assert cli.run(["evaluate", f"--from_predictions={file}", "--json", "--metrics=f1,rouge_l"]) == 0
    (task,) = scores_of(capsys)["tasks"]
    assert list(task["metrics"]) == ["f1", "rouge_l"] and task["num_examples"] == 16


@pytest.mark.parametrize("damage", ["missing", "repeated", "extra", "unfinished"])
def test_a_directory_of_other_rows_than_were_evaluated_is_refused(evaluated, tmp_path, capsys, damage):
    copy = tmp_path / "copy"
    shutil.copytree(evaluated, copy)
    file = min(copy.glob("*.jsonl"))
    lines = file.read_text().splitlines(keepends=True)
    if damage == "unfinished":
        file.rename(f"{file}.partial")
        message = "the evaluation is not finished. Run it again"
    elif damage == "missing":
        file.write_text("".join(lines[2:]))
        message = "one row for each of the 16 examples: 2 rows missing (index 0,"
    elif damage == "repeated":
        file.write_text("".join([*lines, lines[0]]))
        message = "1 row repeated (index 0)"
    else:
        file.write_text("".join([*lines, json.dumps({**json.loads(lines[0]), "index": 999}) + "\n"]))
        message = "1 row without an example (index 999)"
    assert cli.run(["evaluate", f"--from_predictions={copy}"]) == 2
    assert message in capsys.readouterr().err


def test_predictions_made_elsewhere_are_scored_by_the_export_of_a_mixture(evaluated, export_dir, tmp_path, capsys):
    """Only answers and numbers of examples, under other names; references, metrics and labels are the export's."""
    rows = [json.loads(line) for path in sorted(evaluated.glob("*.jsonl")) for line in path.read_text().splitlines()]
    theirs = json.loads((evaluated / "summary.json").read_text())

    def write(rows):
        (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    for number in ("index", "row"):
        mine = [
            {"task": r["task"], "id": r[number], "template": r["template"], "answer": r["prediction"]}
            | ({"scores": r["scores"]} if "scores" in r else {})
            for r in reversed(rows)
        ]
        write(mine)
        ask = [
            "evaluate", f"--from_predictions={tmp_path}/mine.jsonl", f"--export_dir={export_dir}",
            f"--fields={{'{number}': 'id', 'prediction': 'answer'}}", "--json",
        ]  # fmt: skip
        whole = [*ask, f"--mixture_or_task_name={NAME}"]
        assert cli.run([*whole, "--max_examples_per_task=16"]) == 0
        ours = scores_of(capsys)
        assert {t["task"]: t["metrics"] for t in ours["tasks"]} == {t["task"]: t["metrics"] for t in theirs["tasks"]}
        assert ours["labels"] == theirs["labels"]
    assert cli.run(whole) == 2
    assert re.search(r"each of the \d+ examples: \d+ rows missing \(row and template ", capsys.readouterr().err)
    for changed, message in (
        ({**mine[0], "task": "nothing"}, "task 'nothing', which is not in"),
        ({k: v for k, v in mine[0].items() if k != "task"}, "no field 'task', and there are several in"),
    ):
        write([changed])
        assert cli.run(whole) == 2
        assert message in capsys.readouterr().err
    assert cli.run([*ask, "--mixture_or_task_name=embedded_heldout"]) == 2
    assert "Did you mean 'embedded_held_out'" in capsys.readouterr().err


def test_samples_are_all_in_the_rows_and_have_the_scores_of_the_first(evaluated, export_dir, tmp_path, capsys):
    """Another strategy is another evaluation: nothing of the greedy one is reused, and it replaces it."""
    copy = tmp_path / "run"
    shutil.copytree(evaluated.parents[2], copy)
    assert cli.run([*command(copy), "--num_samples=2", "--temperature=1.5", "--max_decode_length=4"]) == 0
    capsys.readouterr()
    directory = copy / "eval" / f"{NAME}-validation" / "1"
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["provenance"]["decoding"]["strategy"] == "Sampling"
    generated = {task["task"] for task in summary["tasks"] if task["evaluation"] == "generate"}
    for task in summary["tasks"]:
        rows = [json.loads(line) for line in (directory / f"{task['task']}.jsonl").read_text().splitlines()]
        assert all(("predictions" in row) == (task["task"] in generated) for row in rows)
    assert cli.run(["evaluate", f"--from_predictions={directory}", "--json"]) == 0
    assert scores_of(capsys)["tasks"] == summary["tasks"]


def test_options_of_the_two_kinds_of_evaluation_do_not_mix(run_dir, capsys):
    for extra, message in (
        (["--from_predictions=a.jsonl"], "to score those that are there without a model"),
        (["--metrics=f1"], "give --from_predictions, too"),
    ):
        assert cli.run([*command(run_dir), *extra]) == 2
        assert message in capsys.readouterr().err
    assert cli.run(["evaluate"]) == 2
    assert "`evaluate` needs model_dir" in capsys.readouterr().err
