"""T5 as functions of its parameters: what training, evaluation and decoding call.

Parameters are plain nested dicts of arrays (`flan_jax.shapes.Params`).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from flan_jax.models.acceleration.chunked_logits import ChunkedLogits, read_logits
from flan_jax.models.attention import KeysValues
from flan_jax.models.execution import Execution
from flan_jax.models.incremental import IncrementalNetwork
from flan_jax.models.initialization import initialize
from flan_jax.models.layers import LogitsHead
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.network import Transformer, declarations, logical_axes
from flan_jax.shapes import Batch, DecoderIds, EncoderIds, Logits, Params

__all__ = [
    "abstract_params",
    "count_params",
    "forward",
    "init_params",
    "incremental",
    "init_subset",
    "logical_axes",
    "output",
]


def forward(params: Params, batch: Batch, rng: PRNGKeyArray | None = None, *, config: T5Config) -> Logits:
    """Returns the logits of all positions, as one array.

    Args:
      params: The tree of parameters.
      batch: Packed or unpacked rows.
      rng: Dropout key; None for no dropout.
      config: The network's sizes.
    """
    vectors_BTD, head = _vectors(params, batch, rng, config=config, execution=Execution())
    return head.logits(vectors_BTD)


def output(
    params: Params, batch: Batch, rng: PRNGKeyArray | None = None, *, config: T5Config, execution: Execution
) -> Logits | ChunkedLogits:
    """Returns the logits, or an object that computes a loss's statistics from chunks of them.

    With `config` and `execution` bound, this is the `apply` of an objective.

    Args:
      params: The tree of parameters.
      batch: Packed or unpacked rows.
      rng: Dropout key; None for no dropout.
      config: The network's sizes.
      execution: How the step is executed, resolved (`models.execution.resolve`).
    """
    vectors_BTD, head = _vectors(params, batch, rng, config=config, execution=execution)
    return read_logits(vectors_BTD, head, execution=execution)


def incremental(config: T5Config) -> IncrementalNetwork:
    """Returns the functions that decoding calls."""
    network = Transformer(config)

    def encode(params: Params, tokens_BS: EncoderIds, is_input_BS: Bool[Array, "B S"]) -> list[KeysValues]:
        bound: Any = network.bind({"params": params})
        batch = {"encoder_input_tokens": tokens_BS, "encoder_segment_ids": is_input_BS.astype(jnp.int32)}
        return bound.decoder.cross_keys_values(bound.encode(batch, deterministic=True))

    def step(params: Params, tokens_BN: DecoderIds, **arrays: Any) -> Any:
        return network.apply({"params": params}, tokens_BN, **arrays, method="decode_step")

    def shapes(rows: int, columns: int) -> list[Any]:
        heads = (rows, config.num_heads, config.head_dim, columns)
        return [(jax.ShapeDtypeStruct(heads, jnp.dtype(config.dtype)),) * 2 for _ in range(config.num_decoder_layers)]

    return IncrementalNetwork(
        vocab_size=config.vocab_size, encode=encode, cross_shapes=shapes, cache_shapes=shapes, step=step
    )


def init_params(config: T5Config, *, rng: PRNGKeyArray, out_shardings: Any = None) -> Params:
    """Returns float32 parameters with T5X's initial distributions.

    The values depend on `rng` alone, not on the mesh.

    Args:
      config: The network's sizes.
      rng: The random key.
      out_shardings: A tree of shardings, one per parameter; None leaves them to JAX.
    """
    names = declarations(config)
    shardings = dict.fromkeys(names) if out_shardings is None else flatten_dict(out_shardings, sep="/")
    return unflatten_dict(init_subset(config, rng=rng, out_shardings=shardings), sep="/")


def init_subset(config: T5Config, *, rng: PRNGKeyArray, out_shardings: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the parameters that `out_shardings` names ("encoder/encoder_norm/scale"), with `init_params`' values."""
    declared = declarations(config)
    return initialize({name: declared[name] for name in out_shardings}, rng=rng, out_shardings=out_shardings)


def abstract_params(config: T5Config) -> Params:
    """Returns the tree of `jax.ShapeDtypeStruct`; nothing is computed."""
    shapes = {name: jax.ShapeDtypeStruct(each.shape, each.dtype) for name, each in declarations(config).items()}
    return unflatten_dict(shapes, sep="/")


def count_params(params: Params) -> int:
    """Returns the total size of a tree of arrays, or of their shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def _vectors(
    params: Params, batch: Batch, rng: PRNGKeyArray | None, *, config: T5Config, execution: Execution
) -> tuple[Float[Array, "B T D"], LogitsHead]:
    arrays = jax.tree.map(jnp.asarray, dict(batch))  # A batch may be NumPy's, outside of jit.
    rngs = None if rng is None else {"dropout": rng}
    result: Any = Transformer(config, execution).apply({"params": params}, arrays, deterministic=rng is None, rngs=rngs)
    return result
