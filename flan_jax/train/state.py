"""The state that a train step updates, and the metrics that it returns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """Everything that a step updates; saved in checkpoints, and sharded like the parameters.

    Attributes:
      step: Int32 scalar: the number of batches consumed, skipped steps included.
      params: The tree of parameters, trained and frozen.
      opt_state: The optimizer's state.
    """

    step: jax.Array
    params: Any
    opt_state: Any


@struct.dataclass
class StepMetrics:
    """The metrics of one step, as scalars on the device.

    Attributes:
      sums: Sums over the batch, `loss` among them; divided by `weight` they are means.
      weight: The summed loss weights of the target tokens.
      values: Numbers of this step: `grad_norm`, `learning_rate`, and statistics of tensors when requested.
      skipped: True when the loss or the gradient was not finite, and nothing was updated.
      bad_tensors: The number of parameters with a gradient that is not finite.
      first_bad_tensor: The index of the first of them in the flattened tree of parameters, or -1.
    """

    sums: dict[str, jax.Array]
    weight: jax.Array
    values: dict[str, jax.Array]
    skipped: jax.Array
    bad_tensors: jax.Array
    first_bad_tensor: jax.Array

    def mean(self, name: str) -> jax.Array:
        """Returns the mean of one of the sums."""
        # A batch without target tokens has weight 0, and a mean of 0.
        return self.sums[name] / jnp.maximum(self.weight, np.finfo(np.float32).tiny)


def new_state(params: Any, *, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step.

    Args:
      params: The tree of parameters, unboxed. May be traced, to derive shapes or to initialize sharded arrays.
      optimizer: Initializes its own state.
    """
    return TrainState(step=jnp.asarray(0, jnp.int32), params=params, opt_state=optimizer.init(params))
