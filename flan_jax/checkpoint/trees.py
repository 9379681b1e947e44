"""Trees of arrays as names and leaves: what a checkpoint stores, compares and digests.

Names are path entries joined by "/". On disk every tree is nested dictionaries of strings, whatever mixture of
dataclasses, tuples and dictionaries it is in memory, so that an optimiser's state can be read without its classes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Named = dict[str, Any]


def named_leaves(tree: Any) -> Named:
    """Returns the leaves of a tree by name.

    >>> named_leaves({"encoder": {"kernel": 1}, "layers": (2, 3)})
    {'encoder/kernel': 1, 'layers/0': 2, 'layers/1': 3}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    assert len(named) == len(leaves), "two leaves of a tree have the same name"
    return named


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries of named leaves, as they lie on disk.

    >>> nested({"encoder/kernel": 1, "layers/0": 2})
    {'encoder': {'kernel': 1}, 'layers': {'0': 2}}
    """
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def unflatten(named: Mapping[str, Any], like: Any) -> Any:
    """Returns a tree of the structure of `like` with its leaves taken from `named`."""
    return jax.tree.unflatten(jax.tree.structure(like), [named[name] for name in named_leaves(like)])


def nbytes(tree: Any) -> int:
    """Returns the bytes of all leaves, arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def differences(*, wanted: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """Returns a line for every name whose shape or dtype differs, or that one side lacks."""
    lines = []
    for name in sorted({*wanted, *got}):
        want, have = (_spelled(side[name]) if name in side else None for side in (wanted, got))
        if have is None:
            lines.append(f"{name}: missing, wanted {want}")
        elif want is None:
            lines.append(f"{name}: got {have}, wanted nothing of this name")
        elif want != have:
            lines.append(f"{name}: got {have}, wanted {want}")
    return lines


def _spelled(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype)}[{','.join(str(size) for size in leaf.shape)}]"
