"""T5's relative position bias: a learned number per head and bucket of distances, added to the attention scores."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float32, Int

from flan_jax.models.initialization import parameter
from flan_jax.models.partitioning import constrain
from flan_jax.models.relative_position import RELPOS_BUCKETS, RELPOS_MAX_DISTANCE, relative_position_buckets

_table_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")


class RelativePositionBias(nn.Module):
    """The table [H, R] and the bias [1, H, T, S] made of it, for all layers of a stack (umT5: for one layer).

    Distances are differences of row indices. In a packed row they equal the distances within each segment, and the mask
    removes all others.
    """

    num_heads: int
    bidirectional: bool
    num_buckets: int = RELPOS_BUCKETS
    max_distance: int = RELPOS_MAX_DISTANCE

    def setup(self) -> None:
        shape = (self.num_heads, self.num_buckets)
        self.rel_embedding = parameter(self, "rel_embedding", _table_init, shape, ("heads", "relpos_buckets"))

    def by_distance(self, query_length: int, key_length: int) -> Float32[Array, "H _"]:
        """Returns [H, T + S]: the bias of distance d at index d mod (T + S)."""
        period = query_length + key_length
        distance = np.arange(period)
        # Distances run from 1 - T to S - 1, so negative ones fit after the others in one period.
        distance = np.where(distance < key_length, distance, distance - period)
        buckets = relative_position_buckets(
            distance,
            bidirectional=self.bidirectional,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        # A product and not a gather: a gather's gradient is a scatter, slow on CPU and of no fixed order on GPU.
        one_hot = np.eye(self.num_buckets, dtype=np.float32)[:, buckets]
        return jnp.dot(self.rel_embedding, one_hot, precision=jax.lax.Precision.HIGHEST)

    def __call__(self, query_length: int, key_length: int, *, copies: int = 1) -> Float32[Array, "G H T S"]:
        """Returns the bias of all queries and keys, in G = `copies` equal copies.

        With a copy per group of rows on a device, the gradient is summed on each device first and all-reduced by
        distance, T + S numbers per head, and not as an array of [T, S] in every layer.
        """
        # Row t is row t-1 shifted by one. Tiling the T + S values and reshaping to rows one shorter does that by copies
        # alone, forward and backward.
        T, S = query_length, key_length
        by_distance = jnp.broadcast_to(self.by_distance(T, S)[None], (copies, self.num_heads, T + S))
        if copies > 1:
            by_distance = constrain(by_distance, "batch", "heads", None)
        values = jnp.tile(by_distance, (1, 1, T))
        values = values[..., : T * (T + S - 1)].reshape(copies, self.num_heads, T, T + S - 1)
        return values[..., :S]

    def ring(self, position: Int[Array, ""], length: int) -> Float32[Array, "1 H 1 S"]:
        """Returns the bias of a query at `position` of a ring of keys, the last S of which it attends to.

        Key s of the ring was written (position - s) mod S steps before the query.

        Args:
          position: The query's position in the ring.
          length: S, the positions of the ring.
        """
        by_distance_HR = self.by_distance(length, length)
        # Oldest first; tiled, the ring of any position is one slice of it.
        oldest_first_HS = jnp.concatenate([by_distance_HR[:, length + 1 :], by_distance_HR[:, :1]], axis=1)
        twice_HR = jnp.tile(oldest_first_HS, (1, 2))
        return jax.lax.dynamic_slice_in_dim(twice_HR, length - 1 - position, length, axis=1)[None, :, None]
