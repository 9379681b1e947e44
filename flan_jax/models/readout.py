"""Reading logits from the decoder's vectors a piece of the vocabulary at a time, so that all of them never exist at once.

A loss needs four numbers of the logits of a position, which are found piece by piece; the backward pass makes each piece
again. It is cut over the vocabulary, and not over positions, because the gradient of the table is then written once, a
piece after the other, and added up over devices once. Cut over positions, a gradient of the whole table is read and written
(and, over a sharded batch, all-reduced) for every piece.

Where the vocabulary lies on several devices every one of them cuts its own share (the axis M below), and what they found is
put together at the end.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flan_jax.models.execution import Execution
from flan_jax.models.layers import constrain, project, shards_of
from flan_jax.shapes import LogitStatistics


class Head(NamedTuple):
    """What logits are read with: vectors . table / divisor."""

    table: jax.Array
    """Float32; [V, D] where it is the embedding table, else a kernel [D, V]."""
    is_tied: bool
    divisor: float

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.table.shape[0 if self.is_tied else 1]

    def logits(self, vectors_BTD: jax.Array) -> jax.Array:
        """Returns float32 [B, T, V], all at once."""
        kernel_DV = self.table.T if self.is_tied else self.table
        logits_BTV = project(vectors_BTD.astype(jnp.float32), kernel_DV)
        if self.divisor != 1.0:
            logits_BTV = logits_BTV / jnp.float32(self.divisor)
        return constrain(logits_BTV, "batch", "length", "vocab")


class Cut(NamedTuple):
    """How the table is taken apart; static."""

    is_tied: bool
    divisor: float
    shards: int
    """Devices that the vocabulary lies on, each with V / shards rows."""
    width: int
    """Rows of a piece on one device; the last piece may have fewer."""


class UnreadLogits(NamedTuple):
    """Logits that have not been read: the decoder's vectors, and the head that would."""

    vectors_BTD: jax.Array
    head: Head
    shards: int
    width: int

    def logits(self) -> jax.Array:
        """Returns float32 [B, T, V], for who has to see all of them."""
        return self.head.logits(self.vectors_BTD)

    def statistics(self, targets_BT: jax.Array) -> LogitStatistics:
        """Returns what a loss needs of each position, having read the logits in pieces."""
        head = self.head
        cut = Cut(is_tied=head.is_tied, divisor=head.divisor, shards=self.shards, width=self.width)
        log_z_BT, target_BT, right_BT = _read(cut, self.vectors_BTD, head.table, targets_BT)
        # Where no loss asks for the sum, the compiler leaves this out.
        column_D = jnp.sum(head.table, axis=0 if head.is_tied else 1)
        total_BT = jnp.dot(self.vectors_BTD.astype(jnp.float32), column_D) / jnp.float32(head.divisor)
        return LogitStatistics(
            log_z=log_z_BT, target=target_BT, total=total_BT, is_right=right_BT, vocab_size=head.vocab_size
        )


def read(vectors_BTD: jax.Array, head: Head, *, execution: Execution) -> jax.Array | UnreadLogits:
    """Returns the logits [B, T, V], or, where `execution` wants them read in pieces, what can do so."""
    B, T, _ = vectors_BTD.shape
    vectors_BTD = constrain(vectors_BTD, "batch", "length", "width")
    positions, shards = math.ceil(B * T / shards_of("batch")), shards_of("vocab")
    # A table that is cut along D too is brought together a piece at a time, and never whole.
    gathered = vectors_BTD.shape[-1] if shards_of("embed") > 1 else 0
    if not execution.chunks_logits(4 * positions * head.vocab_size // shards, is_cut=gathered > 0):
        return head.logits(vectors_BTD)
    width = width_of(
        head.vocab_size, positions=max(positions, gathered), shards=shards, chunk_bytes=execution.chunk_bytes
    )
    return UnreadLogits(vectors_BTD=vectors_BTD, head=head, shards=shards, width=width)


def width_of(vocab_size: int, *, positions: int, shards: int, chunk_bytes: int) -> int:
    """Returns how many rows of the table a piece takes of each shard, all pieces nearly alike.

    >>> width_of(32_128, positions=1024, shards=1, chunk_bytes=32 << 20)  # 4 pieces of 31.4 MiB
    8032
    >>> width_of(32_128, positions=1024, shards=8, chunk_bytes=32 << 20)
    4016
    """
    rows = vocab_size // shards
    pieces = math.ceil(rows / max(1, chunk_bytes // (4 * positions)))
    return math.ceil(rows / pieces)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _read(cut: Cut, vectors_BTD, table, targets_BT):
    """Log Z, the target's logit, and whether argmax is the target: float32 [B, T] each."""
    return _read_forward(cut, vectors_BTD, table, targets_BT)[0]


def _read_forward(cut: Cut, vectors_BTD, table, targets_BT):
    pieces_of, x_BTD = _by_shard(cut, table), vectors_BTD.astype(jnp.float32)

    def visit(found, start, width: int):
        peak_BTM, sum_BTM, target_BTM, earlier_BTM = found
        logits_BTMV = _piece_logits(cut, x_BTD, _piece(cut, pieces_of, start, width))
        place_BTM = _place_in_piece(cut, pieces_of, targets_BT, start)
        new_peak_BTM = jnp.maximum(peak_BTM, jnp.max(logits_BTMV, axis=-1))
        sum_BTM = sum_BTM * jnp.exp(peak_BTM - new_peak_BTM) + jnp.sum(
            jnp.exp(logits_BTMV - new_peak_BTM[..., None]), axis=-1
        )
        is_here_BTM = (place_BTM >= 0) & (place_BTM < width)
        taken_BTM = jnp.take_along_axis(logits_BTMV, place_BTM[..., None], axis=-1, mode="clip")[..., 0]
        # argmax is the first of the largest. An index reduction would cost more than the product on CPU.
        before_BTMV = jnp.where(_columns(width) < place_BTM[..., None], logits_BTMV, -jnp.inf)
        return (
            new_peak_BTM,
            sum_BTM,
            target_BTM + jnp.where(is_here_BTM, taken_BTM, 0.0),
            jnp.maximum(earlier_BTM, jnp.max(before_BTMV, axis=-1)),
        )

    zero_BTM = jnp.zeros((*targets_BT.shape, cut.shards), jnp.float32)
    empty = (zero_BTM - jnp.inf, zero_BTM, zero_BTM, zero_BTM - jnp.inf)
    peak_BTM, sum_BTM, target_BTM, earlier_BTM = _over_pieces(cut, pieces_of, visit, empty)
    peak_BT1 = jnp.max(peak_BTM, axis=-1, keepdims=True)
    log_z_BT = peak_BT1[..., 0] + jnp.log(jnp.sum(sum_BTM * jnp.exp(peak_BTM - peak_BT1), axis=-1))
    target_BT = jnp.sum(target_BTM, axis=-1)
    is_right_BT = (target_BT >= peak_BT1[..., 0]) & (jnp.max(earlier_BTM, axis=-1) < target_BT)
    return (log_z_BT, target_BT, is_right_BT.astype(jnp.float32)), (vectors_BTD, table, targets_BT, log_z_BT)


def _read_backward(cut: Cut, kept, gradients):
    vectors_BTD, table, targets_BT, log_z_BT = kept
    log_z_grad_BT, target_grad_BT, _ = gradients
    pieces_of, x_BTD = _by_shard(cut, table), vectors_BTD.astype(jnp.float32)

    def visit(found, start, width: int):
        x_grad_MBTD, table_grad = found
        piece = _piece(cut, pieces_of, start, width)
        share_BTMV = jnp.exp(_piece_logits(cut, x_BTD, piece) - log_z_BT[..., None, None])
        is_target_BTMV = _columns(width) == _place_in_piece(cut, pieces_of, targets_BT, start)[..., None]
        grad_BTMV = log_z_grad_BT[..., None, None] * share_BTMV
        grad_BTMV = grad_BTMV + jnp.where(is_target_BTMV, target_grad_BT[..., None, None], 0.0)
        # Computed once for both products, as in `layers.project`.
        grad_BTMV = jax.lax.optimization_barrier(_constrain_logits(grad_BTMV / jnp.float32(cut.divisor)))
        product = "BTMV,MVD->MBTD" if cut.is_tied else "BTMV,DMV->MBTD"
        x_grad_MBTD = x_grad_MBTD + jnp.einsum(product, grad_BTMV, piece)
        piece_grad = (
            jnp.einsum("BTMV,BTD->MVD", grad_BTMV, x_BTD)
            if cut.is_tied
            else jnp.einsum("BTD,BTMV->DMV", x_BTD, grad_BTMV)
        )
        piece_grad = _constrain_table(
            cut, piece_grad
        )  # Added up over devices to each its part, and not to all the whole.
        table_grad = jax.lax.dynamic_update_slice_in_dim(table_grad, piece_grad, start, axis=_axis(cut))
        x_grad_MBTD = constrain(x_grad_MBTD, "vocab", "batch", "length", "width")
        return x_grad_MBTD, _constrain_table(cut, table_grad)

    empty = (jnp.zeros((cut.shards, *x_BTD.shape), jnp.float32), jnp.zeros(pieces_of.shape, jnp.float32))
    x_grad_MBTD, table_grad = _over_pieces(cut, pieces_of, visit, empty)
    x_grad_BTD = jnp.sum(x_grad_MBTD, axis=0).astype(vectors_BTD.dtype)
    return x_grad_BTD, table_grad.reshape(table.shape).astype(table.dtype), None


_read.defvjp(_read_forward, _read_backward)


def _over_pieces(cut: Cut, table, visit, found):
    """What `visit(found, start, width)` has found after every piece."""
    rows = table.shape[_axis(cut)]
    whole = rows // cut.width
    if whole > 1:
        starts = cut.width * jnp.arange(whole)
        found, _ = jax.lax.scan(lambda found, start: (visit(found, start, cut.width), None), found, starts)
    else:
        found = visit(found, jnp.int32(0), cut.width)
    rest = rows - whole * cut.width
    return visit(found, jnp.int32(whole * cut.width), rest) if rest else found


def _axis(cut: Cut) -> int:
    """The axis of `_by_shard`'s table along which pieces follow one another."""
    return 1 if cut.is_tied else 2


def _by_shard(cut: Cut, table):
    """The table as [M, V / M, D] or [D, M, V / M]."""
    if cut.is_tied:
        table = table.reshape(cut.shards, -1, table.shape[1])
    else:
        table = table.reshape(table.shape[0], cut.shards, -1)
    return _constrain_table(cut, table.astype(jnp.float32))


def _piece(cut: Cut, table, start, width: int):
    """Some rows of every shard; where the table is cut along D too, they alone are brought together."""
    piece = jax.lax.dynamic_slice_in_dim(table, start, width, axis=_axis(cut))
    piece = _constrain_table(cut, piece)  # Else the partitioner brings the whole share together, before the loop.
    return constrain(piece, *(("vocab", None, None) if cut.is_tied else (None, "vocab", None)))


def _piece_logits(cut: Cut, x_BTD, piece):
    logits_BTMV = jnp.einsum("BTD,MVD->BTMV" if cut.is_tied else "BTD,DMV->BTMV", x_BTD, piece)
    if cut.divisor != 1.0:
        logits_BTMV = logits_BTMV / jnp.float32(cut.divisor)
    return _constrain_logits(logits_BTMV)


def _place_in_piece(cut: Cut, table, targets_BT, start):
    """Where each target is, counted from the beginning of each shard's piece; int32 [B, T, M]."""
    first_M = start + table.shape[_axis(cut)] * jnp.arange(cut.shards)
    return targets_BT[..., None] - first_M[None, None]


def _columns(width: int):
    return jnp.arange(width)[None, None, None]


def _constrain_logits(logits_BTMV):
    return constrain(logits_BTMV, "batch", "length", "vocab", None)


def _constrain_table(cut: Cut, table):
    return constrain(table, *(("vocab", None, "embed") if cut.is_tied else ("embed", "vocab", None)))
