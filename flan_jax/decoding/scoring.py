"""Log-likelihoods of given targets, which rank classification compares."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.model import forward
from flan_jax.shapes import Batch, Params


def score(params: Params, batch: Batch, *, config: T5Config) -> Float32[Array, " B"]:
    """Returns, per row, the sum over its targets of log p(token | inputs, previous tokens) times loss weight.

    End-of-sequence counts if the targets have it. No z-loss, no smoothing, no division by length, as in T5X's
    `score_batch` and T0's rank classification. Padding rows score 0. To be called under jit, with `config` bound.

    Args:
      params: The network's parameters.
      batch: Unpacked rows with loss weights.
      config: The network's sizes.
    """
    logits_BTV = forward(params, batch, config=config)
    chosen_BT1 = jnp.take_along_axis(logits_BTV, batch["decoder_target_tokens"][..., None], axis=-1, mode="clip")
    log_p_BT = chosen_BT1[..., 0] - jax.nn.logsumexp(logits_BTV, axis=-1)
    return jnp.sum(log_p_BT * batch["decoder_loss_weights"], axis=-1)
