"""Written-out gradients against those that JAX derives, and sums computed as products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models.acceleration.products import project, scale_features, sum_leading


@pytest.mark.parametrize(
    ("subscripts", "shape"),
    [("BTD->D", (3, 5, 7)), ("GRHTS->GHTS", (2, 3, 2, 4, 5)), ("GRHTS->GHTS", (1, 1, 2, 3, 4)), ("BD->D", (1, 4))],
)
def test_a_sum_over_leading_dimensions_is_the_sum(subscripts, shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    found = jax.jit(lambda x: sum_leading(subscripts, x))(x)
    np.testing.assert_allclose(found, np.einsum(subscripts, np.asarray(x, np.float64)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "plain", "kernel_shape"),
    [
        pytest.param(scale_features, lambda x, scale: x * scale[None, None], (6,), id="scale"),
        pytest.param(project, jnp.dot, (6, 9), id="to more"),
        pytest.param(project, jnp.dot, (6, 3), id="to fewer"),
    ],
)
def test_written_out_gradients_are_those_that_jax_derives(function, plain, kernel_shape):
    draw = np.random.default_rng(0).normal
    x, kernel = (jnp.asarray(draw(size=shape), jnp.float32) for shape in ((2, 5, 6), kernel_shape))
    weight = draw(size=plain(x, kernel).shape).astype(np.float32)

    def gradients(function):
        return jax.grad(lambda x, kernel: jnp.sum(jnp.tanh(function(x, kernel)) * weight), argnums=(0, 1))(x, kernel)

    for found, expected in zip(gradients(function), gradients(plain), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
