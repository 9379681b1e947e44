"""A run's directory belongs to one recipe."""

import io
import json
import os

import pytest
from rich.console import Console

from flan_jax.evaluation import results
from flan_jax.run.directory import RunDirectory
from flan_jax.run.summary import FinishedRun
from flan_jax.train.early_stopping import Memory

RUN = {
    "identity": {"model": {"emb_dim": 8, "mlp_activations": ("gelu", "linear")}, "seed": 0},
    "versions": {"jax": "a"},
}


def test_the_same_recipe_opens_the_directory_with_any_versions(tmp_path):
    directory = RunDirectory(path=tmp_path / "run")
    directory.open(RUN, config="A = 1\n")
    directory.open({**RUN, "versions": {"jax": "b"}}, config="A = 1\n")
    assert directory.read()["versions"] == {"jax": "b"}
    assert directory.config_file.read_text() == "A = 1\n"


def test_a_different_recipe_is_refused_with_the_differing_fields(tmp_path):
    directory = RunDirectory(path=tmp_path)
    directory.open(RUN, config="")
    other = {"identity": {"model": {"emb_dim": 16, "mlp_activations": ("gelu", "linear")}, "seed": 0}}
    with pytest.raises(
        ValueError, match=r"different recipe:\n  model.emb_dim: stored 8, now 16\nChoose another MODEL_DIR"
    ):
        directory.open(other, config="changed")
    assert directory.config_file.read_text() == ""


def test_a_directory_belongs_to_one_process_which_removes_what_killed_ones_left(tmp_path):
    directory = RunDirectory(path=tmp_path / "run")
    directory.open(RUN, config="")
    left = [directory.path / ".run.json.77.tmp", directory.evaluations / "3" / ".summary.json.77.tmp"]
    left[1].parent.mkdir(parents=True)
    written_now = directory.evaluations / "3" / ".b.jsonl.78.tmp"  # By an evaluation, which has another lock.
    for path in (*left, written_now):
        path.write_text("half")
    for path in left:
        os.utime(path, (0, 0))
    with directory.locked() as note:
        assert note == "" and not any(path.exists() for path in left) and written_now.exists()
        with pytest.raises(
            ValueError, match=rf"The run directory {tmp_path}/run is in use by process \d+ on .* since 20"
        ):
            with directory.locked():
                raise AssertionError("entered")
    assert {path.name for path in directory.path.iterdir()} == {"run.json", "config.gin", "eval"}


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: text[:-9], lambda text: text.replace("8", "9", 1)])
def test_a_damaged_record_is_refused_by_readers_and_written_anew_by_its_own_recipe(tmp_path, damage):
    directory = RunDirectory(path=tmp_path)
    directory.open(RUN, config="")
    directory.run_file.write_text(damage(directory.run_file.read_text()))
    with pytest.raises(
        ValueError, match=r"The run's record .*run.json is damaged.* Run its `flan-jax train` command again"
    ):
        directory.read()
    directory.open(RUN, config="")
    assert directory.read()["versions"] == {"jax": "a"}


def test_a_lost_record_is_replaced_by_that_of_a_checkpoint(tmp_path):
    directory = RunDirectory(path=tmp_path)
    metadata = directory.checkpoints / "3" / "metadata" / "metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(json.dumps({"run_identity": RUN["identity"]}))
    with pytest.raises(ValueError, match=r"different recipe:\n  seed: stored 0, now 1"):
        directory.open({"identity": {**RUN["identity"], "seed": 1}}, config="changed")
    assert not directory.run_file.exists() and not directory.config_file.exists()
    directory.open(RUN, config="")


@pytest.mark.parametrize("damaged", ['{"step"', "[1]", "{}", '{"format_version": 5}', "\x00"])
def test_a_damaged_evaluation_is_named(tmp_path, damaged):
    directory = RunDirectory(path=tmp_path)
    (directory.evaluations / "9").mkdir(parents=True)
    (directory.evaluations / "9" / "summary.json").write_text(damaged)
    with pytest.raises(ValueError, match=r"eval/9/summary.json is damaged .* Delete it, or evaluate again"):
        directory.last_evaluation()


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run \(no run.json\)"):
        RunDirectory(path=tmp_path).read()


def test_the_last_metrics_are_those_of_the_last_complete_training_line(tmp_path):
    directory = RunDirectory(path=tmp_path)
    assert directory.last_metrics() is None
    directory.metrics_file.write_text(
        '{"step": 1, "kind": "train", "loss": 3}\n{"step": 2, "kind": "train", "loss": 2}\n'
        '{"step": 2, "kind": "save"}\n{"step": 3, "ki'
    )
    assert directory.last_metrics() == {"step": 2, "kind": "train", "loss": 2}


def test_the_last_evaluation_is_that_of_the_highest_finished_step(tmp_path):
    directory = RunDirectory(path=tmp_path)
    assert directory.last_evaluation() is None
    for step in ("9", "10", "x"):
        results.write_summary(directory.evaluations / step, results.SuiteResult(step=len(step), tasks=()))
    (directory.evaluations / "11").mkdir()
    (directory.evaluations / "11" / "a.jsonl").write_text("")
    assert directory.last_evaluation() == results.SuiteResult(step=2, tasks=())


def test_an_evaluation_of_another_version_counts_as_none(tmp_path):
    directory = RunDirectory(path=tmp_path)
    results.write_summary(directory.evaluations / "9", results.SuiteResult(step=9, tasks=()))
    (directory.evaluations / "10").mkdir()
    (directory.evaluations / "10" / "summary.json").write_text('{"format_version": 2, "step": 10}')
    assert directory.last_evaluation() == results.SuiteResult(step=9, tasks=())


@pytest.mark.parametrize("first", ['{"format_version": 2}', '{"step"', "[]"])
def test_a_finished_run_is_shown_whatever_the_evaluation_at_its_start_is(tmp_path, first):
    evaluations = RunDirectory(path=tmp_path).evaluations
    results.write_summary(evaluations / "9", results.SuiteResult(step=9, tasks=()))
    (evaluations / "0").mkdir()
    (evaluations / "0" / "summary.json").write_text(first)
    run = FinishedRun(
        directory=tmp_path, step=9, reason="all steps", params_digest="abc", metrics=None, evaluation={}, best=Memory()
    )
    console = Console(file=io.StringIO())
    console.print(run)
    assert "Ended at step 9 (all steps)." in console.file.getvalue()
