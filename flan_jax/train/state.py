"""What a step carries on, and what it tells."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """Everything that a step changes. Saved, and sharded like the parameters.

    Attributes:
      step: Int32 scalar, the steps taken: skipped ones too, so that it is the number of batches consumed.
      params: The tree of parameters, trained and frozen.
      opt_state: The optimiser's state.
    """

    step: jax.Array
    params: Any
    opt_state: Any


@struct.dataclass
class StepMetrics:
    """What one step tells about itself, as scalars on the device.

    Attributes:
      sums: Summed over the batch, to be divided by `weight`; `loss` among them.
      weight: What to divide by: the summed loss weights of the target tokens.
      values: Of this step alone: `grad_norm`, `learning_rate`, and statistics of tensors when asked for.
      skipped: True when the loss or the gradient was not finite, and nothing was updated.
      bad_tensors: How many parameters have a gradient that is not finite.
      first_bad_tensor: Place of the first of them in the flattened tree of parameters; -1 when there is none.
    """

    sums: dict[str, jax.Array]
    weight: jax.Array
    values: dict[str, jax.Array]
    skipped: jax.Array
    bad_tensors: jax.Array
    first_bad_tensor: jax.Array

    def mean(self, name: str) -> jax.Array:
        """Returns one of the sums as a mean, `loss` or another."""
        return self.sums[name] / jnp.maximum(self.weight, np.finfo(np.float32).tiny)


def new_state(params: Any, *, optimizer: optax.GradientTransformation, step: int = 0) -> TrainState:
    """Returns the state before the first step.

    Args:
      params: The tree of parameters, unboxed. May be traced, to derive shapes or to initialise sharded.
      optimizer: Its `init` makes the state.
      step: Where the count begins.
    """
    return TrainState(step=jnp.asarray(step, jnp.int32), params=params, opt_state=optimizer.init(params))
