"""Adafactor against updates that T5X computed; properties of every optimizer."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax.optim import optimizers, schedules

ROOT = Path(__file__).resolve().parents[2]


def _golden_tool():
    spec = importlib.util.spec_from_file_location("golden_tool", ROOT / "tools/make_t5x_adafactor_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _golden_tool()


@pytest.fixture(scope="module")
def t5x():
    with np.load(ROOT / "tests/golden/t5x_adafactor.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", TOOL.CASES)
def test_adafactor_updates_as_t5x_does(t5x, name):
    case = TOOL.CASES[name]
    schedule, arguments = case.schedule
    optimizer = optimizers.adafactor(getattr(schedules, schedule)(**arguments), **case.arguments)
    params = TOOL.parameters()
    state = optimizer.init(params)
    previous = TOOL.sample(params)
    update = jax.jit(optimizer.update)
    for step in range(TOOL.STEPS):
        updates, state = update(TOOL.gradients(step), state, params)
        params = optax.apply_updates(params, updates)
        expected, got = t5x[f"{name}/params_{step}"], TOOL.sample(params)
        size = np.sqrt(np.mean(np.square(expected - previous)))
        assert size > 0.05  # else the parameters' own rounding would hide the updates
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * size)
        previous = expected
    for kind in ("v_row", "v_col", "v"):
        got = TOOL.sample(optax.tree_utils.tree_get(state, kind))
        np.testing.assert_allclose(got, t5x[f"{name}/{kind}"], rtol=1e-6)


def test_adafactor_state_leaves_have_the_parameters_shape_or_one_axis_less():
    params = {"kernel": jnp.ones((128, 256)), "scale": jnp.ones(8)}
    state = optimizers.adafactor(1e-3).init(params)
    shapes = {
        kind: jax.tree.map(lambda leaf: leaf.shape, optax.tree_utils.tree_get(state, kind))
        for kind in ("v_row", "v_col", "v")
    }
    assert shapes == {
        "v_row": {"kernel": (128,), "scale": (1,)},
        "v_col": {"kernel": (256,), "scale": (1,)},
        "v": {"kernel": (1,), "scale": (8,)},
    }


OPTIMIZERS = {
    "adafactor": lambda rate: optimizers.adafactor(rate),
    "adafactor with momentum": lambda rate: optimizers.adafactor(rate, momentum=0.9),
    "adafactor, absolute rate": lambda rate: optimizers.adafactor(rate, multiply_by_parameter_scale=False),
    "adafactor, clipped": lambda rate: optimizers.adafactor(rate, max_gradient_norm=0.1),
    "adamw": lambda rate: optimizers.adamw(rate),
    "adamw, not clipped": lambda rate: optimizers.adamw(rate, max_gradient_norm=None, weight_decay=0.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_rate_or_a_schedule_and_approaches_the_minimum(name):
    def trained(rate):
        optimizer = OPTIMIZERS[name](rate)
        params = {"kernel": jnp.full((2, 3), 2.0)}
        state = optimizer.init(params)

        @jax.jit
        def step(params, state):
            updates, state = optimizer.update(jax.grad(lambda p: jnp.sum(p["kernel"] ** 2))(params), state, params)
            return optax.apply_updates(params, updates), state

        for _ in range(30):
            params, state = step(params, state)
        return params["kernel"]

    by_number, by_schedule = trained(0.05), trained(schedules.constant(0.05))
    assert by_number.dtype == jnp.float32
    np.testing.assert_array_equal(by_number, by_schedule)
    assert float(jnp.abs(by_number).max()) < 1.0


def test_adamw_decays_kernels_but_no_scales_biases_and_position_tables():
    params = {
        "scale": jnp.ones(2),
        "layer": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)},
        "relpos_bias": {"rel_embedding": jnp.ones((2, 4))},
    }
    optimizer = optimizers.adamw(1.0, weight_decay=0.25)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert float(updates["layer"]["kernel"][0, 0]) == -0.25
    others = [updates["scale"], updates["layer"]["bias"], updates["layer"]["scale"]]
    assert all(float(jnp.abs(update).max()) == 0.0 for update in [*others, updates["relpos_bias"]["rel_embedding"]])


def test_gradients_are_clipped_together():
    optimizer = optimizers.adamw(1.0, weight_decay=0.0, max_gradient_norm=1.0)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = optimizer.update({"a": jnp.full(1, 3.0), "b": jnp.full(1, 4.0)}, optimizer.init(params), params)[1]
    moments = optax.tree_utils.tree_get(state, "mu")
    np.testing.assert_allclose([moments["a"][0], moments["b"][0]], [0.06, 0.08], rtol=1e-6)


def test_a_clipping_norm_of_zero_is_refused():
    with pytest.raises(ValueError, match="max_gradient_norm is 0; it must be above 0, or None"):
        optimizers.adafactor(1e-3, max_gradient_norm=0)
