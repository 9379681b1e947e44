"""Complete runs through the command line, shrunk: resumed runs equal uninterrupted ones."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flan_jax
from flan_jax import cli
from flan_jax.checkpoint import reading
from flan_jax.run import training
from flan_jax.run.directory import RunDirectory
from flan_jax.train.soundness import DivergedError
from tests.integration.conftest import INSTRUMENTED, QUICKSTART, TINY, arguments, in_process, train_lines
from tests.waiting import wait_for

pytestmark = pytest.mark.tensorflow

REFUSING_TENSORFLOW = """
import importlib.machinery, sys
class Refuse:
    # Finding the package is allowed; loading it is not.
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "seqio", "tensorflow_datasets", "tensorflow_text", "clu"):
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise AssertionError("imports " + spec.name)
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Refuse())
from flan_jax.cli import run
sys.exit(run(sys.argv[1:]))
"""


def digest(model_dir: Path, capsys) -> str:
    capsys.readouterr()
    assert cli.run(["show", "run", str(model_dir), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["params_digest"]


def test_a_run_directory_has_the_documented_files(export_dir, tmp_path, capsys):
    args = arguments("TRAIN_STEPS=4", f"MODEL_DIR={tmp_path}/run", f"EXPORT_DIR={export_dir}",
                     "suite.EvaluationPlan.max_examples_per_task=2")  # fmt: skip
    assert cli.run(args) == 0
    output = capsys.readouterr().out
    assert "Ended at step 4 (all steps).\n  params_digest" in output and "held out" in output
    run = tmp_path / "run"
    # The end names what a user looks for, and what to type next.
    for line in (
        f"checkpoint    {run}/checkpoints/4",
        f"predictions   {run}/eval/4",
        f"Next: flan-jax infer {run} --",
    ):
        assert line in output
    assert {p.name for p in run.iterdir()} >= {"config.gin", "run.json", "metrics.jsonl", "checkpoints", "eval"}
    summary = json.loads((run / "eval" / "4" / "summary.json").read_text())
    assert len(summary["tasks"]) >= 20
    rows = [json.loads(line) for line in (run / "eval" / "4" / f"{summary['tasks'][0]['task']}.jsonl").open()]
    assert rows and {"input", "prediction"} <= set(rows[0])
    record = json.loads((run / "run.json").read_text())
    assert record["mixture"]["members"] and record["versions"]["jax"] and record["devices"]["count"] == 8
    start = next(line for line in map(json.loads, (run / "metrics.jsonl").open()) if line["kind"] == "start")
    phases = ("imports", "devices", "exports", "parameters", "evaluation", "compile", "batch", "step", "rest")
    # The recipe evaluates before the first step. The time outside all phases is short.
    assert sum(start[f"{phase}_seconds"] for phase in phases) == pytest.approx(start["first_step_seconds"], abs=0.1)
    assert "first step finished" in output and ", compile " in output
    # The resolved configuration alone is the same run.
    assert cli.run(["train", f"--gin_file={run}/config.gin"]) == 0
    assert "resumed at step 4" in capsys.readouterr().out


def test_verbs_return_their_results_and_print_nothing(export_dir, tmp_path, capsys):
    bindings = [*TINY, "TRAIN_STEPS=2", f"MODEL_DIR={tmp_path}/run", f"EXPORT_DIR={export_dir}",
                "suite.EvaluationPlan.max_examples_per_task=1"]  # fmt: skip
    finished = flan_jax.train_model(flan_jax.load_recipe(QUICKSTART, bindings=bindings))
    assert (finished.directory, finished.step, finished.reason) == (tmp_path / "run", 2, "all steps")
    assert finished.metrics["step"] == 2 and finished.metrics["loss"] > 0
    scores = flan_jax.evaluate(flan_jax.ModelOptions(model_dir=str(tmp_path / "run")), max_examples_per_task=1)
    assert scores.by_step[2].as_metrics()["eval/mean/accuracy"] == finished.evaluation["eval/mean/accuracy"]
    assert capsys.readouterr().out == ""
    assert digest(tmp_path / "run", capsys) == finished.params_digest


def test_a_published_suite_is_evaluated_by_name_in_a_recipe_and_by_evaluate_and_compared(
    export_dir, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    bindings = [*TINY, "TRAIN_STEPS=2", f"MODEL_DIR={run}", f"EXPORT_DIR={export_dir}", "CHECKPOINT_PERIOD=1",
                "suite.EvaluationPlan.max_examples_per_task=2",
                "suite.EvaluationPlan.suites = {'trained': 'embedded_validation', 'held_out': 'embedded/held_out'}"]  # fmt: skip
    finished = flan_jax.train_model(flan_jax.load_recipe(QUICKSTART, bindings=bindings))
    assert "eval/label/held_out/accuracy" in finished.evaluation
    summary = json.loads((run / "eval" / "2" / "summary.json").read_text())
    assert summary["aggregates"]["held_out"]["aggregation"] == "macro"
    assert json.loads((run / "run.json").read_text())["hold_out"]["tasks"] == ["embedded_held_out"]
    assert cli.run(["evaluate", str(run), "--suite=embedded/held_out", "--step=all", "--max_examples_per_task=2"]) == 0
    evaluations = run / "eval" / "embedded_held_out-abce4577-validation"
    suite_scores = [json.loads((evaluations / step / "summary.json").read_text()) for step in ("1", "2")]
    score = suite_scores[1]["aggregates"]["embedded/held_out"]["score"]
    assert score == pytest.approx(summary["aggregates"]["held_out"]["score"])
    assert "Suites by their own rules" in capsys.readouterr().out
    assert cli.run(["show", "evaluation", str(evaluations / "1"), str(evaluations / "2"), "--json"]) == 0
    mean = json.loads(capsys.readouterr().out)["differences"][-1]
    assert mean["name"] == "mean of 4 tasks" and mean["after"] == pytest.approx(score)
    assert cli.run(["evaluate", str(run), "--suite=embedded/held_out", "--mixture_or_task_name=embedded_held_out"]) == 2
    assert "not both" in capsys.readouterr().err
    (tmp_path / "bbh").mkdir()
    (tmp_path / "bbh" / "navigate.json").write_text('{"examples": [{"input": "Go.", "target": "No"}]}')
    monkeypatch.setenv("FLAN_JAX_BBH_DIR", str(tmp_path))
    of_bbh = ["evaluate", str(run), "--suite=bbh/direct", "--max_decode_length=2"]
    assert cli.run(of_bbh) == 2
    assert "on_missing_source='skip'" in capsys.readouterr().err
    assert cli.run([*of_bbh, "--on_missing_source=skip"]) == 0
    shown = capsys.readouterr().out
    assert "Left out of bbh: " in shown and "bbh/direct (bbh)" in shown
    assert cli.run(["evaluate", str(run), "--suite=mmlu/direct"]) == 2
    assert "The suite 'mmlu/direct' needs the released folder: FLAN_JAX_MMLU_DIR" in capsys.readouterr().err


def test_training_from_an_export_never_imports_tensorflow(export_dir, tmp_path):
    args = arguments(
        "TRAIN_STEPS=2", f"MODEL_DIR={tmp_path}/run", f"EXPORT_DIR={export_dir}", "run_config.RunConfig.evaluation=None"
    )
    done = subprocess.run(
        [sys.executable, "-c", REFUSING_TENSORFLOW, *args],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ended at step 2" in done.stdout


def test_a_run_killed_three_times_ends_with_the_same_parameters(export_dir, tmp_path, capsys):
    """SIGKILL three times at random moments after a checkpoint, compared with an uninterrupted run.

    The killed run finds its compiled programs in the cache, the other one compiles: that must not change a bit either.
    """
    common = [
        "TRAIN_STEPS=60",
        "CHECKPOINT_PERIOD=5",
        f"EXPORT_DIR={export_dir}",
        "run_config.RunConfig.evaluation=None",
    ]
    uninterrupted, killed_run, environment = (
        tmp_path / "whole",
        tmp_path / "cut",
        {"FLAN_JAX_COMPILE_CACHE": str(tmp_path / "programs")},
    )
    compiled_anew = in_process(arguments(*common, f"MODEL_DIR={uninterrupted}"), FLAN_JAX_COMPILE_CACHE="off")
    assert compiled_anew.returncode == 0
    draw = random.Random(0)
    for _ in range(3):
        seen = reading.latest_step(killed_run / "checkpoints") or 0
        # Fifteen batches at most, so that three runs never finish the training before they are killed.
        stall = {"STALLS_AT": "15", "RELEASE": str(tmp_path / "never")}
        process = subprocess.Popen(
            [sys.executable, INSTRUMENTED, *arguments(*common, f"MODEL_DIR={killed_run}")],
            env={**os.environ, "XLA_FLAGS": "", **environment, **stall},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        steps = functools.partial(reading.latest_step, killed_run / "checkpoints")
        wait_for(lambda p=process, s=seen, steps=steps: p.poll() is not None or (steps() or 0) > s)
        time.sleep(draw.random() * 0.2)  # Waits for nothing: the moment must be random.
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (reading.latest_step(killed_run / "checkpoints") or 0) < 60
    done = in_process(arguments(*common, f"MODEL_DIR={killed_run}"), **environment)
    assert done.returncode == 0 and "Warning" not in done.stderr
    assert list((tmp_path / "programs").glob("compiled/*/jit_step-*"))
    assert digest(killed_run, capsys) == digest(uninterrupted, capsys)
    steps = [line["step"] for line in train_lines(killed_run)]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    assert [line["loss"] for line in train_lines(killed_run)][-1] == [
        line["loss"] for line in train_lines(uninterrupted)
    ][-1]


def test_sigterm_saves_and_ends_with_its_status(export_dir, tmp_path):
    args = arguments("TRAIN_STEPS=3000", "CHECKPOINT_PERIOD=None", f"MODEL_DIR={tmp_path}", f"EXPORT_DIR={export_dir}",
                     "run_config.RunConfig.evaluation=None")  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "flan_jax", *args],
        env={**os.environ, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step 10/"):
            process.send_signal(signal.SIGTERM)
            break
    output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "stop requested" in output and "SIGTERM: the run stops after this step and is saved." in output
    assert f"Saved at step {reading.latest_step(tmp_path / 'checkpoints'):,}. Run the same command again" in output
    assert reading.latest_step(tmp_path / "checkpoints") >= 10


def test_external_seqio_tasks_train_unchanged(tmp_path, capsys, monkeypatch):
    """Preprocessors and a vocabulary of their own, and a nested mixture; the module does not import this project."""
    import sentencepiece

    lines = [f"the {w} is {n} and green" for w in ("cat", "dog", "tree", "lake") for n in range(20)]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"), model_prefix=str(tmp_path / "own"), vocab_size=60, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    monkeypatch.setenv("PLAIN_MODEL", str(tmp_path / "own.model"))
    monkeypatch.setenv("PLAIN_LINES", str(tmp_path / "lines.txt"))
    module = Path(__file__).parents[1] / "fixtures" / "plain_seqio_tasks.py"
    args = arguments(
        "MIXTURE_OR_TASK_NAME=strangers_mixture", f"MIXTURE_OR_TASK_MODULE={module}", "VOCABULARY=None",
        "TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 64}", "TRAIN_STEPS=3", f"MODEL_DIR={tmp_path}/run",
        f"EXPORT_DIR={tmp_path}/exports", "suite.EvaluationPlan.suites={'theirs': ('strangers_lines',)}",
        "suite.EvaluationPlan.max_examples_per_task=4",
    )  # fmt: skip
    assert cli.run(args) == 0
    output = capsys.readouterr().out
    assert "2 tasks" in output and "strangers_lines" in output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["vocabulary"]["extra_ids"] == 3
    assert {m["task"]: m["rate"] for m in record["mixture"]["members"]} == {
        "strangers_lines": 3.0,
        "strangers_numbers": 1.0,
    }
    # A recipe that names another vocabulary than theirs is refused.
    assert cli.run([*args, "--gin.VOCABULARY=embedded", f"--gin.MODEL_DIR={tmp_path}/other"]) == 2
    assert "VOCABULARY is 'embedded'" in capsys.readouterr().err


OPTIONS = """
from __gin__ import dynamic_registration
from flan_jax.checkpoint import manager
from flan_jax.optim import optimizers
from flan_jax.optim import selection
from flan_jax.run import run_config
from flan_jax.train import early_stopping

include 'gin_configs/recipes/quickstart.gin'
run_config.RunConfig.early_stopping = @early_stopping.EarlyStopping()
early_stopping.EarlyStopping.metric = "eval/label/trained/accuracy"
early_stopping.EarlyStopping.patience_evaluations = 1
early_stopping.EarlyStopping.min_delta = 100.0
manager.CheckpointPolicy.keep = 1
manager.CheckpointPolicy.keep_best = "eval/mean/accuracy"
run_config.Reporting.weight_statistics = True
run_config.Reporting.tensorboard = True
selection.by_path.rules = [("token_embedder/.*", None), ("encoder/.*", @optimizers.adamw())]
optimizers.adamw.learning_rate = 1e-3
EVAL_PERIOD = 10
CHECKPOINT_PERIOD = 5
"""


def test_a_run_that_diverges_saves_nothing_and_ends_with_what_to_do(export_dir, tmp_path, capfd):
    args = arguments("TRAIN_STEPS=6", "CHECKPOINT_PERIOD=2", "LEARNING_RATE=1e30", f"MODEL_DIR={tmp_path}/run",
                     f"EXPORT_DIR={export_dir}", "run_config.RunConfig.evaluation=None")  # fmt: skip
    assert cli.run(args) == 2
    error = capfd.readouterr().err
    assert (
        "training has diverged" in error
        and "in another MODEL_DIR with a lower learning rate" in error
        and "Traceback" not in error
    )
    assert "INITIAL_CHECKPOINT_PATH" not in error  # There is no checkpoint to continue from.
    assert reading.all_steps(tmp_path / "run" / "checkpoints") == []


def test_a_run_that_diverges_after_a_checkpoint_names_it(export_dir, tmp_path, monkeypatch, capfd):
    def sound_until_2(state):
        if int(state.step) > 2:
            raise DivergedError("Diverged.")

    monkeypatch.setattr(training, "require_sound", sound_until_2)
    args = arguments("TRAIN_STEPS=4", "CHECKPOINT_PERIOD=2", f"MODEL_DIR={tmp_path}/run",
                     f"EXPORT_DIR={export_dir}", "run_config.RunConfig.evaluation=None")  # fmt: skip
    assert cli.run(args) == 2
    assert f"INITIAL_CHECKPOINT_PATH = '{tmp_path}/run' continues from this run's newest" in capfd.readouterr().err
    assert reading.all_steps(tmp_path / "run" / "checkpoints") == [2]


def test_a_second_run_in_a_directory_is_refused_with_the_first_one(export_dir, tmp_path, capfd):
    args = arguments("TRAIN_STEPS=1", f"MODEL_DIR={tmp_path}/run", f"EXPORT_DIR={export_dir}",
                     "run_config.RunConfig.evaluation=None")  # fmt: skip
    with RunDirectory(path=tmp_path / "run").locked():
        assert cli.run(args) == 2
    error = capfd.readouterr().err
    assert f"The run directory {tmp_path}/run is in use by process {os.getpid()} on " in error and " since 20" in error
    assert list((tmp_path / "run").iterdir()) == []


def test_every_option_of_a_run_is_a_binding(export_dir, tmp_path, capsys):
    (tmp_path / "options.gin").write_text(OPTIONS)
    args = arguments(
        "TRAIN_STEPS=100",
        f"MODEL_DIR={tmp_path}/run",
        f"EXPORT_DIR={export_dir}",
        "suite.EvaluationPlan.max_examples_per_task=1",
        recipe=str(tmp_path / "options.gin"),
    )
    assert cli.run(args) == 0
    output = capsys.readouterr().out
    assert "Ended at step 10 (early stopping)" in output and "token_embedder/.*: 25,600 frozen" in output
    (line,) = train_lines(tmp_path / "run")
    assert line["update_rms/encoder/encoder_norm/scale"] > 0
    assert not any(name.startswith("update_rms/token_embedder") and value for name, value in line.items())
    assert reading.all_steps(tmp_path / "run" / "checkpoints") == [10]
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    # Step 5 was not evaluated, so that it has no score to be the best by.
    assert cli.run(["evaluate", f"{tmp_path}/run", "--step=best"]) == 0
    assert "step 10" in capsys.readouterr().out
    assert cli.run(["infer", f"{tmp_path}/run", "--step=bets"]) == 2
    assert "step is 'bets'; allowed are 'latest', 'best', 'all'" in capsys.readouterr().err
