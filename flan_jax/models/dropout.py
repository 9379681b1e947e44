"""Dropout as in T5X: one mask for all positions of a row, at the same places; drawn once for a whole stack.

A mask of its own for every position costs a third of a training step on CPU; a draw of its own for every place doubles
the time to compile. So a stack lists the places where it drops, draws all their masks at once and hands each layer its
own.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Keep = Mapping[str, jax.Array]
"""By place, a factor of 0 or 1 / (1 - rate). A place that is absent keeps everything; so {} is no dropout."""

NO_DROPOUT: Keep = {}


def draw_keep(key: jax.Array, shapes: Any, *, rate: float, dtype: jnp.dtype) -> Any:
    """Returns a tree like `shapes`, with the factor to multiply by in place of each shape.

    Args:
        shapes: nested dicts and lists of shapes that all begin with the number of rows.
        rate: the probability of 0.
    """
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda shape: isinstance(shape, tuple))
    ends = np.cumsum([np.prod(shape[1:], dtype=int) for shape in leaves])
    keep = jax.random.bernoulli(key, 1.0 - rate, (leaves[0][0], ends[-1]))
    factor = keep.astype(dtype) / jnp.asarray(1.0 - rate, dtype)
    parts = jnp.split(factor, ends[:-1], axis=1)
    return jax.tree.unflatten(tree, [part.reshape(shape) for part, shape in zip(parts, leaves, strict=True)])


def drop(x: jax.Array, keep: Keep, place: str) -> jax.Array:
    """Returns x times the factor of `place`, whose shape broadcasts over x's positions."""
    return x * keep[place] if place in keep else x
