"""How likely given targets are: what rank classification compares."""

import jax
import jax.numpy as jnp

from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.model import forward
from flan_jax.shapes import Batch, Params


def score(params: Params, batch: Batch, *, config: T5Config) -> jax.Array:
    """Returns float32 [B]: the sum over each row's targets of log p(token | inputs, tokens before) times loss weight.

    End-of-sequence counts where the targets hold it; no z-loss, no smoothing, no division by length (T5X's
    `score_batch`, T0's rank classification). Padding rows score 0. To be called under jit, `config` bound.

    Args:
        batch: unpacked rows, with loss weights.
    """
    logits_BTV = forward(params, batch, config=config)
    chosen_BT1 = jnp.take_along_axis(logits_BTV, batch["decoder_target_tokens"][..., None], axis=-1, mode="clip")
    log_p_BT = chosen_BT1[..., 0] - jax.nn.logsumexp(logits_BTV, axis=-1)
    return jnp.sum(log_p_BT * batch["decoder_loss_weights"], axis=-1)
