"""Generation token by token, with cached keys and values.

The encoder runs once, and the decoder's keys and values of its output are computed once. Each step then costs one
position of the decoder. The loop is a `while` on the device, which stops when every row has ended.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, PRNGKeyArray

from flan_jax.decoding.sampling import Greedy, Strategy
from flan_jax.errors import UserError
from flan_jax.models.attention import Cache
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.network import Transformer
from flan_jax.shapes import DECODER_START_ID, EOS_ID, PAD_ID, Batch, Params


def generate(
    params: Params,
    batch: Batch,
    *,
    config: T5Config,
    max_decode_length: int,
    strategy: Strategy = Greedy(),  # noqa: B008  (frozen, without fields)
    eos_id: int = EOS_ID,
    rng: PRNGKeyArray | None = None,
) -> Int32[Array, "B T"]:
    """Returns the tokens of each row up to its end-of-sequence, then padding; T is `max_decode_length`.

    To be called under jit, with everything but `params`, `batch` and `rng` bound by `functools.partial`.

    Args:
      params: The network's parameters.
      batch: Unpacked rows, of which the encoder's tokens and segment ids are read. A row of padding ends at once.
      config: The network's sizes.
      max_decode_length: The largest number of steps; a row that has not ended by then is truncated.
      strategy: How a token is chosen from the logits.
      eos_id: The token that ends a row.
      rng: The key of a strategy that samples.

    Raises:
      UserError: max_decode_length is below 1.
    """
    if max_decode_length < 1:
        raise UserError(f"max_decode_length is {max_decode_length}; it must be at least 1.")
    bound = Transformer(config).bind({"params": params})
    encoded_BSD = bound.encode(batch, deterministic=True)
    cross = bound.cross_keys_values(encoded_BSD)
    is_input_BS = batch["encoder_segment_ids"] > 0

    def body(carry: Any) -> Any:
        index, last_B, ended_B, tokens_BT, cache = carry
        # Applied again, because a bound module must not be used inside the trace of the loop.
        logits_BV, cache = Transformer(config).apply(
            {"params": params},
            last_B,
            cache=cache,
            cross=cross,
            cross_mask_B11S=is_input_BS[:, None, None],
            index=index,
            method="decode_step",
        )
        step_rng = None if rng is None else jax.random.fold_in(rng, index)
        next_B = jnp.where(ended_B, PAD_ID, strategy.choose(logits_BV, rng=step_rng))
        tokens_BT = jax.lax.dynamic_update_slice_in_dim(tokens_BT, next_B[:, None], index, axis=1)
        return index + 1, next_B, ended_B | (next_B == eos_id), tokens_BT, cache

    def is_unfinished(carry: Any) -> Bool[Array, ""]:
        index, _, ended_B, _, _ = carry
        return (index < max_decode_length) & ~jnp.all(ended_B)

    B = is_input_BS.shape[0]
    start = (
        jnp.int32(0),
        jnp.full((B,), DECODER_START_ID, jnp.int32),
        ~jnp.any(is_input_BS, axis=1),
        jnp.full((B, max_decode_length), PAD_ID, jnp.int32),
        _empty_cache(config, rows=B, length=max_decode_length),
    )
    return jax.lax.while_loop(is_unfinished, body, start)[3]


def _empty_cache(config: T5Config, *, rows: int, length: int) -> list[Cache]:
    """Returns the empty cache of each decoder layer."""
    shape = (rows, config.num_heads, config.head_dim, length)
    empty = jnp.zeros(shape, jnp.dtype(config.dtype))
    return [(empty, empty) for _ in range(config.num_decoder_layers)]
