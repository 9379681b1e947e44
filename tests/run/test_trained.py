"""A trained network's checkpoints, as `evaluate` and `infer` open them."""

import dataclasses

import jax
import numpy as np
import pytest

from flan_jax.checkpoint import formats, native
from flan_jax.checkpoint.leaves import from_array
from flan_jax.checkpoint.weights import Weights
from flan_jax.commands.infer import infer
from flan_jax.errors import UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import parameter_shapes
from flan_jax.run import trained
from flan_jax.run.directory import RunDirectory
from flan_jax.run.trained import ModelOptions, chosen_checkpoints, open_trained
from flan_jax.sharding import MeshPlan
from flan_jax.train.console import QUIET

CONFIG = T5Config(
    emb_dim=8, num_heads=2, head_dim=4, mlp_dim=12, num_encoder_layers=1, num_decoder_layers=1, vocab_size=384
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Checkpoints of two steps, whose parameters are all equal to their step."""
    path = tmp_path_factory.mktemp("run")
    for step in (3, 7):
        params = {
            name: from_array(np.full(shape, step, np.float32)) for name, shape in parameter_shapes(CONFIG).items()
        }
        weights = Weights(
            format="t5x", layout="", path="", step=step, config=CONFIG, config_is_stated=True, params=params, slots={}
        )
        native.write(weights, path, metadata={"model": dataclasses.asdict(CONFIG)})
    return open_trained(ModelOptions(model_dir=str(path), mesh=MeshPlan(data=1), vocabulary="bytes"))


@pytest.mark.parametrize("requested, steps", [("latest", [7]), ("all", [3, 7]), (3, [3]), (7, [7])])
def test_each_chosen_checkpoint_is_opened_once(run, requested, steps, monkeypatch):
    opened, open_weights = [], formats.open_weights
    monkeypatch.setattr(formats, "open_weights", lambda *a, **k: opened.append(a) or open_weights(*a, **k))
    opened_by_step = chosen_checkpoints(run, ModelOptions(model_dir="", step=requested), console=QUIET)
    assert list(opened_by_step) == steps and len(opened) == len(steps)
    for step, weights in opened_by_step.items():
        assert all((leaf == step).all() for leaf in jax.tree.leaves(run.params(weights)))
    assert len(opened) == len(steps)


@pytest.mark.parametrize(("mode", "best"), [("max", 9), ("min", 8)])
def test_the_best_checkpoint_is_that_of_the_manager_and_never_nan(tmp_path, mode, best):
    directory = record_of_values(tmp_path, {5: "NaN", 7: "0.5", 8: "0.25", 9: "0.5", 10: "NaN"}, mode=mode)
    assert trained._best_step(directory) == best


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({7: "NaN"}, "no checkpoint in .* has a value of 'eval/a'"),
        ({}, "no checkpoint in .* has a value of 'eval/a'"),
        ({7: "0.5", 8: "0.2, 3"}, "8/metrics/metrics is damaged .*Copy the checkpoint again"),
    ],
)
def test_a_run_without_a_best_checkpoint_is_refused(tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        trained._best_step(record_of_values(tmp_path, values, mode="max"))


def record_of_values(path, values, *, mode):
    """Returns a run's directory with the metric "eval/a" of each step, as JSON."""
    directory = RunDirectory(path=path)
    directory.open({"identity": {}, "checkpoints": {"keep_best": "eval/a", "best_mode": mode}}, config=None)
    for step, value in values.items():
        (directory.checkpoints / str(step) / "metrics").mkdir(parents=True)
        (directory.checkpoints / str(step) / "metrics" / "metrics").write_text(f'{{"eval/a": {value}}}')
    return directory


def test_inference_uses_one_checkpoint():
    with pytest.raises(UserError, match="step is 'all', but infer predicts with one checkpoint"):
        infer(ModelOptions(model_dir="", step="all"))


def test_a_missing_checkpoint_is_refused(run):
    with pytest.raises(FileNotFoundError, match="No checkpoint of step 4 .* Available steps"):
        chosen_checkpoints(run, ModelOptions(model_dir="", step=4), console=QUIET)
    with pytest.raises(ValueError, match="step is 'last'; allowed are 'latest', 'best', 'all' and a number"):
        chosen_checkpoints(run, ModelOptions(model_dir="", step="last"), console=QUIET)
