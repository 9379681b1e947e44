"""Reads a run's directory of checkpoints, without a manager and without disturbing a run that is writing to it.

A checkpoint is a directory named by its step with one folder per item: `params` and `opt_state` (arrays), `step`,
`data` (position of the feed), `metrics` and `metadata` (JSON). It is complete once the writer has committed it; what a
killed process left unfinished is ignored. `flan_jax.checkpoint.manager` writes.
"""

import json
from pathlib import Path
from typing import Any

from flan_jax.checkpoint.trees import differences, named_leaves, nested, unflatten
from flan_jax.errors import MissingFileError, UserError
from flan_jax.paths import Location

DIRECTORY_NAME = "checkpoints"
_ORBAX_RECORD = "_CHECKPOINT_METADATA"


def all_steps(directory: Location) -> list[int]:
    """Returns the steps of the complete checkpoints in a directory, ascending."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal() and is_complete(p))


def is_complete(checkpoint: Location) -> bool:
    """Whether a checkpoint was committed: Orbax records the time just before it publishes one."""
    record = checkpoint / _ORBAX_RECORD
    try:
        return bool(json.loads(record.read_text()).get("commit_timestamp_nsecs"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False


def latest_step(directory: Location) -> int | None:
    """Returns the highest step in a directory, None when there is no checkpoint."""
    return max(all_steps(directory), default=None)


def find(path: Location, *, step: int | None = None) -> Location:
    """Returns the directory of one checkpoint.

    Args:
      path: a run's directory, its `checkpoints` directory, or one checkpoint's directory.
      step: which checkpoint; None selects the latest.

    Raises:
      MissingFileError: the directory has no checkpoint, or none of that step.
    """
    if is_complete(path) and step in (None, _as_step(path.name)):
        return path
    directory = path / DIRECTORY_NAME if (path / DIRECTORY_NAME).is_dir() else path
    steps = all_steps(directory)
    if not steps:
        raise MissingFileError(
            f"No checkpoint in {path}. Give a run's directory, its {DIRECTORY_NAME!r} folder or one checkpoint's."
        )
    if step is not None and step not in steps:
        raise MissingFileError(f"No checkpoint of step {step} in {directory}. Available steps: {steps}.")
    return directory / str(steps[-1] if step is None else step)


def read_json(checkpoint: Location, item: str) -> dict[str, Any]:
    """Returns a JSON item (`step`, `data`, `metrics` or `metadata`) of one checkpoint's directory."""
    file = checkpoint / item / ("metrics" if item == "metrics" else "metadata")
    if not file.exists():
        raise MissingFileError(f"The checkpoint {checkpoint} has no {item!r}: {file} is missing.")
    return json.loads(file.read_text())


def read_tree(checkpoint: Path, item: str, abstract: Any) -> Any:
    """Returns the arrays of an item (`params`, `opt_state`) with the shardings of `abstract`.

    Args:
      checkpoint: one checkpoint's directory.
      item: the item's name.
      abstract: a tree of `jax.ShapeDtypeStruct`; those without a sharding go to the first device. The mesh may differ
        from the one that saved.

    Raises:
      UserError: names, shapes or dtypes differ; the text lists the differing ones.
    """
    import jax
    import orbax.checkpoint as ocp

    expected = named_leaves(abstract)
    _require_same(expected, _stored(checkpoint, item), where=f"{checkpoint}, item {item!r}")
    if not expected:  # An optimizer without state, such as plain SGD.
        return abstract
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or first)
        for name, leaf in expected.items()
    }
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        tree = reader.restore(checkpoint / item, args=ocp.args.StandardRestore(nested(placed)))
    return unflatten(named_leaves(tree), abstract)


def _stored(checkpoint: Path, item: str) -> dict[str, Any]:
    """Returns shapes and dtypes of a stored tree, by name."""
    import orbax.checkpoint as ocp

    if not (checkpoint / item).is_dir():
        return {}
    return named_leaves(ocp.StandardCheckpointHandler().metadata(checkpoint / item).tree)


def _require_same(expected: dict[str, Any], got: dict[str, Any], *, where: str) -> None:
    lines = differences(expected=expected, got=got)
    if lines:
        shown = [*lines[:20], *([f"and {len(lines) - 20} more"] if len(lines) > 20 else [])]
        raise UserError(
            f"The checkpoint {where} does not fit this model:\n  " + "\n  ".join(shown) + "\n"
            "Use the model and optimizer it was saved with, or another directory."
        )


def _as_step(name: str) -> int | None:
    return int(name) if name.isdecimal() else None
