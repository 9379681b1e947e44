"""The numbers that define a T5: sizes, activations, compute type.

Field names are those of T5X's `network.T5Config`, so that gin files need no translation. Independent of JAX: converters
and `show` read a config without starting a backend.
"""

import dataclasses

from flan_jax.annotations import PositiveInt, Share, check_fields
from flan_jax.errors import UserError
from flan_jax.models.relative_position import RELPOS_BUCKETS, RELPOS_MAX_DISTANCE
from flan_jax.names import require_choice

ACTIVATION_NAMES = ("relu", "gelu", "silu", "swish", "tanh", "linear")
DTYPE_NAMES = ("float32", "bfloat16")
_FEWEST_BUCKETS = 4  # The encoder's are halved by direction, and half of the rest hold one distance each.


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """Sizes and choices of one encoder-decoder.

    Attributes:
      emb_dim: Width of the residual stream.
      num_heads: Attention heads.
      num_encoder_layers: Layers of the encoder.
      num_decoder_layers: Layers of the decoder.
      head_dim: Size of a head; heads times size need not be `emb_dim`.
      mlp_dim: Width of the feed-forward layers.
      vocab_size: Rows of the embedding table; T5's 32,100 ids are padded to 32,128.
      mlp_activations: One name for the feed-forward of T5 1.0 (`wi`), two for a gated one (`wi_0`, `wi_1`) as in T5
        1.1.
      dropout_rate: Used only in training; decoding and scoring never drop.
      logits_via_embedding: Whether logits are computed with the embedding table (T5 1.0) or a layer of their own (T5
        1.1).
      scale_decoder_outputs: Whether the logits are multiplied by 1/sqrt(emb_dim). None means the value of
        `logits_via_embedding`, which holds for every T5 that T5X and Mesh TensorFlow trained.
      relpos_bias_per_layer: Whether each self-attention layer has a table of relative position biases (umT5), or all
        layers of a stack share one.
      relpos_buckets: Rows of such a table for each head; 32 in every released T5, as in T5X's network.
      relpos_max_distance: The distance from which all share the last bucket.
      layer_norm_epsilon: Added to the mean square in every norm.
      dtype: The type of activations. Parameters, statistics of norms, softmax and logits are always float32.

    Raises:
      UserError: A size that is not a positive integer, a choice that is not True or False, an unknown activation, a
        type in which T5 cannot be trained.
    """

    emb_dim: PositiveInt
    num_heads: PositiveInt
    num_encoder_layers: PositiveInt
    num_decoder_layers: PositiveInt
    head_dim: PositiveInt
    mlp_dim: PositiveInt
    vocab_size: PositiveInt = 32128
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    dropout_rate: Share = 0.1
    logits_via_embedding: bool = False
    scale_decoder_outputs: bool | None = None
    relpos_bias_per_layer: bool = False
    relpos_buckets: int = RELPOS_BUCKETS
    relpos_max_distance: int = RELPOS_MAX_DISTANCE
    layer_norm_epsilon: float = 1e-6
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.mlp_activations:
            raise UserError("T5Config.mlp_activations is empty; T5 1.0 has ('relu',), T5 1.1 ('gelu', 'linear').")
        for name in self.mlp_activations:
            require_choice(name, ACTIVATION_NAMES, "T5Config.mlp_activations")
        self._check_positions()
        _check_dtype(self.dtype)

    def _check_positions(self) -> None:
        if self.relpos_buckets < _FEWEST_BUCKETS:
            raise UserError(f"T5Config.relpos_buckets is {self.relpos_buckets}; it must be at least {_FEWEST_BUCKETS}.")
        # Buckets widen by the logarithm of distance / exact over that of maximum / exact, which must be positive.
        if self.relpos_max_distance <= self.relpos_buckets // 2:
            raise UserError(
                f"T5Config.relpos_max_distance is {self.relpos_max_distance}; with {self.relpos_buckets} buckets, half "
                f"of which hold one distance each, it must be above {self.relpos_buckets // 2}."
            )

    @property
    def decoder_outputs_are_scaled(self) -> bool:
        """Whether the logits are multiplied by 1/sqrt(emb_dim)."""
        if self.scale_decoder_outputs is None:
            return self.logits_via_embedding
        return self.scale_decoder_outputs


def _check_dtype(dtype: str) -> None:
    if dtype == "float16":
        raise UserError(
            "T5Config.dtype is 'float16', in which T5 cannot be trained: the outputs of its feed-forward layers exceed "
            "float16's largest number, 65,504, and the run ends in NaN. Use 'bfloat16', which has float32's range, or "
            "'float32'."
        )
    require_choice(dtype, DTYPE_NAMES, "T5Config.dtype")
