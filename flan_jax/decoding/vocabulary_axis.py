"""Operations over the vocabulary, several times faster on CPU than the obvious ones, with equal results.

The vocabulary is two orders of magnitude longer than any other axis of a decoding step, so each is a few passes of
plain reductions, on blocks of ids where an index is needed.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

_BLOCK = 128  # Ids; a vocabulary of 32k has as many blocks as two blocks have ids.


def argmax(x_BNV: Float32[Array, "B N V"]) -> Int32[Array, "B N"]:
    """Returns the index of the largest value, the first of equals."""
    # `jnp.argmax` reduces pairs of value and index, which XLA does not vectorize on CPU.
    V = x_BNV.shape[-1]
    largest_BN1 = jnp.max(x_BNV, axis=-1, keepdims=True)
    first_BN = jnp.min(jnp.where(x_BNV == largest_BN1, jnp.arange(V, dtype=jnp.int32)[None, None], V), axis=-1)
    return jnp.minimum(first_BN, V - 1)  # V where a value is NaN.


def top_k(x_BNV: Float32[Array, "B N V"], k: int) -> tuple[Float32[Array, "B N {k}"], Int32[Array, "B N {k}"]]:
    """Returns the k largest values, in descending order, and their indices; equals in ascending order of index."""
    V = x_BNV.shape[-1]
    count = -(-V // _BLOCK)
    if k >= count // 2:
        values, indices = jax.lax.top_k(x_BNV, k)
        return values, indices
    # The k largest values are in the k blocks with the largest maxima.
    blocks = _blocks(x_BNV, fill=-jnp.inf)
    chosen_BNk = jnp.sort(jax.lax.top_k(jnp.max(blocks, axis=-1), k)[1], axis=-1)
    candidates = jnp.take_along_axis(blocks, chosen_BNk[..., None], axis=2)
    ids = chosen_BNk[..., None] * _BLOCK + jnp.arange(_BLOCK, dtype=jnp.int32)[None, None, None]
    values, at = jax.lax.top_k(candidates.reshape(*x_BNV.shape[:2], -1), k)
    return values, jnp.take_along_axis(ids.reshape(*x_BNV.shape[:2], -1), at, axis=-1)


def invert_cdf(weight_BNV: Float32[Array, "B N V"], uniform_BN: Float32[Array, "B N"]) -> Int32[Array, "B N"]:
    """Returns the index at which the cumulative sum of the weights exceeds a share of their total.

    With a uniform random share, the index is drawn with a probability in proportion to its weight. One draw per
    candidate instead of one per id, as the Gumbel trick needs, saves a CPU most of the time of sampling. An index of
    weight 0 is never returned.

    Args:
      weight_BNV: Not negative, and not all 0.
      uniform_BN: In [0, 1).
    """
    blocks = _blocks(weight_BNV, fill=0.0)
    block_BN, remaining_BN = _exceeding(jnp.sum(blocks, axis=-1), uniform_BN, is_share=True)
    within = jnp.take_along_axis(blocks, block_BN[..., None, None], axis=2)[:, :, 0]
    return block_BN * _BLOCK + _exceeding(within, remaining_BN, is_share=False)[0]


def _exceeding(
    weight: Float32[Array, "B N _"], threshold_BN: Float32[Array, "B N"], *, is_share: bool
) -> tuple[Int32[Array, "B N"], Float32[Array, "B N"]]:
    """Returns the first index whose cumulative sum exceeds a threshold, and the rest of the threshold there."""
    total = jnp.cumsum(weight, axis=-1)
    # Below the total in spite of rounding, so that some sum exceeds it, and the first one that does has a weight.
    largest_BN = jnp.nextafter(total[..., -1], jnp.float32(0.0))
    threshold_BN = jnp.minimum(threshold_BN * total[..., -1] if is_share else threshold_BN, largest_BN)
    index_BN = jnp.sum(total <= threshold_BN[..., None], axis=-1, dtype=jnp.int32)
    before_BN = jnp.take_along_axis(total - weight, index_BN[..., None], axis=-1)[..., 0]
    return index_BN, jnp.maximum(threshold_BN - before_BN, 0.0)


def kept_by_mass(probability_BNV: Float32[Array, "B N V"], mass: float) -> Float32[Array, "B N 1"]:
    """Returns the probability of the least likely token in the smallest set of likely tokens of at least that mass.

    As in transformers, a token is outside if all tokens that are not more likely sum to at most 1 - mass.
    """

    # Bisection over the bits of a float, which are in the order of the positive floats: 27 sums instead of a sort.
    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        limit = jax.lax.bitcast_convert_type(middle, jnp.float32)
        is_inside = jnp.sum(jnp.where(probability_BNV <= limit, probability_BNV, 0.0), -1, keepdims=True) > 1.0 - mass
        return jnp.where(is_inside, low, middle), jnp.where(is_inside, middle, high)

    largest_BN1 = jnp.max(probability_BNV, axis=-1, keepdims=True)
    # All tokens up to (1 - mass) / V sum to at most 1 - mass.
    least_BN1 = jnp.full_like(largest_BN1, (1.0 - mass) / probability_BNV.shape[-1])
    bounds = tuple(jax.lax.bitcast_convert_type(each, jnp.int32) for each in (least_BN1 * 0.5, largest_BN1))
    _, high = jax.lax.fori_loop(0, 31, halve, bounds)
    return jax.lax.bitcast_convert_type(high, jnp.float32)


def _blocks(x_BNV: Float32[Array, "B N V"], *, fill: float) -> Float32[Array, "B N _ _"]:
    V = x_BNV.shape[-1]
    padded = jnp.pad(x_BNV, ((0, 0), (0, 0), (0, -V % _BLOCK)), constant_values=fill)
    return padded.reshape(*x_BNV.shape[:2], -1, _BLOCK)
