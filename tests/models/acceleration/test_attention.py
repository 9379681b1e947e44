"""Attention by XLA: the written-out gradients against derived ones, masks, the bias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models.acceleration.attention import MASKED_SCORE, attend, segment_mask
from flan_jax.models.acceleration.products import project
from flan_jax.models.position_bias import RelativePositionBias
from flan_jax.models.relative_position import relative_position_buckets


def plain_attend(query, key, value, mask, bias):
    """The definition, differentiated by JAX."""
    scores = jnp.einsum("BTHK,BHKS->BHTS", query, key)
    scores = scores if bias is None else scores + bias
    weights = jax.nn.softmax(jnp.where(mask, scores, MASKED_SCORE))
    return jnp.einsum("BHTS,BHKS->BTHK", weights, value)


def arrays():
    rng = np.random.default_rng(0)
    B, T, S, H, K = 2, 5, 7, 3, 4
    query, key, value, bias = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in [(B, T, H, K), (B, H, K, S), (B, H, K, S), (1, H, T, S)]
    )
    mask = rng.random((B, 1, T, S)) < 0.6
    mask[0, 0, 2] = False  # A query without any key.
    return query, key, value, jnp.asarray(mask), bias


def value_and_gradients(function, inputs, *, with_bias):
    query, key, value, mask, bias = inputs
    weight = jnp.sin(jnp.arange(query.size, dtype=jnp.float32)).reshape(query.shape)

    def loss(query, key, value, bias):
        return jnp.sum(function(query, key, value, mask, bias) * weight.astype(query.dtype), dtype=jnp.float32)

    names = (0, 1, 2, 3) if with_bias else (0, 1, 2)
    return jax.jit(jax.value_and_grad(loss, argnums=names))(query, key, value, bias if with_bias else None)


@pytest.mark.parametrize("with_bias", [True, False])
def test_output_and_gradients_are_those_of_the_definition(with_bias):
    found = value_and_gradients(attend, arrays(), with_bias=with_bias)
    expected = value_and_gradients(plain_attend, arrays(), with_bias=with_bias)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), found, expected)


def test_bfloat16_gradients_are_close_to_the_float32_ones():
    query, key, value, mask, bias = arrays()
    rounded = (query.astype(jnp.bfloat16), key.astype(jnp.bfloat16), value.astype(jnp.bfloat16), mask, bias)
    _, found = value_and_gradients(attend, rounded, with_bias=True)
    _, expected = value_and_gradients(plain_attend, arrays(), with_bias=True)
    assert [leaf.dtype.name for leaf in found] == ["bfloat16"] * 3 + ["float32"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a.astype(np.float32), b, atol=0.05), found, expected)


@pytest.mark.parametrize("features", [4, 2, 1])
def test_a_projection_has_the_gradient_of_a_product(features):
    x = jnp.arange(12.0).reshape(2, 3, 2)
    kernel = jnp.asarray([[1.0, -1.0, 2.0, 0.0], [0.5, 3.0, 1.0, 1.0]])[:, :features]
    found, expected = (
        jax.grad(lambda x, kernel, f=function: jnp.sum(jnp.sin(f(x, kernel))), argnums=(0, 1))(x, kernel)
        for function in (project, jnp.dot)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def test_masks_separate_segments_and_causal_ones_hide_later_keys():
    ids = jnp.asarray([[1, 1, 2, 0]])
    T, F = True, False
    np.testing.assert_array_equal(
        segment_mask(ids, ids)[0, 0], [[T, T, F, F], [T, T, F, F], [F, F, T, F], [F, F, F, T]]
    )
    np.testing.assert_array_equal(
        segment_mask(ids, ids, causal=True)[0, 0], [[T, F, F, F], [T, T, F, F], [F, F, T, F], [F, F, F, T]]
    )
    np.testing.assert_array_equal(segment_mask(jnp.asarray([[2]]), ids)[0, 0], [[F, F, T, F]])


@pytest.mark.parametrize(("queries", "keys"), [(3, 3), (2, 5), (4, 1)])
def test_the_bias_at_t_s_is_the_table_at_the_bucket_of_s_minus_t(queries, keys):
    bias = RelativePositionBias(num_heads=2, bidirectional=True)
    table = jnp.arange(64.0).reshape(2, 32)
    found = bias.apply({"params": {"rel_embedding": table}}, queries, keys)
    distance = np.arange(keys)[None, :] - np.arange(queries)[:, None]
    buckets = relative_position_buckets(distance, bidirectional=True)
    np.testing.assert_array_equal(found[0], np.asarray(table)[:, buckets])
