"""Generation, token by token, with what was computed before kept.

The encoder runs once, and so do the decoder's keys and values over its output. Each step then costs one position of
the decoder. The loop is a `while` on the device: it ends when every row has ended, not at the longest output allowed.
"""

import jax
import jax.numpy as jnp

from flan_jax.decoding.sampling import Greedy, Strategy
from flan_jax.errors import UserError
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
    rng: jax.Array | None = None,
) -> jax.Array:
    """Returns int32 [B, max_decode_length]: each row's tokens with its end-of-sequence, then padding.

    To be called under jit, with everything but `params`, `batch` and `rng` bound by `functools.partial`.

    Args:
        batch: unpacked rows; only the encoder's tokens and segment ids are read. A row of padding ends at once.
        max_decode_length: steps at most; a row that has not ended by then is cut, without end-of-sequence.
        rng: key of a strategy that draws.

    Raises:
        UserError: max_decode_length is below 1.
    """
    if max_decode_length < 1:
        raise UserError(f"max_decode_length is {max_decode_length}; it must be at least 1.")
    bound = Transformer(config).bind({"params": params})
    encoded_BSD = bound.encode(batch, deterministic=True)
    cross = bound.cross_keys_values(encoded_BSD)
    seen_BS = batch["encoder_segment_ids"] > 0

    def body(carry):
        index, last_B, ended_B, tokens_BT, cache = carry
        # Bound anew: a bound module must not cross into the loop's own trace.
        logits_BV, cache = Transformer(config).apply(
            {"params": params},
            last_B,
            cache=cache,
            cross=cross,
            cross_mask_B11S=seen_BS[:, None, None],
            index=index,
            method="decode_step",
        )
        step_rng = None if rng is None else jax.random.fold_in(rng, index)
        next_B = jnp.where(ended_B, PAD_ID, strategy.choose(logits_BV, rng=step_rng))
        tokens_BT = jax.lax.dynamic_update_slice_in_dim(tokens_BT, next_B[:, None], index, axis=1)
        return index + 1, next_B, ended_B | (next_B == eos_id), tokens_BT, cache

    def goes_on(carry):
        index, _, ended_B, _, _ = carry
        return (index < max_decode_length) & ~jnp.all(ended_B)

    B = seen_BS.shape[0]
    start = (
        jnp.int32(0),
        jnp.full((B,), DECODER_START_ID, jnp.int32),
        ~jnp.any(seen_BS, axis=1),
        jnp.full((B, max_decode_length), PAD_ID, jnp.int32),
        _empty_cache(config, rows=B, length=max_decode_length),
    )
    return jax.lax.while_loop(goes_on, body, start)[3]


def _empty_cache(config: T5Config, *, rows: int, length: int) -> list[tuple[jax.Array, jax.Array]]:
    """Keys and values [B, H, K, T] of each decoder layer, to be filled."""
    shape = (rows, config.num_heads, config.head_dim, length)
    empty = jnp.zeros(shape, jnp.dtype(config.dtype))
    return [(empty, empty) for _ in range(config.num_decoder_layers)]
