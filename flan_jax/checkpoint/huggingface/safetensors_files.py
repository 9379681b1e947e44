"""Safetensors files: one or several with an index, opened as leaves and written from leaves a part at a time.

The format's own library checks headers and reads slices. It writes only tensors that are all in memory, so writing is
done here, in its byte order. Which tensors belong to a model is up to `huggingface.folder`.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from flan_jax.checkpoint.leaves import BFLOAT16, Index, Leaf
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import read_json_object
from flan_jax.names import nearest

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES: Mapping[str, np.dtype] = {"F32": np.dtype(np.float32), "BF16": BFLOAT16, "F16": np.dtype(np.float16)}
MAX_SHARD_BYTES = 5 * 10**9

_LENGTH_BYTES = 8
_ALIGNMENT = 8
_PART_BYTES = 2**26
_MAX_PART_BYTES = 2**30
_AGAIN = "Fetch or write it again."


def open_file(path: Path) -> dict[str, Leaf]:
    """Returns the tensors of one file, in the order of their bytes. Only the header is read.

    Raises:
      UserError: The file is truncated or damaged, is no safetensors file, or has a type that is not supported.
    """
    opened = {}
    with _open(path) as file:
        for name in file.offset_keys():
            tensor = file.get_slice(name)
            shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
            if dtype not in DTYPES:
                raise UserError(
                    f"Tensor {name} of {path} is {dtype}; supported are {', '.join(DTYPES)}. Convert the folder where "
                    "it was made, without quantization, to one of these."
                )
            opened[name] = Leaf(shape=shape, dtype=DTYPES[dtype], read=_reader(path, name, shape, DTYPES[dtype]))
    return opened


def open_sharded(index_path: Path) -> dict[str, Leaf]:
    """Returns the tensors of a checkpoint in several files, given its index.

    Raises:
      MissingFileError: A file that the index names is missing.
      UserError: The index is malformed, or a file has other tensors than the index lists for it.
    """
    named: dict[str, list[str]] = {}
    for name, file in _weight_map(index_path).items():
        named.setdefault(file, []).append(name)
    missing = [file for file in named if not (index_path.parent / file).is_file()]
    if missing:
        rest = f" {len(missing) - 1} more of its files are missing." if len(missing) > 1 else ""
        raise MissingFileError(
            f"{index_path.parent / missing[0]} is missing, which {index_path.name} lists for {len(named[missing[0]])} "
            f"tensors, the first of them {named[missing[0]][0]}.{rest} Fetch or copy the complete folder."
        )
    opened: dict[str, Leaf] = {}
    for file, names in named.items():
        leaves = open_file(index_path.parent / file)
        _require_same_names(index_path, file, expected=names, got=list(leaves))
        opened |= leaves
    return opened


def write(tensors: Mapping[str, Leaf], directory: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Writes tensors to one file, or to several with an index, with the file names of `transformers`.

    Args:
      tensors: In the order in which files are filled.
      directory: An existing folder.
      max_shard_bytes: The largest file, unless one tensor alone is larger.

    Raises:
      UserError: max_shard_bytes is not positive, or a tensor's type is not supported.
    """
    if max_shard_bytes < 1:
        raise UserError(f"max_shard_bytes is {max_shard_bytes}; it must be at least 1.")
    shards = _shards(tensors, max_shard_bytes)
    if len(shards) == 1:
        _write_file(shards[0], directory / WHOLE)
        return
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        _write_file(shard, directory / file)
    index = {
        "metadata": {"total_size": sum(leaf.nbytes for leaf in tensors.values())},
        "weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in shard},
    }
    (directory / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Opens a file, whose header and length the library checks."""
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        with open(path, "rb") as content:
            is_git_lfs = content.read(_LENGTH_BYTES) == b"version "
        fix = "It is Git LFS's note of where the file is; run `git lfs pull`." if is_git_lfs else _AGAIN
        raise UserError(f"{path} is not an intact safetensors file: {error}. {fix}") from error


def _reader(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Callable[[Index], np.ndarray]:
    """Returns the `read` of a leaf."""
    row_bytes = math.prod(shape[1:]) * dtype.itemsize

    def read(index: Index) -> np.ndarray:
        part = np.empty([s.stop - s.start for s in index], dtype)
        if not part.size:
            return part
        if not shape:
            with _open(path) as file:
                return file.get_tensor(name)
        rows, *within = index
        # Reopened for each piece: the library maps the file, and mapped pages count as this process's memory until it
        # is closed. 1 GiB in slices peaks at 157 MB this way and at 1.1 GB with the file left open.
        step = max(1, _PART_BYTES // row_bytes)
        for first in range(rows.start, rows.stop, step):
            last = min(first + step, rows.stop)
            with _open(path) as file:
                part[first - rows.start : last - rows.start] = file.get_slice(name)[(slice(first, last), *within)]
        return part

    return read


def _weight_map(index_path: Path) -> dict[str, str]:
    """Returns the file of each tensor according to the index."""
    weight_map = read_json_object(index_path, fix=_AGAIN).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index_path} is not an index of safetensors files: it has no table 'weight_map'. {_AGAIN}")
    for name, file in weight_map.items():
        # A path could name files outside of the folder.
        if not isinstance(file, str) or Path(file).name != file:
            raise UserError(f"{index_path} has {file!r} for {name}; allowed are names of files in the same folder.")
    return weight_map


def _require_same_names(index_path: Path, file: str, *, expected: list[str], got: list[str]) -> None:
    path = index_path.parent / file
    for name in expected:
        if name not in got:
            raise UserError(
                f"Tensor {name} is not in {path}, where {index_path.name} has it.{nearest(name, got)} The files "
                "belong to different checkpoints, or one is damaged; fetch or copy the complete folder."
            )
    for name in got:
        if name not in expected:
            raise UserError(
                f"Tensor {name} is in {path}, but {index_path.name} does not list it there.{nearest(name, expected)} "
                "The files belong to different checkpoints, or one is damaged; fetch or copy the complete folder."
            )


def _shards(tensors: Mapping[str, Leaf], max_shard_bytes: int) -> list[dict[str, Leaf]]:
    shards: list[dict[str, Leaf]] = [{}]
    filled = 0
    for name, leaf in tensors.items():
        if shards[-1] and filled + leaf.nbytes > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = leaf
        filled += leaf.nbytes
    return shards


def _write_file(tensors: Mapping[str, Leaf], path: Path) -> None:
    """Writes one file with the same bytes as the format's own library: wide types first, then by name."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name, leaf in tensors.items():
        if leaf.dtype not in names:
            allowed = ", ".join(map(str, names))
            raise UserError(f"Tensor {name} is {leaf.dtype}; {path.name} can have {allowed}. Cast it to one of these.")
    order = sorted(tensors, key=lambda name: (list(names).index(tensors[name].dtype), name))
    # Version 4 of transformers refuses files that do not name the framework.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        leaf = tensors[name]
        begin, end = end, end + leaf.nbytes
        header[name] = {"dtype": names[leaf.dtype], "shape": list(leaf.shape), "data_offsets": [begin, end]}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # The format aligns the data to 8 bytes by spaces after the header's JSON.
    raw += b" " * (-len(raw) % _ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(_LENGTH_BYTES, "little") + raw)
        for name in order:
            for index in _parts(tensors[name]):
                part = np.ascontiguousarray(tensors[name].read(index))
                file.write(part.reshape(-1).view(np.uint8).data)


def _parts(leaf: Leaf) -> Iterator[Index]:
    """Yields the blocks in which a leaf is copied, complete chunks where they fit, so that none is read twice."""
    chunk_bytes = leaf.nbytes // leaf.shape[0] * leaf.chunk[0] if leaf.chunk and leaf.shape and leaf.shape[0] else 0
    return leaf.blocks(max_bytes=max(_PART_BYTES, chunk_bytes if chunk_bytes <= _MAX_PART_BYTES else 0))
