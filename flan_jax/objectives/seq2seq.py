"""Supervised sequence-to-sequence training: cross-entropy of the target tokens, with z-loss and label smoothing.

An objective is a callable `(apply, params, batch, rng) -> (sum, weight, sums)`. It returns sums, never means:
`train.step` sums them over microbatches and divides once, so that the result does not depend on the split into
microbatches. The network is unknown here: `apply(params, batch, rng)` returns the logits, or an object that computes
the statistics of a loss without materializing all logits. An `rng` of None means no dropout.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from flan_jax.annotations import NotNegative, Share, check_fields
from flan_jax.shapes import Batch, DecoderIds, Logits, LogitStatistics


@runtime_checkable
class LazyLogits(Protocol):
    """Logits that do not exist as one array."""

    def statistics(self, targets_BT: DecoderIds) -> LogitStatistics:
        """Returns what a loss needs of the logits."""


Apply = Callable[[Any, Batch, jax.Array | None], Logits | LazyLogits]
Sums = tuple[Float32[Array, ""], Float32[Array, ""], dict[str, Float32[Array, ""]]]


class TokenLosses(NamedTuple):
    """The losses of each target token, not weighted."""

    total: Float[Array, "B T"]
    cross_entropy: Float[Array, "B T"]
    z_loss: Float[Array, "B T"]


def statistics_of(logits_BTV: Logits, *, targets_BT: DecoderIds) -> LogitStatistics:
    """Returns what a loss needs of materialized logits.

    Args:
      logits_BTV: Float32 logits.
      targets_BT: The correct token ids.
    """
    return LogitStatistics(
        log_z=jax.scipy.special.logsumexp(logits_BTV, axis=-1),
        target=jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0],
        total=jnp.sum(logits_BTV, axis=-1),
        is_correct=(jnp.argmax(logits_BTV, axis=-1) == targets_BT).astype(jnp.float32),
        vocab_size=logits_BTV.shape[-1],
    )


def token_losses(statistics: LogitStatistics, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> TokenLosses:
    """Returns the loss of each target token by T5X's definition (z-loss: Mesh TensorFlow; PaLM, 2204.02311, section 5).

    With Z the sum of exp(logits), c = 1 - label_smoothing and l = label_smoothing / (V - 1):

        total = -c log p(target) - l sum of log p(others) + z_loss (log Z)^2 - H

    where H is the entropy of the smoothed target distribution, so that a perfect prediction has loss 0. All entries of
    that distribution but the target's are equal, so the sum over the vocabulary needs only the logit of the target and
    the sum of all logits, and no array of [B, T, V].

    Args:
      statistics: Of the logits and the correct tokens.
      label_smoothing: The probability that is spread evenly over all other tokens.
      z_loss: The factor of (log Z)^2, which prevents logits from drifting.

    Returns:
      The total, the cross-entropy -log p(target), and the z-loss as part of the total.
    """
    V, log_z_BT = statistics.vocab_size, statistics.log_z
    cross_entropy_BT = log_z_BT - statistics.target
    z_loss_BT = z_loss * jnp.square(log_z_BT)
    total_BT = cross_entropy_BT + z_loss_BT
    # A Python branch: without smoothing the sum of the logits is unused, and the compiler drops the pass over [B, T,
    # V].
    if label_smoothing:
        confidence, others = 1.0 - label_smoothing, label_smoothing / (V - 1)
        # T5X's constant, with the epsilon in its logarithm.
        entropy = -(confidence * math.log(confidence) + (V - 1) * others * math.log(others + 1e-20))
        all_BT = V * log_z_BT - statistics.total  # -log p, summed over the vocabulary
        # `all_BT` includes the target, hence the subtraction from its factor.
        total_BT = (confidence - others) * cross_entropy_BT + others * all_BT - entropy + z_loss_BT
    return TokenLosses(total=total_BT, cross_entropy=cross_entropy_BT, z_loss=z_loss_BT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seq2Seq:
    """Cross-entropy of `decoder_target_tokens`, each weighted by `decoder_loss_weights`.

    Attributes:
      label_smoothing: The probability that is spread evenly over all other tokens.
      z_loss: The factor of (log Z)^2; T5X fine-tunes with 1e-4.

    Raises:
      UserError: A label smoothing outside [0, 1), or a negative z-loss.
    """

    label_smoothing: Share = 0.0
    z_loss: NotNegative = 1e-4

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, apply: Apply, params: Any, batch: Batch, rng: jax.Array | None) -> Sums:
        """Returns the summed loss, the summed weights, and metrics to be divided by those weights.

        Args:
          apply: The network: from parameters, batch and dropout key to logits.
          params: The parameters to differentiate with respect to.
          batch: Encoder and decoder features.
          rng: Dropout key; None for no dropout.

        Returns:
          Float32 scalars; the metrics are `cross_entropy`, `z_loss` and `accuracy` (tokens predicted correctly).
        """
        targets_BT, weights_BT = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
        logits = apply(params, batch, rng)
        if isinstance(logits, jax.Array):
            statistics = statistics_of(logits.astype(jnp.float32), targets_BT=targets_BT)
        else:
            statistics = logits.statistics(targets_BT)
        losses = token_losses(statistics, label_smoothing=self.label_smoothing, z_loss=self.z_loss)
        sums = {
            # T5X's `cross_ent_loss` includes the smoothing; without it, runs with different smoothing are comparable.
            "cross_entropy": jnp.sum(losses.cross_entropy * weights_BT),
            "z_loss": jnp.sum(losses.z_loss * weights_BT),
            "accuracy": jnp.sum(statistics.is_correct * weights_BT),
        }
        return jnp.sum(losses.total * weights_BT), jnp.sum(weights_BT), sums
