"""T5X's checkpoints as `Weights`, without T5X or TensorFlow.

Three forms: one msgpack file with every array in it; a msgpack index beside Zarr arrays, which T5X calls legacy and in
which its public checkpoints are; Orbax's (OCDBT), which it writes by default today. Their trees are read by
`t5x_layouts` and `adafactor_slots`; `t5x_writing` writes the second form.
"""

import dataclasses
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import numpy as np

from flan_jax.checkpoint import orbax_arrays
from flan_jax.checkpoint.leaves import BFLOAT16, Leaf, from_array
from flan_jax.checkpoint.places import Place, directory_spec, place_at, stored_keys
from flan_jax.checkpoint.t5x import adafactor_slots, index_file, layouts
from flan_jax.checkpoint.t5x.index_file import ZarrArray
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import MissingFileError, UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.families import FAMILIES
from flan_jax.models.t5.parameters import config_of_shapes

INDEX = "checkpoint"
_STATE = "state"
_COMMITTED = "commit_success.txt"
_NUMBERED = re.compile(r"checkpoint_(\d+)")
_HALF_SAVED = re.compile(r"checkpoint_\d+\..*tmp.*")
_INPUT_POSITION = re.compile(r"train_ds-.*|dataset/.*train_ds-.*")
_DTYPES = (np.dtype(np.float32), BFLOAT16, np.dtype(np.float16))
_OPENERS = 16
# Parts are read one after the other: two at a time bound what is in memory, and keep two cores busy.
_CONTEXT = {
    "cache_pool": {"total_bytes_limit": 0},
    "data_copy_concurrency": {"limit": 2},
    "file_io_concurrency": {"limit": 2},
}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Contents:
    """What a checkpoint holds, by T5X's names: "target/...", "state/step", "state/param_states/...", "flax_mutables/..."."""

    form: str
    leaves: Mapping[str, Leaf]
    metadata: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def below(self, prefix: str) -> dict[str, Leaf]:
        return {n.removeprefix(prefix): leaf for n, leaf in self.leaves.items() if n.startswith(prefix)}


def looks_like(path: Any) -> bool:
    """Whether a path leads to a T5X checkpoint, a half-saved one, or a directory of such."""
    place = place_at(path)
    if place.is_dir():
        inside = {child.name for child in place.iterdir()}
        return bool(INDEX in inside or _STATE in inside or _HALF_SAVED.fullmatch(place.name)) or any(
            _NUMBERED.fullmatch(name) or _HALF_SAVED.fullmatch(name) for name in inside
        )
    return place.is_file() and (place.name == INDEX or re.search(_NUMBERED, place.name) is not None)


def open_weights(path: Any, *, step: int | None = None) -> Weights:
    """Opens a T5X checkpoint: names, shapes and types are read and the presence of every part is checked; no values.

    Args:
      path: checkpoint_N, its index file, a checkpoint that is a single file, or the model_dir of a run; local or gs://.
      step: which one of a run; None takes the latest that is whole.

    Raises:
      MissingFileError: there is nothing at the path, or nothing of that step.
      UserError: the checkpoint is half-saved, cut short, or of a form that is not read; the leaf is named.
    """
    place, notes = _found(place_at(path), step)
    contents = _contents(place)
    target = contents.below("target/")
    if not target:
        raise UserError(f"{place} holds no parameters (no leaf under 'target'): {sorted(contents.leaves)[:6]}.")
    _require_known_types(contents, place)
    translated = layouts.to_ours(target, place=str(place))
    params, never_trained = _with_never_trained(translated.params)
    notes += contents.notes + translated.notes + never_trained
    config: T5Config | None = None
    try:
        config = config_of_shapes({name: leaf.shape for name, leaf in params.items()})
    except UserError as error:
        notes += (str(error),)
    slots, why_not = _slots(contents, translated, target, place)
    return Weights(
        format="t5x",
        layout=f"{contents.form}; {translated.layout}",
        path=str(place),
        step=_step(contents, place),
        config=config,
        config_is_stated=False,
        params=params,
        slots=slots,
        metadata=contents.metadata,
        notes=notes + why_not + _unused(contents),
    )


def _with_never_trained(params: Mapping[str, Leaf]) -> tuple[Mapping[str, Leaf], tuple[str, ...]]:
    """Returns the parameters with those that UL2's network in T5X does without: the scale of a norm, which is one."""
    for family in FAMILIES:
        absent = [name for name in family.absent_in_t5x if name not in params]
        like = params.get("encoder/encoder_norm/scale")
        if not absent or like is None:
            continue
        whole = {**params, **dict.fromkeys(absent, from_array(np.ones(like.shape, like.dtype)))}
        try:
            config = config_of_shapes({name: leaf.shape for name, leaf in whole.items()})
        except UserError:
            continue
        if family.has_network_of(config):
            return whole, (f"{', '.join(absent)} is not there, as in T5X's {family.title}: it is taken for ones.",)
    return params, ()


def _found(place: Place, step: int | None) -> tuple[Place, tuple[str, ...]]:
    """Returns the checkpoint's directory or single file."""
    if _HALF_SAVED.fullmatch(place.name):
        raise UserError(f"{place} is half-saved: T5X renames it to checkpoint_N when it is whole. Use another step.")
    if place.is_file():
        is_index = place.name == INDEX and _NUMBERED.fullmatch(place.parent.name)
        return (place.parent if is_index else place), ()
    if not place.is_dir():
        raise MissingFileError(f"There is no checkpoint at {place}: no such file or directory.")
    if _NUMBERED.fullmatch(place.name) or (place / INDEX).is_file() or (place / _STATE).is_dir():
        own = _NUMBERED.fullmatch(place.name)
        if step is not None and own and int(own[1]) != step:
            raise MissingFileError(f"{place} is the checkpoint of step {own[1]}, not of step {step}.")
        return place, ()
    return _in_run(place, step)


def _in_run(place: Place, step: int | None) -> tuple[Place, tuple[str, ...]]:
    names = [child.name for child in place.iterdir()]
    steps = sorted(int(match[1]) for match in map(_NUMBERED.fullmatch, names) if match)
    half = sorted(filter(_HALF_SAVED.fullmatch, names))
    why_not = {number: reason for number in steps if (reason := _why_not_whole(place / f"checkpoint_{number}"))}
    whole = [number for number in steps if number not in why_not]
    if step is not None and step not in steps:
        raise MissingFileError(f"No checkpoint of step {step} in {place}. There are steps {steps}, half-saved {half}.")
    if step in why_not:
        raise UserError(why_not[step])
    if not whole:
        raise MissingFileError(
            f"No whole checkpoint in {place}: {list(why_not.values()) or half or sorted(names)[:6]}."
        )
    chosen = whole[-1] if step is None else step
    later = [*(f"checkpoint_{number}" for number in why_not if number > chosen), *half]
    passed_over = (f"Passed over, being half-saved: {', '.join(later)}.",) if later and step is None else ()
    return place / f"checkpoint_{chosen}", passed_over


def _why_not_whole(place: Place) -> str | None:
    """Says what a checkpoint's directory lacks, None when it is whole."""
    if (place / INDEX).is_file():
        return None
    if not (place / _STATE).is_dir():
        return f"{place} is half-saved: it has neither T5X's index file {INDEX!r} nor Orbax's directory {_STATE!r}."
    if not orbax_arrays.is_item(place / _STATE):
        older = " It is of Orbax's older form, without OCDBT." if (place / _STATE / INDEX).is_file() else ""
        return (
            f"{place} is half-saved: {_STATE}/_METADATA or {_STATE}/manifest.ocdbt is missing.{older} "
            "Use another step, or restore and save it with a present T5X."
        )
    if not any((folder / _COMMITTED).is_file() for folder in (place, place / _STATE)):
        return (
            f"{place} is half-saved: {_COMMITTED}, which is written last, is missing. Use another step; if you know "
            "that it is whole (an Orbax of before 2024 wrote no such file on local disks), make an empty one."
        )
    return None


def _contents(place: Place) -> _Contents:
    if place.is_file():
        return _msgpack_contents(place, place)
    if reason := _why_not_whole(place):
        raise UserError(reason)
    if (place / INDEX).is_file():
        return _msgpack_contents(place / INDEX, place)
    keys = stored_keys(place)
    return _Contents(
        form="Orbax arrays (OCDBT)",
        leaves=orbax_arrays.open_arrays(place / _STATE),
        metadata={},
        notes=_input_position(keys),
    )


def _msgpack_contents(index: Place, place: Place) -> _Contents:
    entries = index_file.decode(index.read_bytes(), place=str(index))
    beside = {name: entry for name, entry in entries.items() if isinstance(entry, ZarrArray)}
    keys: set[str] = set()
    opened: dict[str, Leaf] = {}
    if beside:
        directory = index.parent
        keys = stored_keys(directory)
        opened = _zarr_leaves(beside, directory, keys)
    leaves = {name: opened[name] if isinstance(e, ZarrArray) else from_array(e) for name, e in entries.items()}
    form = "msgpack index and Zarr arrays" if beside else "one msgpack file"
    return _Contents(
        form=form, leaves=leaves, metadata={"t5x_version": index_file.VERSION}, notes=_input_position(keys)
    )


def _zarr_leaves(entries: Mapping[str, ZarrArray], directory: Place, keys: set[str]) -> dict[str, Leaf]:
    """Opens the arrays beside an index, several at a time: in a bucket each is a request."""
    import tensorstore as ts

    context = ts.Context(_CONTEXT)

    def opened(item: tuple[str, ZarrArray]) -> tuple[str, Leaf]:
        name, entry = item
        if entry.dtype == "uint16":
            raise UserError(_old_bfloat16(name, directory))
        if f"{entry.path}/.zarray" not in keys:
            raise UserError(
                f"{directory}: the index names the leaf {name}, and {entry.path}/.zarray is missing. The checkpoint is "
                "incomplete; some copies leave out names that begin with a dot."
            )
        spec = zarr_spec(directory, entry.path)
        leaf = orbax_arrays.zarr_leaf(spec, name=name, place=str(directory), context=context)
        if (leaf.shape, leaf.dtype.name) != (entry.shape, entry.dtype):
            raise UserError(
                f"{directory}: the index has the leaf {name} as {entry.dtype}{list(entry.shape)}, and "
                f"{entry.path}/.zarray as {leaf.dtype.name}{list(leaf.shape)}. One of them belongs to another checkpoint."
            )
        orbax_arrays.require_parts(leaf, keys=keys, prefix=f"{entry.path}/", name=name, place=str(directory))
        return name, leaf

    with ThreadPoolExecutor(_OPENERS) as pool:
        return dict(pool.map(opened, entries.items()))


def zarr_spec(directory: Place, name: str) -> dict[str, Any]:
    """Returns TensorStore's description of an array below a directory, whatever the index says of where it was written.

    >>> zarr_spec(place_at("gs://some-bucket/small/checkpoint_9"), "target.token_embedder.embedding")["kvstore"]
    {'driver': 'gcs', 'bucket': 'some-bucket', 'path': 'small/checkpoint_9/target.token_embedder.embedding/'}
    """
    return {"driver": "zarr", "kvstore": directory_spec(directory / name)}


def _require_known_types(contents: _Contents, place: Place) -> None:
    """Refuses types of what is read; another optimiser's state is not."""
    states, target = contents.below("state/param_states/"), contents.below("target/")
    read = ("target/", "state/param_states/") if adafactor_slots.is_adafactor(states, target) else "target/"
    for name, leaf in contents.leaves.items():
        if leaf.dtype == np.uint16:
            raise UserError(_old_bfloat16(name, place))
        if leaf.dtype not in _DTYPES and name.startswith(read):
            raise UserError(
                f"{place}: the leaf {name} is {leaf.dtype}; read are {', '.join(map(str, _DTYPES))}. Save it with T5X "
                "as one of these."
            )


def _old_bfloat16(name: str, place: Place) -> str:
    return (
        f"{place}: the leaf {name} is uint16, as T5X wrote bfloat16 before June 2021; what the numbers mean is not "
        "certain. Restore and save it with a T5X of that time first."
    )


def _step(contents: _Contents, place: Place) -> int | None:
    leaf = contents.leaves.get("state/step")
    if leaf is None:
        return None
    value = leaf.whole()
    if value.size != 1 or float(value.item()) != int(value.item()):
        raise UserError(f"{place}: state/step is {value.tolist()!r}, where one whole number is expected.")
    return int(value.item())


def _slots(
    contents: _Contents, translated: layouts.Translated, target: Mapping[str, Leaf], place: Place
) -> tuple[dict[str, Leaf], tuple[str, ...]]:
    """Returns the slots under our names, or why there are none."""
    states = contents.below("state/param_states/")
    if not states:
        return {}, ()
    if not adafactor_slots.is_adafactor(states, target):
        return {}, (f"The optimiser's state is not Adafactor's ({min(states)}, ...) and is not carried over.",)
    if not translated.rules:
        return {}, ("Adafactor's state is not carried over, since the parameters keep their names.",)
    known = {name for rule in translated.rules for name in layouts.names_of(rule, target)}
    states = {name: leaf for name, leaf in states.items() if name.rpartition("/")[0] in known}
    try:
        return adafactor_slots.to_ours(states, translated.rules, translated.params, place=str(place)), ()
    except UserError as error:
        return {}, (f"Adafactor's state is not carried over: {error}",)


def _unused(contents: _Contents) -> tuple[str, ...]:
    read = ("target/", "state/step", "state/param_states/")
    names = sorted(name for name in contents.leaves if not name.startswith(read))
    return (f"Not used: {len(names)} leaves such as {names[0]}.",) if names else ()


def _input_position(keys: set[str]) -> tuple[str, ...]:
    names = sorted(filter(_INPUT_POSITION.fullmatch, keys))
    return (f"The position of T5X's input pipeline ({names[0]}) is not used.",) if names else ()
