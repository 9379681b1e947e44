"""One number that says whether two sets of parameters are the same, bit for bit."""

import hashlib
from typing import Any

import jax
import numpy as np

from flan_jax.checkpoint.trees import named_leaves


def params_digest(params: Any) -> str:
    """Returns the SHA-256 over names, dtypes, shapes and bytes of a tree's leaves, in sorted order of names.

    It does not depend on sharding, mesh or device, and needs host memory for one leaf at a time.

    Args:
      params: a tree of JAX or NumPy arrays.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(params).items()):
        array = _on_host(leaf)
        head = f"{name}\0{array.dtype}\0{','.join(map(str, array.shape))}\0"
        digest.update(head.encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _on_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
