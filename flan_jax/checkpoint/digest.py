"""A digest of parameters: two sets with the same digest are equal bit for bit."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from flan_jax.checkpoint.leaves import Leaf
from flan_jax.checkpoint.trees import named_leaves

_BLOCK_BYTES = 2**28


def params_digest(params: Any) -> str:
    """Returns the SHA-256 over names, dtypes, shapes and bytes of a tree's leaves, in sorted order of names.

    The digest does not depend on sharding, mesh or device. Host memory holds one leaf at a time.

    Args:
      params: A tree of JAX or NumPy arrays.

    Returns:
      64 hexadecimal digits.
    """
    arrays = ((name, _on_host(leaf)) for name, leaf in sorted(named_leaves(params).items()))
    return _digest((name, array.dtype, array.shape, iter([array])) for name, array in arrays)


def leaves_digest(params: Mapping[str, Leaf]) -> str:
    """Returns the digest of leaves that are still in their files, a block of one leaf in memory at a time."""
    return _digest((name, leaf.dtype, leaf.shape, _parts(leaf)) for name, leaf in sorted(params.items()))


def _digest(named: Iterator[tuple[str, np.dtype, tuple[int, ...], Iterator[np.ndarray]]]) -> str:
    digest = hashlib.sha256()
    for name, dtype, shape, parts in named:
        # Shapes and types too: the same bytes as another type or shape are another parameter.
        digest.update(f"{name}\0{dtype}\0{','.join(map(str, shape))}\0".encode())
        for part in parts:
            # As bytes, because hashlib does not accept arrays of bfloat16.
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _parts(leaf: Leaf) -> Iterator[np.ndarray]:
    return (leaf.read(index) for index in leaf.blocks(max_bytes=_BLOCK_BYTES))


def _on_host(leaf: Any) -> np.ndarray:
    # A collective operation: every process must digest, in the same (sorted) order.
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
