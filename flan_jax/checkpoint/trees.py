"""Trees of arrays as leaves by name: what a checkpoint stores, compares and digests.

A name is the path's entries joined by "/". On disk every tree is nested dictionaries with string keys, whatever mixture
of dataclasses, tuples and dictionaries it is in memory. So an optimizer's state can be read without its classes.
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
    # An integer key and a text of the same digits, or a key with a slash, would collide.
    assert len(named) == len(leaves), "two leaves of a tree have the same name"
    return named


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries of named leaves, as they are stored on disk.

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
    """Returns the size of all leaves in bytes; leaves are arrays or `jax.ShapeDtypeStruct`."""
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def differences(*, expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """Returns a line for each name whose shape or dtype differs, or that only one side has."""
    lines = []
    for name in sorted({*expected, *got}):
        want, have = (_describe(side[name]) if name in side else None for side in (expected, got))
        if have is None:
            lines.append(f"{name}: missing, expected {want}")
        elif want is None:
            lines.append(f"{name}: got {have}, which the model does not have")
        elif want != have:
            lines.append(f"{name}: got {have}, expected {want}")
    return lines


def _describe(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype)}[{','.join(str(size) for size in leaf.shape)}]"
