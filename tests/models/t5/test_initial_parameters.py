"""The parameter tree: pinned as text, and equal to that of checkpoints written by T5X."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from flan_jax import sharding
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from tests import made_up_t5 as made_up

GOLDEN_DIR = Path(__file__).resolve().parents[2] / "golden"
CONFIGS = {
    **{family: made_up.config(family) for family in made_up.goldens.FAMILIES},
    "t5_1_1_small": T5Config(
        emb_dim=512, num_heads=6, num_encoder_layers=8, num_decoder_layers=8, head_dim=64, mlp_dim=1024
    ),
}


def flat(tree, **kwargs) -> dict:
    return {
        "/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree, **kwargs)
    }


def described(config: T5Config) -> str:
    """Returns one line per parameter: path, shape, logical axes."""
    shapes = flat(t5.abstract_params(config))
    axes = flat(t5.logical_axes(config), is_leaf=lambda leaf: isinstance(leaf, tuple))
    lines = [f"{path} {'x'.join(map(str, shapes[path].shape))} {','.join(axes[path])}" for path in sorted(shapes)]
    return "\n".join([f"# {t5.count_params(shapes)} parameters", *lines, ""])


@pytest.mark.parametrize("name", CONFIGS)
def test_names_shapes_and_axes_are_the_pinned_ones(name):
    golden = GOLDEN_DIR / f"parameters_{name}.txt"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        golden.write_text(described(CONFIGS[name]))
    assert described(CONFIGS[name]) == golden.read_text()


def test_bias_tables_of_layers_are_sharded_like_the_shared_one():
    mesh, table = sharding.make_mesh(sharding.MeshPlan(data=1)), sharding.RULES
    found = []
    for family in ("t5_1_1", "umt5"):
        tree, axes = t5.abstract_params(CONFIGS[family]), t5.logical_axes(CONFIGS[family])
        shardings = sharding.state_shardings(tree, params=tree, axes=axes, mesh=mesh, rules=table)
        found.append({path: leaf.spec for path, leaf in flat(shardings).items() if "relpos_bias" in path})
    shared, each = found
    assert [*each] == [
        f"{stack}/layers_{i}/relpos_bias/rel_embedding" for stack in ("decoder", "encoder") for i in (0, 1)
    ]
    assert {*each.values()} == {*shared.values()} and len({*each.values()}) == 1


def test_t5_1_1_small_has_76_961_152_parameters():
    assert t5.count_params(t5.abstract_params(CONFIGS["t5_1_1_small"])) == 76_961_152


@pytest.mark.shared_data
def test_names_and_shapes_equal_those_of_a_checkpoint_written_by_t5x(shared_data):
    directory = shared_data / "ckpt_t5x_tiny" / "t5x_zarr_checkpoint_9"
    theirs = {
        array.name.removeprefix("target.").replace(".", "/"): tuple(
            json.loads((array / ".zarray").read_text())["shape"]
        )
        for array in directory.glob("target.*")
    }
    config = T5Config(emb_dim=8, num_heads=4, num_encoder_layers=2, num_decoder_layers=2, head_dim=3, mlp_dim=16)
    assert {path: leaf.shape for path, leaf in flat(t5.abstract_params(config)).items()} == theirs


def test_parameters_are_plain_float32_dicts():
    params = t5.init_params(CONFIGS["t5_1_1"], rng=jax.random.key(0))
    assert type(params) is dict and type(params["encoder"]["layers_0"]["mlp"]) is dict
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_initial_spread_is_that_of_t5x():
    """Standard deviations: 1 for the table, 1/sqrt(fan in) for kernels, and 1/sqrt(head size) of that for queries."""
    config = T5Config(
        emb_dim=64, num_heads=4, num_encoder_layers=1, num_decoder_layers=1, head_dim=16, mlp_dim=128, vocab_size=512
    )
    got = {path: np.asarray(leaf) for path, leaf in flat(t5.init_params(config, rng=jax.random.key(0))).items()}
    expected = {
        "token_embedder/embedding": 1.0,
        "encoder/layers_0/attention/query/kernel": 1 / 8 / 4,
        "encoder/layers_0/attention/key/kernel": 1 / 8,
        "decoder/layers_0/encoder_decoder_attention/out/kernel": 1 / 8,
        "encoder/layers_0/mlp/wi_0/kernel": 1 / 8,
        "encoder/layers_0/mlp/wo/kernel": 128**-0.5,
        "encoder/relpos_bias/rel_embedding": ((4 + 32) / 2) ** -0.5,
        "decoder/logits_dense/kernel": 1 / 8,
    }
    for path, spread in expected.items():
        np.testing.assert_allclose(got[path].std(), spread, rtol=0.1, err_msg=path)
    # Feed-forward kernels are truncated at two (corrected) deviations, attention's are not.
    assert np.abs(got["encoder/layers_0/mlp/wi_0/kernel"]).max() < 2.28 / 8
    assert np.abs(got["encoder/layers_0/attention/key/kernel"]).max() > 2.5 / 8
    assert (got["encoder/encoder_norm/scale"] == 1).all()
