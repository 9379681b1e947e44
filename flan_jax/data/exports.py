"""From what a run asks to the export that answers it: found when it is there and fresh, made by a child otherwise.

Nothing here imports TensorFlow: a run whose export is in place starts without it. How an export is made is
`flan_jax.tasks.exporting.export`'s business; `flan_jax.data.export_process` runs it in a child.
"""

import dataclasses
import glob
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from flan_jax.data import definitions
from flan_jax.data.export_process import run_child
from flan_jax.data.manifest import (
    NO_SOURCE,
    NO_SPLIT,
    Member,
    MixtureManifest,
    Request,
    TaskManifest,
    differences,
    read_mixture,
    read_task,
)
from flan_jax.errors import UserError
from flan_jax.names import nearest

UseCached = bool | Literal["auto"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unusable:
    """Why no export answers a request."""

    reason: str


def find(request: Request, export_dir: Path, *, missing_is_change: bool = True) -> MixtureManifest | Unusable:
    """Looks for a finished, fresh export that answers a request.

    Args:
      request: what is asked for.
      export_dir: where exports lie; may be absent.
      missing_is_change: see `flan_jax.data.definitions.changes`.

    Returns:
      Its manifest, or the reason why there is none.
    """
    path = request.manifest_path(export_dir)
    if not path.is_file():
        return Unusable(reason=f"{_shown(request)} has not been exported to {export_dir}")
    try:
        manifest = read_mixture(path)
        stale = next(definitions.changes(manifest, request, missing_is_change=missing_is_change), None)
        if stale is not None:
            return Unusable(reason=f"the export of {_shown(request)} is out of date: {stale}")
        model = manifest.vocabulary.file
        if model is not None and not (export_dir / model).is_file():
            return Unusable(reason=f"the export of {_shown(request)} lacks its vocabulary, {model}")
        lacking = [name for name, reason in manifest.skipped.items() if reason.startswith(NO_SPLIT)]
        unread = [name for name, reason in manifest.skipped.items() if reason.startswith(NO_SOURCE)]
        if unread and request.on_missing_source == "error":
            return Unusable(reason=f"the export of {_shown(request)} was made without {', '.join(unread)}")
        arrived = [path for path in manifest.looked_for if glob.glob(path)]
        if arrived and missing_is_change:
            return Unusable(reason=f"the export of {_shown(request)} was made when {arrived[0]} was not there")
        if (lacking and request.on_missing_split == "error") or not (
            manifest.members or request.on_missing_split == "empty"
        ):
            return Unusable(reason=f"{', '.join(lacking)} of {_shown(request)} lack the split")
        for member in manifest.members:
            damage = _member_damage(member, request=request, export_dir=Path(export_dir))
            if damage:
                return Unusable(reason=f"the export of {member.task!r} in {export_dir} {damage}")
    except (ValueError, OSError) as error:
        return Unusable(reason=f"the export of {_shown(request)} cannot be read: {error}")
    return manifest


def _member_damage(member: Member, *, request: Request, export_dir: Path) -> str:
    """Says why an exported member will not do; "" when it will."""
    directory = export_dir / member.path
    task = read_task(directory)
    wanted = {"task": member.task, "lengths": dict(request.lengths), "num_examples": member.examples}
    found = differences({name: getattr(task, name) for name in wanted}, wanted)
    if task.truncated_targets_share > request.max_truncated_targets:
        share, limit = task.truncated_targets_share, request.max_truncated_targets
        found.append(f"cuts {share:.1%} of the targets, at most {limit:.1%} may be")
    return "; ".join(found) or shard_damage(task, directory)


def shard_damage(task: TaskManifest, directory: Path) -> str:
    """Says which shard of an exported split is absent or cut short; "" when all are there."""
    for shard, size in enumerate(task.shard_bytes):
        path = directory / task.shard_name(shard)
        got = path.stat().st_size if path.exists() else "nothing"
        if got != size:
            return f"lacks bytes: {path.name} has {got}, wanted {size}"
    return ""


def ensure(request: Request, *, export_dir: Path, use_cached: UseCached = "auto") -> MixtureManifest:
    """Returns the export that answers a request, making it first when need be; see `ensure_all`."""
    return ensure_all([request], export_dir=export_dir, use_cached=use_cached)[0]


def ensure_all(
    requests: Sequence[Request], *, export_dir: Path, use_cached: UseCached = "auto"
) -> tuple[MixtureManifest, ...]:
    """Returns the exports that answer several requests; one child process makes all that are missing.

    Args:
      requests: what is asked for.
      export_dir: where exports lie.
      use_cached: True never exports; "auto" and False export what is missing or out of date.

    Raises:
      UserError: `use_cached` is True and an export is missing or out of date: the fields that differ are named.
      ExportFailed: the export was refused; the text is its message.
    """
    never = use_cached is True
    found = [find(request, export_dir, missing_is_change=not never) for request in requests]
    missing = [request for request, answer in zip(requests, found, strict=True) if isinstance(answer, Unusable)]
    if not missing:
        return tuple(answer for answer in found if isinstance(answer, MixtureManifest))
    if never:
        raise UserError(
            "\n".join(
                _refusal(r, a, export_dir) for r, a in zip(requests, found, strict=True) if isinstance(a, Unusable)
            )
        )
    for answer in found:
        if isinstance(answer, Unusable):
            logging.getLogger(__name__).info("Exporting: %s.", answer.reason)
    for group in _groups(missing):
        run_child(group, export_dir=export_dir)
    made = [find(request, export_dir) for request in requests]
    for answer in made:
        if isinstance(answer, Unusable):  # Only when a definition or the export was changed at that very moment.
            raise UserError(f"Exported, and yet {answer.reason}. Was it changed meanwhile? Run the command again.")
    return tuple(answer for answer in made if isinstance(answer, MixtureManifest))


def _groups(requests: Sequence[Request]) -> list[list[Request]]:
    """Requests that one child can answer together: a process has one set of definitions."""
    groups: dict[tuple[str | None, ...], list[Request]] = {}
    for request in requests:
        groups.setdefault((request.module, request.vocabulary, request.tfds_data_dir), []).append(request)
    return list(groups.values())


def _refusal(request: Request, unusable: Unusable, export_dir: Path) -> str:
    """Why a run that may only use what is there cannot, against the nearest export of the same name."""
    mend = "Export it (flan-jax export), or let this run do it (USE_CACHED_TASKS = 'auto'), or ask for what is there."
    others = _manifests(export_dir)
    same = [other for other in others if other.request.name == request.name]
    if request.manifest_path(export_dir).is_file():
        return f"USE_CACHED_TASKS is True and {unusable.reason}. {mend}"
    if not same:
        names = sorted({other.request.name for other in others})
        listed = f" It holds {', '.join(names)}." if names else " It holds no export."
        return f"USE_CACHED_TASKS is True and {unusable.reason}.{nearest(request.name, names)}{listed} {mend}"
    found = min((differences(other.request.content(), request.content()) for other in same), key=len)
    return (
        f"USE_CACHED_TASKS is True and no export of {request.name!r} in {export_dir} fits; the nearest differs in "
        f"{'; '.join(found)} (got: the export's, wanted: this run's). {mend}"
    )


def _manifests(export_dir: Path) -> list[MixtureManifest]:
    """The readable mixture manifests of an export directory."""
    manifests = []
    for path in sorted((export_dir / "mixtures").glob("*.json")):
        try:
            manifests.append(read_mixture(path))
        except (ValueError, OSError):  # Another format's: not what is asked for, and not this question's to mend.
            continue
    return manifests


def _shown(request: Request) -> str:
    return f"{request.name!r}, split {request.split!r}"
