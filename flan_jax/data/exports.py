"""Returns the export for a request: reuses it if it is up to date, otherwise exports it.

Nothing here imports TensorFlow: a run whose export exists starts without it. The caller brings the exporter.
"""

import dataclasses
import glob
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from flan_jax.data import definitions
from flan_jax.data.manifest import (
    NO_SOURCE,
    NO_SPLIT,
    Lengths,
    Member,
    MixtureManifest,
    Request,
    TaskManifest,
    VocabularyRef,
    differences,
    read_mixture,
    read_task,
)
from flan_jax.errors import MissingFileError, UserError
from flan_jax.names import listed, nearest
from flan_jax.vocab import SentencePieceVocabulary

UseCached = bool | Literal["auto"]
Exporter = Callable[[Sequence[Request], Path], None]
"""(requests of one set of definitions, export directory): writes the exports."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unusable:
    """The reason why no export answers a request."""

    reason: str


def find(request: Request, export_dir: Path, *, missing_is_change: bool = True) -> MixtureManifest | Unusable:
    """Finds a finished, up-to-date export that answers a request.

    Args:
      request: Name, split, lengths and definitions.
      export_dir: The export directory; it need not exist.
      missing_is_change: See `flan_jax.data.definitions.changes`.

    Returns:
      Its manifest, or the reason why there is none.
    """
    path = request.manifest_path(export_dir)
    if not path.is_file():
        return Unusable(reason=f"{_shown(request)} has not been exported to {export_dir}")
    try:
        manifest = read_mixture(path)
        # The first change is enough; the others could cost a digest each.
        stale = next(definitions.changes(manifest, request, missing_is_change=missing_is_change), None)
        if stale is not None:
            return Unusable(reason=f"the export of {_shown(request)} is out of date: {stale}")
        if fault := _vocabulary_damage(manifest.vocabulary, export_dir):
            return Unusable(reason=f"the export of {_shown(request)} {fault}")
        lacking = [name for name, reason in manifest.skipped.items() if reason.startswith(NO_SPLIT)]
        unread = [name for name, reason in manifest.skipped.items() if reason.startswith(NO_SOURCE)]
        if unread and request.on_missing_source == "error":
            return Unusable(reason=f"the export of {_shown(request)} was made without {', '.join(unread)}")
        # Rows that were missing at the export, and with which the mixture would have other shares.
        arrived = [path for path in manifest.looked_for if glob.glob(path)]
        if arrived and missing_is_change:
            return Unusable(reason=f"the export of {_shown(request)} was made before {arrived[0]} existed")
        if (lacking and request.on_missing_split == "error") or not (
            manifest.members or request.on_missing_split == "empty"
        ):
            return Unusable(reason=f"{', '.join(lacking)} of {_shown(request)} lack the split")
        for member in manifest.members:
            damage = _member_damage(member, request=request, export_dir=Path(export_dir))
            if damage:
                return Unusable(reason=f"the export of {member.task!r} in {export_dir} {damage}")
    except (UserError, OSError) as error:
        return Unusable(reason=f"the export of {_shown(request)} cannot be read: {error}")
    return manifest


def _vocabulary_damage(vocabulary: VocabularyRef, export_dir: Path) -> str:
    """Returns what is wrong with the vocabulary's file; "" when nothing is."""
    if vocabulary.file is None:
        return ""
    if not (export_dir / vocabulary.file).is_file():
        return f"lacks its vocabulary, {vocabulary.file}"
    stored = SentencePieceVocabulary(str(export_dir / vocabulary.file), extra_ids=vocabulary.extra_ids)
    return "" if stored.digest == vocabulary.digest else f"has a damaged vocabulary, {vocabulary.file}"


def _member_damage(member: Member, *, request: Request, export_dir: Path) -> str:
    """Returns what is wrong with an exported member; "" when nothing is."""
    directory = export_dir / member.path
    task = read_task(directory)
    expected = {"task": member.task, "lengths": dict(request.lengths), "num_examples": member.examples}
    faults = differences({name: getattr(task, name) for name in expected}, expected)
    if task.truncated_targets_share > request.max_truncated_targets:
        share, limit = task.truncated_targets_share, request.max_truncated_targets
        faults.append(f"truncates {share:.1%} of the targets, at most {limit:.1%} are allowed")
    return "; ".join(faults) or shard_damage(task, directory)


def shard_damage(task: TaskManifest, directory: Path) -> str:
    """Returns which shard of an exported split is missing or incomplete; "" when all are intact."""
    for shard, size in enumerate(task.shard_bytes):
        path = directory / task.shard_name(shard)
        # By size alone: reading every shard would delay each start by minutes, and readers compare a hash per chunk.
        got = path.stat().st_size if path.exists() else "nothing"
        if got != size:
            return f"lacks bytes: {path.name} has {got}, expected {size}"
    return ""


def ensure_all(
    requests: Sequence[Request], *, export_dir: Path, use_cached: UseCached, exporter: Exporter
) -> tuple[MixtureManifest, ...]:
    """Returns the exports that answer several requests, after exporting those that are missing.

    Args:
      requests: The exports that a run needs.
      export_dir: The export directory.
      use_cached: True never exports; "auto" and False export what is missing or out of date.
      exporter: Exports requests that share a module, a vocabulary and a data directory.

    Raises:
      UserError: `use_cached` is True and an export is missing or out of date: the fields that differ are named.
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
        exporter(group, export_dir)
    # Verified anew instead of trusted: the exporter is another process, whose view of the files may differ.
    made = [find(request, export_dir) for request in requests]
    for answer in made:
        if isinstance(answer, Unusable):  # A definition or the export changed in the meantime.
            raise UserError(
                f"Exported, but {answer.reason}. Did a file change during the export? Run the command again."
            )
    return tuple(answer for answer in made if isinstance(answer, MixtureManifest))


def _groups(requests: Sequence[Request]) -> list[list[Request]]:
    """Groups of requests that one process can export: it has one set of definitions."""
    groups: dict[tuple[str | None, ...], list[Request]] = {}
    for request in requests:
        groups.setdefault((request.module, request.vocabulary, request.tfds_data_dir), []).append(request)
    return list(groups.values())


def _refusal(request: Request, unusable: Unusable, export_dir: Path) -> str:
    """The message for a run that must not export: compares its request with the nearest export of the same name."""
    fix = "Export it (flan-jax export), let this run do it (USE_CACHED_TASKS = 'auto'), or request what is exported."
    others = _manifests(export_dir)
    same = [other for other in others if other.request.name == request.name]
    if request.manifest_path(export_dir).is_file():
        return f"USE_CACHED_TASKS is True and {unusable.reason}. {fix}"
    if not same:
        names = sorted({other.request.name for other in others})
        listed = f" It holds {', '.join(names)}." if names else " It holds no export."
        return f"USE_CACHED_TASKS is True and {unusable.reason}.{nearest(request.name, names)}{listed} {fix}"
    nearest_differences = min((differences(other.request.content(), request.content()) for other in same), key=len)
    return (
        f"USE_CACHED_TASKS is True and no export of {request.name!r} in {export_dir} fits; the nearest differs in "
        f"{'; '.join(nearest_differences)} (got: the export's, expected: this run's). {fix}"
    )


def of_name(name: str, *, split: str, export_dir: Path, lengths: Lengths | None = None) -> MixtureManifest:
    """Returns the finished export of a mixture or task, whatever it was made with.

    Args:
      name: The mixture or task.
      split: Its split.
      export_dir: The export directory.
      lengths: The lengths to choose by, in tokens; None if there is one export only.

    Raises:
      MissingFileError: There is none.
      UserError: There are several.
    """
    manifests = _manifests(export_dir)
    same = [manifest for manifest in manifests if manifest.request.name == name]
    fitting = [m for m in same if m.request.split == split and lengths in (None, dict(m.request.lengths))]
    if not fitting:
        names = sorted({manifest.request.name for manifest in manifests})
        others = [f"split {m.request.split!r} with lengths {dict(m.request.lengths)}" for m in same]
        got = f"it has {'; '.join(others)}" if others else f"it has {listed(names)}.{nearest(name, names)}"
        raise MissingFileError(f"{export_dir} has no export of {name!r}, split {split!r}: {got}")
    if len(fitting) > 1:
        kinds = "; ".join(f"{dict(m.request.lengths)} with vocabulary {m.request.vocabulary}" for m in fitting)
        raise UserError(
            f"{export_dir} has {len(fitting)} exports of {name!r}, split {split!r}: {kinds}. Give "
            "--task_feature_lengths, or another --export_dir."
        )
    return fitting[0]


def _manifests(export_dir: Path) -> list[MixtureManifest]:
    """The mixture manifests of an export directory, without unreadable ones."""
    manifests = []
    for path in sorted((export_dir / "mixtures").glob("*.json")):
        try:
            manifests.append(read_mixture(path))
        except (UserError, OSError):  # Of another format version: no candidate.
            continue
    return manifests


def _shown(request: Request) -> str:
    return f"{request.name!r}, split {request.split!r}"
