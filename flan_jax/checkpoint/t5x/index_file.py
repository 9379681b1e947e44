"""The index file of a T5X checkpoint: msgpack of a tree whose leaves are arrays, or say where an array lies.

Flax writes arrays as extension types of msgpack (1: array, 2: complex number, 3: scalar) and cuts those above a
gigabyte. T5X puts TensorStore's description in the place of every partitioned array, which then is a Zarr directory
beside the file. What the names mean is left to `t5x`.
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
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_PLACEHOLDER = "PLACEHOLDER://"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """An array that lies beside the index.

    Attributes:
      path: its directory, relative to the index.
      shape: its sizes, as the index has them.
      dtype: its type's name, "float32", as the index has it.
      chunk: sizes of its parts.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]


Entry = np.ndarray | ZarrArray


def decode(data: bytes, *, place: str) -> dict[str, Entry]:
    """Returns what an index holds by name, path entries joined by "/", below "target", "state" and the like.

    Args:
      data: the file.
      place: its path, for messages.

    Raises:
      UserError: cut short, not T5X's, or of a version that is not read.
    """
    tree = _unpacked(data, place)
    if not isinstance(tree, dict) or "optimizer" not in tree:
        found = ", ".join(map(repr, list(tree)[:6])) if isinstance(tree, dict) else type(tree).__name__
        raise UserError(
            f"{place} is no index of T5X's: it holds {found}, where 'version' and 'optimizer' are expected."
        )
    version = tree.get("version", 0)
    if version != VERSION:
        raise UserError(
            f"{place} has version {version!r} of T5X's format; {VERSION} is read, which T5X writes since June 2021. "
            "Restore and save it with a T5X of that time first."
        )
    entries: dict[str, Entry] = {}
    _collect(tree["optimizer"], (), entries, place)
    return entries


def encode(entries: Mapping[str, Entry]) -> bytes:
    """Returns the index file of arrays by name; names, the arrays' bytes and where others lie are what `decode` gives."""
    import msgpack

    tree = {"version": VERSION, "optimizer": nested({name: _packed(entry) for name, entry in entries.items()})}
    return msgpack.packb(tree, strict_types=True)


def _unpacked(data: bytes, place: str) -> Any:
    import msgpack

    if data.startswith(b"model_checkpoint_path"):
        raise UserError(
            f"{place} belongs to a TensorFlow checkpoint, of Mesh TensorFlow's T5. Let T5X convert it "
            "(t5x/scripts/convert_tf_checkpoint.py), then give the checkpoint_N that comes out."
        )
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{place} ({len(data)} bytes) is not readable as msgpack: {reason}. It was cut short or is another kind of file."
        ) from error


def _collect(node: Any, path: tuple[str, ...], entries: dict[str, Entry], place: str) -> None:
    """Walks the tree. Empty maps and nil stand for a state that is empty, and for what no optimiser touches."""
    if isinstance(node, dict) and not {"driver", "kvstore", "metadata"} <= node.keys() and _CHUNKED not in node:
        for key, child in node.items():
            _collect(child, (*path, str(key)), entries, place)
    elif node is not None:
        name = "/".join(path)
        try:
            entries[name] = _entry(node)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise UserError(f"{place}: the leaf {name} cannot be read: {error}") from error


def _entry(node: Any) -> Entry:
    import msgpack

    if isinstance(node, msgpack.ExtType):
        return _inline(node.code, node.data)
    if isinstance(node, dict) and _CHUNKED in node:
        parts = [_inline(part.code, part.data).ravel() for part in _listed(node["chunks"])]
        return np.concatenate(parts).reshape([int(size) for size in _listed(node["shape"])])
    if isinstance(node, dict):
        return _beside(node)
    if isinstance(node, str) and node.startswith(_PLACEHOLDER):
        raise UserError("it is a placeholder of Orbax's form before OCDBT; save the checkpoint anew with a present T5X")
    if isinstance(node, bool | int | float):
        return np.asarray(node)
    raise UserError(f"got {type(node).__name__}, where an array is expected")


def _inline(code: int, data: bytes) -> np.ndarray:
    import msgpack

    if code == _COMPLEX:
        return np.asarray(complex(*msgpack.unpackb(data)))
    if code not in (_ARRAY, _SCALAR):
        raise UserError(f"got extension type {code} of msgpack; 1, 2 and 3 are Flax's")
    shape, name, values = msgpack.unpackb(data, raw=True)
    dtype = _dtype(name.decode() if isinstance(name, bytes) else name)
    if math.prod(shape) * dtype.itemsize != len(values):
        raise UserError(f"got {len(values)} bytes for {dtype}{list(shape)}")
    return (
        np.frombuffer(values, dtype.newbyteorder("<") if dtype.kind in "iufc" else dtype).astype(dtype).reshape(shape)
    )


def _beside(node: Mapping[str, Any]) -> ZarrArray:
    """Reads TensorStore's description; which store it was written through does not matter, and moves with the file."""
    if node["driver"] != "zarr":
        raise UserError(f"it is stored by TensorStore's driver {node['driver']!r}; 'zarr' is read")
    path = node["kvstore"].get("path", node.get("path"))  # TensorStore before 0.1.14 had it beside.
    if not path:
        raise UserError("its description has no path")
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
            "metadata": {
                "chunks": list(entry.chunk),
                "compressor": {"id": "gzip", "level": 1},
                "shape": list(entry.shape),
            },
        }
    payload = (list(entry.shape), entry.dtype.name, np.ascontiguousarray(entry).tobytes())
    return msgpack.ExtType(_ARRAY, msgpack.packb(payload, use_bin_type=True))


def _dtype(name: str) -> np.dtype:
    """Returns the type of a name; old indices spell it "<f4"."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _listed(node: Any) -> list[Any]:
    """Returns Flax's tuple of {"0": ..., "1": ...}."""
    return [node[str(i)] for i in range(len(node))] if isinstance(node, dict) else list(node)
