"""Arrays of one Orbax item (OCDBT) as leaves, read a part at a time through TensorStore.

Orbax's own reader wants to know where every array goes and reads all of it. Here opening costs a listing of keys, and
what a part costs is that part. The same form holds this project's `params` and T5X's `state`.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from flan_jax.checkpoint.leaves import Index, Leaf
from flan_jax.checkpoint.places import directory_spec, place_at
from flan_jax.errors import MissingFileError, UserError

_TREE = "_METADATA"


def is_item(directory: Any) -> bool:
    """Whether a directory holds arrays in Orbax's form, written to its end."""
    return (directory / _TREE).exists() and (directory / "manifest.ocdbt").exists()


def open_arrays(directory: Any) -> dict[str, Leaf]:
    """Returns the arrays of an item by name, path entries joined by "/".

    Args:
      directory: an absolute `epath.Path` or `Path`, local or gs://.

    Raises:
      UserError: an array that the item names has no description or lacks a part, or its type is not known here.
    """
    import tensorstore as ts

    base = {"driver": "ocdbt", "base": directory_spec(place_at(directory))}
    with _naming("the list of arrays", str(directory)):
        keys = {key.decode() for key in ts.KvStore.open(base).result().list().result()}
    context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
    leaves = {}
    for path in _array_paths(directory):
        name, key = "/".join(path), ".".join(path)
        if f"{key}/.zarray" not in keys:
            raise UserError(f"{directory}: the array {name} is named and not there. The checkpoint is incomplete.")
        spec = {"driver": "zarr", "kvstore": {**base, "path": f"{key}/"}}
        leaves[name] = zarr_leaf(spec, name=name, place=str(directory), context=context)
        require_parts(leaves[name], keys=keys, prefix=f"{key}/", name=name, place=str(directory))
    return leaves


def zarr_leaf(spec: Mapping[str, Any], *, name: str, place: str, context: Any) -> Leaf:
    """Returns an array of TensorStore's zarr driver as a leaf.

    Args:
      spec: of the array, JSON.
      name: for messages.
      place: the checkpoint, for messages.
      context: of TensorStore, shared by the arrays of a checkpoint.
    """
    import tensorstore as ts

    with _naming(f"the array {name}", place):
        store = ts.open(dict(spec), context=context, open=True, read=True).result()
    shape = tuple(store.shape)
    chunk = tuple(piece or size for piece, size in zip(store.chunk_layout.read_chunk.shape or (), shape, strict=True))
    dtype = np.dtype(store.dtype.numpy_dtype)

    def read(index: Index) -> np.ndarray:
        with _naming(f"the array {name}", place):
            return np.asarray(store[index].read().result())

    return Leaf(shape=shape, dtype=dtype, read=read, chunk=chunk)


def require_parts(leaf: Leaf, *, keys: set[str], prefix: str, name: str, place: str) -> None:
    """Refuses an array some of whose parts are not stored: the format would read them as its fill value.

    Args:
      leaf: from `zarr_leaf`.
      keys: all keys that are stored.
      prefix: of the array's keys.
      name: for messages.
      place: the checkpoint, for messages.
    """
    assert leaf.chunk is not None
    missing = [part for part in _chunk_keys(leaf.shape, leaf.chunk) if f"{prefix}{part}" not in keys]
    if missing:
        raise UserError(f"{place}: the array {name} lacks its part {missing[0]} ({len(missing)} of them).")


class _naming:
    """Turns what TensorStore raises into one message that names the array."""

    def __init__(self, what: str, place: str) -> None:
        self._text = f"{place}: {what} cannot be read"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ValueError | OSError | RuntimeError):
            reason = str(error).splitlines()[0][:300]
            raise UserError(
                f"{self._text}: {reason}. It was cut short or changed; copy the checkpoint anew."
            ) from error


def _array_paths(directory: Any) -> list[tuple[str, ...]]:
    try:
        tree = json.loads((directory / _TREE).read_text())["tree_metadata"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{directory} has no {_TREE}: the checkpoint is incomplete.") from error
    except (json.JSONDecodeError, KeyError) as error:
        raise UserError(f"{directory / _TREE} cannot be read: it was cut short.") from error
    return [
        tuple(part["key"] for part in entry["key_metadata"])
        for entry in tree.values()
        if entry["value_metadata"]["value_type"] != "None"
    ]


def _chunk_keys(shape: tuple[int, ...], chunk: tuple[int, ...]) -> list[str]:
    """Returns zarr's names of an array's parts, "0.1"; a scalar's only part is "0"."""
    counts = [-(-size // piece) for size, piece in zip(shape, chunk, strict=True)]
    return [".".join(map(str, position)) or "0" for position in itertools.product(*map(range, counts))]
