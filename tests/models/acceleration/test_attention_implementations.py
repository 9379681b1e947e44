"""Every implementation of attention: output, dQ, dK, dV and d(table) against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flan_jax.models.acceleration.attention import attention_function
from flan_jax.models.position_bias import RelativePositionBias
from tests.models.acceleration import attention_cases
from tests.models.acceleration.attention_cases import CASES, Case

# All others in bfloat16, so that the suite stays fast.
FLOAT32 = ("100", "128, causal", "300", "cross, 64 to 100")


def computed(implementation: str, case: Case, given, dtype) -> dict[str, np.ndarray]:
    """Returns `attention_cases.answer`'s arrays, computed as in a layer."""

    def mixed(query, key, value, table):
        def see(bias):
            ids = jnp.asarray(given["query_ids"]), jnp.asarray(given["key_ids"])
            attend = attention_function(*ids, causal=case.causal, implementation=implementation)
            attend = attend if bias is None else attend.with_bias(bias)
            return attend(query, jnp.moveaxis(key, 1, 3), jnp.moveaxis(value, 1, 3))

        if table is None:
            return see(None)
        bias = RelativePositionBias(case.heads, bidirectional=not case.causal)
        return nn.apply(see, bias)({"params": {"rel_embedding": table}})

    names = ("query", "key", "value", "table") if case.has_bias else ("query", "key", "value")

    is_interpreted = implementation == "pallas" and jax.default_backend() == "cpu"

    @functools.partial(jax.jit, compiler_options=attention_cases.QUICKLY_COMPILED if is_interpreted else None)
    def all_of_it(arguments, mixed_grad):
        found, pull = jax.vjp(mixed, *arguments)
        return dict(zip(names, pull(mixed_grad.astype(found.dtype)), strict=False)) | {"mixed": found}

    arguments = [jnp.asarray(given[name], dtype) for name in names if name != "table"]
    found = all_of_it([*arguments, given["table"] if case.has_bias else None], given["mixed_grad"])
    assert {found[name].dtype for name in found if name != "table"} == {jnp.dtype(dtype)}
    return {name: np.asarray(found[name], np.float64) for name in (*names, "mixed")}


def assert_the_answer(implementation: str, case: Case, dtype) -> None:
    """Allows a few roundings of the largest entry of each array, because softmax weights and their gradients are rounded."""
    given = attention_cases.arrays(case)
    for name in ("query", "key", "value", "mixed_grad"):
        given[name] = np.asarray(jnp.asarray(given[name], dtype), np.float32)
    expected = attention_cases.answer(case, given)
    found = computed(implementation, case, given, dtype)
    assert all(np.isfinite(array).all() for array in found.values())
    found["mixed"], expected["mixed"] = (each["mixed"][given["sees_some"]] for each in (found, expected))
    roundings = 16 if dtype == jnp.float32 else 2
    for name, array in expected.items():
        tolerance = roundings * float(jnp.finfo(dtype).eps) * np.max(np.abs(array))
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)
    if case.has_bias:
        assert np.max(np.abs(expected["table"])) > 0.1  # Some kernels return zero for this gradient.


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("implementation", ["xla", "pallas"])
def test_outputs_and_all_gradients_are_those_of_float64(implementation, name):
    assert_the_answer(implementation, CASES[name], jnp.float32 if name in FLOAT32 else jnp.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("implementation", ["xla", "pallas"])
def test_on_a_gpu_outputs_and_all_gradients_are_those_of_float64(implementation, dtype, name):
    with jax.default_matmul_precision("highest"):
        assert_the_answer(implementation, CASES[name], dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["packed, 128", "packed, 128, causal", "packed, 256", "cross, 128"])
def test_on_a_gpu_cudnn_has_the_outputs_and_all_gradients_of_float64(name):
    packed = (((1, 100), (2, 28)), ((1, 64), (2, 60), (0, 4)))
    more = (((1, 100), (2, 156)), ((1, 64), (2, 180), (0, 12)))
    case = {
        "packed, 128": Case(queries=packed),
        "packed, 128, causal": Case(queries=packed, causal=True),
        "packed, 256": Case(queries=more),
        "cross, 128": Case(queries=packed, keys=more, has_bias=False),
    }[name]
    assert_the_answer("cudnn", case, jnp.bfloat16)
