"""Functions that every device of a mesh calls on its own part of arrays: for kernels, which no partitioner can cut."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec

from flan_jax.models.layers import shards_of

Names = tuple[str | None, ...]


def on_each_device(
    function: Callable[..., jax.Array], arrays: Sequence[jax.Array | None], *, names: Sequence[Names], out_names: Names
) -> jax.Array:
    """Returns `function(*arrays)`, computed part by part where a mesh and rules are set.

    A gradient of what several devices hold alike, such as a table that rows on different devices read, is summed over them.

    Args:
        function: whose result's parts depend on the same parts of the arrays alone.
        arrays: its arguments; None stays None.
        names: the logical axes of each array's dimensions. One that does not divide over its devices is left whole.
        out_names: those of the result.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)
    sizes: dict[str, int] = {}
    for array, axes in zip(arrays, names, strict=True):
        if array is not None:
            sizes |= {name: size for name, size in zip(axes, array.shape, strict=True) if name is not None}

    def spec(axes: Names) -> PartitionSpec:
        cut = (name if name is not None and sizes[name] % shards_of(name) == 0 else None for name in axes)
        return nn.logical_to_mesh_axes(tuple(cut)) or PartitionSpec()

    specs: tuple[Any, ...] = tuple(
        None if array is None else spec(axes) for array, axes in zip(arrays, names, strict=True)
    )
    # What a kernel returns says nothing of which axes it varies over, so that JAX cannot check it.
    return jax.shard_map(function, in_specs=specs, out_specs=spec(out_names), check_vma=False)(*arrays)
