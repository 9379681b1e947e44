"""The safetensors format: one file or several, opened as leaves and written from leaves a part at a time.

A file is eight bytes (the header's length, little endian), a JSON header that gives each tensor's type, shape and
place, and the tensors' bytes one after another. Everything about a header is checked when the file is opened, and no
value is read then. Which tensors belong to a model is left to `huggingface`.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax.checkpoint.leaves import BFLOAT16, Index, Leaf
from flan_jax.errors import MissingFileError, UserError
from flan_jax.names import nearest

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES: Mapping[str, np.dtype] = {"F32": np.dtype(np.float32), "BF16": BFLOAT16, "F16": np.dtype(np.float16)}
MAX_SHARD_BYTES = 5 * 10**9

_LENGTH_BYTES = 8
_ALIGNMENT = 8
_MAX_HEADER_BYTES = 100 * 10**6  # the format's own limit
_PART_BYTES = 2**26
_MAX_PART_BYTES = 2**30
_AGAIN = "Fetch or write it again."


def open_file(path: Path) -> dict[str, Leaf]:
    """Returns the tensors of one file, in the order of their bytes.

    Raises:
      UserError: the file is cut off, is no safetensors file, or has a type that is not read here.
    """
    size = path.stat().st_size
    header, start = _header(path, size)
    places = sorted((_place(path, name, entry), name) for name, entry in header.items())
    _require_gapless(path, places, data_bytes=size - start)
    opened = {}
    for (begin, _), name in places:
        shape, dtype = tuple(header[name]["shape"]), DTYPES[header[name]["dtype"]]
        opened[name] = Leaf(shape=shape, dtype=dtype, read=_reader(path, name, start + begin, shape, dtype))
    return opened


def open_sharded(index_path: Path) -> dict[str, Leaf]:
    """Returns the tensors of a checkpoint in several files, given its index.

    Raises:
      MissingFileError: a file that the index names is missing.
      UserError: the index is malformed, or a file holds other tensors than the index says.
    """
    named: dict[str, list[str]] = {}
    for name, file in _weight_map(index_path).items():
        named.setdefault(file, []).append(name)
    missing = [file for file in named if not (index_path.parent / file).is_file()]
    if missing:
        rest = f" {len(missing) - 1} more of its files are missing." if len(missing) > 1 else ""
        raise MissingFileError(
            f"{index_path.parent / missing[0]} is missing, which {index_path.name} names for {len(named[missing[0]])} "
            f"tensors, the first of them {named[missing[0]][0]}.{rest} Fetch or copy the whole folder."
        )
    opened: dict[str, Leaf] = {}
    for file, names in named.items():
        leaves = open_file(index_path.parent / file)
        _require_same_names(index_path, file, wanted=names, got=list(leaves))
        opened |= leaves
    return opened


def write(tensors: Mapping[str, Leaf], directory: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Writes tensors as `transformers` names them: one file, or several with an index.

    Args:
      tensors: in the order in which files are filled.
      directory: exists.
      max_shard_bytes: the largest file, unless one tensor alone is larger.

    Raises:
      UserError: max_shard_bytes is not positive, or a tensor's type is not of the format.
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


def _header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """Returns the header without its metadata, and where the tensors' bytes start."""
    with open(path, "rb") as file:
        first = file.read(_LENGTH_BYTES)
        length = int.from_bytes(first, "little")
        if size < _LENGTH_BYTES or not 2 <= length <= _MAX_HEADER_BYTES:
            mend = "It is Git LFS's note of where the file is; run `git lfs pull`." if first == b"version " else _AGAIN
            raise UserError(f"{path} is no safetensors file: its {size} bytes do not begin with a header. {mend}")
        raw = file.read(length)
    if len(raw) < length:
        raise UserError(
            f"{path} is cut off within its header, which has {length} bytes, of which {len(raw)} are there. {_AGAIN}"
        )
    try:
        header = json.loads(raw, object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise UserError(f"{path} is no safetensors file: its header is not JSON ({error}). {_AGAIN}") from error
    if not isinstance(header, dict):
        raise UserError(f"{path} is no safetensors file: its header is not a table of tensors. {_AGAIN}")
    header.pop("__metadata__", None)
    return header, _LENGTH_BYTES + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise UserError(f"it has {next(n for n in names if names.count(n) > 1)} twice")
    return table


def _place(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Returns where a tensor's bytes begin and end, counted from the first tensor's."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (begin, end, *shape))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise UserError(f"The header of {path} does not say type, shape and place of {name}: {entry!r}. {_AGAIN}")
    if dtype not in DTYPES:
        raise UserError(
            f"Tensor {name} of {path} is {dtype}; read are {', '.join(DTYPES)}. Convert the folder where it was made, "
            "without quantisation, to one of these."
        )
    wanted = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != wanted:
        raise UserError(
            f"Tensor {name} of {path} has {end - begin} bytes, where {dtype}{shape} takes {wanted}. {_AGAIN}"
        )
    return begin, end


def _require_gapless(path: Path, places: list[tuple[tuple[int, int], str]], *, data_bytes: int) -> None:
    """Refuses tensors that share bytes, bytes of no tensor, and a file that ends early or late."""
    before, last = 0, ""
    for (begin, end), name in places:
        if end > data_bytes:
            raise UserError(
                f"{path} is cut off: tensor {name} ends at byte {end} of the tensors, of which {data_bytes} are there. "
                f"{_AGAIN}"
            )
        if begin < before:
            raise UserError(f"Tensors {last} and {name} of {path} share bytes: its header is damaged. {_AGAIN}")
        if begin > before:
            raise UserError(f"In {path}, {begin - before} bytes before {name} belong to no tensor. {_AGAIN}")
        before, last = end, name
    if data_bytes > before:
        raise UserError(
            f"{path} goes on for {data_bytes - before} bytes after its last tensor, {last or 'of none'}. {_AGAIN}"
        )


def _reader(path: Path, name: str, start: int, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Returns the `read` of a leaf whose bytes begin at `start` of a file."""
    row_bytes = math.prod(shape[1:]) * dtype.itemsize

    def read(index: Index) -> np.ndarray:
        if path.stat().st_size < start + math.prod(shape) * dtype.itemsize:
            raise UserError(f"{path} has become shorter since it was opened; {name} cannot be read.")
        if not shape:
            return np.array(np.memmap(path, dtype, "r", start, shape=()))
        rows, *within = index
        part = np.empty([s.stop - s.start for s in index], dtype)
        if not part.size:
            return part
        # Mapped in pieces and copied: what is mapped counts as this process's memory for as long as it is.
        step = max(1, _PART_BYTES // row_bytes)
        for first in range(rows.start, rows.stop, step):
            count = min(step, rows.stop - first)
            piece = np.memmap(path, dtype, "r", start + first * row_bytes, shape=(count, *shape[1:]))
            part[first - rows.start :][:count] = piece[(slice(None), *within)]
        return part

    return read


def _weight_map(index_path: Path) -> dict[str, str]:
    """Returns the file of each tensor, as the index has it."""
    try:
        index = json.loads(index_path.read_text())
    except ValueError as error:
        raise UserError(f"{index_path} is not JSON ({error}). {_AGAIN}") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index_path} is no index of safetensors: it has no table 'weight_map'. {_AGAIN}")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise UserError(f"{index_path} names {file!r} for {name}; allowed are names of files beside it.")
    return weight_map


def _require_same_names(index_path: Path, file: str, *, wanted: list[str], got: list[str]) -> None:
    place = index_path.parent / file
    for name in wanted:
        if name not in got:
            raise UserError(
                f"Tensor {name} is not in {place}, where {index_path.name} has it.{nearest(name, got)} The files "
                "are of different checkpoints, or one is damaged; fetch or copy the whole folder."
            )
    for name in got:
        if name not in wanted:
            raise UserError(
                f"Tensor {name} is in {place}, and {index_path.name} does not have it there.{nearest(name, wanted)} "
                "The files are of different checkpoints, or one is damaged; fetch or copy the whole folder."
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
    """Writes one file, byte by byte as the format's own library does: wide types first, then by name."""
    spelled = {dtype: name for name, dtype in DTYPES.items()}
    for name, leaf in tensors.items():
        if leaf.dtype not in spelled:
            allowed = ", ".join(map(str, spelled))
            raise UserError(f"Tensor {name} is {leaf.dtype}; {path.name} can have {allowed}. Cast it to one of these.")
    order = sorted(tensors, key=lambda name: (list(spelled).index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        leaf = tensors[name]
        begin, end = end, end + leaf.nbytes
        header[name] = {"dtype": spelled[leaf.dtype], "shape": list(leaf.shape), "data_offsets": [begin, end]}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(_LENGTH_BYTES, "little") + raw)
        for name in order:
            for index in _parts(tensors[name]):
                part = np.ascontiguousarray(tensors[name].read(index))
                file.write(part.reshape(-1).view(np.uint8).data)


def _parts(leaf: Leaf) -> Iterator[Index]:
    """Returns the parts in which a leaf is moved: of whole stored pieces where they fit, so that none is read twice."""
    piece_bytes = leaf.nbytes // leaf.shape[0] * leaf.chunk[0] if leaf.chunk and leaf.shape and leaf.shape[0] else 0
    return leaf.blocks(max_bytes=max(_PART_BYTES, piece_bytes if piece_bytes <= _MAX_PART_BYTES else 0))
