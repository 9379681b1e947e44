"""Arrays of one Orbax item (OCDBT) as leaves, read a part at a time through TensorStore.

Orbax's own reader needs the destination of every array and reads all of them. Here opening lists keys, and a part costs
only itself. Both this project's `params` and T5X's `state` are stored this way.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from flan_jax.checkpoint.leaves import Index, Leaf
from flan_jax.errors import MissingFileError, UserError
from flan_jax.paths import Location, directory_spec

_TREE = "_METADATA"


def is_item(directory: Location) -> bool:
    """Whether a directory is a complete Orbax item."""
    return (directory / _TREE).exists() and (directory / "manifest.ocdbt").exists()


def open_arrays(directory: Location) -> dict[str, Leaf]:
    """Returns the arrays of an item by name, path entries joined by "/".

    Args:
      directory: The item's.

    Raises:
      UserError: An array that the item names has no metadata or lacks a chunk, or its type is not supported.
    """
    import tensorstore as ts

    base = {"driver": "ocdbt", "base": directory_spec(directory)}
    with _naming("the list of arrays", str(directory)):
        # One listing for all arrays; in a bucket, a question per chunk would be a request each.
        keys = {key.decode() for key in ts.KvStore.open(base).result().list().result()}
    # No cache: it would hold a second copy in memory of parts that are rarely read again.
    context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
    leaves = {}
    for path in _array_paths(directory):
        # Orbax joins path entries by dots in its keys. Entries never contain one.
        name, key = "/".join(path), ".".join(path)
        if f"{key}/.zarray" not in keys:
            raise UserError(f"{directory}: the array {name} is listed but missing. The checkpoint is incomplete.")
        spec = {"driver": "zarr", "kvstore": {**base, "path": f"{key}/"}}
        leaves[name] = zarr_leaf(spec, name=name, where=str(directory), context=context)
        require_chunks(leaves[name], keys=keys, prefix=f"{key}/", name=name, where=str(directory))
    return leaves


def zarr_leaf(spec: Mapping[str, Any], *, name: str, where: str, context: Any) -> Leaf:
    """Returns an array of TensorStore's zarr driver as a leaf.

    Args:
      spec: Of the array, JSON.
      name: For messages.
      where: The checkpoint, for messages.
      context: Of TensorStore, shared by the arrays of a checkpoint.
    """
    import tensorstore as ts

    with _naming(f"the array {name}", where):
        store = ts.open(dict(spec), context=context, open=True, read=True).result()
    shape = tuple(store.shape)
    chunk = tuple(chunk or size for chunk, size in zip(store.chunk_layout.read_chunk.shape or (), shape, strict=True))
    dtype = np.dtype(store.dtype.numpy_dtype)

    def read(index: Index) -> np.ndarray:
        with _naming(f"the array {name}", where):
            return np.asarray(store[index].read().result())

    return Leaf(shape=shape, dtype=dtype, read=read, chunk=chunk)


def require_chunks(leaf: Leaf, *, keys: set[str], prefix: str, name: str, where: str) -> None:
    """Rejects an array with missing chunks, which the format would read as its fill value.

    Args:
      leaf: From `zarr_leaf`.
      keys: All stored keys.
      prefix: Of the array's keys.
      name: For messages.
      where: The checkpoint, for messages.
    """
    assert leaf.chunk is not None
    missing = [key for key in _chunk_keys(leaf.shape, leaf.chunk) if f"{prefix}{key}" not in keys]
    if missing:
        raise UserError(f"{where}: the array {name} lacks its chunk {missing[0]} ({len(missing)} missing).")


class _naming:
    """Turns an error of TensorStore into a message that names the array."""

    def __init__(self, what: str, where: str) -> None:
        self._text = f"{where}: {what} cannot be read"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ValueError | OSError | RuntimeError):
            reason = str(error).splitlines()[0][:300]
            raise UserError(
                f"{self._text}: {reason}. It is truncated or changed; copy the checkpoint again."
            ) from error


def _array_paths(directory: Location) -> list[tuple[str, ...]]:
    try:
        tree = json.loads((directory / _TREE).read_text())["tree_metadata"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{directory} has no {_TREE}: the checkpoint is incomplete.") from error
    except (json.JSONDecodeError, KeyError) as error:
        raise UserError(f"{directory / _TREE} cannot be read: it is truncated.") from error
    return [
        tuple(part["key"] for part in entry["key_metadata"])
        for entry in tree.values()
        # Empty states are listed, without an array.
        if entry["value_metadata"]["value_type"] != "None"
    ]


def _chunk_keys(shape: tuple[int, ...], chunk: tuple[int, ...]) -> list[str]:
    """Returns zarr's names of an array's chunks, "0.1"; a scalar's only chunk is "0"."""
    counts = [-(-size // length) for size, length in zip(shape, chunk, strict=True)]
    return [".".join(map(str, position)) or "0" for position in itertools.product(*map(range, counts))]
