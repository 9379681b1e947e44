"""The dropout masks of a stack: rate, scale, shapes, and the sites where they apply."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.models import attention, layers
from flan_jax.models.dropout import NO_DROPOUT, draw_masks, drop
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5 import network
from tests import made_up_t5 as made_up


def test_masks_have_the_requested_shapes_and_average_one():
    shapes = {"ends": {"input": (8, 1, 500)}, "layers": [{"attention": (8, 4, 1, 250)}] * 2}
    masks = draw_masks(jax.random.key(0), shapes, rate=0.2, dtype=jnp.dtype("float32"))
    assert jax.tree.map(lambda leaf: leaf.shape, masks) == shapes
    for leaf in jax.tree.leaves(masks):
        np.testing.assert_array_equal(np.unique(leaf), np.float32([0.0, 1.25]))
        np.testing.assert_allclose(leaf.mean(), 1.0, atol=0.03)
    first, second = (layer["attention"] for layer in masks["layers"])
    assert (first != second).any() and (first[0] != first[1]).any()


def test_a_row_drops_the_same_features_at_all_positions_and_rows_differ():
    masks = draw_masks(jax.random.key(0), {"mlp": (2, 1, 64)}, rate=0.5, dtype=jnp.dtype("float32"))
    dropped = np.asarray(drop(jnp.ones((2, 3, 64)), masks, "mlp"))
    np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :1], 3, axis=1))
    assert (dropped[0] != dropped[1]).any()


def test_a_site_without_a_mask_drops_nothing():
    x = jnp.ones((1, 2, 3))
    assert drop(x, NO_DROPOUT, "mlp") is x


def test_a_forward_pass_drops_where_t5x_does(monkeypatch):
    sites = []

    def recording_drop(x, masks, site):
        assert site in masks
        sites.append(site)
        return drop(x, masks, site)

    config = made_up.config("t5_1_1", num_encoder_layers=1, num_decoder_layers=1)
    params = t5.abstract_params(config)
    for module in (network, attention, layers):
        monkeypatch.setattr(module, "drop", recording_drop)
    batch = made_up.rows(made_up.goldens.made_up_batch(), 0)
    forward = functools.partial(t5.forward, config=config)
    jax.eval_shape(forward, params, batch, jax.random.key(0))
    feed_forward = ["mlp", "mlp_out"]
    assert sites == [
        *["input", "attention", "attention_out", *feed_forward, "output"],
        *["input", "self_attention", "self_attention_out", "cross_attention", "cross_attention_out"],
        *[*feed_forward, "output"],
    ]
