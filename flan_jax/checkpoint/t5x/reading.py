"""T5X's checkpoints as `Weights`, without T5X or TensorFlow.

Three formats: one msgpack file with every array in it; a msgpack index with Zarr arrays, which T5X calls legacy and
which its public checkpoints use; Orbax's (OCDBT), which it writes by default today. `layouts` and `adafactor_slots`
translate the trees; `writing` writes the second format.
"""

import dataclasses
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import numpy as np

from flan_jax.checkpoint import orbax_arrays
from flan_jax.checkpoint.leaves import BFLOAT16, Leaf, from_array
from flan_jax.checkpoint.t5x import adafactor_slots, index_file, layouts
from flan_jax.checkpoint.t5x.index_file import ZarrArray
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import MissingFileError, UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.families import FAMILIES
from flan_jax.models.t5.parameters import config_of_shapes
from flan_jax.paths import Location, directory_spec, stored_keys

INDEX = "checkpoint"
_STATE = "state"
_COMMITTED = "commit_success.txt"
_NUMBERED = re.compile(r"checkpoint_(\d+)")
_UNFINISHED = re.compile(r"checkpoint_\d+\..*tmp.*")
_INPUT_POSITION = re.compile(r"train_ds-.*|dataset/.*train_ds-.*")
_DTYPES = (np.dtype(np.float32), BFLOAT16, np.dtype(np.float16))
_OPENERS = 16
# Chunks are read two at a time: this bounds the memory and keeps two cores busy.
_CONTEXT = {
    "cache_pool": {"total_bytes_limit": 0},
    "data_copy_concurrency": {"limit": 2},
    "file_io_concurrency": {"limit": 2},
}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Contents:
    """A checkpoint's leaves by T5X's names.

    "target/...", "state/step", "state/param_states/..." and "flax_mutables/...".
    """

    storage: str
    leaves: Mapping[str, Leaf]
    metadata: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def below(self, prefix: str) -> dict[str, Leaf]:
        return {n.removeprefix(prefix): leaf for n, leaf in self.leaves.items() if n.startswith(prefix)}


def looks_like(path: Location) -> bool:
    """Whether a path is a T5X checkpoint, an unfinished one, or a directory of such."""
    if path.is_dir():
        inside = {child.name for child in path.iterdir()}
        # Unfinished ones too, so that the message explains what is missing.
        return bool(INDEX in inside or _STATE in inside or _UNFINISHED.fullmatch(path.name)) or any(
            _NUMBERED.fullmatch(name) or _UNFINISHED.fullmatch(name) for name in inside
        )
    return path.is_file() and (path.name == INDEX or re.search(_NUMBERED, path.name) is not None)


def open_weights(path: Location, *, step: int | None = None) -> Weights:
    """Opens a T5X checkpoint. Reads names, shapes and types and checks that every chunk exists, but reads no values.

    Args:
      path: checkpoint_N, its index file, a checkpoint that is a single file, or the model_dir of a run.
      step: Which checkpoint of a run; None selects the latest complete one.

    Raises:
      MissingFileError: The path does not exist, or has no checkpoint of that step.
      UserError: The checkpoint is unfinished, truncated or in an unsupported format; the text names the leaf.
    """
    found, notes = _find(path, step)
    contents = _contents(found)
    target = contents.below("target/")
    if not target:
        raise UserError(f"{found} has no parameters (no leaf under 'target'): {sorted(contents.leaves)[:6]}.")
    _require_supported_types(contents, found)
    translated = layouts.to_ours(target, where=str(found))
    params, absent = _with_absent_scales(translated.params)
    notes += contents.notes + translated.notes + absent
    # A tree that is no complete T5 is not refused: a run may start from some of its parameters by rules.
    config: T5Config | None = None
    try:
        config = config_of_shapes({name: leaf.shape for name, leaf in params.items()})
    except UserError as error:
        notes += (str(error),)
    slots, reasons = _slots(contents, translated, target, found)
    return Weights(
        format="t5x",
        layout=f"{contents.storage}; {translated.layout}",
        path=str(found),
        step=_step(contents, found),
        config=config,
        config_is_stated=False,
        params=params,
        slots=slots,
        metadata=contents.metadata,
        notes=notes + reasons + _unused(contents),
    )


def _with_absent_scales(params: Mapping[str, Leaf]) -> tuple[Mapping[str, Leaf], tuple[str, ...]]:
    """Returns the parameters with ones for the scale of a norm that UL2's network in T5X lacks."""
    for family in FAMILIES:
        absent = [name for name in family.absent_in_t5x if name not in params]
        like = params.get("encoder/encoder_norm/scale")
        if not absent or like is None:
            continue
        complete = {**params, **dict.fromkeys(absent, from_array(np.ones(like.shape, like.dtype)))}
        try:
            config = config_of_shapes({name: leaf.shape for name, leaf in complete.items()})
        except UserError:
            continue
        if family.has_network_of(config):
            return complete, (f"{', '.join(absent)} is absent, as in T5X's {family.title}: it is read as ones.",)
    return params, ()


def _find(path: Location, step: int | None) -> tuple[Location, tuple[str, ...]]:
    """Returns the checkpoint's directory or single file, and notes on what was ignored."""
    if _UNFINISHED.fullmatch(path.name):
        raise UserError(f"{path} is unfinished: T5X renames it to checkpoint_N when it is complete. Use another step.")
    if path.is_file():
        # Elsewhere a file of this name is a complete checkpoint.
        is_index = path.name == INDEX and _NUMBERED.fullmatch(path.parent.name)
        return (path.parent if is_index else path), ()
    if not path.is_dir():
        raise MissingFileError(f"There is no checkpoint at {path}: no such file or directory.")
    numbered = _NUMBERED.fullmatch(path.name)
    if numbered or (path / INDEX).is_file() or (path / _STATE).is_dir():
        if step is not None and numbered and int(numbered[1]) != step:
            raise MissingFileError(f"{path} is the checkpoint of step {numbered[1]}, not of step {step}.")
        return path, ()
    return _find_in_run(path, step)


def _find_in_run(directory: Location, step: int | None) -> tuple[Location, tuple[str, ...]]:
    names = [child.name for child in directory.iterdir()]
    steps = sorted(int(match[1]) for match in map(_NUMBERED.fullmatch, names) if match)
    unfinished = sorted(filter(_UNFINISHED.fullmatch, names))
    reasons = {number: reason for number in steps if (reason := _incomplete(directory / f"checkpoint_{number}"))}
    complete = [number for number in steps if number not in reasons]
    if step is not None and step not in steps:
        raise MissingFileError(
            f"No checkpoint of step {step} in {directory}. Available steps: {steps}; unfinished: {unfinished}."
        )
    if step in reasons:
        raise UserError(reasons[step])
    if not complete:
        raise MissingFileError(
            f"No complete checkpoint in {directory}: {list(reasons.values()) or unfinished or sorted(names)[:6]}."
        )
    chosen = complete[-1] if step is None else step
    later = [*(f"checkpoint_{number}" for number in reasons if number > chosen), *unfinished]
    ignored = (f"Ignored, because unfinished: {', '.join(later)}.",) if later and step is None else ()
    return directory / f"checkpoint_{chosen}", ignored


def _incomplete(directory: Location) -> str | None:
    """Returns what a checkpoint's directory lacks, None when it is complete."""
    if (directory / INDEX).is_file():
        return None
    if not (directory / _STATE).is_dir():
        return f"{directory} is unfinished: it has neither T5X's index file {INDEX!r} nor Orbax's directory {_STATE!r}."
    if not orbax_arrays.is_item(directory / _STATE):
        older = " It has Orbax's older format, without OCDBT." if (directory / _STATE / INDEX).is_file() else ""
        return (
            f"{directory} is unfinished: {_STATE}/_METADATA or {_STATE}/manifest.ocdbt is missing.{older} "
            "Use another step, or restore and save it with a current T5X."
        )
    if not any((folder / _COMMITTED).is_file() for folder in (directory, directory / _STATE)):
        return (
            f"{directory} is unfinished: {_COMMITTED}, which is written last, is missing. Use another step; if you "
            "know that it is complete (Orbax before 2024 wrote no such file on local disks), create an empty one."
        )
    return None


def _contents(path: Location) -> _Contents:
    if path.is_file():
        return _msgpack_contents(path)
    if reason := _incomplete(path):
        raise UserError(reason)
    if (path / INDEX).is_file():
        return _msgpack_contents(path / INDEX)
    keys = stored_keys(path)
    return _Contents(
        storage="Orbax arrays (OCDBT)",
        leaves=orbax_arrays.open_arrays(path / _STATE),
        metadata={},
        notes=_input_position(keys),
    )


def _msgpack_contents(index: Location) -> _Contents:
    entries = index_file.decode(index.read_bytes(), where=str(index))
    stored = {name: entry for name, entry in entries.items() if isinstance(entry, ZarrArray)}
    keys: set[str] = set()
    opened: dict[str, Leaf] = {}
    if stored:
        keys = stored_keys(index.parent)
        opened = _zarr_leaves(stored, index.parent, keys)
    leaves = {name: opened[name] if isinstance(e, ZarrArray) else from_array(e) for name, e in entries.items()}
    storage = "msgpack index and Zarr arrays" if stored else "one msgpack file"
    return _Contents(
        storage=storage, leaves=leaves, metadata={"t5x_version": index_file.VERSION}, notes=_input_position(keys)
    )


def _zarr_leaves(entries: Mapping[str, ZarrArray], directory: Location, keys: set[str]) -> dict[str, Leaf]:
    """Opens the arrays of an index, several at a time, because in a bucket each is a request."""
    import tensorstore as ts

    context = ts.Context(_CONTEXT)

    def opened(item: tuple[str, ZarrArray]) -> tuple[str, Leaf]:
        name, entry = item
        if entry.dtype == "uint16":
            raise UserError(_old_bfloat16(name, directory))
        if f"{entry.path}/.zarray" not in keys:
            raise UserError(
                f"{directory}: the index lists the leaf {name}, but {entry.path}/.zarray is missing. The checkpoint is "
                "incomplete; some tools do not copy names that begin with a dot."
            )
        spec = zarr_spec(directory, entry.path)
        leaf = orbax_arrays.zarr_leaf(spec, name=name, where=str(directory), context=context)
        if (leaf.shape, leaf.dtype.name) != (entry.shape, entry.dtype):
            raise UserError(
                f"{directory}: the index has the leaf {name} as {entry.dtype}{list(entry.shape)}, but "
                f"{entry.path}/.zarray as {leaf.dtype.name}{list(leaf.shape)}. One of them belongs to another "
                "checkpoint."
            )
        orbax_arrays.require_chunks(leaf, keys=keys, prefix=f"{entry.path}/", name=name, where=str(directory))
        return name, leaf

    with ThreadPoolExecutor(_OPENERS) as pool:
        return dict(pool.map(opened, entries.items()))


def zarr_spec(directory: Location, name: str) -> dict[str, Any]:
    """Returns TensorStore's spec of an array below a directory; the original path in the index does not matter.

    >>> from flan_jax.paths import location
    >>> zarr_spec(location("gs://some-bucket/small/checkpoint_9"), "target.token_embedder.embedding")["kvstore"]
    {'driver': 'gcs', 'bucket': 'some-bucket', 'path': 'small/checkpoint_9/target.token_embedder.embedding/'}
    """
    return {"driver": "zarr", "kvstore": directory_spec(directory / name)}


def _require_supported_types(contents: _Contents, path: Location) -> None:
    """Rejects unsupported types among the leaves that are used; only Adafactor's optimizer state is."""
    states, target = contents.below("state/param_states/"), contents.below("target/")
    read = ("target/", "state/param_states/") if adafactor_slots.is_adafactor(states, target) else "target/"
    for name, leaf in contents.leaves.items():
        if leaf.dtype == np.uint16:
            raise UserError(_old_bfloat16(name, path))
        # The step, input positions and the states of other optimizers may have any type.
        if leaf.dtype not in _DTYPES and name.startswith(read):
            raise UserError(
                f"{path}: the leaf {name} is {leaf.dtype}; supported are {', '.join(map(str, _DTYPES))}. Save it with "
                "T5X as one of these."
            )


def _old_bfloat16(name: str, path: Location) -> str:
    return (
        f"{path}: the leaf {name} is uint16, as T5X wrote bfloat16 before June 2021; its meaning is ambiguous. "
        "Restore and save it with a T5X of that time first."
    )


def _step(contents: _Contents, path: Location) -> int | None:
    leaf = contents.leaves.get("state/step")
    if leaf is None:
        return None
    value = leaf.whole()
    if value.size != 1 or float(value.item()) != int(value.item()):
        raise UserError(f"{path}: state/step is {value.tolist()!r}; expected one integer.")
    return int(value.item())


def _slots(
    contents: _Contents, translated: layouts.Translated, target: Mapping[str, Leaf], path: Location
) -> tuple[dict[str, Leaf], tuple[str, ...]]:
    """Returns the slots by this project's names, or the reasons why there are none."""
    states = contents.below("state/param_states/")
    if not states:
        return {}, ()
    if not adafactor_slots.is_adafactor(states, target):
        return {}, (f"The optimizer's state is not Adafactor's ({min(states)}, ...) and is not converted.",)
    if not translated.rules:
        return {}, ("Adafactor's state is not converted, because the parameters keep T5X's names.",)
    known = {name for rule in translated.rules for name in layouts.names_of(rule, target)}
    states = {name: leaf for name, leaf in states.items() if name.rpartition("/")[0] in known}
    try:
        return adafactor_slots.to_ours(states, translated.rules, translated.params, where=str(path)), ()
    except UserError as error:
        return {}, (f"Adafactor's state is not converted: {error}",)


def _unused(contents: _Contents) -> tuple[str, ...]:
    read = ("target/", "state/step", "state/param_states/")
    names = sorted(name for name in contents.leaves if not name.startswith(read))
    return (f"Not used: {len(names)} leaves such as {names[0]}.",) if names else ()


def _input_position(keys: set[str]) -> tuple[str, ...]:
    names = sorted(filter(_INPUT_POSITION.fullmatch, keys))
    return (f"The position of T5X's input pipeline ({names[0]}) is not used.",) if names else ()
