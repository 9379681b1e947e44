"""The computation of one program of the attention kernel; `attention_kernel` has the grids.

Scores are in base 2: query . key + bias is multiplied by log2(e) once, so that every exponential is one instruction. A
masked score is -inf, whose exponential is exactly 0; a query without any key has output 0 and no gradient. The bias of
a tile is looked up in 256 numbers per head, for the distances from -128 to 127. Beyond them T5's bias is constant
(`relative_position_buckets`), so that the lookup stays in the L1 cache.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

LOG2E = math.log2(math.e)
NEAR = 128  # Distances from -NEAR to NEAR - 1 may differ in bias; all others have the bias of the nearer end.


class Reads(NamedTuple):
    """The inputs of a program: complete arrays at the call, references to the parts that it reads inside of it.

    Attributes:
      query: [B, T, H, K].
      key: [B, S, H, K].
      value: [B, S, H, K].
      query_ids: Segment ids [B, T].
      key_ids: Segment ids [B, S].
      first: For each block, the first block of the other side that it visits, [B, blocks].
      end: The last such block plus 1, [B, blocks].
      grad: For gradients: the cotangent of the output, [B, T, H, K].
      log_sum: For gradients: the logarithm of the softmax's sum that `forward` wrote, [B, H, T].
      shared: For gradients: cotangent . output of each query, [B, H, T].
      near: The bias of each near distance, [H, 256] in base 2; None without a bias.
    """

    query: Any
    key: Any
    value: Any
    query_ids: Any
    key_ids: Any
    first: Any = None
    end: Any = None
    grad: Any = None
    log_sum: Any = None
    shared: Any = None
    near: Any = None


def product(a: jax.Array, b: jax.Array, *, contract: tuple[int, int]) -> jax.Array:
    """Returns the float32 product of two tiles over one axis of each."""
    # The default precision would round float32 tiles to a mantissa of 10 bits (TF32).
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)


def _scores(query_TK, key_SK, query_ids_T, key_ids_S, near_ref, *, query_start, key_start, causal, keys_first):
    """Returns scores in base 2, -inf where masked: [T, S], or [S, T] with `keys_first`."""
    column, row = (0, 1) if keys_first else (1, 0)  # The axes of keys and of queries.
    scores = (
        product(key_SK, query_TK, contract=(1, 1)) if keys_first else product(query_TK, key_SK, contract=(1, 1))
    ) * LOG2E
    visible = jnp.expand_dims(key_ids_S, row) == jnp.expand_dims(query_ids_T, column)
    if causal or near_ref is not None:
        key_index = jnp.expand_dims(key_start + jnp.arange(key_SK.shape[0], dtype=jnp.int32), row)
        query_index = jnp.expand_dims(query_start + jnp.arange(query_TK.shape[0], dtype=jnp.int32), column)
        distance = key_index - query_index
        if near_ref is not None:
            scores = scores + near_ref[jnp.minimum(jnp.maximum(distance, -NEAR), NEAR - 1) + NEAR]
        if causal:
            visible = visible & (distance <= 0)
    # Infinite, unlike `attention.MASKED_SCORE`: a visited block may mask all keys of a query, and must add nothing.
    return jnp.where(visible, scores, -jnp.inf)


def forward(reads: Reads, mixed_ref, log_sum_ref, *, block_keys: int, causal: bool):
    """Computes the attention of one block of queries, visiting the blocks of keys from `first` to before `end`.

    Writes the output [T, K] and the logarithm, in base 2, of the softmax's sum [T].
    """
    T, K = reads.query.shape
    query_TK, query_ids_T = reads.query[...], reads.query_ids[...]
    query_start = pl.program_id(0) * T

    def step(j, carry):
        mixed_TK, sum_T, peak_T = carry
        at = pl.ds(j * block_keys, block_keys)
        scores_TS = _scores(
            query_TK,
            reads.key[at, :],
            query_ids_T,
            reads.key_ids[at],
            reads.near,
            query_start=query_start,
            key_start=j * block_keys,
            causal=causal,
            keys_first=False,
        )
        new_peak_T = jnp.maximum(peak_T, jnp.max(scores_TS, axis=1))
        # The peak of a query without any key so far is -inf, and -inf - -inf would be NaN.
        finite_peak_T = jnp.where(new_peak_T == -jnp.inf, 0.0, new_peak_T)
        power_TS = jnp.exp2(scores_TS - finite_peak_T[:, None])
        # Earlier sums are brought to the new peak (online softmax; Milakov and Gimelshein, 1805.02867).
        shrink_T = jnp.exp2(peak_T - finite_peak_T)
        value_SK = reads.value[at, :]
        mixed_TK = mixed_TK * shrink_T[:, None] + product(power_TS.astype(value_SK.dtype), value_SK, contract=(1, 0))
        return mixed_TK, sum_T * shrink_T + jnp.sum(power_TS, axis=1), new_peak_T

    start = (jnp.zeros((T, K), jnp.float32), jnp.zeros((T,), jnp.float32), jnp.full((T,), -jnp.inf, jnp.float32))
    mixed_TK, sum_T, peak_T = jax.lax.fori_loop(reads.first[...], reads.end[...], step, start)
    # Such queries are fillers and padding whose segment has no key; 0 keeps NaN out of the gradients.
    has_no_key_T = sum_T == 0.0
    divisor_T = jnp.where(has_no_key_T, 1.0, sum_T)
    mixed_ref[...] = (mixed_TK / divisor_T[:, None]).astype(mixed_ref.dtype)
    log_sum_ref[...] = jnp.where(has_no_key_T, 0.0, peak_T + jnp.log(divisor_T) * LOG2E)


def _scores_gradient(scores, key_or_query, grad_or_value, log_sum_T, shared_T, *, keys_first):
    """Returns the softmax weights of a tile and the gradient of its scores, float32."""
    column = 0 if keys_first else 1
    weights = jnp.exp2(scores - jnp.expand_dims(log_sum_T, column))
    weights_grad = product(key_or_query, grad_or_value, contract=(1, 1))
    # The gradient of query . key has no factor log2(e): `LOG2E` only changes the base in which the weights are
    # computed.
    return weights, weights * (weights_grad - jnp.expand_dims(shared_T, column))


def query_gradient(reads: Reads, query_grad_ref, *far_refs, block_keys: int, causal: bool, near_tiles: tuple[int, int]):
    """Computes the gradient of one block of queries and, with a bias, the sums over the tiles far left and far right.

    `near_tiles` are the first and last block of keys, relative to the block of queries, in which the bias is not
    constant. Their sums are `table_gradient`'s.
    """
    T, K = reads.query.shape
    query_TK, query_ids_T, grad_TK = reads.query[...], reads.query_ids[...], reads.grad[...]
    log_sum_T, shared_T = reads.log_sum[...], reads.shared[...]
    query_start = pl.program_id(0) * T
    aligned = pl.program_id(0) * (T // block_keys)

    def step(j, carry):
        query_grad_TK, *far_T = carry
        at = pl.ds(j * block_keys, block_keys)
        key_SK = reads.key[at, :]
        scores_TS = _scores(
            query_TK,
            key_SK,
            query_ids_T,
            reads.key_ids[at],
            reads.near,
            query_start=query_start,
            key_start=j * block_keys,
            causal=causal,
            keys_first=False,
        )
        _, scores_grad_TS = _scores_gradient(
            scores_TS, grad_TK, reads.value[at, :], log_sum_T, shared_T, keys_first=False
        )
        query_grad_TK = query_grad_TK + product(scores_grad_TS.astype(key_SK.dtype), key_SK, contract=(1, 0))
        if far_refs:
            over_keys_T = jnp.sum(scores_grad_TS, axis=1)
            offset = j - aligned
            far_T = (
                far_T[0] + jnp.where(offset < near_tiles[0], over_keys_T, 0.0),
                far_T[1] + jnp.where(offset > near_tiles[1], over_keys_T, 0.0),
            )
        return (query_grad_TK, *far_T)

    start = (jnp.zeros((T, K), jnp.float32), *(jnp.zeros((T,), jnp.float32) for _ in far_refs))
    query_grad_TK, *far_T = jax.lax.fori_loop(reads.first[...], reads.end[...], step, start)
    query_grad_ref[...] = query_grad_TK.astype(query_grad_ref.dtype)
    for ref, sum_T in zip(far_refs, far_T, strict=True):
        ref[...] = jnp.sum(sum_T)


def key_value_gradient(reads: Reads, key_grad_ref, value_grad_ref, *, block_queries: int, causal: bool):
    """Computes the gradients of one block of keys and values, visiting blocks of queries from `first` to `end`."""
    S, K = reads.key.shape
    key_SK, value_SK, key_ids_S = reads.key[...], reads.value[...], reads.key_ids[...]
    key_start = pl.program_id(0) * S

    def step(i, carry):
        key_grad_SK, value_grad_SK = carry
        at = pl.ds(i * block_queries, block_queries)
        query_TK, grad_TK = reads.query[at, :], reads.grad[at, :]
        scores_ST = _scores(
            query_TK,
            key_SK,
            reads.query_ids[at],
            key_ids_S,
            reads.near,
            query_start=i * block_queries,
            key_start=key_start,
            causal=causal,
            keys_first=True,
        )
        weights_ST, scores_grad_ST = _scores_gradient(
            scores_ST, value_SK, grad_TK, reads.log_sum[at], reads.shared[at], keys_first=True
        )
        value_grad_SK = value_grad_SK + product(weights_ST.astype(grad_TK.dtype), grad_TK, contract=(1, 0))
        key_grad_SK = key_grad_SK + product(scores_grad_ST.astype(query_TK.dtype), query_TK, contract=(1, 0))
        return key_grad_SK, value_grad_SK

    zeros_SK = jnp.zeros((S, K), jnp.float32)
    key_grad_SK, value_grad_SK = jax.lax.fori_loop(reads.first[...], reads.end[...], step, (zeros_SK, zeros_SK))
    key_grad_ref[...] = key_grad_SK.astype(key_grad_ref.dtype)
    value_grad_ref[...] = value_grad_SK.astype(value_grad_ref.dtype)


def table_gradient(reads: Reads, sum_ref, *, causal: bool, first_near_tile: int):
    """Sums the scores' gradients over all tiles of one diagonal, in which each entry has one distance.

    They are computed again from queries and keys, for the few diagonals close enough for the bias to vary in them.
    Summing by bucket inside `query_gradient` would take 32 passes over each tile.
    """
    T, S = sum_ref.shape
    per_row = T // S
    offset = pl.program_id(0) + first_near_tile

    def step(i, sum_TS):
        j = i * per_row + offset
        queries, keys = pl.ds(i * T, T), pl.ds(j * S, S)

        def add(sum_TS):
            scores_TS = _scores(
                reads.query[queries, :],
                reads.key[keys, :],
                reads.query_ids[queries],
                reads.key_ids[keys],
                reads.near,
                query_start=i * T,
                key_start=j * S,
                causal=causal,
                keys_first=False,
            )
            _, scores_grad_TS = _scores_gradient(
                scores_TS,
                reads.grad[queries, :],
                reads.value[keys, :],
                reads.log_sum[queries],
                reads.shared[queries],
                keys_first=False,
            )
            return sum_TS + scores_grad_TS

        # Other tiles would add zeros, at their full cost.
        is_visible = (j >= reads.first[i]) & (j < reads.end[i])
        return jax.lax.cond(is_visible, add, lambda sum_TS: sum_TS, sum_TS)

    # The rows i of tiles for which column i * per_row + offset exists.
    start = jax.lax.div(jnp.maximum(0, -offset + per_row - 1), per_row)
    last_column = reads.key.shape[0] // S - 1
    stop = jnp.minimum(reads.query.shape[0] // T, jax.lax.div(jnp.maximum(last_column - offset + per_row, 0), per_row))
    sum_ref[...] = jax.lax.fori_loop(start, stop, step, jnp.zeros((T, S), jnp.float32))
