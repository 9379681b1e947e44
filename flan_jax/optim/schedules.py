"""Learning rates as functions of the step, by T5X's formulas.

A schedule takes the number of updates made so far (an integer, or a traced scalar) and returns a float32 scalar.
The rules that T5X composes in a string, as `"constant * linear_warmup * rsqrt_decay"`, are one function each
here. What counts the steps is the optimiser; what writes the rate down is `train.step`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flan_jax.errors import UserError

Schedule = Callable[[Any], jax.Array]

MINIMUM_LEARNING_RATE = 1e-8
"""No schedule returns less: T5X's floor, so that no rate is ever zero or negative."""


def constant(learning_rate: float, *, warmup_steps: int = 0, step_offset: int = 0) -> Schedule:
    """Returns a fixed rate, after an optional linear warm-up from zero (T5X: `constant * linear_warmup`).

    Args:
      learning_rate: The rate after the warm-up.
      warmup_steps: Steps until it is reached.
      step_offset: The step from which the schedule counts, that of the checkpoint when fine-tuning goes on from one.

    Raises:
      UserError: a rate or a number of steps that cannot be.

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
    """Returns a rate that falls on a line from the end of the warm-up to `total_steps`.

    T5X's `linear_decay` with a decay factor of (1 - final_fraction) / (total_steps - warmup_steps); it stays at its
    end afterwards, where T5X's goes on falling to its floor.

    Args:
      learning_rate: The highest rate.
      total_steps: The step at which the rate is `final_fraction` of the highest.
      warmup_steps: Steps of linear warm-up from zero.
      final_fraction: What is left at the end, as a share of the highest rate.
      step_offset: The step from which the schedule counts.

    Raises:
      UserError: a rate or a number of steps that cannot be.

    >>> [round(float(linear(1.0, total_steps=12, warmup_steps=2)(step)), 5) for step in (1, 2, 7, 12, 20)]
    [0.5, 1.0, 0.5, 0.0, 0.0]
    """
    _check("linear", learning_rate=learning_rate, warmup_steps=warmup_steps, step_offset=step_offset)
    _check_fraction("linear", final_fraction)
    if total_steps <= warmup_steps:
        raise UserError(
            f"linear: total_steps is {total_steps}, but the decay begins at warmup_steps, which is {warmup_steps}. "
            "Give more total_steps (those of the whole run) or fewer warmup_steps."
        )
    slope = (1.0 - final_fraction) / (total_steps - warmup_steps)

    def rate(step: jax.Array) -> jax.Array:
        decay = jnp.maximum(1.0 - slope * jnp.maximum(0, step - warmup_steps), final_fraction)
        return learning_rate * jnp.minimum(_warmup(step, warmup_steps), decay)

    return _schedule(rate, step_offset)


def rsqrt(
    learning_rate: float = 1.0, *, flat_steps: int = 10_000, warmup_steps: int = 0, step_offset: int = 0
) -> Schedule:
    """Returns learning_rate / sqrt(max(step, flat_steps)): T5's pretraining schedule with the defaults.

    T5X's `constant * rsqrt_decay`, or `constant * linear_warmup * rsqrt_decay` when `warmup_steps` is given.

    Args:
      learning_rate: The numerator; the rate itself is at most learning_rate / sqrt(flat_steps).
      flat_steps: Steps before the rate falls (T5X calls them warm-up too).
      warmup_steps: Steps of linear warm-up from zero.
      step_offset: The step from which the schedule counts.

    Raises:
      UserError: a rate or a number of steps that cannot be.

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


def cosine(
    learning_rate: float,
    *,
    cycle_steps: int,
    warmup_steps: int = 0,
    final_fraction: float = 0.0,
    step_offset: int = 0,
) -> Schedule:
    """Returns a rate that falls on half a cosine over `cycle_steps` after the warm-up, and starts again then.

    T5X's `constant * linear_warmup * cosine_decay` (its restarts included) when `final_fraction` is 0.

    Args:
      learning_rate: The highest rate.
      cycle_steps: Steps from the highest rate to the lowest: those of the run less the warm-up, for a single fall.
      warmup_steps: Steps of linear warm-up from zero.
      final_fraction: What is left at the end of a cycle, as a share of the highest rate.
      step_offset: The step from which the schedule counts.

    Raises:
      UserError: a rate or a number of steps that cannot be.

    >>> [round(float(cosine(1.0, cycle_steps=8)(step)), 5) for step in (0, 4, 8)]
    [1.0, 0.5, 1.0]
    """
    _check("cosine", learning_rate=learning_rate, warmup_steps=warmup_steps, step_offset=step_offset)
    _check_fraction("cosine", final_fraction)
    if cycle_steps < 1:
        raise UserError(f"cosine: cycle_steps is {cycle_steps}; a cycle has at least 1 step.")

    def rate(step: jax.Array) -> jax.Array:
        progress = jnp.maximum(0.0, (step - warmup_steps) / cycle_steps) % 1.0
        wave = 0.5 * (1.0 + jnp.cos(math.pi * progress))
        return learning_rate * _warmup(step, warmup_steps) * (final_fraction + (1.0 - final_fraction) * wave)

    return _schedule(rate, step_offset)


def _schedule(rate: Callable[[jax.Array], jax.Array], step_offset: int) -> Schedule:
    """Counts from `step_offset`, and keeps the rate above the floor."""

    def schedule(step: Any) -> jax.Array:
        counted = jnp.maximum(0, jnp.asarray(step) - step_offset).astype(jnp.float32)
        return jnp.maximum(rate(counted), MINIMUM_LEARNING_RATE).astype(jnp.float32)

    return schedule


def _warmup(step: jax.Array, warmup_steps: int) -> jax.Array:
    """The share of the rate that the warm-up lets through; T5X's formula divides by zero without a warm-up."""
    return jnp.minimum(1.0, step / warmup_steps) if warmup_steps else jnp.ones_like(step)


def _check(name: str, *, learning_rate: float, warmup_steps: int, step_offset: int) -> None:
    if not learning_rate > 0 or not math.isfinite(learning_rate):
        raise UserError(f"{name}: learning_rate is {learning_rate}; it has to be a finite number above 0.")
    for what, steps in (("warmup_steps", warmup_steps), ("step_offset", step_offset)):
        if steps < 0:
            raise UserError(f"{name}: {what} is {steps}; it cannot be negative.")


def _check_fraction(name: str, final_fraction: float) -> None:
    if not 0.0 <= final_fraction <= 1.0:
        raise UserError(f"{name}: final_fraction is {final_fraction}; it is a share of the rate, from 0 to 1.")
