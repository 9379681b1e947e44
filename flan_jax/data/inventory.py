"""The inventory of an export directory: every mixture and task split, from their manifests alone."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.data.manifest import MANIFEST_NAME, Lengths, TaskManifest, read_mixture, read_task
from flan_jax.errors import MissingFileError
from flan_jax.files import accessing

# Packed rows are filled to this share on average (measured on instruction data, `packing`).
_TYPICAL_FILL = 0.97


def inventory(export_dir: Path) -> dict[str, Any]:
    """Describes an export directory as JSON values.

    Returns:
      "mixtures" and "tasks", each a list in the order of file names, and "partial": folders of unfinished splits.

    Raises:
      MissingFileError: The directory holds no export.
      UserError: A manifest is not of this version's format.
    """
    with accessing(export_dir, setting="The export", action="read"):
        mixtures = [(path, read_mixture(path)) for path in sorted((export_dir / "mixtures").glob("*.json"))]
    tasks = [(path.parent, read_task(path.parent)) for path in sorted(export_dir.glob(f"tasks/*/*/{MANIFEST_NAME}"))]
    # A partial folder has a manifest for a moment, between its writing and the folder's renaming.
    tasks = [(path, task) for path, task in tasks if not path.name.endswith(".partial")]
    if not mixtures and not tasks:
        raise MissingFileError(
            f"No export in {export_dir}: it has no mixtures/*.json and no tasks/. Run `flan-jax export`."
        )
    return {
        "directory": str(export_dir),
        "mixtures": [
            {
                "name": mixture.request.name,
                "split": mixture.request.split,
                "lengths": dict(mixture.request.lengths),
                "vocabulary": dataclasses.asdict(mixture.vocabulary),
                "members": len(mixture.members),
                "examples": mixture.num_examples,
                "skipped": dict(mixture.skipped),
                "fingerprint": mixture.fingerprint(),
                "file": path.name,
            }
            for path, mixture in mixtures
        ],
        "tasks": [_task(path, task) for path, task in tasks],
        "partial": sorted(str(path.relative_to(export_dir)) for path in export_dir.glob("tasks/*/*.partial")),
    }


def examples_per_row(shares: Mapping[str, float], *, export_dir: Path, split: str, lengths: Lengths) -> float:
    """Estimates the number of examples per packed row, from the mean lengths of exported tasks.

    Args:
      shares: Each task's share of the draws.
      export_dir: The export directory.
      split: The split of the tasks.
      lengths: Token limits of a row, equal to those of the exports.

    Raises:
      MissingFileError: A task is not exported with these lengths.
    """
    means = {
        name: tuple(task.tokens[side] / task.num_examples for side in ("inputs", "targets"))
        for name, task in exported(export_dir, split=split, lengths=lengths).items()
        if name in shares
    }
    missing = sorted(set(shares) - set(means))
    if missing:
        raise MissingFileError(
            f"{export_dir} does not hold {missing[0]!r}{f' and {len(missing) - 1} more tasks' if missing[1:] else ''}, "
            f"split {split!r}, with lengths {dict(lengths)}: export them, or choose other lengths."
        )
    filled = [
        sum(share * means[task][i] for task, share in shares.items()) / lengths[side]
        for i, side in enumerate(("inputs", "targets"))
    ]
    # The side that fills first limits a row, which holds at least one example.
    return max(1.0, _TYPICAL_FILL / max(filled))


def exported(export_dir: Path, *, split: str, lengths: Lengths) -> dict[str, TaskManifest]:
    """Returns the manifests of all tasks that are exported for a split with these lengths, by name."""
    paths = sorted(export_dir.glob(f"tasks/*/{split}/{MANIFEST_NAME}"))
    tasks = (read_task(path.parent) for path in paths)
    return {task.task: task for task in tasks if dict(task.lengths) == dict(lengths)}


def _task(path: Path, task: TaskManifest) -> dict[str, Any]:
    return {
        "name": task.task,
        "split": task.split,
        "cluster": task.metadata.cluster,
        "lengths": dict(task.lengths),
        "examples": task.num_examples,
        "shards": task.num_shards,
        "bytes": sum(task.shard_bytes),
        "tokens": dict(task.tokens),
        "rows_read": task.rows_read,
        "dropped": dict(task.dropped),
        "truncated": dict(task.truncated),
        "vocabulary": dataclasses.asdict(task.vocabulary),
        "fingerprint": task.fingerprint,
        "license": task.metadata.license,
        "folder": f"{path.parent.name}/{path.name}",
    }
