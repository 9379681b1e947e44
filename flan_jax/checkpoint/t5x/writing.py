"""Writes checkpoints that T5X restores, in its legacy format: a msgpack index with Zarr arrays.

T5X reads this format with both of its checkpoint managers (`use_orbax` True or False), and writing it does not need
T5X. As in T5X, arrays that it partitions (parameters, unfactored second moments, momentum) are Zarr directories, and
the small rest is in the index. With Adafactor's state, T5X resumes the run. Parameters alone have the tree of its
`InferenceState`: evaluation and inference restore them directly, training with `fallback_to_scratch = True` and
`assignment_map = ((r'state/param_states/.*', None),)`.
"""

import math
from collections import deque
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flan_jax.checkpoint import mapping
from flan_jax.checkpoint.leaves import BFLOAT16, Index, Leaf
from flan_jax.checkpoint.t5x import adafactor_slots, index_file, layouts
from flan_jax.checkpoint.t5x.index_file import Entry, ZarrArray
from flan_jax.checkpoint.t5x.layouts import STACK_AXIS, Layout
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import UserError
from flan_jax.models.relative_position import RELPOS_MAX_DISTANCE
from flan_jax.models.t5.config import T5Config
from flan_jax.paths import directory_spec

LayoutName = Literal["unrolled", "scanned"]
CHUNK_BYTES = 2**26
_DTYPES = (np.dtype(np.float32), BFLOAT16, np.dtype(np.float16))
_IN_FLIGHT = 2
_INDEX = "checkpoint"
# The fields that no gin binding of T5X's network sets. Buckets can be read from the table.
_NUMERICS = {"relpos_max_distance": RELPOS_MAX_DISTANCE, "layer_norm_epsilon": 1e-6}


def write(weights: Weights, directory: Path, *, layout: LayoutName = "unrolled") -> None:
    """Writes a checkpoint: parameters, step (0 when there is none), and Adafactor's state when there is one.

    Heads and head size are joined or two dimensions as T5X's network has them: two in `scalable_t5` (layers scanned, or
    a relative position bias in each), joined in `examples/t5`.

    Args:
      weights: A complete T5; read a part at a time.
      directory: Exists and is empty. T5X finds it under the name checkpoint_<step>.
      layout: "unrolled", a name for each layer; "scanned", layers stacked, which `scalable_t5` restores.

    Raises:
      UserError: T5X has no network of this kind, or a parameter has a type that it does not support.
    """
    config = weights.config
    assert config is not None
    _require_network(config, layout, path=weights.path)
    is_scanned = layout == "scanned"
    chosen = Layout(is_scanned=is_scanned, has_split_heads=is_scanned or config.relpos_bias_per_layer)
    table = layouts.present(weights.params, layouts.rules(chosen, head_dim=config.head_dim))
    for name, leaf in weights.params.items():
        if leaf.dtype not in _DTYPES:
            raise UserError(f"{weights.path}: {name} is {leaf.dtype}; T5X supports {', '.join(map(str, _DTYPES))}.")
    params = mapping.to_theirs(weights.params, table, where=weights.path)
    states: dict[str, Leaf] = {}
    if weights.slots:
        states = adafactor_slots.to_theirs(weights.slots, table, weights.params, where=weights.path)
    stacked = {rule.theirs for rule in table if rule.stack_axis is not None}
    entries: dict[str, Entry] = {}
    for name, leaf in params.items():
        entries[f"target/{name}"] = _write_array(directory, f"target/{name}", leaf, is_stacked=name in stacked)
    entries["state/step"] = np.asarray(weights.step or 0, np.int32)
    for name, leaf in states.items():
        param, _, slot = name.rpartition("/")
        full = f"state/param_states/{name}"
        if slot in ("v", adafactor_slots.MOMENTUM) and leaf.shape != adafactor_slots.UNUSED_SHAPE:
            entries[full] = _write_array(directory, full, leaf, is_stacked=param in stacked)
        else:
            entries[full] = leaf.whole()
    # Written last: without its index the directory does not count as a checkpoint.
    (directory / _INDEX).write_bytes(index_file.encode(entries))


def chunk_shape(shape: tuple[int, ...], itemsize: int, *, is_stacked: bool = False) -> tuple[int, ...]:
    """Returns the shape of an array's chunks, at most 64 MiB each.

    T5X's rule: the largest size is reduced to its next smaller divisor until the chunk fits. Stacked layers are first
    split from each other, unlike in T5X, which restores them too: one layer can then be read without the others.

    >>> chunk_shape((32128, 512), 4), chunk_shape((32128, 4096), 4)
    ((32128, 512), (4016, 4096))
    >>> chunk_shape((4096, 24, 64, 64), 4, is_stacked=True), chunk_shape((512, 8, 6, 64), 4, is_stacked=True)
    ((4096, 1, 64, 64), (512, 8, 6, 64))
    """
    sizes = list(shape)
    most = CHUNK_BYTES // itemsize
    while math.prod(sizes) > most:
        axis = STACK_AXIS if is_stacked and sizes[STACK_AXIS] > 1 else sizes.index(max(sizes))
        sizes[axis] = next(size for size in range(sizes[axis] - 1, 0, -1) if shape[axis] % size == 0)
    return tuple(sizes)


def _require_network(config: T5Config, layout: LayoutName, *, path: str) -> None:
    """Rejects a network that none of T5X's computes."""
    if layout == "scanned" and not config.relpos_bias_per_layer:
        raise UserError(
            f"{path} has one relative position bias for all layers of a stack, and T5X's network of scanned "
            "layers (scalable_t5) one in each. Write the layout 'unrolled', which T5X's examples/t5 restores."
        )
    if config.decoder_outputs_are_scaled != config.logits_via_embedding:
        raise UserError(
            f"{path} has scale_decoder_outputs={config.decoder_outputs_are_scaled} with logits_via_embedding="
            f"{config.logits_via_embedding}; T5X's network scales the decoder's outputs exactly when it reads logits "
            "from the embedding table, so it would compute other logits."
        )
    for field, of_t5x in _NUMERICS.items():
        if getattr(config, field) != of_t5x:
            raise UserError(
                f"{path} has {field} {getattr(config, field)}; T5X's network has {of_t5x}, which no setting of it "
                "changes, so it would compute other logits."
            )


def _write_array(directory: Path, name: str, leaf: Leaf, *, is_stacked: bool) -> ZarrArray:
    """Writes one array chunk by chunk; two are in flight, so that reading and compressing overlap."""
    import tensorstore as ts

    # T5X's names of the directories.
    path = name.replace("/", ".")
    chunk = chunk_shape(leaf.shape, leaf.dtype.itemsize, is_stacked=is_stacked)
    spec = {
        "driver": "zarr",
        "dtype": leaf.dtype.name,
        "kvstore": directory_spec(directory / path),
        "metadata": {
            "chunks": list(chunk),
            "compressor": {"id": "gzip", "level": 1},
            "shape": list(leaf.shape),
        },
    }
    # Not synchronized file by file: the whole conversion is read back and compared before it gets its name.
    store = ts.open(spec, create=True, open=True, context=ts.Context({"file_io_sync": False})).result()
    pending: deque[Any] = deque()
    for index in _chunks(leaf.shape, chunk):
        if len(pending) == _IN_FLIGHT:
            pending.popleft().result()
        # The part was read for this write, so TensorStore need not copy it.
        pending.append(store[index].write(leaf.read(index), can_reference_source_data_indefinitely=True))
    for write_future in pending:
        write_future.result()
    return ZarrArray(path=path, shape=leaf.shape, dtype=leaf.dtype.name, chunk=chunk)


def _chunks(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[Index]:
    ranges = (range(0, size, piece) for size, piece in zip(shape, chunk, strict=True))
    for starts in product(*ranges):
        yield tuple(slice(a, min(a + c, s)) for a, c, s in zip(starts, chunk, shape, strict=True))
