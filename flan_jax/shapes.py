"""The legend of size letters, and what a batch is made of.

Arrays in models and objectives carry their axes as a suffix: `logits_BTV`. The letters:

  B batch rows            S encoder length        T decoder length
  D model width           H attention heads       K size of one head
  F feed-forward width    V vocabulary rows       L layers            R rank of an adapter

Public signatures use the aliases below; they are checked in the test session only.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Float32, Int32

EncoderIds = Int32[Any, "B S"]
DecoderIds = Int32[Any, "B T"]
"""Token ids or segment ids; JAX or NumPy arrays."""

Logits = Float32[Any, "B T V"]

Params = dict[str, Any]
"""A network's parameters: nested dicts of arrays, named as in T5X's checkpoints."""

Batch = Mapping[str, Any]
"""One batch, by SeqIO's feature names; NumPy on the host, JAX arrays on devices."""


class LogitStatistics(NamedTuple):
    """What a loss needs of each position's logits; float32 [B, T]. Found without all logits existing at once."""

    log_z: Any
    """Logarithm of the sum over the vocabulary of exp(logit)."""
    target: Any
    """The target token's logit."""
    total: Any
    """Sum of the logits over the vocabulary."""
    is_right: Any
    """1 where the target is the argmax (the first of the largest), else 0; without gradient."""
    vocab_size: int


ENCODER_KEYS = ("encoder_input_tokens", "encoder_segment_ids", "encoder_positions")
DECODER_KEYS = (
    "decoder_input_tokens",
    "decoder_target_tokens",
    "decoder_loss_weights",
    "decoder_segment_ids",
    "decoder_positions",
)
BATCH_KEYS = ENCODER_KEYS + DECODER_KEYS

PAD_ID = 0
DECODER_START_ID = 0
EOS_ID = 1
