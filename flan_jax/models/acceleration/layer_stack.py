"""A row's way through the layers of a stack: unrolled, or scanned in a loop; with or without rematerialization.

Both compute the same from the same parameter tree, in which every layer has its own. The scan stacks the layers'
parameters within the step, in the compute type: the program is then as long as one layer, and a rematerialized backward
pass holds the activations of one layer at a time. `models.execution.Execution` chooses.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flan_jax.models.dropout import DropoutMasks
from flan_jax.models.execution import Execution
from flan_jax.models.partitioning import constrain
from flan_jax.shapes import Params

_POLICIES: dict[str, Callable[..., Any] | None] = {
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


def run_layers(
    layers: Sequence[nn.Module],
    x_BTD: Float[Array, "B T D"],
    *,
    masks: Sequence[DropoutMasks],
    logical_axes: Callable[[], Params],
    dtype: jnp.dtype,
    execution: Execution,
    **context: Any,
) -> Float[Array, "B T D"]:
    """Returns the output of the last layer.

    Args:
      layers: Modules that differ in their parameters only, called as `layer(x, masks=..., **context)`.
      x_BTD: The input of the first layer.
      masks: The dropout masks of each layer, of equal shapes.
      logical_axes: Returns the logical axis names of one layer's parameters; called only for a scan.
      dtype: The compute type.
      execution: Whether to scan, and what to rematerialize.
      **context: What is the same for all layers: attention functions, the encoder's output.
    """
    # Parameters come into being when their own module runs; a scan would create one layer's instead of all.
    if layers[0].is_initializing():
        for layer, layer_masks in zip(layers, masks, strict=True):
            x_BTD = layer(x_BTD, masks=layer_masks, **context)
        return x_BTD
    # Unbound, a function of its parameters: the body of a loop must not touch the scope outside it.
    unbound = layers[0].clone(parent=None, name=None)
    params: list[Params] = [dict(layer.variables["params"]) for layer in layers]

    def call(params: Params, x_BTD: jax.Array, masks: DropoutMasks) -> Any:
        return unbound.apply({"params": params}, x_BTD, masks=masks, **context)

    # A loop over one layer would only add the copy of its parameters.
    is_scanned = execution.layers == "scanned" and len(layers) > 1
    if execution.remat != "none":
        # In a loop the original and the repeated computation cannot be merged (CSE), so nothing has to prevent it.
        call = jax.checkpoint(call, policy=_POLICIES[execution.remat], prevent_cse=not is_scanned)
    if is_scanned:
        return _scan(call, x_BTD, params=params, masks=masks, axes=logical_axes(), dtype=dtype)
    for layer_params, layer_masks in zip(params, masks, strict=True):
        x_BTD = call(layer_params, x_BTD, layer_masks)
    return x_BTD


def _scan(
    call: Callable[..., Any],
    x_BTD: Float[Array, "B T D"],
    *,
    params: Sequence[Params],
    masks: Sequence[DropoutMasks],
    axes: Params,
    dtype: jnp.dtype,
) -> Float[Array, "B T D"]:
    # Cast before stacking: the copy then takes half the memory, and so does the all-gather of a layer.
    cast = [jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, layer) for layer in params]
    stacked = jax.tree.map(
        lambda names, *leaves: constrain(jnp.stack(leaves), None, *names), axes, *cast, is_leaf=_is_names
    )
    # Masks are drawn outside of the loop, so that scanned and unrolled layers drop the same features.
    stacked_masks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *masks)

    def body(x_BTD: jax.Array, layer: tuple[Params, DropoutMasks]) -> tuple[jax.Array, None]:
        # Sharded as in the stack, so that each layer is all-gathered within its own iteration, not before the loop.
        shards = jax.tree.map(lambda names, leaf: constrain(leaf, *names), axes, layer[0], is_leaf=_is_names)
        return call(shards, x_BTD, layer[1]), None

    return jax.lax.scan(body, x_BTD, (stacked, stacked_masks))[0]


def _is_names(node: Any) -> bool:
    return isinstance(node, tuple)
