"""How a row goes through the layers of a stack: one program a layer, or one program for all of them in a loop.

Both ways compute the same from the same tree of parameters, in which every layer has its own. The loop (`lax.scan`) stacks
them for the step, in the compute type: the program is then as long as one layer, and so is what a rematerialised backward
pass holds at a time. The choice, and what waits for the backward pass, are `execution.Execution`'s.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from flan_jax.models.dropout import Keep
from flan_jax.models.execution import Execution
from flan_jax.models.layers import constrain

Params = dict[str, Any]
Visit = Callable[[Params, jax.Array, Keep], jax.Array]

_POLICIES: dict[str, Callable[..., Any] | None] = {
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


def through_layers(
    visit: Visit,
    x_BTD: jax.Array,
    *,
    params: Sequence[Params],
    axes: Callable[[], Params],
    keeps: Sequence[Keep],
    dtype: jnp.dtype,
    execution: Execution,
) -> jax.Array:
    """Returns what the last layer makes of x.

    Args:
        visit: one layer, from its parameters, what came in and its dropout factors to what goes out.
        x_BTD: what the first layer gets.
        params: of each layer; trees alike.
        axes: returns the logical axis names of one layer's parameters; asked in a loop alone.
        keeps: dropout factors of each layer; alike.
        dtype: what matrices are computed in.
        execution: in a loop or not, and what the backward pass computes again.
    """
    in_loop = execution.layers == "scanned" and len(params) > 1
    if execution.remat != "none":
        # In a loop the two computations cannot be merged into one anyway.
        visit = jax.checkpoint(visit, policy=_POLICIES[execution.remat], prevent_cse=not in_loop)
    if not in_loop:
        for layer, keep in zip(params, keeps, strict=True):
            x_BTD = visit(layer, x_BTD, keep)
        return x_BTD
    names_of = axes()
    # Cast first: the copy then takes half the room, and so does what is brought together from the devices for a layer.
    cast = [jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, layer) for layer in params]
    stacked = jax.tree.map(
        lambda names, *leaves: constrain(jnp.stack(leaves), None, *names), names_of, *cast, is_leaf=_is_names
    )
    stacked_keeps = jax.tree.map(lambda *leaves: jnp.stack(leaves), *keeps)

    def one(x_BTD: jax.Array, layer: tuple[Params, Keep]) -> tuple[jax.Array, None]:
        # Cut as it lies in the stack: what a layer needs whole is brought together in its own turn, not before the loop.
        cut = jax.tree.map(lambda names, leaf: constrain(leaf, *names), names_of, layer[0], is_leaf=_is_names)
        return visit(cut, x_BTD, layer[1]), None

    return jax.lax.scan(one, x_BTD, (stacked, stacked_keeps))[0]


def _is_names(node: Any) -> bool:
    return isinstance(node, tuple)
