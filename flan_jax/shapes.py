"""The legend of size letters, and the arrays of a batch.

Names of arrays in models, objectives and decoding end in their axes: `logits_BTV`. The letters:

  B batch rows            S encoder length        T decoder length
  D model width           H attention heads       K size of one head
  F feed-forward width    V vocabulary rows       R buckets of relative positions
  G groups of rows        I J blocks of a kernel  M shards of the vocabulary
  N candidates of a row   C columns of a cache    E rows that are encoded together

Annotations with them are checked in the test session only (tests/conftest.py).
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
"""A batch by SeqIO's feature names: NumPy arrays on the host, JAX arrays on devices."""


class LogitStatistics(NamedTuple):
    """The statistics of each position's logits that a loss needs, float32 [B, T]; computable without all logits."""

    log_z: Any
    """log Z: the logarithm of the sum of exp(logit) over the vocabulary."""
    target: Any
    """The target token's logit."""
    total: Any
    """Sum of the logits over the vocabulary."""
    is_correct: Any
    """1 where the target is the argmax (the first of the largest), else 0; without a gradient."""
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
# In batches of options to score, `decoder_example_ids` is the encoder segment that each decoder position attends to:
# there, several decoder segments (options) read one encoder segment. Elsewhere it is `decoder_segment_ids`.

PAD_ID = 0
DECODER_START_ID = 0
EOS_ID = 1
