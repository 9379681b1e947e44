"""T5's multi-head attention: softmax(Q K^T + bias) V, of heads of size K.

The scores are not divided by sqrt(K): T5 folds that factor into the initial values of the query kernel (section 2.1 of
1910.10683 and T5X's `network.py`). Mask, bias and the way of computing are bound in an attention function, which a
stack makes once for all of its layers (`models.acceleration.attention`).
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from flan_jax.models.acceleration.attention import AttentionFunction
from flan_jax.models.dropout import DropoutMasks, drop
from flan_jax.models.initialization import Initializer
from flan_jax.models.layers import Dense
from flan_jax.models.partitioning import constrain

KeysValues = tuple[Float[Array, "B H K S"], Float[Array, "B H K S"]]
"""The layout [B, H, K, S] is the one that a decoding step reads without a transposing copy."""

Cache = tuple[Float[Array, "B H K _"], Float[Array, "B H K _"]]
"""Keys and values of self-attention in decoding, with room for all positions to be decoded."""

_fan_in_normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


@functools.cache  # One object per size: parameters with the same initializer share a program.
def _query_init(head_dim: int) -> Initializer:
    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return cast(jax.Array, _fan_in_normal(key, shape, dtype) / np.sqrt(head_dim).astype(np.float32))

    return init


class Attention(nn.Module):
    """Multi-head attention in two halves: `keys_values` of the keys' side, then the call with the queries' side.

    The halves are separate because decoding computes keys and values once and reads them at every step.
    """

    # As in T5X, kernels are matrices of joined heads; separate head axes exist only in its `scalable_t5`.
    num_heads: int
    head_dim: int
    emb_dim: int
    dtype: jnp.dtype

    def setup(self) -> None:
        width = self.num_heads * self.head_dim
        self.query = Dense(width, ("embed", "joined_kv"), self.dtype, kernel_init=_query_init(self.head_dim))
        self.key = Dense(width, ("embed", "joined_kv"), self.dtype, kernel_init=_fan_in_normal)
        self.value = Dense(width, ("embed", "joined_kv"), self.dtype, kernel_init=_fan_in_normal)
        self.out = Dense(self.emb_dim, ("joined_kv", "embed"), self.dtype, kernel_init=_fan_in_normal)

    def keys_values(self, x_BSD: Float[Array, "B S D"]) -> KeysValues:
        """Returns the keys and values of the positions of x."""
        key_BSHK, value_BSHK = self._split_heads(self.key(x_BSD)), self._split_heads(self.value(x_BSD))
        return jnp.moveaxis(key_BSHK, 1, 3), jnp.moveaxis(value_BSHK, 1, 3)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        keys_values: KeysValues,
        *,
        attend: AttentionFunction,
        masks: DropoutMasks,
        site: str,
    ) -> Float[Array, "B T D"]:
        """Returns what the positions of x attend to.

        Args:
          x_BTD: The queries' side.
          keys_values: Of the keys' side, from `keys_values` or a cache.
          attend: Mask and bias, bound.
          masks: Dropout masks of the layer.
          site: The one of `masks` that drops attention weights.
        """
        query_BTHK = self._split_heads(self.query(x_BTD))
        key_BHKS, value_BHKS = keys_values
        # T5X drops a key for all queries of a row and head. Scaling its value is the same sum at 1/T of the cost.
        value_BHKS = drop(value_BHKS, masks, site)
        mixed_BTHK = attend(query_BTHK, key_BHKS, value_BHKS)
        return self.out(mixed_BTHK.reshape(*x_BTD.shape[:2], -1))

    def _split_heads(self, x_BTX: jax.Array) -> Float[Array, "B T H K"]:
        x_BTHK = x_BTX.reshape(*x_BTX.shape[:2], self.num_heads, self.head_dim)
        return constrain(x_BTHK, "batch", "length", "heads", "kv")
