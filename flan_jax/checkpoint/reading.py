"""Reads a run's directory of checkpoints, without a manager and without disturbing a run that is writing to it.

A checkpoint is a directory named by its step with one folder per item: `params` and `opt_state` (arrays), `step`,
`data` (position of the feed), `metrics` and `metadata` (JSON), and `digests.json`, the checksums of all files. It gets
its name when it is complete; what a killed process left unfinished has another one and is ignored.
`flan_jax.checkpoint.manager` writes.
"""

import json
from pathlib import Path
from typing import Any

from flan_jax.checkpoint.trees import differences, named_leaves, nested, unflatten
from flan_jax.checkpoint.verification import DIGESTS_NAME, damage
from flan_jax.errors import DamagedFileError, MissingFileError, UserError
from flan_jax.paths import Location

DIRECTORY_NAME = "checkpoints"
ORBAX_RECORDS = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""Written after the digests; they must exist, and nothing else in them matters."""


def all_steps(directory: Location) -> list[int]:
    """Returns the steps of the checkpoints in a directory, intact or not, ascending."""
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal()) if directory.is_dir() else []


def fault_of(checkpoint: Location) -> str:
    """Returns what is wrong with a checkpoint; "" when all of its files are as they were written. Reads all of them."""
    try:
        missing = [name for name in ORBAX_RECORDS if not (checkpoint / name).is_file()]
        return f"{missing[0]} is missing" if missing else damage(checkpoint)
    except MissingFileError:
        return (
            f"{DIGESTS_NAME} is missing: it is a partial copy, of an older version of this program that wrote none, or "
            "not a checkpoint of this program"
        )


def newest_intact(directory: Location, *, strict: bool) -> tuple[int | None, dict[int, str]]:
    """Returns the step of the newest intact checkpoint, and what is wrong with each newer one, by its step.

    Args:
      directory: The checkpoints of a run; None is returned when there are none.
      strict: Whether a damaged newer checkpoint is an error.

    Raises:
      DamagedFileError: None is intact, or with `strict` the newest is not.
    """
    faults: dict[int, str] = {}
    # Newest first: usually one checkpoint is read, not all of them.
    for step in reversed(all_steps(directory)):
        fault = fault_of(directory / str(step))
        if not fault:
            return step, faults
        if (directory / str(step)).is_dir():  # Otherwise its run has deleted it meanwhile.
            faults[step] = fault
        if faults and strict:
            raise DamagedFileError(
                f"The newest checkpoint, {directory}/{step}, is damaged: {fault}. Copy it again, or use an older one: "
                "without --strict, the newest intact one is."
            )
    if faults:
        listed = "; ".join(f"{step}: {fault}" for step, fault in faults.items())
        raise DamagedFileError(
            f"No checkpoint in {directory} is intact ({listed}). Copy them again, or start anew in another directory."
        )
    return None, {}


def latest_step(directory: Location) -> int | None:
    """Returns the highest step in a directory, None when there is no checkpoint."""
    return max(all_steps(directory), default=None)


def find(path: Location, *, step: int | None = None) -> Location:
    """Returns the directory of one checkpoint, without verifying it.

    Args:
      path: A run's directory, its `checkpoints` directory, or one checkpoint's directory.
      step: Which checkpoint; None selects the latest.

    Raises:
      MissingFileError: The directory has no checkpoint, or none of that step.
    """
    if _is_checkpoint(path) and step in (None, _as_step(path.name)):
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


def find_intact(path: Location, *, step: int | None, strict: bool) -> tuple[Location, tuple[str, ...]]:
    """Returns the directory of one checkpoint, verified, and a warning for each damaged one that it replaces.

    Args:
      path: As in `find`.
      step: Which checkpoint; None selects the newest intact one.
      strict: Whether a damaged newest checkpoint is an error.

    Raises:
      MissingFileError: As `find`.
      DamagedFileError: The checkpoint is damaged and was requested by its step, or none is intact.
    """
    checkpoint = find(path, step=step)
    if step is None and not _is_checkpoint(path):
        directory = checkpoint.parent
        newest, faults = newest_intact(directory, strict=strict)
        return directory / str(newest), tuple(
            f"Warning: the checkpoint {directory}/{broken} is damaged ({fault}); {directory}/{newest} is used instead."
            for broken, fault in faults.items()
        )
    if fault := fault_of(checkpoint):
        raise DamagedFileError(f"The checkpoint {checkpoint} is damaged: {fault}. Copy it again, or use another one.")
    return checkpoint, ()


def _is_checkpoint(path: Location) -> bool:
    return (path / "params").is_dir()


def read_json(checkpoint: Location, item: str) -> dict[str, Any]:
    """Returns a JSON item (`step`, `data`, `metrics` or `metadata`) of one checkpoint's directory.

    Raises:
      MissingFileError: The checkpoint has no such item.
      DamagedFileError: It is not JSON.
    """
    file = checkpoint / item / ("metrics" if item == "metrics" else "metadata")
    if not file.exists():
        raise MissingFileError(f"The checkpoint {checkpoint} has no {item!r}: {file} is missing.")
    try:
        value = json.loads(file.read_text())
    except ValueError as error:
        raise DamagedFileError(
            f"{file} is damaged ({error}). Copy the checkpoint again, or use another one."
        ) from error
    if not isinstance(value, dict):
        raise DamagedFileError(
            f"{file} is damaged: it is no JSON object. Copy the checkpoint again, or use another one."
        )
    return value


def metrics_of(checkpoint: Location) -> dict[str, Any]:
    """Returns the metrics of the evaluation at a checkpoint's step; empty when it was not evaluated."""
    return read_json(checkpoint, "metrics") if (checkpoint / "metrics" / "metrics").exists() else {}


def read_tree(checkpoint: Path, item: str, abstract: Any) -> Any:
    """Returns the arrays of an item (`params`, `opt_state`) with the shardings of `abstract`.

    Args:
      checkpoint: One checkpoint's directory.
      item: The item's name.
      abstract: A tree of `jax.ShapeDtypeStruct`; those without a sharding go to the first device. The mesh may differ
        from the one that saved.

    Raises:
      UserError: Names, shapes or dtypes differ; the text lists the differing ones.
    """
    import jax
    import orbax.checkpoint as ocp

    expected = named_leaves(abstract)
    # Compared here, because Orbax casts to another type silently.
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
