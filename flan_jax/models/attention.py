"""T5's attention: relative position bias, segment masks, keys and values that can be kept.

The scores are not divided by sqrt(head size): T5 folds that factor into the initial value of the query kernel.
Which query may see which key is one boolean array, from segment ids; decoding uses the same function on cached arrays.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flan_jax.models.config import RELPOS_BUCKETS, RELPOS_MAX_DISTANCE
from flan_jax.models.dropout import Keep, drop
from flan_jax.models.layers import Dense, constrain, partitioned

# Finite, so that a row that may see nothing gets equal weights and not NaN.
MASKED_SCORE = -1e10

fan_in_normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def segment_mask(query_segment_ids_BT: jax.Array, key_segment_ids_BS: jax.Array, *, causal: bool = False) -> jax.Array:
    """Returns bool [B, 1, T, S]: the two positions belong to the same example (and the key is not later).

    Padding (segment 0) sees padding: what it computes is never read, and a query that sees some key has a softmax of
    ordinary size, which fused kernels need.
    """
    mask_BTS = query_segment_ids_BT[:, :, None] == key_segment_ids_BS[:, None, :]
    if causal:
        T, S = mask_BTS.shape[1:]
        mask_BTS = mask_BTS & jnp.asarray(np.tri(T, S, dtype=bool))[None]
    return mask_BTS[:, None]


def relative_position_buckets(distance: np.ndarray, *, bidirectional: bool) -> np.ndarray:
    """Returns the row of the bias table for each distance, key position minus query position.

    Half of the buckets hold one distance each, the rest widen logarithmically up to 128; all beyond share the last.
    T5 paper (1910.10683), section 2.1.

    >>> relative_position_buckets(np.array([-200, -9, -1, 0, 1, 9, 200]), bidirectional=True)
    array([15,  8,  1,  0, 17, 24, 31], dtype=int32)
    >>> relative_position_buckets(np.array([-200, -9, -1, 0, 1]), bidirectional=False)
    array([31,  9,  1,  0,  0], dtype=int32)
    """
    buckets = RELPOS_BUCKETS // 2 if bidirectional else RELPOS_BUCKETS
    offset = np.where(distance > 0, buckets, 0) if bidirectional else 0
    back = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    exact = buckets // 2
    # In float32 with its epsilon, as T5X: at a bucket's edge another rounding is another bucket.
    ratio = back.astype(np.float32) / exact + np.finfo(np.float32).eps
    spread = np.log(ratio) / np.log(RELPOS_MAX_DISTANCE / exact) * (buckets - exact)
    wide = np.minimum(exact + spread.astype(np.int32), buckets - 1)
    return (offset + np.where(back < exact, back, wide)).astype(np.int32)


class RelativePositionBias(nn.Module):
    """A table, one row a head, and the bias [1, H, T, S] that a stack's layers, or umT5's one layer, add to their scores.

    Distances are those of the row's indices. In a packed row they equal those within each segment, which are the only
    ones that the mask lets through.
    """

    num_heads: int
    bidirectional: bool

    def setup(self):
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        shape = (self.num_heads, RELPOS_BUCKETS)
        self.rel_embedding = partitioned(self, "rel_embedding", init, shape, ("heads", "relpos_buckets"))

    def by_distance(self, query_length: int, key_length: int) -> jax.Array:
        """Returns float32 [H, T + S]: the bias of distance d at index d mod (T + S)."""
        period = query_length + key_length
        distance = np.arange(period)
        distance = np.where(distance < key_length, distance, distance - period)
        buckets = relative_position_buckets(distance, bidirectional=self.bidirectional)
        # A product and not a gather: a gather's gradient is a scatter, slow on CPU and of no fixed order on GPU.
        one_hot = np.eye(RELPOS_BUCKETS, dtype=np.float32)[:, buckets]
        return jnp.dot(self.rel_embedding, one_hot, precision=jax.lax.Precision.HIGHEST)

    def __call__(self, query_length: int, key_length: int) -> jax.Array:
        """Returns float32 [1, H, T, S]."""
        # Row t is row t-1 shifted by one. Repeating the T + S values and cutting the repetition into pieces one
        # shorter does that with copies alone, forward and backward.
        T, S = query_length, key_length
        values = jnp.tile(self.by_distance(T, S), (1, T))
        values = values[:, : T * (T + S - 1)].reshape(self.num_heads, T, T + S - 1)
        return values[None, :, :, :S]

    def row(self, index: jax.Array, key_length: int) -> jax.Array:
        """Returns float32 [1, H, 1, S]: row `index` of the square bias, for one step of decoding."""
        values = jnp.tile(self.by_distance(key_length, key_length), (1, 2))
        row_HS = jax.lax.dynamic_slice_in_dim(values, 2 * key_length - index, key_length, axis=1)
        return row_HS[None, :, None]


class Sight(NamedTuple):
    """Which keys the queries of an attention may see, and what is added to their scores."""

    mask_B1TS: jax.Array
    bias_1HTS: jax.Array | None = None

    def biased(self, bias: RelativePositionBias) -> "Sight":
        """Returns the same with a relative position bias over all of its queries and keys."""
        return self._replace(bias_1HTS=bias(*self.mask_B1TS.shape[2:]))


def sight_of(query_segment_ids_BT: jax.Array, key_segment_ids_BS: jax.Array, *, causal: bool = False) -> Sight:
    """Returns what the positions of packed rows see, without a bias: those of their own example, and no later ones."""
    return Sight(segment_mask(query_segment_ids_BT, key_segment_ids_BS, causal=causal))


@jax.custom_vjp
def attend(
    query_BTHK: jax.Array,
    key_BHKS: jax.Array,
    value_BHKS: jax.Array,
    mask_B1TS: jax.Array,
    bias_1HTS: jax.Array | None,
) -> jax.Array:
    """Returns [B, T, H, K]: values mixed by the softmax of query . key + bias, over the keys that the mask allows.

    Scores and softmax are float32. The gradient is written out because the derived one makes twice the passes over
    arrays of [B, H, T, S], which is what attention costs on every device: here the division by the softmax's sum is
    done on [B, T, H, K], the sum over keys in the softmax's gradient is output . cotangent (FlashAttention,
    2205.14135, appendix B), and one array of that size is kept.
    """
    return _attend_forward(query_BTHK, key_BHKS, value_BHKS, mask_B1TS, bias_1HTS)[0]


def _attend_forward(query_BTHK, key_BHKS, value_BHKS, mask_B1TS, bias_1HTS):
    dtype = query_BTHK.dtype
    scores_BHTS = jnp.einsum("BTHK,BHKS->BHTS", query_BTHK, key_BHKS, preferred_element_type=jnp.float32)
    if bias_1HTS is not None:
        scores_BHTS = scores_BHTS + bias_1HTS
    scores_BHTS = jnp.where(mask_B1TS, scores_BHTS, MASKED_SCORE)
    power_BHTS = jnp.exp(scores_BHTS - jnp.max(scores_BHTS, axis=-1, keepdims=True))
    inverse_BTH1 = jnp.swapaxes(1.0 / jnp.sum(power_BHTS, axis=-1, keepdims=True), 1, 2)
    power_BHTS = power_BHTS.astype(dtype)
    mixed_BTHK = jnp.einsum("BHTS,BHKS->BTHK", power_BHTS, value_BHKS) * inverse_BTH1.astype(dtype)
    kept = (query_BTHK, key_BHKS, value_BHKS, mask_B1TS, bias_1HTS, power_BHTS, inverse_BTH1, mixed_BTHK)
    return mixed_BTHK, kept


def _attend_backward(kept, grad_BTHK):
    query_BTHK, key_BHKS, value_BHKS, mask_B1TS, bias_1HTS, power_BHTS, inverse_BTH1, mixed_BTHK = kept
    dtype = query_BTHK.dtype
    grad_BTHK = grad_BTHK.astype(jnp.float32) * inverse_BTH1
    shared_BHT1 = jnp.swapaxes(jnp.sum(grad_BTHK * mixed_BTHK.astype(jnp.float32), axis=-1, keepdims=True), 1, 2)
    grad_BTHK = jax.lax.optimization_barrier(grad_BTHK.astype(dtype))
    weights_grad_BHTS = jnp.einsum("BTHK,BHKS->BHTS", grad_BTHK, value_BHKS, preferred_element_type=jnp.float32)
    scores_grad_BHTS = jnp.where(mask_B1TS, power_BHTS * (weights_grad_BHTS - shared_BHT1), 0.0)
    # Kept once, and summed over the batch layer by layer: left to itself, XLA on CPU holds the array of every layer
    # for one long sum at the end.
    scores_grad_BHTS = jax.lax.optimization_barrier(scores_grad_BHTS)
    bias_grad_1HTS = None
    if bias_1HTS is not None:
        bias_grad_1HTS = jax.lax.optimization_barrier(jnp.sum(scores_grad_BHTS, axis=0, keepdims=True))
    scores_grad_BHTS = scores_grad_BHTS.astype(dtype)
    return (
        jnp.einsum("BHTS,BHKS->BTHK", scores_grad_BHTS, key_BHKS),
        jnp.einsum("BHTS,BTHK->BHKS", scores_grad_BHTS, query_BTHK),
        jnp.einsum("BHTS,BTHK->BHKS", power_BHTS, grad_BTHK),
        None,
        bias_grad_1HTS,
    )


attend.defvjp(_attend_forward, _attend_backward)


class Attention(nn.Module):
    """Multi-head attention in two halves: `keys_values` of what is looked at, then the call on who looks."""

    num_heads: int
    head_dim: int
    emb_dim: int
    dtype: jnp.dtype

    def setup(self):
        width = self.num_heads * self.head_dim

        def query_init(key, shape, dtype):
            return fan_in_normal(key, shape, dtype) / np.sqrt(self.head_dim).astype(np.float32)

        self.query = Dense(width, ("embed", "joined_kv"), self.dtype, kernel_init=query_init)
        self.key = Dense(width, ("embed", "joined_kv"), self.dtype, kernel_init=fan_in_normal)
        self.value = Dense(width, ("embed", "joined_kv"), self.dtype, kernel_init=fan_in_normal)
        self.out = Dense(self.emb_dim, ("joined_kv", "embed"), self.dtype, kernel_init=fan_in_normal)

    def keys_values(self, x_BSD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns keys and values, each [B, H, K, S]: the layout in which a step of decoding reads them without a copy."""
        key_BSHK, value_BSHK = self._split_heads(self.key(x_BSD)), self._split_heads(self.value(x_BSD))
        return jnp.moveaxis(key_BSHK, 1, 3), jnp.moveaxis(value_BSHK, 1, 3)

    def __call__(
        self,
        x_BTD: jax.Array,
        keys_values: tuple[jax.Array, jax.Array],
        *,
        sight: Sight,
        keep: Keep,
        place: str,
    ) -> jax.Array:
        """Returns what the positions of x see, [B, T, D]."""
        query_BTHK = self._split_heads(self.query(x_BTD))
        key_BHKS, value_BHKS = keys_values
        # T5X drops a key for all queries of a row and head. Scaling its value is the same sum at 1/T of the cost.
        value_BHKS = drop(value_BHKS, keep, place)
        mixed_BTHK = attend(query_BTHK, key_BHKS, value_BHKS, *sight)
        return self.out(mixed_BTHK.reshape(*x_BTD.shape[:2], -1))

    def _split_heads(self, x_BTX: jax.Array) -> jax.Array:
        x_BTHK = x_BTX.reshape(*x_BTX.shape[:2], self.num_heads, self.head_dim)
        return constrain(x_BTHK, "batch", "length", "heads", "kv")
