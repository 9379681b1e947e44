"""What the network's modules say of their parameters, and new parameters made of that, a small program for each kind.

One program for all of them would be compiled tensor by tensor, 190 for T5 1.1 small, for as long as the training step;
they are of nine kinds, alike but for the random key.
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

Initializer = Callable[..., jax.Array]
"""From a key, a shape and a dtype to an array. Equal ones share a program, so let modules share the object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """One parameter; `axes` are the logical names of its dimensions."""

    shape: tuple[int, ...]
    dtype: jnp.dtype
    axes: tuple[str, ...]
    init: Initializer


class _Box(nn.LogicallyPartitioned):
    """A parameter that is being initialised, together with what by."""

    init: Initializer | None = struct.field(default=None, pytree_node=False)


def parameter(
    module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], axes: tuple[str, ...]
) -> jax.Array:
    """Returns the float32 parameter `name` of `module`, its only one; `axes` are the logical names of its dimensions."""
    if module.has_variable("params", name):  # Flax would trace the initialiser here, for its shape.
        value = cast(jax.Array, module.get_variable("params", name))
        assert value.shape == shape, f"Parameter {'/'.join((*module.path, name))} has shape {value.shape}, not {shape}."
        return value

    def boxed(key: jax.Array) -> _Box:
        return _Box(init(key, shape, jnp.float32), names=axes, init=init)

    return cast(jax.Array, module.param(name, boxed))


def declared(network: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Declaration]:
    """Returns the parameters of a network that is called with these arguments, by name: "encoder/encoder_norm/scale"."""
    boxes = jax.eval_shape(lambda key: network.init(key, *args, **kwargs)["params"], jax.random.key(0))
    return {
        name: Declaration(shape=box.value.shape, dtype=box.value.dtype, axes=tuple(box.names), init=box.init)
        for name, box in traverse_util.flatten_dict(boxes, sep="/").items()
    }


def initialised(
    declarations: Mapping[str, Declaration], *, rng: jax.Array, out_shardings: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Returns new parameters by name: the values that the network's `init` would give them.

    Args:
      declarations: of those that are wanted.
      rng: what `init` would be given.
      out_shardings: where each is made, in parts if so; None: wherever JAX likes.
    """

    @functools.cache
    def program(init: Initializer, shape: tuple[int, ...], dtype: jnp.dtype, where: Any) -> Callable[..., jax.Array]:
        return jax.jit(lambda key: init(key, shape, dtype), out_shardings=where)

    return {
        name: program(each.init, each.shape, each.dtype, out_shardings[name])(_key(rng, name))
        for name, each in declarations.items()
    }


def _key(rng: jax.Array, name: str) -> jax.Array:
    """The key of the only parameter of a module, as Flax derives it: from the module's path, and a count of its draws."""
    return LazyRng.create(rng, *name.split("/")[:-1], 1).as_jax_rng()
