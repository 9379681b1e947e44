"""A run's directory belongs to one recipe."""

import json
import os

import pytest

from flan_jax.run.directory import RunDirectory

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


def test_a_damaged_evaluation_is_named(tmp_path):
    directory = RunDirectory(path=tmp_path)
    (directory.evaluations / "9").mkdir(parents=True)
    (directory.evaluations / "9" / "summary.json").write_text('{"step"')
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
    for step, names in {
        "9": ["summary.json"],
        "10": ["summary.json"],
        "11": ["a.jsonl"],
        "x": ["summary.json"],
    }.items():
        (directory.evaluations / step).mkdir(parents=True)
        for name in names:
            (directory.evaluations / step / name).write_text(f'{{"step": "{step}"}}')
    assert directory.last_evaluation() == {"step": "10"}
