"""Attention functions: the mask and bias of a stack, bound to the implementation that computes with them.

    attend = attention_function(ids_BT, ids_BT, causal=True, implementation="xla").with_bias(relpos_bias)
    mixed_BTHK = attend(query_BTHK, key_BHKS, value_BHKS)

An `AttentionFunction` is made once per stack, because its arrays are the same for all layers. The class is the
implementation (`models.acceleration.attention_choice` lists them): `MaskedAttention` has one boolean mask and one bias
array, for XLA and cuDNN, and decoding makes one for each step; `TiledAttention` has segment ids and a bias table, from
which the Pallas kernel computes both on chip.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from flan_jax.errors import UserError
from flan_jax.models.acceleration.products import sum_leading
from flan_jax.models.partitioning import call_per_device, shards_of
from flan_jax.models.position_bias import RelativePositionBias
from flan_jax.models.relative_position import RELPOS_BUCKETS, RELPOS_MAX_DISTANCE
from flan_jax.shapes import DecoderIds, EncoderIds

# Finite, so that the softmax of a query without any key is uniform and not NaN.
MASKED_SCORE = -1e10


class AttentionFunction(abc.ABC):
    """Computes softmax(Q K^T + bias) V over the keys that each query may attend to."""

    @abc.abstractmethod
    def with_bias(self, bias: RelativePositionBias) -> "AttentionFunction":
        """Returns the same function with a relative position bias added to the scores."""

    @abc.abstractmethod
    def __call__(
        self,
        query_BTHK: Float[Array, "B T H K"],
        key_BHKS: Float[Array, "B H K S"],
        value_BHKS: Float[Array, "B H K S"],
    ) -> Float[Array, "B T H K"]:
        """Returns the values, mixed by the softmax."""


def attention_function(
    query_segment_ids_BT: DecoderIds,
    key_segment_ids_BS: EncoderIds,
    *,
    causal: bool = False,
    implementation: str = "xla",
) -> AttentionFunction:
    """Returns the attention within the examples of packed rows, without a bias.

    Args:
      query_segment_ids_BT: The number of the example that each position belongs to; 0 is padding.
      key_segment_ids_BS: Likewise.
      causal: Whether keys later than the query are masked.
      implementation: A name of `attention_choice.ATTENTION_NAMES`; an unresolved "auto" is "xla".
    """
    if implementation == "pallas":
        return TiledAttention(query_segment_ids_BT, key_segment_ids_BS, causal=causal)
    mask_B1TS = segment_mask(query_segment_ids_BT, key_segment_ids_BS, causal=causal)
    return MaskedAttention(mask_B1TS, compute=attend_by_cudnn if implementation == "cudnn" else attend)


def segment_mask(
    query_segment_ids_BT: DecoderIds, key_segment_ids_BS: EncoderIds, *, causal: bool = False
) -> Bool[Array, "B 1 T S"]:
    """Returns whether two positions belong to the same example (and the key is not later).

    Padding attends to padding: its output is never read, and every query that has some key has a softmax of ordinary
    size, which fused kernels need.
    """
    mask_BTS = query_segment_ids_BT[:, :, None] == key_segment_ids_BS[:, None, :]
    if causal:
        T, S = mask_BTS.shape[1:]
        mask_BTS = mask_BTS & jnp.asarray(np.tri(T, S, dtype=bool))[None]
    return mask_BTS[:, None]


@jax.custom_vjp
def attend(
    query_BTHK: Float[Array, "B T H K"],
    key_BHKS: Float[Array, "B H K S"],
    value_BHKS: Float[Array, "B H K S"],
    mask_B1TS: Bool[Array, "_ 1 _ S"],
    bias_GHTS: Float[Array, "G H _ S"] | None,
) -> Float[Array, "B T H K"]:
    """Returns the attention's output by plain XLA operations, with the scores materialized in float32.

    The gradient is written out because the derived one makes twice the passes over arrays of [B, H, T, S], which is the
    cost of attention on every device.

    Args:
      query_BTHK: Queries.
      key_BHKS: Keys.
      value_BHKS: Values.
      mask_B1TS: Whether a query may attend to a key; the first and third dimension may be 1.
      bias_GHTS: Added to the scores; each of the G biases belongs to a group of B / G consecutive rows. A bias of one
        query is that of all, and has no gradient.
    """
    return _attend_forward(query_BTHK, key_BHKS, value_BHKS, mask_B1TS, bias_GHTS)[0]


def _attend_forward(
    query_BTHK: Float[Array, "B T H K"],
    key_BHKS: Float[Array, "B H K S"],
    value_BHKS: Float[Array, "B H K S"],
    mask_B1TS: Bool[Array, "_ 1 _ S"],
    bias_GHTS: Float[Array, "G H _ S"] | None,
) -> tuple[Float[Array, "B T H K"], tuple[Any, ...]]:
    dtype = query_BTHK.dtype
    # Float32 whatever the compute type, which T5X makes an option (`float32_attention_logits`): bfloat16 would round a
    # score of 100 by up to 0.25.
    scores_BHTS = jnp.einsum("BTHK,BHKS->BHTS", query_BTHK, key_BHKS, preferred_element_type=jnp.float32)
    if bias_GHTS is not None:
        scores_BHTS = (_in_groups(scores_BHTS, bias_GHTS) + bias_GHTS[:, None]).reshape(scores_BHTS.shape)
    scores_BHTS = jnp.where(mask_B1TS, scores_BHTS, MASKED_SCORE)
    # The softmax's shift: without it a score above 88 would overflow float32.
    power_BHTS = jnp.exp(scores_BHTS - jnp.max(scores_BHTS, axis=-1, keepdims=True))
    inverse_BTH1 = jnp.swapaxes(1.0 / jnp.sum(power_BHTS, axis=-1, keepdims=True), 1, 2)
    # The only array of this size that is saved for the backward pass: half the memory in bfloat16.
    power_BHTS = power_BHTS.astype(dtype)
    # Divided by the softmax's sum after the product, on [B, T, H, K] instead of [B, H, T, S].
    mixed_BTHK = jnp.einsum("BHTS,BHKS->BTHK", power_BHTS, value_BHKS) * inverse_BTH1.astype(dtype)
    residuals = (query_BTHK, key_BHKS, value_BHKS, mask_B1TS, bias_GHTS, power_BHTS, inverse_BTH1, mixed_BTHK)
    return mixed_BTHK, residuals


def _attend_backward(residuals: tuple[Any, ...], grad_BTHK: Float[Array, "B T H K"]) -> tuple[Any, ...]:
    query_BTHK, key_BHKS, value_BHKS, mask_B1TS, bias_GHTS, power_BHTS, inverse_BTH1, mixed_BTHK = residuals
    dtype = query_BTHK.dtype
    grad_BTHK = grad_BTHK.astype(jnp.float32) * inverse_BTH1
    # A masked key has a power of 0, and so no gradient; only the powers of a query without any key are 1 whatever its
    # scores. Masking those queries is enough. Masking [B, H, T, S] again would cost a CPU a twelfth of a step on long
    # rows.
    has_key_BT11 = jnp.swapaxes(jnp.any(mask_B1TS, axis=-1, keepdims=True), 1, 2)
    unmasked_grad_BTHK = jnp.where(has_key_BT11, grad_BTHK, 0.0)
    # The sum over keys in the softmax's gradient is output . cotangent (FlashAttention, 2205.14135, appendix B).
    shared_BTH1 = jnp.sum(unmasked_grad_BTHK * mixed_BTHK.astype(jnp.float32), axis=-1, keepdims=True)
    # XLA on CPU would fuse what produces these into the transposing copies of the products below, as in
    # `products.project`.
    grad_BTHK, unmasked_grad_BTHK = jax.lax.optimization_barrier(
        (grad_BTHK.astype(dtype), unmasked_grad_BTHK.astype(dtype))
    )
    weights_grad_BHTS = jnp.einsum(
        "BTHK,BHKS->BHTS", unmasked_grad_BTHK, value_BHKS, preferred_element_type=jnp.float32
    )
    scores_grad_BHTS = power_BHTS * (weights_grad_BHTS - jnp.swapaxes(shared_BTH1, 1, 2))
    scores_grad_BHTS = jax.lax.optimization_barrier(scores_grad_BHTS)  # Materialized once; summed layer by layer.
    bias_grad_GHTS = None
    if bias_GHTS is not None:
        bias_grad_GHTS = jax.lax.optimization_barrier(
            sum_leading("GRHTS->GHTS", _in_groups(scores_grad_BHTS, bias_GHTS))
        )
    scores_grad_BHTS = scores_grad_BHTS.astype(dtype)
    return (
        jnp.einsum("BHTS,BHKS->BTHK", scores_grad_BHTS, key_BHKS),
        jnp.einsum("BHTS,BTHK->BHKS", scores_grad_BHTS, query_BTHK),
        jnp.einsum("BHTS,BTHK->BHKS", power_BHTS, grad_BTHK),
        # The mask is boolean.
        None,
        bias_grad_GHTS,
    )


attend.defvjp(_attend_forward, _attend_backward)


def _in_groups(scores_BHTS: Float[Array, "B H T S"], bias_GHTS: Float[Array, "G H _ S"]) -> Float[Array, "G _ H T S"]:
    """Returns the scores by groups of rows."""
    # Consecutive rows, because a device holds consecutive rows: with G devices each group is local to one of them.
    return scores_BHTS.reshape(bias_GHTS.shape[0], -1, *scores_BHTS.shape[1:])


def attend_by_cudnn(
    query_BTHK: Float[Array, "B T H K"],
    key_BHKS: Float[Array, "B H K S"],
    value_BHKS: Float[Array, "B H K S"],
    mask_B1TS: Bool[Array, "_ 1 _ S"],
    bias_1HTS: Float[Array, "1 H T S"] | None,
) -> Float[Array, "B T H K"]:
    """Returns the output of `attend`, by cuDNN's fused attention; `attention_choice` lists its conditions.

    JAX adds mask and bias into one array [B, H, T, S] for cuDNN, in which a masked score is very negative, not -inf.
    """
    mixed = jax.nn.dot_product_attention(
        query_BTHK,
        jnp.moveaxis(key_BHKS, 3, 1),
        jnp.moveaxis(value_BHKS, 3, 1),
        bias=None if bias_1HTS is None else bias_1HTS.astype(query_BTHK.dtype),
        mask=mask_B1TS,
        # Not the default 1 / sqrt(K), which T5's initial query kernels already contain.
        scale=1.0,
        implementation="cudnn",
    )
    return cast(jax.Array, mixed)


@final
@functools.partial(jax.tree_util.register_dataclass, data_fields=["mask_B1TS", "bias_GHTS"], meta_fields=["compute"])
@dataclasses.dataclass(frozen=True)
class MaskedAttention(AttentionFunction):
    """Attention with a mask and a bias for every query and key.

    Attributes:
      mask_B1TS: Whether a query may attend to a key, bool.
      bias_GHTS: Added to the scores, float32; G copies, one per group of rows.
      compute: `attend` or `attend_by_cudnn`.
    """

    mask_B1TS: jax.Array
    bias_GHTS: jax.Array | None = None
    compute: Callable[..., jax.Array] = attend

    def with_bias(self, bias: RelativePositionBias) -> "MaskedAttention":
        """See the base class."""
        rows, _, queries, keys = self.mask_B1TS.shape
        devices = shards_of("batch")
        # cuDNN takes one bias for all rows, and rows that do not divide are not sharded, so that nothing is summed per
        # device.
        copies = devices if self.compute is attend and rows % devices == 0 else 1
        return dataclasses.replace(self, bias_GHTS=bias(queries, keys, copies=copies))

    def __call__(
        self,
        query_BTHK: Float[Array, "B T H K"],
        key_BHKS: Float[Array, "B H K S"],
        value_BHKS: Float[Array, "B H K S"],
    ) -> Float[Array, "B T H K"]:
        """See the base class."""
        return self.compute(query_BTHK, key_BHKS, value_BHKS, self.mask_B1TS, self.bias_GHTS)


@final
@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["query_ids_BT", "key_ids_BS", "table_HR"],
    meta_fields=["causal"],
)
@dataclasses.dataclass(frozen=True)
class TiledAttention(AttentionFunction):
    """Attention by the Pallas kernel, which computes mask and bias on chip.

    Attributes:
      query_ids_BT: Segment ids.
      key_ids_BS: Segment ids.
      table_HR: The bias of each head and bucket of distances, float32 [H, 32].
      causal: Whether keys later than the query are masked.
    """

    query_ids_BT: jax.Array
    key_ids_BS: jax.Array
    table_HR: jax.Array | None = None
    causal: bool = False

    def with_bias(self, bias: RelativePositionBias) -> "TiledAttention":
        """See the base class; T5's bias is bidirectional exactly where the attention is not causal."""
        assert bias.bidirectional != self.causal
        if (bias.num_buckets, bias.max_distance) != (RELPOS_BUCKETS, RELPOS_MAX_DISTANCE):
            raise UserError(
                f"The network has {bias.num_buckets} relative position buckets up to distance {bias.max_distance}; the "
                f"attention 'pallas' computes {RELPOS_BUCKETS} up to {RELPOS_MAX_DISTANCE}. Use attention='xla'."
            )
        return dataclasses.replace(self, table_HR=bias.rel_embedding)

    def __call__(
        self,
        query_BTHK: Float[Array, "B T H K"],
        key_BHKS: Float[Array, "B H K S"],
        value_BHKS: Float[Array, "B H K S"],
    ) -> Float[Array, "B T H K"]:
        """See the base class. On a mesh every device computes its own rows and heads."""
        # Pallas takes half a second to import, and few runs need it.
        from flan_jax.models.acceleration.attention_kernel import attend_in_tiles

        def attend_here(*arrays: Any) -> jax.Array:
            query_BTHK, key_BSHK, value_BSHK, query_ids_BT, key_ids_BS, table_HR = arrays
            ids = {"query_ids_BT": query_ids_BT, "key_ids_BS": key_ids_BS}
            return attend_in_tiles(query_BTHK, key_BSHK, value_BSHK, table_HR, **ids, causal=self.causal)

        # [B, H, K, S] is the layout of decoding; the kernel reads tiles [S, K].
        key_BSHK, value_BSHK = jnp.moveaxis(key_BHKS, 3, 1), jnp.moveaxis(value_BHKS, 3, 1)
        per_head, ids = ("batch", None, "heads", None), ("batch", None)
        return call_per_device(
            attend_here,
            (query_BTHK, key_BSHK, value_BSHK, self.query_ids_BT, self.key_ids_BS, self.table_HR),
            names=(per_head, per_head, per_head, ids, ids, ("heads", None)),
            out_names=per_head,
        )
