"""Whether a state may be saved: its numbers are finite, and its parameters have a size that training can reach.

One step with a learning rate that is far too high makes parameters of which every later loss and gradient overflows.
All later steps are skipped then, and the checkpoints of that state would replace the good ones.
"""

from typing import Any

import jax
import jax.numpy as jnp

from flan_jax.errors import UserError
from flan_jax.train.state import TrainState


class DivergedError(UserError):
    """Training has diverged. The learning rate is part of a run's identity, so that another run has to replace it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} Start a run in another MODEL_DIR with a lower learning rate or a longer warm-up.")


MAX_PARAMETER = 1e6
"""Far above the largest numbers of published checkpoints, which are below a thousand."""


def require_sound(state: TrainState) -> None:
    """Refuses to save a state whose parameters have exploded. Reads it once, on its devices.

    Raises:
      DivergedError: A number is not finite, or a parameter is larger than `MAX_PARAMETER`.
    """
    largest, largest_of_optimizer = (float(value) for value in _largest(state.params, state.opt_state))
    if largest <= MAX_PARAMETER and largest_of_optimizer < float("inf"):  # NaN fails both.
        return
    what = "optimizer's state is not finite"
    if not largest <= MAX_PARAMETER:
        what = f"largest parameter is {largest:g}, more than {MAX_PARAMETER:g}"
    raise DivergedError(f"Step {int(state.step):,} is not saved, and the run ends: training has diverged, the {what}.")


# One program and two numbers: leaf by leaf, hundreds of small transfers would each wait for the device.
@jax.jit
def _largest(params: Any, opt_state: Any) -> tuple[jax.Array, jax.Array]:
    return _largest_of(params), _largest_of(opt_state)


def _largest_of(tree: Any) -> jax.Array:
    """Returns the largest absolute value of a tree in float32; NaN if there is one."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact) and leaf.size]
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)).astype(jnp.float32) for leaf in leaves] or [jnp.zeros(())]))
