"""What a directory of checkpoints holds, and reading it: needs no manager, and disturbs no run that is writing there.

A checkpoint is a directory named by its step with one folder an item: `params` and `opt_state` (arrays), `step`, `data`
(position of the feed), `metrics` and `metadata` (JSON). It counts as whole when the writer has committed it; what a
killed process left half-written is passed over. Writing is left to `flan_jax.checkpoint.manager`.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

from flan_jax.checkpoint.trees import differences, named_leaves, nested, unflatten
from flan_jax.errors import MissingFileError, UserError

DIRECTORY_NAME = "checkpoints"
_ORBAX_RECORD = "_CHECKPOINT_METADATA"
BestMode = Literal["max", "min"]


def all_steps(directory: Any) -> list[int]:
    """Returns the steps of the whole checkpoints in a directory, ascending."""
    place = as_path(directory)
    if not place.is_dir():
        return []
    return sorted(int(p.name) for p in place.iterdir() if p.name.isdecimal() and is_whole(p))


def is_whole(checkpoint: Any) -> bool:
    """Whether a checkpoint's directory was written to its end: Orbax notes the time just before it publishes one."""
    record = as_path(checkpoint) / _ORBAX_RECORD
    try:
        return bool(json.loads(record.read_text()).get("commit_timestamp_nsecs"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False


def latest_step(directory: Any) -> int | None:
    """Returns the highest step in a directory, None when there is no checkpoint."""
    return max(all_steps(directory), default=None)


def best_step(directory: Any, *, metric: str, mode: BestMode) -> int | None:
    """Returns the step with the best value of a metric (the later of equals), None when no checkpoint has it."""
    sign = 1 if mode == "max" else -1
    scored = [
        (sign * read_json(as_path(directory) / str(s), "metrics").get(metric, math.nan), s)
        for s in all_steps(directory)
    ]
    scored = [(value, step) for value, step in scored if not math.isnan(value)]
    return max(scored)[1] if scored else None


def find(path: Any, *, step: int | None = None) -> Any:
    """Returns the directory of one checkpoint.

    Args:
      path: a run's directory, its `checkpoints` directory, or one checkpoint's directory.
      step: which one; None takes the latest.

    Raises:
      MissingFileError: there is no checkpoint there, or not of that step.
    """
    place = as_path(path)
    if is_whole(place) and step in (None, _as_step(place.name)):
        return place
    directory = place / DIRECTORY_NAME if (place / DIRECTORY_NAME).is_dir() else place
    steps = all_steps(directory)
    if not steps:
        raise MissingFileError(
            f"No checkpoint in {path}. Wanted a run's directory, its {DIRECTORY_NAME!r} folder or one checkpoint's."
        )
    if step is not None and step not in steps:
        raise MissingFileError(f"No checkpoint of step {step} in {directory}. There are steps {steps}.")
    return directory / str(steps[-1] if step is None else step)


def read_json(checkpoint: Any, item: str) -> dict[str, Any]:
    """Returns a JSON item (`step`, `data`, `metrics` or `metadata`) of one checkpoint's directory."""
    file = as_path(checkpoint) / item / ("metrics" if item == "metrics" else "metadata")
    if not file.exists():
        raise MissingFileError(f"The checkpoint {checkpoint} has no {item!r}: {file} is missing.")
    return json.loads(file.read_text())


def read_tree(checkpoint: Any, item: str, abstract: Any) -> Any:
    """Returns the arrays of an item (`params`, `opt_state`), placed as `abstract` says.

    Args:
      checkpoint: one checkpoint's directory.
      item: the item's name.
      abstract: a tree of `jax.ShapeDtypeStruct`; those without a sharding go to the first device. The mesh may be
        another than the one that saved.

    Raises:
      UserError: names, shapes or dtypes differ; the differing ones are named.
    """
    import jax
    import orbax.checkpoint as ocp

    wanted, place = named_leaves(abstract), as_path(checkpoint)
    _require_same(wanted, _stored(place, item), place=f"{place}, item {item!r}")
    if not wanted:  # An optimiser without state, such as plain SGD.
        return abstract
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or first)
        for name, leaf in wanted.items()
    }
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        tree = reader.restore(place / item, args=ocp.args.StandardRestore(nested(placed)))
    return unflatten(named_leaves(tree), abstract)


def _stored(checkpoint: Any, item: str) -> dict[str, Any]:
    """Shapes and dtypes of a stored tree, by name."""
    import orbax.checkpoint as ocp

    if not (checkpoint / item).is_dir():
        return {}
    return named_leaves(ocp.StandardCheckpointHandler().metadata(checkpoint / item).tree)


def _require_same(wanted: dict[str, Any], got: dict[str, Any], *, place: str) -> None:
    lines = differences(wanted=wanted, got=got)
    if lines:
        shown = [*lines[:20], *([f"and {len(lines) - 20} more"] if len(lines) > 20 else [])]
        raise UserError(
            f"The checkpoint {place} does not fit this model:\n  " + "\n  ".join(shown) + "\n"
            "Use the model and optimizer it was saved with, or another directory."
        )


def _as_step(name: str) -> int | None:
    return int(name) if name.isdecimal() else None


def as_path(path: Any) -> Any:
    """Local paths and buckets (gs://) alike; Orbax takes no relative ones."""
    from etils import epath

    place = epath.Path(path)
    return place if "://" in str(path) else epath.Path(Path(place).absolute())
