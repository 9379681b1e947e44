"""Names and shapes without JAX: equal to the network's, invertible, and mismatches listed by leaf."""

import re

import jax
import pytest

from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.families import FAMILIES
from flan_jax.models.t5.parameters import config_of_shapes, parameter_shapes, require_shapes
from tests import made_up_t5 as made_up

UNPUBLISHED = {
    "per layer, tied, plain": made_up.config("t5_1_0", relpos_bias_per_layer=True, num_decoder_layers=3),
    "three branches": made_up.config("t5_1_1", mlp_activations=("gelu", "linear", "linear"), num_heads=2, head_dim=5),
}
CONFIGS = {family: made_up.config(family) for family in made_up.goldens.FAMILIES} | UNPUBLISHED
T5_1_1 = made_up.config("t5_1_1")
SHAPES = parameter_shapes(T5_1_1)


def without(*names: str) -> dict:
    return {name: shape for name, shape in SHAPES.items() if name not in names}


@pytest.mark.parametrize("family", made_up.goldens.FAMILIES)
def test_shapes_are_the_pinned_ones_of_the_network(family):
    assert parameter_shapes(CONFIGS[family]) == made_up.goldens.parameter_shapes(family)


@pytest.mark.parametrize("name", UNPUBLISHED)
def test_shapes_are_those_of_a_network_of_no_family(name):
    leaves = jax.tree_util.tree_leaves_with_path(t5.abstract_params(CONFIGS[name]))
    network = {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}
    assert parameter_shapes(CONFIGS[name]) == network


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_follows_from_its_shapes(name):
    config = CONFIGS[name]
    # Neither is in the shapes; the first is what all families do, the second the default.
    assert config.scale_decoder_outputs is None and config.dtype == "float32"
    assert config_of_shapes(parameter_shapes(config)) == config


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_config_of_every_published_size_follows_from_its_shapes(family):
    for size in family.sizes:
        config = family.config(size)
        assert config_of_shapes(parameter_shapes(config)) == config, size


NO_T5 = {
    "nothing": ({}, "These are not the parameters of a complete T5: there is no leaf under encoder/layers_0."),
    "an encoder alone": (
        {name: shape for name, shape in SHAPES.items() if not name.startswith("decoder")},
        "These are not the parameters of a complete T5: there is no leaf under decoder/layers_0.",
    ),
    "no table": (
        without("token_embedder/embedding"),
        "These are not the parameters of a complete T5: there is no leaf token_embedder/embedding with 2 dimensions.",
    ),
    "no bias": (
        without("encoder/relpos_bias/rel_embedding", "decoder/relpos_bias/rel_embedding"),
        "there is no leaf ...relpos_bias/rel_embedding with 2 dimensions.",
    ),
    "stacked kernels": (
        {name: (*shape, 2) if name.endswith("query/kernel") else shape for name, shape in SHAPES.items()},
        "encoder/layers_0/attention/query/kernel: got [16, 12, 2], expected [16, 12]",
    ),
    "one shape that contradicts the others": (
        {name: (24, 17) if name == "decoder/layers_1/mlp/wo/kernel" else shape for name, shape in SHAPES.items()},
        "The shapes of these parameters contradict each other. The nearest is the network of T5 1.1",
    ),
    "heads that do not divide": (
        {name: (5, 32) if "relpos" in name else shape for name, shape in SHAPES.items()},
        "its query kernels have 12 columns, which the 5 heads of relpos_bias/rel_embedding do not divide.",
    ),
    "one leaf missing": (
        without("decoder/layers_1/mlp/wo/kernel"),
        "These are not the parameters of a complete T5. The nearest is the network of T5 1.1 with a table of 32 rows (gated gelu, "
        "untied logits): emb_dim 16, 3 heads of 4, mlp_dim 24, 2+2 layers, vocab_size 32.\n"
        "  decoder/layers_1/mlp/wo/kernel: missing, expected [24, 16]\n",
    ),
    "a layer missing": (
        {name.replace("encoder/layers_1", "encoder/layers_2"): shape for name, shape in SHAPES.items()},
        "encoder/layers_1/attention/key/kernel: missing, expected [16, 12]",
    ),
    "one leaf too many": (
        {**SHAPES, "reward_head/kernel": (16, 1)},
        "  reward_head/kernel: got [16, 1], expected no leaf of this name\n",
    ),
    "one truncated shape": (
        {**SHAPES, "encoder/layers_0/mlp/wi_0/kernel": (16, 23)},
        "  encoder/layers_0/mlp/wi_0/kernel: got [16, 23], expected [16, 24]\n",
    ),
    "a truncated table": (
        {**SHAPES, "token_embedder/embedding": (32, 15)},
        "  token_embedder/embedding: got [32, 15], expected [32, 16]\n",
    ),
}


@pytest.mark.parametrize("case", NO_T5)
def test_incomplete_parameters_are_refused_and_the_leaf_named(case):
    shapes, text = NO_T5[case]
    with pytest.raises(ValueError, match=re.escape(text)):
        config_of_shapes(shapes)


def test_parameters_of_the_model_pass():
    require_shapes(SHAPES, T5_1_1, place="here")


def test_a_checkpoint_of_another_family_is_refused_with_the_file_to_include():
    published = {family.name: family for family in FAMILIES}
    shapes = parameter_shapes(published["t5_1_0"].config("small"))
    with pytest.raises(ValueError) as error:
        require_shapes(shapes, published["flan_t5"].config("small"), place="gs://bucket/t5_small")
    lines = str(error.value).splitlines()
    assert lines[:2] == [
        "gs://bucket/t5_small does not fit the model, which is T5 1.1, LM-adapted or Flan-T5 (gated gelu, untied logits): "
        "emb_dim 512, 6 heads of 64, mlp_dim 1024, 8+8 layers, vocab_size 32128.",
        "It looks like T5 1.0 (plain relu, tied logits): emb_dim 512, 8 heads of 64, mlp_dim 2048, 6+6 layers, "
        "vocab_size 32128.",
    ]
    assert lines[-1] == "Include gin_configs/models/t5_1_0/small.gin, which has its sizes, or use another checkpoint."
    assert len(lines) == 2 + 12 + 1 + 1
    assert lines[-2] == "  and 157 more leaves"
    assert "  encoder/relpos_bias/rel_embedding: got [8, 32], expected [6, 32]" in lines


def test_all_mismatches_of_a_damaged_checkpoint_are_listed():
    shapes = {**without("decoder/decoder_norm/scale"), "encoder/encoder_norm/scale": (8,), "extra": ()}
    with pytest.raises(ValueError) as error:
        require_shapes(shapes, T5_1_1, place="here")
    assert str(error.value).splitlines()[2:] == [
        "  encoder/encoder_norm/scale: got [8], expected [16]",
        "  decoder/decoder_norm/scale: missing, expected [16]",
        "  extra: got [], expected no leaf of this name",
        "Use the model that it was trained as, or another checkpoint.",
    ]


def test_parameters_of_no_t5_are_refused_for_a_model_too():
    with pytest.raises(
        ValueError, match="there is no leaf under encoder/layers_0.\n  token_embedder/embedding: missing"
    ):
        require_shapes({}, T5_1_1, place="here")
