"""T5's attention as a Pallas kernel: no array of [B, H, T, S] or [H, T, S] exists, forward or backward.

The bias is computed on chip from its table [H, 32]. Packed rows are masked by segment ids, and blocks of keys that have
no segment in common with a block of queries are not read at all. The table's gradient is summed in float32 in a fixed
order, without atomic additions, so that a run is reproducible to the bit. The terms are those of FlashAttention-2
(2307.08691). `attention_tiles` is the computation of one program; here are the grids, the blocks, the pairs of blocks
that are computed, and the rule for the gradient.

On NVIDIA GPUs (Ampere and later) it is compiled by Pallas and Triton; elsewhere it is interpreted, for tests. JAX 0.11
and 0.12 deprecate their Triton backend without naming a version for its removal. The `DeprecationWarning` is raised
when a kernel is lowered for a GPU, so this module is imported only where the kernel is used.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from flan_jax.models.acceleration import attention_tiles as tiles
from flan_jax.models.relative_position import RELPOS_BUCKETS, relative_position_buckets
from flan_jax.shapes import DecoderIds, EncoderIds

NO_SEGMENT = -1  # Of positions that only fill the last block. Padding of the row is segment 0.
SMALLEST_BLOCK = 16  # Of a product on tensor cores.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tile sizes of one program, powers of two, and options of Triton's compiler."""

    queries: int
    keys: int
    warps: int = 4
    stages: int = 2

    def within(self, query_length: int, key_length: int) -> "Tiling":
        """Returns the tiling with blocks no longer than the rows need."""
        queries = min(self.queries, max(pl.next_power_of_2(query_length), SMALLEST_BLOCK))
        keys = min(self.keys, max(pl.next_power_of_2(key_length), SMALLEST_BLOCK))
        return dataclasses.replace(self, queries=queries, keys=keys)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tilings:
    """One tiling per kernel; `query_gradient` needs blocks of queries that are a multiple of its blocks of keys."""

    forward: Tiling = Tiling(queries=128, keys=64)
    query_gradient: Tiling = Tiling(queries=64, keys=64)
    key_value_gradient: Tiling = Tiling(queries=64, keys=64)

    def within(self, query_length: int, key_length: int) -> "Tilings":
        """Returns the tiling with blocks no longer than the rows need."""
        within = {
            field.name: getattr(self, field.name).within(query_length, key_length) for field in dataclasses.fields(self)
        }
        gradient = within["query_gradient"]
        # The table's gradient numbers diagonals of tiles in whole blocks of keys, so blocks of queries must be
        # multiples.
        within["query_gradient"] = dataclasses.replace(gradient, keys=min(gradient.keys, gradient.queries))
        return Tilings(**within)

    def padded(self, query_length: int, key_length: int) -> tuple[int, int]:
        """Returns both lengths, rounded up to complete blocks of every kernel."""
        all_ = (self.forward, self.query_gradient, self.key_value_gradient)
        longest = max(each.queries for each in all_), max(each.keys for each in all_)
        return math.ceil(query_length / longest[0]) * longest[0], math.ceil(key_length / longest[1]) * longest[1]


def tilings_for(head_dim: int, dtype: jnp.dtype) -> Tilings:
    """Returns tilings whose programs fit registers and shared memory according to the compiler. They are not timed."""
    if dtype.itemsize > 2:  # Multiplied without tensor cores.
        small = Tiling(queries=32, keys=32)
        return Tilings(forward=small, query_gradient=small, key_value_gradient=small)
    if head_dim > 64:
        return Tilings(
            forward=Tiling(queries=128, keys=64, warps=8),
            query_gradient=Tiling(queries=64, keys=64, warps=8),
            key_value_gradient=Tiling(queries=64, keys=64, warps=8),
        )
    return Tilings()


def attend_in_tiles(
    query_BTHK: Float[Array, "B T H K"],
    key_BSHK: Float[Array, "B S H K"],
    value_BSHK: Float[Array, "B S H K"],
    table_HR: Float[Array, "H R"] | None,
    *,
    query_ids_BT: DecoderIds,
    key_ids_BS: EncoderIds,
    causal: bool = False,
    tilings: Tilings | None = None,
) -> Float[Array, "B T H K"]:
    """Returns softmax(Q K^T + bias) V over the keys of each query's own segment.

    Differentiable in the first four arguments. The output of a query whose segment has no key is 0.

    Args:
      query_BTHK: Queries.
      key_BSHK: Keys.
      value_BSHK: Values.
      table_HR: The bias of each head and bucket of distances; None for no bias. With `causal`, one-sided buckets.
      query_ids_BT: Segment ids; padding, 0, is a segment like any other. In a packed row they do not decrease up to the
        padding at the end, so that only blocks with a common segment are read. Any other order is correct but slower.
      key_ids_BS: Segment ids.
      causal: Whether keys later than the query are masked.
      tilings: Block sizes, which change the result by rounding only; None for `tilings_for`.
    """
    T, S = query_BTHK.shape[1], key_BSHK.shape[1]
    tilings = (tilings or tilings_for(query_BTHK.shape[3], query_BTHK.dtype)).within(T, S)
    more_T, more_S = (padded - length for padded, length in zip(tilings.padded(T, S), (T, S), strict=True))
    # The segment of filling positions occurs in no row, so that no real query attends to them.
    mixed_BTHK = _attend(
        causal,
        tilings,
        *(_lengthened(x, more) for x, more in ((query_BTHK, more_T), (key_BSHK, more_S), (value_BSHK, more_S))),
        None if table_HR is None else table_HR.astype(jnp.float32),
        _lengthened(query_ids_BT.astype(jnp.int32), more_T, NO_SEGMENT),
        _lengthened(key_ids_BS.astype(jnp.int32), more_S, NO_SEGMENT),
    )
    return mixed_BTHK[:, :T]


def _lengthened(x, more: int, value=0):
    return jnp.pad(x, [(0, more if axis == 1 else 0) for axis in range(x.ndim)], constant_values=value) if more else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(causal, tilings, query_BTHK, key_BSHK, value_BSHK, table_HR, query_ids_BT, key_ids_BS):
    return _forward(causal, tilings, query_BTHK, key_BSHK, value_BSHK, table_HR, query_ids_BT, key_ids_BS)[0]


def _forward(causal, tilings, query_BTHK, key_BSHK, value_BSHK, table_HR, query_ids_BT, key_ids_BS):
    tiling = tilings.forward
    B, T, H, _ = query_BTHK.shape
    first_BI, end_BI = _first_and_end(_visible_blocks(query_ids_BT, key_ids_BS, tiling, causal=causal))
    mixed_BTHK, log_sum_BHT = _call(
        functools.partial(tiles.forward, block_keys=tiling.keys, causal=causal),
        "t5_attention",
        tiling,
        grid=(T // tiling.queries, H, B),
        reads=tiles.Reads(
            query=query_BTHK,
            key=key_BSHK,
            value=value_BSHK,
            query_ids=query_ids_BT,
            key_ids=key_ids_BS,
            first=first_BI,
            end=end_BI,
            near=_near(table_HR, causal=causal),
        ),
        specs=_of_queries(tiling.queries),
        outputs=[
            (jax.ShapeDtypeStruct(query_BTHK.shape, query_BTHK.dtype), _rows(tiling.queries)),
            (jax.ShapeDtypeStruct((B, H, T), jnp.float32), _per_head(tiling.queries)),
        ],
    )
    residuals = (query_BTHK, key_BSHK, value_BSHK, table_HR, query_ids_BT, key_ids_BS, mixed_BTHK, log_sum_BHT)
    return mixed_BTHK, residuals


def _backward(causal, tilings, residuals, grad_BTHK):
    query_BTHK, key_BSHK, value_BSHK, table_HR, query_ids_BT, key_ids_BS, mixed_BTHK, log_sum_BHT = residuals
    # Tensor cores multiply operands of one type.
    grad_BTHK = grad_BTHK.astype(query_BTHK.dtype)
    # The sum over keys in the softmax's gradient, once for all three gradient programs (FlashAttention-2, algorithm 2).
    shared_BHT = jnp.einsum(
        "BTHK,BTHK->BHT", grad_BTHK.astype(jnp.float32), mixed_BTHK.astype(jnp.float32), precision="highest"
    )
    reads = tiles.Reads(
        query=query_BTHK,
        key=key_BSHK,
        value=value_BSHK,
        query_ids=query_ids_BT,
        key_ids=key_ids_BS,
        grad=grad_BTHK,
        log_sum=log_sum_BHT,
        shared=shared_BHT,
        near=_near(table_HR, causal=causal),
    )
    query_grad_BTHK, table_grad_HR = _query_and_table_gradient(reads, tilings.query_gradient, causal=causal)
    key_grad_BSHK, value_grad_BSHK = _key_value_gradient(reads, tilings.key_value_gradient, causal=causal)
    # Segment ids are integers without a gradient.
    return query_grad_BTHK, key_grad_BSHK, value_grad_BSHK, table_grad_HR, None, None


_attend.defvjp(_forward, _backward)


def _key_value_gradient(reads: tiles.Reads, tiling: Tiling, *, causal: bool):
    B, S, H, _ = reads.key.shape
    visible_BIJ = _visible_blocks(reads.query_ids, reads.key_ids, tiling, causal=causal)
    first_BJ, end_BJ = _first_and_end(jnp.swapaxes(visible_BIJ, 1, 2))
    return _call(
        functools.partial(tiles.key_value_gradient, block_queries=tiling.queries, causal=causal),
        "t5_attention_key_value_gradient",
        tiling,
        grid=(S // tiling.keys, H, B),
        reads=reads._replace(first=first_BJ, end=end_BJ),
        specs=_of_queries()._replace(key=_rows(tiling.keys), value=_rows(tiling.keys), key_ids=_ids(tiling.keys)),
        outputs=[(jax.ShapeDtypeStruct(x.shape, x.dtype), _rows(tiling.keys)) for x in (reads.key, reads.value)],
    )


def _query_and_table_gradient(reads: tiles.Reads, tiling: Tiling, *, causal: bool):
    B, T, H, _ = reads.query.shape
    blocks = T // tiling.queries
    first_BI, end_BI = _first_and_end(_visible_blocks(reads.query_ids, reads.key_ids, tiling, causal=causal))
    reads = reads._replace(first=first_BI, end=end_BI)
    near_tiles = _near_tiles(tiling, T, reads.key.shape[1], causal=causal)
    far_sums = [] if reads.near is None else [(jax.ShapeDtypeStruct((B, H, blocks), jnp.float32), _sum)] * 2
    query_grad_BTHK, *far_BHI = _call(
        functools.partial(tiles.query_gradient, block_keys=tiling.keys, causal=causal, near_tiles=near_tiles),
        "t5_attention_query_gradient",
        tiling,
        grid=(blocks, H, B),
        reads=reads,
        specs=_of_queries(tiling.queries),
        outputs=[(jax.ShapeDtypeStruct(reads.query.shape, reads.query.dtype), _rows(tiling.queries)), *far_sums],
    )
    if reads.near is None:
        return query_grad_BTHK, None
    diagonals = near_tiles[1] - near_tiles[0] + 1
    shape = (B, H, diagonals, tiling.queries, tiling.keys)
    (sums_BHOTS,) = _call(
        functools.partial(tiles.table_gradient, causal=causal, first_near_tile=near_tiles[0]),
        "t5_attention_table_gradient",
        tiling,
        grid=(diagonals, H, B),
        reads=reads,
        specs=_of_queries()._replace(first=_ids(), end=_ids()),
        outputs=[(jax.ShapeDtypeStruct(shape, jnp.float32), _diagonal)],
    )
    return query_grad_BTHK, _by_bucket(sums_BHOTS, far_BHI, tiling, first_near_tile=near_tiles[0], causal=causal)


def _by_bucket(sums_BHOTS, far_BHI, tiling, *, first_near_tile: int, causal: bool):
    """Returns the table's gradient [H, 32]: the sums of each distance, added to its bucket."""
    offset_O11 = (first_near_tile + np.arange(sums_BHOTS.shape[2]))[:, None, None] * tiling.keys
    distance_OTS = offset_O11 + np.arange(tiling.keys)[None, None, :] - np.arange(tiling.queries)[None, :, None]
    # A product with one-hot rows, because a scatter adds in no fixed order on a GPU.
    one_hot = jax.nn.one_hot(_buckets(distance_OTS.reshape(-1), causal=causal), RELPOS_BUCKETS, dtype=jnp.float32)
    sums_HX = jnp.sum(sums_BHOTS, axis=0).reshape(sums_BHOTS.shape[1], -1)
    table_grad_HR = jnp.dot(sums_HX, one_hot, precision=jax.lax.Precision.HIGHEST)
    for sums_BHI, distance in zip(far_BHI, (-tiles.NEAR, tiles.NEAR), strict=True):
        bucket = int(_buckets(np.array([distance]), causal=causal)[0])
        table_grad_HR = table_grad_HR.at[:, bucket].add(jnp.sum(sums_BHI, axis=(0, 2)))
    return table_grad_HR


def _buckets(distance: np.ndarray, *, causal: bool) -> np.ndarray:
    return relative_position_buckets(distance, bidirectional=not causal)


def _near(table_HR, *, causal: bool) -> jax.Array | None:
    """Returns the biases of near distances, [H, 256] in base 2; None without a bias."""
    if table_HR is None:
        return None
    one_hot = np.eye(RELPOS_BUCKETS, dtype=np.float32)[:, _buckets(np.arange(-tiles.NEAR, tiles.NEAR), causal=causal)]
    return jnp.dot(table_HR, one_hot, precision=jax.lax.Precision.HIGHEST) * tiles.LOG2E


def _near_tiles(tiling: Tiling, query_length: int, key_length: int, *, causal: bool) -> tuple[int, int]:
    """Returns the first and last block of keys, relative to a block of queries, whose tile has several buckets."""
    buckets = _buckets(np.arange(-tiles.NEAR, tiles.NEAR + 1), causal=causal)
    left = -tiles.NEAR + int(np.argmax(buckets != buckets[0]))  # The smallest distance outside the last bucket.
    right = 0 if causal else tiles.NEAR - int(np.argmax(buckets[::-1] != buckets[-1]))
    per_row = tiling.queries // tiling.keys
    first = max(math.ceil((left - tiling.keys + 1) / tiling.keys), -(query_length // tiling.queries - 1) * per_row)
    last = min((right + tiling.queries - 1) // tiling.keys, key_length // tiling.keys - 1)
    return first, last


def _visible_blocks(query_ids_BT, key_ids_BS, tiling: Tiling, *, causal: bool) -> jax.Array:
    """Returns bool [B, I, J]: whether a block of queries and a block of keys may have a segment in common."""

    def ends(ids_BT, block):
        # Padding is at the end of a row. As the largest segment it leaves the range of segments of a block narrow.
        ids_BIX = jnp.where(ids_BT > 0, ids_BT, 2**30 - ids_BT).reshape(ids_BT.shape[0], -1, block)
        return jnp.min(ids_BIX, axis=2), jnp.max(ids_BIX, axis=2)

    query_least, query_most = (x[:, :, None] for x in ends(query_ids_BT, tiling.queries))
    key_least, key_most = (x[:, None, :] for x in ends(key_ids_BS, tiling.keys))
    # Overlapping ranges never miss a common segment; a pair without one is masked, and costs only time.
    visible_BIJ = (query_least <= key_most) & (key_least <= query_most)
    if causal:
        blocks, key_blocks = visible_BIJ.shape[1:]
        last_query = np.arange(1, blocks + 1)[:, None] * tiling.queries - 1
        visible_BIJ = visible_BIJ & jnp.asarray(np.arange(key_blocks)[None] * tiling.keys <= last_query)[None]
    return visible_BIJ


def _first_and_end(visible_BIJ: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns, for each block i, the first visible block j, and the last one plus 1: int32 [B, I] each."""
    has_any_BI = jnp.any(visible_BIJ, axis=2)
    first_BI = jnp.argmax(visible_BIJ, axis=2)
    end_BI = visible_BIJ.shape[2] - jnp.argmax(visible_BIJ[:, :, ::-1], axis=2)
    first_BI, end_BI = (jnp.where(has_any_BI, edge, 0).astype(jnp.int32) for edge in (first_BI, end_BI))
    return first_BI, end_BI


# The part of an array that a program (i, h, b) reads: block i of `block` positions, or with 0 all positions.
Spec = Callable[[tuple[int, ...]], pl.BlockSpec]


def _rows(block: int = 0) -> Spec:
    if block:
        return lambda shape: pl.BlockSpec((None, block, None, shape[3]), lambda i, h, b: (b, i, h, 0))
    return lambda shape: pl.BlockSpec((None, shape[1], None, shape[3]), lambda i, h, b: (b, 0, h, 0))


def _ids(block: int = 0) -> Spec:
    if block:
        return lambda shape: pl.BlockSpec((None, block), lambda i, h, b: (b, i))
    return lambda shape: pl.BlockSpec((None, shape[1]), lambda i, h, b: (b, 0))


def _per_head(block: int = 0) -> Spec:
    if block:
        return lambda shape: pl.BlockSpec((None, None, block), lambda i, h, b: (b, h, i))
    return lambda shape: pl.BlockSpec((None, None, shape[2]), lambda i, h, b: (b, h, 0))


def _edge(shape: tuple[int, ...]) -> pl.BlockSpec:
    """Returns the spec of one number of [B, I]: that of block i of a row."""
    return pl.BlockSpec((None, None), lambda i, h, b: (b, i))


def _sum(shape: tuple[int, ...]) -> pl.BlockSpec:
    """Returns the spec of one number of [B, H, I]: that of block i of a head."""
    return pl.BlockSpec((None, None, None), lambda i, h, b: (b, h, i))


def _diagonal(shape: tuple[int, ...]) -> pl.BlockSpec:
    """Returns the spec of one tile of [B, H, I, T, S]."""
    return pl.BlockSpec((None, None, None, *shape[3:]), lambda i, h, b: (b, h, i, 0, 0))


def _head(shape: tuple[int, ...]) -> pl.BlockSpec:
    """Returns the spec of one row of [H, N]."""
    return pl.BlockSpec((None, shape[1]), lambda i, h, b: (h, 0))


def _of_queries(block: int = 0) -> tiles.Reads:
    """Returns the specs of a program that visits all keys for a block of queries; with 0, for all queries."""
    return tiles.Reads(
        query=_rows(block),
        key=_rows(),
        value=_rows(),
        query_ids=_ids(block),
        key_ids=_ids(),
        first=_edge,
        end=_edge,
        grad=_rows(block),
        log_sum=_per_head(block),
        shared=_per_head(block),
        near=_head,
    )


def _call(
    kernel, name: str, tiling: Tiling, *, grid, reads: tiles.Reads, specs: tiles.Reads, outputs: Sequence
) -> Sequence[jax.Array]:
    """Runs a kernel over a grid of (blocks, heads, rows): compiled if the program is for a GPU, else interpreted."""
    in_specs = [None if array is None else spec(array.shape) for array, spec in zip(reads, specs, strict=True)]

    def call(reads, *, interpret: bool):
        return pl.pallas_call(
            kernel,
            grid=grid,
            in_specs=[tiles.Reads(*in_specs)],
            out_specs=[spec(shape.shape) for shape, spec in outputs],
            out_shape=[shape for shape, _ in outputs],
            compiler_params=None
            if interpret
            else triton.CompilerParams(num_warps=tiling.warps, num_stages=tiling.stages),
            interpret=interpret,
            name=name,
        )(reads)

    # By the platform that the program is lowered for, because programs for a GPU are also compiled without one.
    return jax.lax.platform_dependent(
        reads,
        cuda=functools.partial(call, interpret=False),
        default=functools.partial(call, interpret=True),
    )
