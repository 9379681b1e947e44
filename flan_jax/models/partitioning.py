"""Arrays on the mesh: where an activation is sharded, and how a function is called once per device.

A no-op where no mesh and rules are set (`flan_jax.sharding.use_mesh` sets them).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec

LogicalAxes = tuple[str | None, ...]


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Returns x, with its sharding on the mesh fixed by the logical names of its dimensions.

    Without the constraint the partitioner must guess between a batch and a parameter that are sharded over the same
    mesh axis. A dimension shorter than the number of devices (the one position of a decoding step) is not sharded.
    """
    return nn.with_logical_constraint(
        x, tuple(name if name and size >= shards_of(name) else None for size, name in zip(x.shape, names, strict=True))
    )


def shards_of(name: str) -> int:
    """Returns the number of devices that a logical axis is sharded over; 1 where no mesh and rules are set."""
    # Flax returns None where no rules are set.
    (axes,) = nn.logical_to_mesh_axes((name,)) or (None,)
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes.get(axis, 1) for axis in ((axes,) if isinstance(axes, str) else axes or ()))


def call_per_device(
    function: Callable[..., jax.Array],
    arrays: Sequence[jax.Array | None],
    *,
    names: Sequence[LogicalAxes],
    out_names: LogicalAxes,
) -> jax.Array:
    """Returns `function(*arrays)`, called on each device with its shards: for kernels, which XLA cannot partition.

    The gradient of an argument that several devices hold replicated, such as a bias table, is summed over them.

    Args:
      function: A shard of its result must depend only on the same shards of the arguments.
      arrays: The arguments; a None is passed on.
      names: The logical axes of each argument. An axis that does not divide by its number of devices is not sharded.
      out_names: The logical axes of the result.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)
    sizes: dict[str, int] = {}
    for array, axes in zip(arrays, names, strict=True):
        if array is not None:
            sizes |= {name: size for name, size in zip(axes, array.shape, strict=True) if name is not None}

    def spec(axes: LogicalAxes) -> PartitionSpec:
        divisible = (name if name is not None and sizes[name] % shards_of(name) == 0 else None for name in axes)
        return nn.logical_to_mesh_axes(tuple(divisible)) or PartitionSpec()

    specs: tuple[Any, ...] = tuple(
        None if array is None else spec(axes) for array, axes in zip(arrays, names, strict=True)
    )
    # JAX cannot see over which axes the result of a kernel varies, so that it cannot check it.
    return jax.shard_map(function, in_specs=specs, out_specs=spec(out_names), check_vma=False)(*arrays)
