"""Declarations of parameters by the network's modules, and new parameters by one small program per kind.

One program for all parameters would be compiled tensor by tensor (190 for T5 1.1 small) and take as long as the
training step; they are of nine kinds, alike except for the random key.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct, traverse_util
from flax.core.scope import LazyRng
from jaxtyping import PRNGKeyArray

Initializer = Callable[..., jax.Array]
"""From a key, a shape and a dtype to an array. Equal objects share a program, so modules should share the object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """One parameter; `axes` are the logical names of its dimensions."""

    shape: tuple[int, ...]
    dtype: jnp.dtype
    axes: tuple[str, ...]
    init: Initializer


class _Box(nn.LogicallyPartitioned):
    """A parameter that is being initialized, together with its initializer."""

    init: Initializer | None = struct.field(default=None, pytree_node=False)


def parameter(
    module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], axes: tuple[str, ...]
) -> jax.Array:
    """Returns the only parameter of `module`, float32.

    Args:
      module: A module with no other parameter.
      name: The parameter's name in it.
      init: The distribution of new values.
      shape: The parameter's shape.
      axes: The logical names of its dimensions.
    """
    if module.has_variable("params", name):  # Flax would trace the initializer here, to check the shape.
        value = jnp.asarray(cast(jax.Array, module.get_variable("params", name)))
        assert value.shape == shape, f"Parameter {'/'.join((*module.path, name))} has shape {value.shape}, not {shape}."
        return value

    def boxed(key: PRNGKeyArray) -> _Box:
        return _Box(init(key, shape, jnp.float32), names=axes, init=init)

    return cast(jax.Array, module.param(name, boxed))


def declared(network: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Declaration]:
    """Returns the parameters of a network called with these arguments, by names as "encoder/encoder_norm/scale"."""
    # Traced for shapes only; the key's value does not matter.
    boxes = jax.eval_shape(lambda key: network.init(key, *args, **kwargs)["params"], jax.random.key(0))
    return {
        name: Declaration(shape=box.value.shape, dtype=box.value.dtype, axes=tuple(box.names), init=box.init)
        for name, box in traverse_util.flatten_dict(boxes, sep="/").items()
    }


def initialize(
    declarations: Mapping[str, Declaration], *, rng: PRNGKeyArray, out_shardings: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Returns new parameters by name, with the values that the network's `init` would give them.

    Args:
      declarations: The requested parameters.
      rng: The key that `init` would get.
      out_shardings: The sharding of each; a None leaves it to JAX.
    """

    # Within one call: programs of other calls would hold their shardings, and so their meshes, alive.
    @functools.cache
    def program(init: Initializer, shape: tuple[int, ...], dtype: jnp.dtype, sharding: Any) -> Callable[..., jax.Array]:
        return jax.jit(lambda key: init(key, shape, dtype), out_shardings=sharding)

    return {
        name: program(each.init, each.shape, each.dtype, out_shardings[name])(_key(rng, name))
        for name, each in declarations.items()
    }


def _key(rng: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """Returns the key of a module's only parameter, as Flax derives it: from the module's path and a count of draws."""
    return LazyRng.create(rng, *name.split("/")[:-1], 1).as_jax_rng()
