import jax
import jax.numpy as jnp
import pytest

from flan_jax.train.compiling import Compiling
from flan_jax.train.start_up import StartUp


def _step(state, batch):
    return state + batch, state * 2


def test_a_step_compiled_in_a_thread_is_called_like_the_step_and_timed():
    start_up = StartUp()
    step = Compiling(lambda: jax.jit(_step).lower(jnp.ones(2), jnp.ones(2)), start_up=start_up)
    for _ in range(2):
        state, metrics = step(jnp.ones(2), jnp.full(2, 3.0))
        assert state.tolist() == [4.0, 4.0] and metrics.tolist() == [2.0, 2.0]
    values = start_up.values()
    assert values["compile_thread_seconds"] > 0 and values["compile_seconds"] >= 0


def test_an_error_of_the_compiler_is_raised_by_the_first_call():
    def lower():
        raise ValueError("a shape that does not fit")

    step = Compiling(lower, start_up=StartUp())
    for _ in range(2):
        with pytest.raises(ValueError, match="a shape that does not fit"):
            step(jnp.ones(2), jnp.ones(2))
