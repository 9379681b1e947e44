"""Dropout as in T5X: one mask for all positions of a row (`broadcast_dims`), at the same sites.

The masks of a stack are drawn together, in one call: a draw per site would double the compile time. A stack lists the
sites where its layers drop, draws all masks, and passes each layer its own.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

DropoutMasks = Mapping[str, Float[Array, "..."]]
"""By site: a factor of 0 or 1 / (1 - rate) per feature. A site without a mask drops nothing."""

NO_DROPOUT: DropoutMasks = {}


def draw_masks(key: PRNGKeyArray, shapes: Any, *, rate: float, dtype: jnp.dtype) -> Any:
    """Returns a tree like `shapes` with a mask for each shape.

    Args:
      key: The random key of all masks.
      shapes: Nested dicts and lists of shapes, which all begin with the number of rows.
      rate: The probability of 0.
      dtype: The type of the factors.
    """
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda shape: isinstance(shape, tuple))
    # Consecutive parts of one draw: another order of sites gives a seed other masks, and runs other bits.
    ends = np.cumsum([np.prod(shape[1:], dtype=int) for shape in leaves])
    # One number per row and feature: masks of every element would take a third of a CPU's step.
    is_retained = jax.random.bernoulli(key, 1.0 - rate, (leaves[0][0], ends[-1]))
    # Scaled here, so that evaluation needs no factor.
    factors = is_retained.astype(dtype) / jnp.asarray(1.0 - rate, dtype)
    parts = jnp.split(factors, ends[:-1], axis=1)
    return jax.tree.unflatten(tree, [part.reshape(shape) for part, shape in zip(parts, leaves, strict=True)])


def drop(x: Float[Array, "..."], masks: DropoutMasks, site: str) -> Float[Array, "..."]:
    """Returns x times the mask of `site`, which broadcasts over the positions of x."""
    return x * masks[site] if site in masks else x
