"""T5X checkpoints read and written with msgpack, gzip, JSON and NumPy alone: what the package's own code is held to.

And a small T5 whose values are all different, in our tree and, by NumPy's own stack and reshape, in T5X's others.
"""

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import parameter_shapes

ZARR_TYPES = {
    "<f4": np.dtype("<f4"),
    "<f2": np.dtype("<f2"),
    "<f8": np.dtype("<f8"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def read(index: Path) -> dict[str, np.ndarray]:
    """The whole checkpoint by name; the fixtures' sizes divide into chunks or not, both are met."""
    tree = msgpack.unpackb(index.read_bytes(), raw=False)
    assert set(tree) == {"version", "optimizer"}
    named: dict[str, np.ndarray] = {}

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict) and "kvstore" in node:
            name = node["kvstore"].get("path") or node["path"]
            named["/".join(path)] = read_zarr(index.parent / name.rstrip("/"))
        elif isinstance(node, dict):
            for key, child in node.items():
                walk(child, (*path, key))
        else:
            shape, dtype, data = msgpack.unpackb(node.data, raw=False)
            type_ = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
            named["/".join(path)] = np.frombuffer(data, type_).reshape(shape)

    walk(tree["optimizer"], ())
    return named


def read_zarr(directory: Path) -> np.ndarray:
    about = json.loads((directory / ".zarray").read_text())
    shape, chunks, dtype = about["shape"], about["chunks"], ZARR_TYPES[about["dtype"]]
    values = np.empty(shape, dtype)
    for at in itertools.product(*(range(-(-size // piece)) for size, piece in zip(shape, chunks, strict=True))):
        data = gzip.decompress((directory / (".".join(map(str, at)) or "0")).read_bytes())
        part = tuple(slice(i * c, min((i + 1) * c, s)) for i, c, s in zip(at, chunks, shape, strict=True))
        values[part] = np.frombuffer(data, dtype).reshape(chunks)[tuple(slice(s.stop - s.start) for s in part)]
    return values


def write(
    directory: Path, inline: dict[str, np.ndarray], separate: dict[str, tuple[np.ndarray, tuple[int, ...]]]
) -> Path:
    """Writes an index and its Zarr arrays, as T5X on several hosts does; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    leaves: dict[str, Any] = {name: ext(array) for name, array in inline.items()}
    for name, (array, chunks) in separate.items():
        leaves[name] = write_zarr(directory, name.replace("/", "."), array, chunks)
    (directory / "checkpoint").write_bytes(index_bytes(leaves))
    return directory


def index_bytes(leaves: dict[str, Any], *, version: Any = 3) -> bytes:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return msgpack.packb({"version": version, "optimizer": tree})


def ext(array: np.ndarray, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def write_zarr(directory: Path, path: str, array: np.ndarray, chunks: tuple[int, ...]) -> dict[str, Any]:
    """Writes one array, and returns its entry in the index."""
    place = directory / path
    place.mkdir()
    name = next(key for key, dtype in ZARR_TYPES.items() if dtype == array.dtype)
    about = {
        "chunks": list(chunks), "compressor": {"id": "gzip", "level": 1}, "dimension_separator": ".", "dtype": name,
        "fill_value": None, "filters": None, "order": "C", "shape": list(array.shape), "zarr_format": 2,
    }  # fmt: skip
    (place / ".zarray").write_text(json.dumps(about))
    for at in itertools.product(*(range(-(-size // piece)) for size, piece in zip(array.shape, chunks, strict=True))):
        part = array[tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, chunks, strict=True))]
        whole = np.zeros(chunks, array.dtype)
        whole[tuple(map(slice, part.shape))] = part
        (place / (".".join(map(str, at)) or "0")).write_bytes(gzip.compress(whole.tobytes(), 1))
    metadata = {"chunks": list(chunks), "compressor": {"id": "gzip", "level": 1}, "shape": list(array.shape)}
    kvstore = {"driver": "gfile", "path": f"{path}/"}
    return {"driver": "zarr", "dtype": array.dtype.name, "kvstore": kvstore, "metadata": metadata}


def config(**changes: Any) -> T5Config:
    sizes: dict[str, Any] = {
        "emb_dim": 6, "num_heads": 2, "head_dim": 4, "mlp_dim": 10, "vocab_size": 12, "num_encoder_layers": 2,
        "num_decoder_layers": 3,
    }  # fmt: skip
    return T5Config(**(sizes | changes))


def our_params(config: T5Config, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """No two values are the same, so that a layer or a side exchanged shows."""
    params, start = {}, 0
    for name, shape in parameter_shapes(config).items():
        size = int(np.prod(shape))
        params[name] = np.arange(start, start + size, dtype=np.float32).reshape(shape).astype(dtype)
        start += size
    return params


def their_params(ours: dict[str, np.ndarray], config: T5Config, *, scanned: bool, split: bool) -> dict[str, np.ndarray]:
    """Our tree in another layout of T5X's."""
    theirs = {}
    stacks: dict[str, list[np.ndarray]] = {}
    for name, array in ours.items():
        if split and "attention/" in name:
            heads = (config.num_heads, config.head_dim)
            array = array.reshape(*heads, -1) if name.endswith("out/kernel") else array.reshape(-1, *heads)
        stack, _, rest = name.partition("/")
        if scanned and rest.startswith("layers_"):
            stacks.setdefault(f"{stack}/{stack}/{rest.partition('/')[2]}", []).append(array)
        else:
            theirs[name] = array
    return theirs | {name: np.stack(arrays, axis=1) for name, arrays in stacks.items()}
