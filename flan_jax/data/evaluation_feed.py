"""Evaluation batches: one example per row, sorted by length into a few shapes to limit compilations."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from flan_jax.data import features
from flan_jax.data.loader import Batch, ExampleSource
from flan_jax.data.manifest import Lengths
from flan_jax.errors import UserError

PADDING_ROW = -1


def default_bucket_lengths(limit: int) -> tuple[int, ...]:
    """Returns a quarter, a half and the whole of `limit`, the first two rounded up to multiples of 16.

    >>> default_bucket_lengths(512), default_bucket_lengths(100), default_bucket_lengths(16)
    ((128, 256, 512), (32, 64, 100), (16,))
    """
    parts = {min(limit, -(-limit // (divisor * 16)) * 16) for divisor in (4, 2)}
    return tuple(sorted(parts | {limit}))


def eval_batches(
    task: ExampleSource,
    *,
    batch_size: int,
    lengths: Lengths,
    indices: Sequence[int] | None = None,
    bucket_lengths: Sequence[int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields unpacked batches, longest inputs first, each with its rows' numbers in the task.

    The last batch is filled with copies of its last row, numbered -1 and without loss weight: a copy ends decoding
    when its original does, where an empty row might never end.

    Args:
      task: The examples.
      batch_size: Rows in a global batch.
      lengths: Tokens of a row, {"inputs": S, "targets": T}.
      indices: Which examples; None is all.
      bucket_lengths: Encoder lengths to pad to, besides S; None is S / 4 and S / 2.
      process_index: Which share of each batch's rows to yield.
      process_count: Processes that share each batch.

    Raises:
      UserError: An example longer than a row; a bucket longer than S; a batch that does not divide.
    """
    numbers = np.arange(len(task)) if indices is None else np.asarray(indices, np.int64)
    plan = _plan(
        np.asarray(task.lengths)[numbers, 0],
        batch_size=batch_size,
        limit=lengths["inputs"],
        bucket_lengths=bucket_lengths,
        share=(process_index, process_count),
    )
    yield from _batches(plan, lambda chosen: task.read(numbers[chosen]), numbers=numbers, targets=lengths["targets"])


def score_batches(
    pairs: Sequence[features.Example],
    *,
    batch_size: int,
    lengths: Lengths,
    bucket_lengths: Sequence[int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields batches of explicit (inputs, targets) pairs, each with its rows' numbers in `pairs`; see `eval_batches`.

    All batches of a call share one decoder length, the shortest of T / 4, T / 2 and T that holds the longest
    targets: options to rank are short, and the decoder with its vocabulary is most of the work.

    Raises:
      UserError: As `eval_batches`.
    """
    plan = _plan(
        np.array([len(inputs) for inputs, _ in pairs], np.int64),
        batch_size=batch_size,
        limit=lengths["inputs"],
        bucket_lengths=bucket_lengths,
        share=(process_index, process_count),
    )
    longest = max((len(targets) for _, targets in pairs), default=0)
    targets = _bucket(longest, default_bucket_lengths(lengths["targets"]), side="target")
    yield from _batches(plan, lambda chosen: [pairs[i] for i in chosen], numbers=np.arange(len(pairs)), targets=targets)


def _plan(
    input_lengths: np.ndarray,
    *,
    batch_size: int,
    limit: int,
    bucket_lengths: Sequence[int] | None,
    share: tuple[int, int],
) -> list[tuple[np.ndarray, int]]:
    """Returns this process's part of each batch, with the encoder length of the batch.

    A part is indices into `input_lengths`, int [2, rows]: first those to read, then the same with -1 for the copies
    that pad the batch.
    """
    index, count = share
    if batch_size < 1 or batch_size % count:
        raise UserError(f"An evaluation batch of {batch_size} rows does not divide over {count} processes.")
    buckets = default_bucket_lengths(limit) if bucket_lengths is None else tuple(sorted({*bucket_lengths, limit}))
    if buckets[-1] > limit or buckets[0] < 1:
        raise UserError(f"bucket_lengths must be between 1 and the input length {limit}; got {bucket_lengths}.")
    # Longest first, so that a lack of memory shows in the first batch. Stable, so that processes agree on ties.
    order = np.argsort(-input_lengths.astype(np.int64), kind="stable")
    own = slice(index * batch_size // count, (index + 1) * batch_size // count)
    plan = []
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        bucket = _bucket(int(input_lengths[chunk[0]]), buckets, side="input")
        padded = np.concatenate([chunk, np.full(batch_size - len(chunk), PADDING_ROW)])
        # A process's part may be all padding; what it copies then is the batch's last row all the same.
        copied = np.where(padded[own] == PADDING_ROW, chunk[-1], padded[own])
        plan.append((np.stack([copied, padded[own]]), bucket))
    return plan


def _batches(
    plan: list[tuple[np.ndarray, int]],
    read: Callable[[np.ndarray], Sequence[features.Example]],
    *,
    numbers: np.ndarray,
    targets: int,
) -> Iterator[tuple[Batch, np.ndarray]]:
    for (copied, chosen), inputs in plan:
        batch = features.unpacked_batch(read(copied), lengths={"inputs": inputs, "targets": targets})
        batch["decoder_loss_weights"][chosen == PADDING_ROW] = 0.0
        yield batch, np.where(chosen == PADDING_ROW, PADDING_ROW, numbers[chosen])


def _bucket(longest: int, buckets: Sequence[int], *, side: str) -> int:
    if longest > buckets[-1]:
        raise UserError(
            f"An example has {longest} {side} tokens; a row holds {buckets[-1]}. Shorten it when exporting, or raise "
            "the length."
        )
    return next(bucket for bucket in buckets if bucket >= longest)
