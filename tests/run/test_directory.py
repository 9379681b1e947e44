"""A run's directory belongs to one recipe."""

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
