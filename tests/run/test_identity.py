"""The run identity: what makes two starts the same run, and what several processes must agree on."""

import dataclasses
import json

import optax
import pytest

from flan_jax.data import packing
from flan_jax.data.manifest import MixtureManifest, Request, VocabularyRef
from flan_jax.models.t5.config import T5Config
from flan_jax.optim.selection import by_path
from flan_jax.run.identity import refuse_other_run, run_identity, shared_settings
from flan_jax.run.run_config import Reporting, RunConfig
from flan_jax.sharding import MeshPlan
from flan_jax.train.loop import Cadence

MODEL = T5Config(
    vocab_size=32, emb_dim=8, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, head_dim=4, mlp_dim=8
)
DATA = Request(name="toys", lengths={"inputs": 8, "targets": 4})
MIXTURE = MixtureManifest(
    request=DATA,
    members=(),
    skipped={},
    vocabulary=VocabularyRef(kind="bytes", digest="d", size=259, eos_id=1),
    definition_files={},
    given_files={},
)


def config(**changes) -> RunConfig:
    settings = {
        "model_dir": "runs/toy",
        "data": DATA,
        "model": MODEL,
        "optimizer": by_path([(".*", optax.identity())]),
        "learning_rate": lambda step: 0.5,
        "batch_size": 4,
        "cadence": Cadence(total_steps=3),
        "allow_leak": ("a", "b"),
        "export_dir": "/of/this/machine",
    }
    return RunConfig(**{**settings, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"cadence": Cadence(total_steps=9)},
        {"model_dir": "elsewhere"},
        {"export_dir": "elsewhere"},
        {"mesh": MeshPlan(fsdp=2)},
        {"reporting": Reporting(tensorboard=True)},
        {"learning_rate": lambda step: 0.5 + 0 * step},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_change_the_states_is_no_part_of_the_identity(changes):
    assert run_identity(config(**changes), MIXTURE) == run_identity(config(), MIXTURE)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": dataclasses.replace(MODEL, emb_dim=16)}, "model.emb_dim"),
        ({"seed": 1}, "feed.seed"),
        ({"batch_size": 8}, "feed.batch_size"),
        ({"packing_strategy": packing.one_per_row}, "feed.packing"),
        ({"learning_rate": lambda step: 0.25}, "optimizer.learning_rate.0"),
        ({"initial_checkpoint_path": "hf/t5"}, "initial_checkpoint_path"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_changes_the_states_is_refused_by_name(changes, field):
    stored, expected = run_identity(config(), MIXTURE), run_identity(config(**changes), MIXTURE)
    with pytest.raises(ValueError, match=f"^x belongs to a run with a different recipe:\n(.*\n)*  {field}: stored "):
        refuse_other_run(stored, expected, where="x")


def test_equal_settings_are_equal_in_every_process_and_hold_no_memory_address():
    assert shared_settings(config()) == shared_settings(config(export_dir="/of/another"))
    text = json.dumps(shared_settings(config()))
    assert "0x" not in text and "bin_centered" in text and "/of/this/machine" not in text


def test_every_setting_is_shared():
    settings = shared_settings(config())
    assert settings["cadence"]["total_steps"] == 3 and settings["versions"]["jax"]
    assert settings["allow_leak"] == ["a", "b"]
    for changes in (
        {"cadence": Cadence(total_steps=4)},
        {"packing_strategy": packing.one_per_row},
        {"model": dataclasses.replace(MODEL, emb_dim=16)},
    ):
        assert shared_settings(config(**changes)) != settings
