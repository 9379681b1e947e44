"""New parameters have the values of Flax's own `init`, and are made by one program per kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from flax.traverse_util import flatten_dict

from flan_jax.models.initialization import Declaration, declared, initialize
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.network import Transformer
from flan_jax.shapes import BATCH_KEYS
from tests import made_up_t5 as made_up

ONE_ROW = {key: jnp.zeros((1, 1), jnp.int32) for key in BATCH_KEYS}
FEW_LAYERS = {"num_encoder_layers": 2, "num_decoder_layers": 1}


@pytest.mark.parametrize("family", ["t5_1_1", "umt5"])
def test_values_are_those_of_the_networks_init(family):
    config = made_up.config(family, **FEW_LAYERS)
    network = Transformer(config)
    boxed = jax.jit(lambda key: network.init(key, ONE_ROW, deterministic=True)["params"])(jax.random.key(5))
    expected = flatten_dict(meta.unbox(boxed))
    got = flatten_dict(t5.init_params(config, rng=jax.random.key(5)))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-7, err_msg=str(name))


def test_a_subset_of_parameters_has_the_values_of_the_full_tree():
    config = made_up.config("t5_1_1", **FEW_LAYERS)
    whole = flatten_dict(t5.init_params(config, rng=jax.random.key(5)), sep="/")
    where = {name: whole[name].sharding for name in ("decoder/logits_dense/kernel", "encoder/layers_1/mlp/wo/kernel")}
    some = t5.init_subset(config, rng=jax.random.key(5), out_shardings=where)
    assert some.keys() == where.keys()
    for name, value in some.items():
        np.testing.assert_array_equal(value, whole[name])


def test_parameters_of_one_kind_share_a_program_but_no_values():
    traced = []

    def init(key, shape, dtype):
        traced.append(shape)
        return jax.random.normal(key, shape, dtype)

    kinds = [Declaration(shape=(size,), dtype=jnp.dtype("float32"), axes=("embed",), init=init) for size in (4, 6)]
    expected = {"a/kernel": kinds[0], "b/kernel": kinds[0], "a/b/kernel": kinds[1], "c/d/kernel": kinds[0]}
    made = initialize(expected, rng=jax.random.key(0), out_shardings=dict.fromkeys(expected))
    assert traced == [(4,), (6,)]
    assert {name: value.shape for name, value in made.items()} == {name: each.shape for name, each in expected.items()}
    assert len({float(value[0]) for value in made.values()}) == 4


def test_t5_1_1_has_nine_kinds_of_parameters():
    """Table, logits, norms, biases; kernels of queries, of keys and values, of attention's output, into and out of the MLP."""
    found = declared(Transformer(made_up.config("t5_1_1")), ONE_ROW, deterministic=True)
    assert len({(each.init, each.shape) for each in found.values()}) == 9


def test_a_parameter_of_another_shape_is_named():
    config = made_up.config("t5_1_1", **FEW_LAYERS)
    shapes = t5.abstract_params(config)
    shapes["encoder"]["encoder_norm"]["scale"] = jax.ShapeDtypeStruct((3,), jnp.float32)
    with pytest.raises(AssertionError, match=r"Parameter encoder/encoder_norm/scale has shape \(3,\), not \(\d+,\)"):
        jax.eval_shape(lambda params: t5.forward(params, ONE_ROW, config=config), shapes)
