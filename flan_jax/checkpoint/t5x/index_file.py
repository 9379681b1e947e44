"""The index file of a T5X checkpoint: msgpack of a tree whose leaves are arrays or references to arrays.

Flax writes arrays as extension types of msgpack (1: array, 2: complex number, 3: scalar) and splits those above a
gigabyte into chunks. T5X replaces every partitioned array by TensorStore's spec of it; the array is a Zarr directory
next to the file. `reading` interprets the names.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, final

import ml_dtypes
import numpy as np

from flan_jax.checkpoint.trees import nested
from flan_jax.errors import UserError

VERSION = 3
_SAME_LAYOUT = (2, 3)  # Version 2, before June 2021, differs only in bfloat16, which it stored as uint16.
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_PLACEHOLDER = "PLACEHOLDER://"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """A reference to an array that is stored next to the index.

    Attributes:
      path: The array's directory, relative to the index.
      shape: Sizes of the dimensions, according to the index.
      dtype: Name of the element type, "float32", according to the index.
      chunk: Shape of its chunks.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]


Entry = np.ndarray | ZarrArray


def decode(data: bytes, *, where: str) -> dict[str, Entry]:
    """Returns the entries of an index by name, path entries joined by "/", below "target", "state" and the like.

    Args:
      data: Content of the file.
      where: Its path, for messages.

    Raises:
      UserError: The file is truncated, not T5X's, or of an unsupported version.
    """
    tree = _unpacked(data, where)
    if not isinstance(tree, dict) or "optimizer" not in tree:
        found = ", ".join(map(repr, list(tree)[:6])) if isinstance(tree, dict) else type(tree).__name__
        raise UserError(f"{where} is not an index of T5X: it holds {found}; expected 'version' and 'optimizer'.")
    version = tree.get("version", 0)
    if version not in _SAME_LAYOUT:
        raise UserError(
            f"{where} has version {version!r} of T5X's format; supported are {' and '.join(map(str, _SAME_LAYOUT))}. "
            "Restore and save it with a T5X of that time first."
        )
    entries: dict[str, Entry] = {}
    _collect(tree["optimizer"], (), entries, where)
    return entries


def encode(entries: Mapping[str, Entry]) -> bytes:
    """Returns the content of an index file; the inverse of `decode`."""
    import msgpack

    tree = {"version": VERSION, "optimizer": nested({name: _packed(entry) for name, entry in entries.items()})}
    return msgpack.packb(tree, strict_types=True)


def _unpacked(data: bytes, where: str) -> Any:
    import msgpack

    if data.startswith(b"model_checkpoint_path"):
        raise UserError(
            f"{where} belongs to a TensorFlow checkpoint of Mesh TensorFlow's T5. Convert it with T5X "
            "(t5x/scripts/convert_tf_checkpoint.py), then give the resulting checkpoint_N."
        )
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{where} ({len(data)} bytes) is not readable as msgpack: {reason}. It is truncated or another "
            "kind of file."
        ) from error


def _collect(node: Any, path: tuple[str, ...], entries: dict[str, Entry], where: str) -> None:
    """Walks the tree. Empty maps and nil mean an empty state, or leaves that no optimizer updates."""
    if isinstance(node, dict) and not {"driver", "kvstore", "metadata"} <= node.keys() and _CHUNKED not in node:
        for key, child in node.items():
            _collect(child, (*path, str(key)), entries, where)
    elif node is not None:
        name = "/".join(path)
        try:
            entries[name] = _entry(node)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise UserError(f"{where}: the leaf {name} cannot be read: {error}") from error


def _entry(node: Any) -> Entry:
    import msgpack

    if isinstance(node, msgpack.ExtType):
        return _inline(node.code, node.data)
    if isinstance(node, dict) and _CHUNKED in node:
        parts = [_inline(part.code, part.data).ravel() for part in _list(node["chunks"])]
        return np.concatenate(parts).reshape([int(size) for size in _list(node["shape"])])
    if isinstance(node, dict):
        return _reference(node)
    if isinstance(node, str) and node.startswith(_PLACEHOLDER):
        raise UserError(
            "it is a placeholder of Orbax's format before OCDBT; save the checkpoint again with a current T5X"
        )
    if isinstance(node, bool | int | float):
        return np.asarray(node)
    raise UserError(f"got {type(node).__name__}, expected an array")


def _inline(code: int, data: bytes) -> np.ndarray:
    import msgpack

    if code == _COMPLEX:
        return np.asarray(complex(*msgpack.unpackb(data)))
    if code not in (_ARRAY, _SCALAR):
        raise UserError(f"got extension type {code} of msgpack; 1, 2 and 3 are Flax's")
    # Raw, since versions of Flax differ in whether the name is text or bytes.
    shape, name, values = msgpack.unpackb(data, raw=True)
    dtype = _dtype(name.decode() if isinstance(name, bytes) else name)
    if math.prod(shape) * dtype.itemsize != len(values):
        raise UserError(f"got {len(values)} bytes for {dtype}{list(shape)}")
    return (
        np.frombuffer(values, dtype.newbyteorder("<") if dtype.kind in "iufc" else dtype).astype(dtype).reshape(shape)
    )


def _reference(node: Mapping[str, Any]) -> ZarrArray:
    """Reads TensorStore's spec; the original store does not matter, since arrays move with the index."""
    if node["driver"] != "zarr":
        raise UserError(f"it is stored by TensorStore's driver {node['driver']!r}; supported is 'zarr'")
    path = node["kvstore"].get("path", node.get("path"))  # TensorStore before 0.1.14 had it outside.
    if not path:
        raise UserError("its spec has no path")
    metadata = node["metadata"]
    shape = tuple(int(size) for size in metadata["shape"])
    chunk = tuple(int(size) for size in metadata.get("chunks", shape))
    dtype = _dtype(node.get("dtype") or metadata["dtype"]).name
    return ZarrArray(path=path.strip("/"), shape=shape, dtype=dtype, chunk=chunk)


def _packed(entry: Entry) -> Any:
    import msgpack

    if isinstance(entry, ZarrArray):
        return {
            "driver": "zarr",
            "dtype": entry.dtype,
            "kvstore": {"driver": "file", "path": f"{entry.path}/"},
            # Must equal the array's own metadata: TensorStore compares them when T5X opens the array.
            "metadata": {
                "chunks": list(entry.chunk),
                "compressor": {"id": "gzip", "level": 1},
                "shape": list(entry.shape),
            },
        }
    payload = (list(entry.shape), entry.dtype.name, np.ascontiguousarray(entry).tobytes())
    return msgpack.ExtType(_ARRAY, msgpack.packb(payload, use_bin_type=True))


def _dtype(name: str) -> np.dtype:
    """Returns the type of a name; old indices write "<f4"."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _list(node: Any) -> list[Any]:
    """Returns Flax's tuple of {"0": ..., "1": ...}."""
    return [node[str(i)] for i in range(len(node))] if isinstance(node, dict) else list(node)
