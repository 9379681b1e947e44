"""Logits that are computed in chunks of the vocabulary, so that all of them never exist at once.

A loss needs four numbers of a position's logits (`flan_jax.shapes.LogitStatistics`). They are accumulated chunk by
chunk, and the backward pass computes each chunk again. Chunks are of the vocabulary and not of the positions, because
the table's gradient is then written once, chunk after chunk, and all-reduced once. With chunks of positions, a gradient
of the complete table is read and written (and, over a sharded batch, all-reduced) for every chunk.

Where the vocabulary is sharded, each of the M devices splits its own shard, and their results are combined at the end.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from flan_jax.models.execution import Execution
from flan_jax.models.layers import LogitsHead
from flan_jax.models.partitioning import constrain, shards_of
from flan_jax.shapes import DecoderIds, Logits, LogitStatistics

Positions = Float32[Array, "B T"]
Table3D = Float32[Array, "_ _ _"]
"""The table by shards of the vocabulary: [M, V / M, D] (tied) or [D, M, V / M]; or a chunk of it."""


class Chunking(NamedTuple):
    """How the table is split; static."""

    is_tied: bool
    divisor: float
    shards: int
    """Devices that the vocabulary is sharded over, each with V / shards rows."""
    width: int
    """Rows of a chunk on one device; the last chunk may have fewer."""


class ChunkedLogits(NamedTuple):
    """Logits that do not exist as one array: the decoder's vectors and the output layer."""

    vectors_BTD: Float[Array, "B T D"]
    head: LogitsHead
    shards: int
    width: int

    def statistics(self, targets_BT: DecoderIds) -> LogitStatistics:
        """Returns what a loss needs of each position, computed from chunks of the logits."""
        head = self.head
        chunking = Chunking(is_tied=head.is_tied, divisor=head.divisor, shards=self.shards, width=self.width)
        log_z_BT, target_BT, right_BT = _read(chunking, self.vectors_BTD, head.table, targets_BT)
        # Dead code for a loss without label smoothing; the compiler removes it.
        # The sum of a position's logits is its product with the table's column sums: no chunk is needed, and JAX
        # derives its gradient.
        column_D = jnp.sum(head.table, axis=0 if head.is_tied else 1)
        total_BT = jnp.dot(self.vectors_BTD.astype(jnp.float32), column_D) / jnp.float32(head.divisor)
        return LogitStatistics(
            log_z=log_z_BT, target=target_BT, total=total_BT, is_correct=right_BT, vocab_size=head.vocab_size
        )


def read_logits(
    vectors_BTD: Float[Array, "B T D"], head: LogitsHead, *, execution: Execution
) -> Logits | ChunkedLogits:
    """Returns the logits, or, where `execution` chunks them, the object that computes statistics from chunks."""
    B, T, _ = vectors_BTD.shape
    vectors_BTD = constrain(vectors_BTD, "batch", "length", "width")
    positions, shards = math.ceil(B * T / shards_of("batch")), shards_of("vocab")
    # A table that is sharded along D too is all-gathered chunk by chunk.
    # A gathered chunk has V / chunks rows of D numbers, so D counts like positions in the size of a chunk.
    gathered = vectors_BTD.shape[-1] if shards_of("embed") > 1 else 0
    if not execution.chunks_logits(4 * positions * head.vocab_size // shards, table_is_sharded=gathered > 0):
        return head.logits(vectors_BTD)
    width = chunk_width(
        head.vocab_size, positions=max(positions, gathered), shards=shards, chunk_bytes=execution.chunk_bytes
    )
    return ChunkedLogits(vectors_BTD=vectors_BTD, head=head, shards=shards, width=width)


def chunk_width(vocab_size: int, *, positions: int, shards: int, chunk_bytes: int) -> int:
    """Returns the rows of the table per chunk and shard, with chunks of nearly equal size.

    >>> chunk_width(32_128, positions=1024, shards=1, chunk_bytes=32 << 20)  # 4 chunks of 31.4 MiB
    8032
    >>> chunk_width(32_128, positions=1024, shards=8, chunk_bytes=32 << 20)
    4016
    """
    rows = vocab_size // shards
    chunks = math.ceil(rows / max(1, chunk_bytes // (4 * positions)))
    # Nearly equal sizes: full chunks share one program in a loop, and only the remainder is compiled separately.
    return math.ceil(rows / chunks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _read(
    chunking: Chunking, vectors_BTD: Float[Array, "B T D"], table: Float[Array, "_ _"], targets_BT: DecoderIds
) -> tuple[Positions, Positions, Positions]:
    """Returns log Z, the target's logit, and whether the argmax is the target (1 or 0)."""
    return _read_forward(chunking, vectors_BTD, table, targets_BT)[0]


def _read_forward(
    chunking: Chunking, vectors_BTD: Float[Array, "B T D"], table: Float[Array, "_ _"], targets_BT: DecoderIds
) -> tuple[tuple[Positions, Positions, Positions], tuple[Any, ...]]:
    table_by_shard, x_BTD = _by_shard(chunking, table), vectors_BTD.astype(jnp.float32)

    def visit(carry: Any, start: Int[Array, ""], width: int) -> Any:
        peak_BTM, sum_BTM, target_BTM, earlier_BTM = carry
        logits_BTMV = _chunk_logits(chunking, x_BTD, _chunk(chunking, table_by_shard, start, width))
        index_BTM = _index_in_chunk(chunking, table_by_shard, targets_BT, start)
        new_peak_BTM = jnp.maximum(peak_BTM, jnp.max(logits_BTMV, axis=-1))
        # Online softmax (Milakov and Gimelshein, 1805.02867): one pass over the chunks gives peak and sum.
        sum_BTM = sum_BTM * jnp.exp(peak_BTM - new_peak_BTM) + jnp.sum(
            jnp.exp(logits_BTMV - new_peak_BTM[..., None]), axis=-1
        )
        is_here_BTM = (index_BTM >= 0) & (index_BTM < width)
        # Clipped, an index outside of the chunk reads some other logit; `is_here` discards it.
        taken_BTM = jnp.take_along_axis(logits_BTMV, index_BTM[..., None], axis=-1, mode="clip")[..., 0]
        # The argmax is the first of the largest. On CPU, reducing indices would cost more than the product itself.
        before_BTMV = jnp.where(_columns(width) < index_BTM[..., None], logits_BTMV, -jnp.inf)
        return (
            new_peak_BTM,
            sum_BTM,
            target_BTM + jnp.where(is_here_BTM, taken_BTM, 0.0),
            jnp.maximum(earlier_BTM, jnp.max(before_BTMV, axis=-1)),
        )

    zero_BTM = jnp.zeros((*targets_BT.shape, chunking.shards), jnp.float32)
    empty = (zero_BTM - jnp.inf, zero_BTM, zero_BTM, zero_BTM - jnp.inf)
    peak_BTM, sum_BTM, target_BTM, earlier_BTM = _over_chunks(chunking, table_by_shard, visit, empty)
    peak_BT1 = jnp.max(peak_BTM, axis=-1, keepdims=True)
    log_z_BT = peak_BT1[..., 0] + jnp.log(jnp.sum(sum_BTM * jnp.exp(peak_BTM - peak_BT1), axis=-1))
    target_BT = jnp.sum(target_BTM, axis=-1)
    # Largest, and no equal logit has a smaller index: the same verdict as argmax where logits tie.
    is_correct_BT = (target_BT >= peak_BT1[..., 0]) & (jnp.max(earlier_BTM, axis=-1) < target_BT)
    return (log_z_BT, target_BT, is_correct_BT.astype(jnp.float32)), (vectors_BTD, table, targets_BT, log_z_BT)


def _read_backward(
    chunking: Chunking, residuals: tuple[Any, ...], gradients: tuple[Any, ...]
) -> tuple[Float[Array, "B T D"], Float[Array, "_ _"], None]:
    vectors_BTD, table, targets_BT, log_z_BT = residuals
    # Whether the argmax is the target has no gradient.
    log_z_grad_BT, target_grad_BT, _ = gradients
    table_by_shard, x_BTD = _by_shard(chunking, table), vectors_BTD.astype(jnp.float32)

    def visit(carry: Any, start: Int[Array, ""], width: int) -> Any:
        x_grad_MBTD, table_grad = carry
        chunk = _chunk(chunking, table_by_shard, start, width)
        share_BTMV = jnp.exp(_chunk_logits(chunking, x_BTD, chunk) - log_z_BT[..., None, None])
        is_target_BTMV = _columns(width) == _index_in_chunk(chunking, table_by_shard, targets_BT, start)[..., None]
        grad_BTMV = log_z_grad_BT[..., None, None] * share_BTMV
        grad_BTMV = grad_BTMV + jnp.where(is_target_BTMV, target_grad_BT[..., None, None], 0.0)
        # Materialized once for both products, as in `products.project`.
        grad_BTMV = jax.lax.optimization_barrier(_constrain_logits(grad_BTMV / jnp.float32(chunking.divisor)))
        product = "BTMV,MVD->MBTD" if chunking.is_tied else "BTMV,DMV->MBTD"
        x_grad_MBTD = x_grad_MBTD + jnp.einsum(product, grad_BTMV, chunk)
        chunk_grad = (
            jnp.einsum("BTMV,BTD->MVD", grad_BTMV, x_BTD)
            if chunking.is_tied
            else jnp.einsum("BTD,BTMV->DMV", x_BTD, grad_BTMV)
        )
        chunk_grad = _constrain_table(chunking, chunk_grad)  # A reduce-scatter instead of an all-reduce.
        table_grad = jax.lax.dynamic_update_slice_in_dim(table_grad, chunk_grad, start, axis=_axis(chunking))
        x_grad_MBTD = constrain(x_grad_MBTD, "vocab", "batch", "length", "width")
        return x_grad_MBTD, _constrain_table(chunking, table_grad)

    # Vectors have one gradient per shard of the vocabulary, summed after the loop: one all-reduce instead of one per
    # chunk.
    empty = (jnp.zeros((chunking.shards, *x_BTD.shape), jnp.float32), jnp.zeros(table_by_shard.shape, jnp.float32))
    x_grad_MBTD, table_grad = _over_chunks(chunking, table_by_shard, visit, empty)
    x_grad_BTD = jnp.sum(x_grad_MBTD, axis=0).astype(vectors_BTD.dtype)
    return x_grad_BTD, table_grad.reshape(table.shape).astype(table.dtype), None


_read.defvjp(_read_forward, _read_backward)


def _over_chunks(chunking: Chunking, table: Table3D, visit: Callable[..., Any], carry: Any) -> Any:
    """Returns the carry after `visit(carry, start, width)` of every chunk, the shorter last one included."""
    rows = table.shape[_axis(chunking)]
    full_chunks = rows // chunking.width
    if full_chunks > 1:
        starts = chunking.width * jnp.arange(full_chunks)
        carry, _ = jax.lax.scan(lambda carry, start: (visit(carry, start, chunking.width), None), carry, starts)
    else:
        carry = visit(carry, jnp.int32(0), chunking.width)
    rest = rows - full_chunks * chunking.width
    return visit(carry, jnp.int32(full_chunks * chunking.width), rest) if rest else carry


def _axis(chunking: Chunking) -> int:
    """Returns the axis of `_by_shard`'s table that is split into chunks."""
    return 1 if chunking.is_tied else 2


def _by_shard(chunking: Chunking, table: Float[Array, "_ _"]) -> Table3D:
    """Returns the table as [M, V / M, D] (tied) or [D, M, V / M]."""
    if chunking.is_tied:
        table = table.reshape(chunking.shards, -1, table.shape[1])
    else:
        table = table.reshape(table.shape[0], chunking.shards, -1)
    return _constrain_table(chunking, table.astype(jnp.float32))


def _chunk(chunking: Chunking, table: Table3D, start: Int[Array, ""], width: int) -> Table3D:
    """Returns some rows of every shard, all-gathered along D where the table is sharded along it."""
    chunk = jax.lax.dynamic_slice_in_dim(table, start, width, axis=_axis(chunking))
    chunk = _constrain_table(chunking, chunk)  # Else the partitioner all-gathers the complete shard before the loop.
    return constrain(chunk, *(("vocab", None, None) if chunking.is_tied else (None, "vocab", None)))


def _chunk_logits(chunking: Chunking, x_BTD: Float32[Array, "B T D"], chunk: Table3D) -> Float32[Array, "B T M V"]:
    logits_BTMV = jnp.einsum("BTD,MVD->BTMV" if chunking.is_tied else "BTD,DMV->BTMV", x_BTD, chunk)
    if chunking.divisor != 1.0:
        logits_BTMV = logits_BTMV / jnp.float32(chunking.divisor)
    return _constrain_logits(logits_BTMV)


def _index_in_chunk(
    chunking: Chunking, table: Table3D, targets_BT: DecoderIds, start: Int[Array, ""]
) -> Int[Array, "B T M"]:
    """Returns each target's index in each shard's chunk, outside of [0, width) in all but one."""
    first_M = start + table.shape[_axis(chunking)] * jnp.arange(chunking.shards)
    return targets_BT[..., None] - first_M[None, None]


def _columns(width: int) -> Int[Array, "1 1 1 V"]:
    return jnp.arange(width)[None, None, None]


def _constrain_logits(logits_BTMV: Float32[Array, "B T M V"]) -> Float32[Array, "B T M V"]:
    return constrain(logits_BTMV, "batch", "length", "vocab", None)


def _constrain_table(chunking: Chunking, table: Table3D) -> Table3D:
    return constrain(table, *(("vocab", None, "embed") if chunking.is_tied else ("embed", "vocab", None)))
