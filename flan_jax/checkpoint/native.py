"""This project's own checkpoints as `Weights`, and writing one from leaves of another format.

A run writes its checkpoints through `checkpoint.manager`, from arrays on a mesh. A conversion writes here, tensor by
tensor, in the same layout, so that one reader serves both: parameters, step, metadata, and Adafactor's second moments
where there are any.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax import vocab
from flan_jax.checkpoint import orbax_arrays, reading
from flan_jax.checkpoint.leaves import Leaf
from flan_jax.checkpoint.trees import nested
from flan_jax.checkpoint.verification import write_digests
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import DamagedFileError, UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import config_of_shapes
from flan_jax.paths import Location
from flan_jax.settings import from_json

VOCABULARY_FILE = "vocabulary.model"
SLOTS = ("v_row", "v_col", "v", "m")
_CHUNK_BYTES = 2**26
_SLOT = re.compile(rf"(?:.*?/)?({'|'.join(SLOTS)}|ema)/(.+)")


def looks_like(path: Location) -> bool:
    """Whether a path is a run, its `checkpoints` folder, or one checkpoint, complete or not."""
    if (path / "run.json").exists() or (path / reading.DIRECTORY_NAME).is_dir():
        return True
    if (path / "params").is_dir():
        return True
    return path.is_dir() and any(child.name.isdecimal() and (child / "params").is_dir() for child in path.iterdir())


def open_weights(path: Location, *, step: int | None = None, strict: bool = False) -> Weights:
    """Opens a run's checkpoint or a converted one, verified; arguments and errors as in `reading.find_intact`."""
    directory, warnings = reading.find_intact(path, step=step, strict=strict)
    params = orbax_arrays.open_arrays(directory / "params")
    metadata = reading.read_json(directory, "metadata")
    state = orbax_arrays.open_arrays(directory / "opt_state") if (directory / "opt_state").is_dir() else {}
    slots = slots_of(state, params)
    config, note = _config(metadata, params)
    notes = [] if note is None else [note]
    if state and not slots:
        notes.append("The optimizer's state is not Adafactor's and is not converted.")
    return Weights(
        format="flan_jax",
        layout="Orbax items (OCDBT)",
        path=str(directory),
        step=int(reading.read_json(directory, "step")["step"]),
        config=config,
        config_is_stated=config is not None and "model" in metadata,
        params=params,
        slots=slots,
        # Next to `checkpoints/`: one file for all checkpoints of a run.
        vocabulary=_vocabulary(metadata, directory.parent.parent / VOCABULARY_FILE),
        metadata=metadata,
        notes=tuple(notes),
        warnings=warnings,
    )


def _config(metadata: Mapping[str, Any], params: Mapping[str, Leaf]) -> tuple[T5Config | None, str | None]:
    """Returns the network that a checkpoint records or that its shapes show; None and the reason if neither works."""
    try:
        if "model" in metadata:
            return from_json(metadata["model"], T5Config, file="Its recorded model"), None
        return config_of_shapes({name: leaf.shape for name, leaf in params.items()}), None
    except UserError as error:
        return None, str(error)


def _vocabulary(metadata: Mapping[str, Any], file: Location) -> vocab.Vocabulary | None:
    if metadata.get("vocabulary") == "bytes":
        return vocab.load("bytes", extra_ids=metadata.get("extra_ids"))
    if not (isinstance(file, Path) and file.is_file()):
        return None
    vocabulary = vocab.load(str(file), extra_ids=metadata.get("extra_ids"))
    if vocabulary.digest != metadata.get("vocabulary_digest", vocabulary.digest):
        raise DamagedFileError(f"The vocabulary {file} is not the one that was converted: copy the checkpoint again.")
    return vocabulary


def slots_of(state: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns Adafactor's moments in an optimizer's state: "v_row/<parameter>" and so on, "m/<parameter>" for momentum.

    The transformations around Adafactor, which decide its names in the state, do not matter.

    >>> slots_of({"1/0/count": 0, "1/0/v_row/a/scale": 1, "1/4/ema/a/scale": 3}, {"a/scale": 2})
    {'v_row/a/scale': 1, 'm/a/scale': 3}
    """
    found = {}
    for name, leaf in state.items():
        match = _SLOT.fullmatch(name)
        if match and match[2] in params:
            found[f"{'m' if match[1] == 'ema' else match[1]}/{match[2]}"] = leaf  # T5X's name for Optax's average.
    return found


def write(weights: Weights, directory: Path, *, metadata: Mapping[str, Any]) -> None:
    """Writes a checkpoint to `<directory>/checkpoints/<step>` (step 0 when the weights have none).

    Args:
      weights: Slots go into the state of a plain `optim.optimizers.adafactor`.
      directory: An existing folder.
      metadata: Stored with the checkpoint, JSON.
    """
    import orbax.checkpoint as ocp

    step = weights.step or 0
    items: dict[str, Any] = {"params": _tree(weights.params)}
    handlers: dict[str, Any] = {"params": _handler()}
    if weights.slots:
        # `optax.adafactor` is a chain, whose first state ("0") holds the moments and their count.
        count = Leaf(shape=(), dtype=np.dtype(np.int32), read=lambda _: np.asarray(step, np.int32))
        items["opt_state"] = _tree({"0/count": count, **{f"0/{name}": leaf for name, leaf in weights.slots.items()}})
        handlers["opt_state"] = _handler()
    for item, value in {"step": {"step": step}, "data": {}, "metadata": dict(metadata)}.items():
        items[item], handlers[item] = ocp.args.JsonSave(value), ocp.JsonCheckpointHandler()
    # A constant rank, because Orbax writes the item "metrics" only if there is one.
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False, best_fn=lambda metrics: 0.0, save_root_metadata=False
    )
    with ocp.CheckpointManager(directory / reading.DIRECTORY_NAME, options=options, item_handlers=handlers) as manager:
        manager.save(step, args=ocp.args.Composite(**items), metrics={}, force=True)
    write_digests(directory / reading.DIRECTORY_NAME / str(step), except_names=reading.ORBAX_RECORDS)


def _tree(leaves: Mapping[str, Leaf]) -> Any:
    import jax
    import orbax.checkpoint as ocp

    tree = nested(dict(leaves))
    save_args = jax.tree.map(
        lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree, is_leaf=lambda x: isinstance(x, Leaf)
    )
    return ocp.args.PyTreeSave(tree, save_args=save_args)


def _handler() -> Any:
    """Returns Orbax's handler of trees with a type handler that writes leaves one after the other."""
    import jax
    import orbax.checkpoint as ocp

    handler = _leaf_handler()
    # There are no device arrays, but Orbax warns about a registry without a handler for them.
    registry = ocp.type_handlers.create_type_handler_registry(
        (Leaf, handler), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def _leaf_handler() -> Any:
    import orbax.checkpoint as ocp

    class LeafHandler(ocp.type_handlers.NumpyHandler):
        """Reads each leaf just before it is written: one at a time, or a batch of small ones of the same total size."""

        async def serialize(self, values: Sequence[Leaf], infos: Sequence[Any], args: Any = None) -> list[Any]:
            for some in _batches(values):
                arrays = [values[i].whole() for i in some]
                futures = await super().serialize(arrays, [infos[i] for i in some], [args[i] for i in some])
                # Before the next batch is read: this bounds the memory. In a thread, since the write itself runs in
                # this event loop.
                for future in futures:
                    await asyncio.to_thread(future.result)
            return []

    # Each array was read for this write, so nothing can change it meanwhile.
    return LeafHandler(deepcopy_host_arrays=False)


def _batches(leaves: Sequence[Leaf]) -> Iterator[list[int]]:
    """Yields the positions of leaves that are written together."""
    batch: list[int] = []
    filled = 0
    for position, leaf in enumerate(leaves):
        if batch and filled + leaf.nbytes > _CHUNK_BYTES:
            yield batch
            batch, filled = [], 0
        batch.append(position)
        filled += leaf.nbytes
    if batch:
        yield batch
