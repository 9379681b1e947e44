"""T5X itself restores what is written here, in each of its networks and by both of its managers, and we what it saves."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from flan_jax.checkpoint.leaves import from_array, same_values
from flan_jax.checkpoint.native import slots_of
from flan_jax.checkpoint.t5x import reading as t5x
from flan_jax.checkpoint.t5x import writing
from flan_jax.checkpoint.trees import named_leaves, nested
from flan_jax.checkpoint.weights import Weights
from flan_jax.optim import optimizers
from tests.checkpoint import t5x_files

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"emb_dim": 128, "mlp_dim": 256, "vocab_size": 384, "num_heads": 4, "head_dim": 48}  # As in t5x_restoring.


def trained(*, per_layer: bool) -> Weights:
    """Weights with a state of our own Adafactor's shapes; no two values are the same."""
    config = t5x_files.config(**SIZES, relpos_bias_per_layer=per_layer)
    params = t5x_files.our_params(config)
    state = jax.eval_shape(optimizers.adafactor(1.0).init, nested(params))
    shapes = {name: leaf.shape for name, leaf in slots_of(named_leaves(state), params).items()}
    rng = np.random.default_rng(0)
    slots = {n: np.zeros(s, np.float32) if s == (1,) else rng.random(s, np.float32) for n, s in shapes.items()}
    return Weights(
        format="flan_jax",
        layout="",
        path="some place",
        step=9,
        config=config,
        config_is_stated=True,
        params={name: from_array(array) for name, array in params.items()},
        slots={name: from_array(array) for name, array in slots.items()},
    )


@pytest.mark.t5x
@pytest.mark.parametrize(
    ("network", "layout", "per_layer"),
    [
        ("examples/t5", "unrolled", False),
        ("scalable_t5, scanned", "scanned", True),
        ("scalable_t5", "unrolled", True),
    ],
)
def test_t5x_restores_all_of_it_and_saves_it_back_unchanged(tmp_path, network, layout, per_layer):
    original = trained(per_layer=per_layer)
    places = {name: tmp_path / name / "checkpoint_9" for name in ("all", "alone")}
    for place in places.values():
        place.mkdir(parents=True)
    writing.write(original, places["all"], layout=layout)
    writing.write(dataclasses.replace(original, slots={}), places["alone"], layout=layout)
    unset = ("XLA_FLAGS", "JAX_NUMPY_RANK_PROMOTION")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.checkpoint.t5x_restoring", network]
        + [str(place) for place in (places["all"], places["alone"], tmp_path)],
        check=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in unset},
    )
    stored = t5x_files.read(places["all"] / "checkpoint")
    alone = {name: array for name, array in stored.items() if not name.startswith("state/param_states/")}
    for of, wanted in (("training", stored), ("inference", alone)):
        for manager in ("legacy", "orbax"):
            with np.load(tmp_path / f"{of}, {manager}.npz") as restored:
                assert restored.keys() == wanted.keys()
                differ = [name for name in restored if restored[name].tobytes() != wanted[name].tobytes()]
                assert differ == [], (of, manager)
    for manager in ("legacy", "orbax"):
        back = t5x.open_weights(tmp_path / manager)
        assert (back.step, back.config, back.notes) == (9, original.config, ())
        for got, wanted in ((back.params, original.params), (back.slots, original.slots)):
            assert got.keys() == wanted.keys()
            assert [name for name, leaf in wanted.items() if not same_values(leaf, got[name])] == [], manager
