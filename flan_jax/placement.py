"""The rows of a batch: their shards on the devices of a mesh, and the process that reads each."""

import functools
import operator
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flan_jax.errors import UserError
from flan_jax.shapes import Batch
from flan_jax.sharding import ROWS, row_shards

# Encoder and decoder positions per core below which a step on CPU gets slower (docs/performance.md).
_POSITIONS_PER_CORE = 512


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of every array of a batch: rows over `replica`, `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def require_divisible_batch(batch_size: int, *, mesh: Mesh, num_microbatches: int = 1) -> None:
    """Refuses a global batch that does not split evenly into microbatches, or a microbatch that does not over the mesh.

    Raises:
      UserError: With the nearest numbers of rows that would.
    """
    if num_microbatches < 1 or batch_size % num_microbatches:
        raise UserError(
            f"A batch of {batch_size} rows cannot be split into {num_microbatches} microbatches: choose a divisor of "
            f"{batch_size}."
        )
    processes, step = jax.process_count(), row_shards(mesh) * num_microbatches  # A process holds complete shards.
    if batch_size < 1 or batch_size % step:
        below, above = batch_size // step * step, (batch_size // step + 1) * step
        allowed = f"{below} or {above}" if below > 0 else f"{above}"
        parts = f", in {num_microbatches} microbatches," if num_microbatches > 1 else ""
        raise UserError(
            f"A batch of {batch_size} rows{parts} does not divide over the mesh ({_described(mesh)}, {processes} "
            f"process{'es' if processes > 1 else ''}), which shards rows over {' * '.join(ROWS)}; allowed are "
            "multiples of "
            f"{step}. Use {allowed} rows, or a MeshPlan whose {' * '.join(ROWS)} divides "
            f"{batch_size // num_microbatches}."
        )


def microbatches(batch_size: int, *, positions: int, mesh: Mesh) -> tuple[int, str]:
    """Returns the number of microbatches that "auto" means, and a line with the reason.

    One on a GPU or TPU. On CPU, a microbatch of few rows fits caches better and needs a fraction of the memory, and
    costs nothing while each core has enough to multiply.

    Args:
      batch_size: Rows of an update, over all devices.
      positions: Of a row, encoder and decoder together.
      mesh: The mesh that each microbatch is sharded over.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return 1, ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    step, least = row_shards(mesh), _POSITIONS_PER_CORE * cores
    parts = max(
        (n for n in range(1, batch_size + 1) if batch_size % (n * step) == 0 and batch_size // n * positions >= least),
        default=1,
    )
    reason = f"microbatches {parts}: {batch_size // parts} rows at a time keep {cores} cores busy in less memory"
    return parts, reason if parts > 1 else ""


def _described(mesh: Mesh) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())


@functools.lru_cache(maxsize=8)
def reading_share(
    mesh: Mesh,
    *,
    process_index: int | None = None,
    process_of: Callable[[jax.Device], int] = operator.attrgetter("process_index"),
) -> tuple[int, int]:
    """Returns (index, count): the share of a batch's rows that a process reads, of `count` equal shares.

    Processes whose devices differ only along `tensor` hold the same rows, and read the same share.

    Args:
      mesh: The mesh of all processes.
      process_index: The process; None for this one.
      process_of: Returns the process of a device.

    Raises:
      UserError: On this mesh, processes would hold unequal or overlapping shares.
    """
    index = jax.process_index() if process_index is None else process_index
    count = row_shards(mesh)
    parts = batch_sharding(mesh).devices_indices_map((count,))
    held: dict[int, set[int]] = {}
    for device, (part,) in parts.items():
        held.setdefault(process_of(device), set()).add(part.indices(count)[0])
    # In the order of the rows, so that all processes number the shares alike.
    shares = sorted({frozenset(starts) for starts in held.values()}, key=min)
    if len({len(share) for share in shares}) > 1 or sum(map(len, shares)) != count:
        raise UserError(
            f"The mesh ({_described(mesh)}) gives the {len(held)} processes "
            f"{', '.join(str(len(held[process])) for process in sorted(held))} shards of a batch's rows, some perhaps "
            "in "
            "common: they cannot read equal shares. Choose a MeshPlan.tensor that divides the number of devices of a "
            "process, or is a multiple of it."
        )
    return shares.index(frozenset(held[index])), len(shares)


def put_batch(batch: Batch, *, mesh: Mesh) -> dict[str, jax.Array]:
    """Returns the batch on the mesh; `batch` holds the rows of this process's `reading_share`.

    Raises:
      UserError: The rows do not divide over the mesh.
    """
    arrays = {key: np.asarray(value) for key, value in batch.items()}
    shares = 1 if jax.process_count() == 1 else reading_share(mesh)[1]
    for rows in {value.shape[0] for value in arrays.values()}:
        require_divisible_batch(rows * shares, mesh=mesh)
    target = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(target, value) for key, value in arrays.items()}


def put_whole_batch(batch: Batch, *, mesh: Mesh) -> dict[str, jax.Array]:
    """Returns the batch on the mesh; every process holds all rows, as in an evaluation.

    Raises:
      UserError: The rows do not divide over the mesh.
    """
    if jax.process_count() == 1:
        return put_batch(batch, mesh=mesh)
    arrays = {key: np.asarray(value) for key, value in batch.items()}
    for rows in {value.shape[0] for value in arrays.values()}:
        require_divisible_batch(rows, mesh=mesh)
    target = batch_sharding(mesh)
    return {key: jax.make_array_from_callback(value.shape, target, _part_of(value)) for key, value in arrays.items()}


def _part_of(array: np.ndarray) -> Callable[[Any], np.ndarray]:
    return lambda index: array[index]
