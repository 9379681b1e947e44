"""Which of a layer's intermediate arrays wait for the backward pass, and which are computed again there.

A wrapped layer has the parameters of the plain one, under the same names.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import linen as nn

Layer = TypeVar("Layer", bound=type[nn.Module])

_POLICIES: dict[str, Callable[..., Any] | None] = {
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


def rematerialised(layer: Layer, remat: str, *, method: str) -> Layer:
    """Returns the layer's class, `method` of which keeps what a policy says.

    Args:
        layer: one layer of a stack.
        remat: a name of `execution.REMAT_NAMES`.
        method: what training calls; others are left as they are.
    """
    if remat == "none":
        return layer
    return nn.remat(layer, policy=_POLICIES[remat], methods=[method])
