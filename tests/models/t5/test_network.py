"""The network: packed rows, padding, causality, scaled logits, dropout, types."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models.t5 import model as t5
from tests import made_up_t5 as made_up

BATCH = made_up.goldens.made_up_batch()


@functools.cache
def our_logits(family: str) -> np.ndarray:
    config = made_up.config(family)
    return np.asarray(jax.jit(functools.partial(t5.forward, config=config))(made_up.params(config), BATCH))


def packed_row():
    """The two examples of BATCH, truncated to 70/40 and 60/30, in a single row of 150/80."""
    lengths = {"encoder": (70, 60, 150), "decoder": (40, 30, 80)}
    row = {}
    for key, value in BATCH.items():
        first, second, total = lengths[key.split("_")[0]]
        joined = np.concatenate([value[0, :first], value[1, :second] * (2 if "segment" in key else 1)])
        row[key] = np.pad(joined, (0, total - len(joined)))[None]
    return row, lengths


def test_a_packed_row_has_the_logits_of_its_separate_examples():
    config = made_up.config("t5_1_1")
    params = made_up.params(config)
    apply = jax.jit(functools.partial(t5.forward, config=config))
    row, lengths = packed_row()
    packed = np.asarray(apply(params, row))[0]
    start = 0
    for example in (0, 1):
        inputs, targets = lengths["encoder"][example], lengths["decoder"][example]
        alone = {
            key: value[example : example + 1, : inputs if key.startswith("encoder") else targets]
            for key, value in BATCH.items()
        }
        np.testing.assert_allclose(packed[start : start + targets], np.asarray(apply(params, alone))[0], atol=2e-5)
        start += targets


def test_padding_and_later_tokens_change_nothing():
    config = made_up.config("t5_1_1")
    params = made_up.params(config)
    inputs, targets = BATCH["encoder_input_tokens"].copy(), BATCH["decoder_input_tokens"].copy()
    inputs[1, 60:] = 7
    targets[:, 20:] = 9
    apply = jax.jit(functools.partial(t5.forward, config=config))
    changed = apply(params, {**BATCH, "encoder_input_tokens": inputs, "decoder_input_tokens": targets})
    np.testing.assert_allclose(np.asarray(changed)[:, :20], our_logits("t5_1_1")[:, :20], atol=1e-6)
    assert np.abs(np.asarray(changed)[0, 20:] - our_logits("t5_1_1")[0, 20:]).max() > 1e-2


def test_a_row_of_padding_has_finite_values_and_gradients():
    config = made_up.config("t5_1_1")
    # Padding that may look at other padding, and (the first row's decoder, whose encoder is full) at nothing at all.
    empty = {key: np.concatenate([value[:1, :9], np.zeros_like(value[:1, :9])]) for key, value in BATCH.items()}
    empty["decoder_segment_ids"][0, 5:] = 0

    def loss(params):
        logits = t5.forward(params, empty, config=config)
        return jnp.sum(jnp.square(logits))

    value, gradient = jax.jit(jax.value_and_grad(loss))(made_up.params(config))
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_every_parameter_gets_a_gradient():
    config = made_up.config("t5_1_1")

    def loss(params):
        return jnp.sum(jax.nn.log_softmax(t5.forward(params, short, config=config))[..., 3])

    short = {key: value[:1, :20] for key, value in BATCH.items()}
    gradient = jax.jit(jax.grad(loss))(made_up.params(config))
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not np.abs(leaf).max() > 0
    ]
    assert not silent


@pytest.mark.parametrize("tied", [True, False])
def test_scaling_of_logits_does_not_depend_on_tying(tied):
    config = made_up.config("t5_1_1", logits_via_embedding=tied, num_encoder_layers=1, num_decoder_layers=1)
    params = made_up.params(config)
    short = {key: value[:1, :12] for key, value in BATCH.items()}
    usual, scaled, unscaled = (
        np.asarray(jax.jit(functools.partial(t5.forward, config=c))(params, short))
        for c in (dataclasses.replace(config, scale_decoder_outputs=setting) for setting in (None, True, False))
    )
    np.testing.assert_allclose(scaled * 4.0, unscaled, rtol=1e-6)  # the root of emb_dim, 16
    np.testing.assert_array_equal(usual, scaled if tied else unscaled)


def test_dropout_depends_on_its_key_and_is_off_without_one():
    config = made_up.config("t5_1_1", dropout_rate=0.5)
    params = made_up.params(config)
    short = {key: value[:, :12] for key, value in BATCH.items()}
    apply = jax.jit(functools.partial(t5.forward, config=config))
    first, again, other = (apply(params, short, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first) - np.asarray(other)).max() > 1e-2
    without = jax.jit(functools.partial(t5.forward, config=dataclasses.replace(config, dropout_rate=0.0)))
    np.testing.assert_array_equal(apply(params, short), without(params, short, jax.random.key(1)))


def test_logits_of_bfloat16_compute_are_float32_and_close():
    config = made_up.config("t5_1_1", dtype="bfloat16")
    short = {key: value[:, :30] for key, value in BATCH.items()}
    rough, exact = (
        jax.jit(functools.partial(t5.forward, config=c))(made_up.params(config), short)
        for c in (config, made_up.config("t5_1_1"))
    )
    assert rough.dtype == jnp.float32
    difference = np.abs(np.asarray(rough) - np.asarray(exact))
    assert 1e-4 < difference.max() < 0.5 and difference.mean() < 0.05


def test_the_parameters_do_not_depend_on_the_mesh():
    config = made_up.config("t5_1_1", num_encoder_layers=1, num_decoder_layers=1)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.tree.map(
        lambda leaf: jax.sharding.NamedSharding(
            mesh, jax.sharding.PartitionSpec("data" if leaf.shape[0] % 8 == 0 else None)
        ),
        t5.abstract_params(config),
    )
    one = t5.init_params(config, rng=jax.random.key(3))
    eight = t5.init_params(config, rng=jax.random.key(3), out_shardings=spread)
    assert eight["token_embedder"]["embedding"].sharding.num_devices == 8
    jax.tree.map(np.testing.assert_array_equal, one, eight)
