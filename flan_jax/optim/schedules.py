"""Learning rates as functions of the step, by T5X's formulas.

A schedule maps the number of updates so far (an integer, or a traced scalar) to a float32 scalar. T5X composes factors
in a string, `"constant * linear_warmup * rsqrt_decay"`; here each useful product is a function. The optimizer counts
the steps, and `train.step` logs the rate.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flan_jax.errors import UserError

Schedule = Callable[[Any], jax.Array]

MINIMUM_LEARNING_RATE = 1e-8
"""T5X's floor: no schedule returns less, so that no rate is zero or negative."""


def constant(learning_rate: float, *, warmup_steps: int = 0, step_offset: int = 0) -> Schedule:
    """Returns a constant rate after an optional linear warmup from zero (T5X: `constant * linear_warmup`).

    Args:
      learning_rate: The rate after the warmup.
      warmup_steps: Steps until that rate is reached.
      step_offset: The step at which the schedule starts: that of the checkpoint when fine-tuning continues its count.

    Raises:
      UserError: A rate or a number of steps out of range.

    >>> [round(float(constant(1e-3, warmup_steps=4)(step)), 5) for step in (1, 2, 4, 100)]
    [0.00025, 0.0005, 0.001, 0.001]
    """
    _check("constant", learning_rate=learning_rate, warmup_steps=warmup_steps, step_offset=step_offset)
    return _schedule(lambda step: learning_rate * _warmup(step, warmup_steps), step_offset)


def linear(
    learning_rate: float,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    final_fraction: float = 0.0,
    step_offset: int = 0,
) -> Schedule:
    """Returns a rate that falls linearly from the end of the warmup to `total_steps`.

    T5X's `linear_decay` with a decay factor of (1 - final_fraction) / (total_steps - warmup_steps). After `total_steps`
    it is constant, where T5X's continues to fall to its floor.

    Args:
      learning_rate: The peak rate.
      total_steps: The step at which the rate is `final_fraction` of the peak.
      warmup_steps: Steps of linear warmup from zero.
      final_fraction: The rate at the end, as a fraction of the peak.
      step_offset: The step at which the schedule starts.

    Raises:
      UserError: A rate or a number of steps out of range.

    >>> [round(float(linear(1.0, total_steps=12, warmup_steps=2)(step)), 5) for step in (1, 2, 7, 12, 20)]
    [0.5, 1.0, 0.5, 0.0, 0.0]
    """
    _check("linear", learning_rate=learning_rate, warmup_steps=warmup_steps, step_offset=step_offset)
    if not 0.0 <= final_fraction <= 1.0:
        raise UserError(f"linear: final_fraction is {final_fraction}; it is a fraction of the peak rate, from 0 to 1.")
    if total_steps <= warmup_steps:
        raise UserError(
            f"linear: total_steps is {total_steps}, but the decay begins at warmup_steps, which is {warmup_steps}. "
            "Give more total_steps (those of the entire run, TRAIN_STEPS in recipes) or fewer warmup_steps "
            "(WARMUP_STEPS)."
        )
    slope = (1.0 - final_fraction) / (total_steps - warmup_steps)

    def rate(step: jax.Array) -> jax.Array:
        # During the warmup `step - warmup_steps` is negative and the decay would exceed 1.
        decay = jnp.maximum(1.0 - slope * jnp.maximum(0, step - warmup_steps), final_fraction)
        # At every step one of the two is 1.
        return learning_rate * jnp.minimum(_warmup(step, warmup_steps), decay)

    return _schedule(rate, step_offset)


def rsqrt(
    learning_rate: float = 1.0, *, flat_steps: int = 10_000, warmup_steps: int = 0, step_offset: int = 0
) -> Schedule:
    """Returns learning_rate / sqrt(max(step, flat_steps)): T5's pretraining schedule with the defaults.

    T5X's `constant * rsqrt_decay`, or `constant * linear_warmup * rsqrt_decay` when `warmup_steps` is given.

    Args:
      learning_rate: The numerator; the rate itself is at most learning_rate / sqrt(flat_steps).
      flat_steps: Steps before the rate falls (T5X calls them warmup too).
      warmup_steps: Steps of linear warmup from zero.
      step_offset: The step at which the schedule starts.

    Raises:
      UserError: A rate or a number of steps out of range.

    >>> [round(float(rsqrt(1.0)(step)), 5) for step in (0, 10_000, 40_000)]
    [0.01, 0.01, 0.005]
    """
    _check("rsqrt", learning_rate=learning_rate, warmup_steps=warmup_steps, step_offset=step_offset)
    if flat_steps < 1:
        raise UserError(f"rsqrt: flat_steps is {flat_steps}; the rate is finite at step 0 only with at least 1.")
    return _schedule(
        lambda step: learning_rate * _warmup(step, warmup_steps) / jnp.sqrt(jnp.maximum(step, flat_steps)),
        step_offset,
    )


def _schedule(rate: Callable[[jax.Array], jax.Array], step_offset: int) -> Schedule:
    """Returns the schedule that counts from `step_offset` and applies the floor."""

    def schedule(step: Any) -> jax.Array:
        # Subtracted as integers: float32 does not distinguish all steps above 2^24.
        counted = jnp.maximum(0, jnp.asarray(step) - step_offset).astype(jnp.float32)
        return jnp.maximum(rate(counted), MINIMUM_LEARNING_RATE).astype(jnp.float32)

    return schedule


def _warmup(step: jax.Array, warmup_steps: int) -> jax.Array:
    """Returns the warmup's factor; T5X's formula would divide by zero without a warmup."""
    # The first update is step 0 and so runs at the floor, as in T5X.
    return jnp.minimum(1.0, step / warmup_steps) if warmup_steps else jnp.ones_like(step)


def _check(name: str, *, learning_rate: float, warmup_steps: int, step_offset: int) -> None:
    if not learning_rate > 0 or not math.isfinite(learning_rate):
        raise UserError(f"{name}: learning_rate is {learning_rate}; it must be a finite number above 0.")
    for what, steps in (("warmup_steps", warmup_steps), ("step_offset", step_offset)):
        if steps < 0:
            raise UserError(f"{name}: {what} is {steps}; it must not be negative.")
