"""The schedules against T5X's formulas, written out in float64 Python."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.optim import schedules

CASES = {
    "constant": (schedules.constant(2.0, warmup_steps=4), lambda n: 2.0 * min(1.0, n / 4)),
    "constant without warmup": (schedules.constant(2.0), lambda n: 2.0),
    "linear": (
        schedules.linear(2.0, warmup_steps=4, total_steps=24, final_fraction=0.1),
        lambda n: 2.0 * max(min(n / 4, 1.0 + 0.045 * (4 - n)), 0.1 * min(1.0, n / 4)),
    ),
    "rsqrt": (schedules.rsqrt(2.0, flat_steps=9), lambda n: 2.0 / math.sqrt(max(n, 9))),
    "rsqrt with warmup": (
        schedules.rsqrt(2.0, flat_steps=4, warmup_steps=4),
        lambda n: 2.0 * min(1.0, n / 4) / math.sqrt(max(n, 4)),
    ),
    "offset": (schedules.rsqrt(2.0, flat_steps=4, step_offset=5), lambda n: 2.0 / math.sqrt(max(n - 5, 4))),
}


@pytest.mark.parametrize("name", CASES)
def test_schedule_follows_t5x_formula(name):
    schedule, formula = CASES[name]
    steps = range(40)
    got = jax.jit(jax.vmap(schedule))(jnp.arange(40))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [max(formula(n), 1e-8) for n in steps], rtol=1e-5, atol=1e-7)


def test_no_rate_is_zero():
    assert float(schedules.constant(1.0, warmup_steps=10)(0)) == pytest.approx(1e-8)
    assert float(schedules.linear(1.0, total_steps=5)(1000)) == pytest.approx(1e-8)


REFUSED = {
    "constant: learning_rate is 0; it must be a finite number above 0": lambda: schedules.constant(0),
    "rsqrt: learning_rate is nan": lambda: schedules.rsqrt(float("nan")),
    "rsqrt: warmup_steps is -1; it must not be negative": lambda: schedules.rsqrt(1.0, warmup_steps=-1),
    "constant: step_offset is -2; it must not be negative": lambda: schedules.constant(1.0, step_offset=-2),
    "linear: total_steps is 3, but the decay begins at warmup_steps, which is 3. Give more": lambda: schedules.linear(
        1.0, total_steps=3, warmup_steps=3
    ),
    "linear: final_fraction is 2; it is a fraction": lambda: schedules.linear(1.0, total_steps=3, final_fraction=2),
    "rsqrt: flat_steps is 0; the rate is finite": lambda: schedules.rsqrt(1.0, flat_steps=0),
}


@pytest.mark.parametrize("message", REFUSED)
def test_values_out_of_range_are_refused_by_name(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
