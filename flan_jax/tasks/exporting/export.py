"""From registered tasks and mixtures to tokenized shards with manifests: deterministic, resumable, in parallel.

An export that exists and is intact is used as it is; what is missing is exported. A mixture's manifest is written last,
so that a reader finds a finished export or none. `plans` decides what a task's bytes depend on, `worker_pool` exports
the splits, `members` computes rates from the counts measured there.
"""

import fcntl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flan_jax.data import definitions
from flan_jax.data.manifest import NO_SOURCE, Member, MixtureManifest, Request, TaskManifest, write
from flan_jax.errors import MissingFileError, UnknownNameError, UserError
from flan_jax.files import remove_temporary
from flan_jax.names import counted, grouped
from flan_jax.tasks import members, registry
from flan_jax.tasks.exporting.child import Child
from flan_jax.tasks.exporting.plans import SplitPlan, plan, reference
from flan_jax.tasks.exporting.shares import realized
from flan_jax.tasks.exporting.splits import digests_of, export_split, published
from flan_jax.tasks.exporting.truncation import Truncated, refusal
from flan_jax.tasks.exporting.worker_pool import Workers, export_plans
from flan_jax.tasks.interface import MissingSource, Task


def export_requests(
    requests: Sequence[Request],
    *,
    export_dir: Path | str,
    start: Callable[[], Child] | None = None,
    processes: int | None = None,
) -> list[MixtureManifest]:
    """Exports several requests; they must agree in module, vocabulary and data directory.

    Args:
      requests: The exports to make; the tasks are registered from the first one.
      export_dir: The export directory.
      start: Starts another export process; None exports everything in this one.
      processes: How many processes may export at a time; None for one per core.

    Raises:
      UserError: An export cannot be made; nothing half-written is published.
    """
    first = requests[0]
    assert all(_definition_of(request) == _definition_of(first) for request in requests), requests
    files = registry.prepare(first)
    for request in requests:  # A name or split that does not exist is refused before anything is exported.
        _selected(request)
    with _locked(Path(export_dir)):
        return [
            export_mixture(
                request,
                export_dir=export_dir,
                module_files=files,
                workers=start and Workers(start=start, request=request),
                processes=processes,
            )
            for request in requests
        ]


def described(requests: Sequence[Request]) -> list[list[dict[str, Any]]]:
    """Returns what is known of each request's tasks before their rows are read, as JSON.

    Args:
      requests: As for `export_requests`.

    Raises:
      UnknownNameError: No such mixture or task.
      UserError: No task has the split.
    """
    registry.prepare(requests[0])
    return [
        [
            {"task": name, "metadata": asdict(task.metadata), "vocabulary_size": task.vocabulary.size}
            for name, task in _selected(request)[1].items()
        ]
        for request in requests
    ]


def _selected(request: Request) -> tuple[Any, dict[str, Task], dict[str, str]]:
    """Returns the mixture or task of a request, its tasks to export by name, and why others are skipped."""
    provider = registry.mixture_or_task(request.name)
    selection = members.select(provider, request.split, on_missing_split=request.on_missing_split)
    zero_rate = members.zero_rate(provider)
    tasks = {name: registry.of_seqio(task) for name, task in selection.tasks.items() if name not in zero_rate}
    return provider, tasks, {**selection.skipped, **dict.fromkeys(zero_rate & selection.tasks.keys(), "has rate 0")}


def export_one(
    name: str, split: str, *, request: Request, export_dir: Path, module_files: Sequence[str]
) -> dict[str, Any]:
    """Exports one split for another process: returns its number of examples and its fingerprint, as JSON.

    Empty when no task of that name can be registered here, as one that only the other process knows.
    """
    try:
        task = registry.resolve(name)
    except UnknownNameError:
        return {}
    planned = _plan(task, split, request, export_dir=export_dir, module_digests=digests_of(module_files))
    made = published(planned, export_dir) or export_split(planned, export_dir)
    # The fingerprint shows the parent that both mean the same task: this process may have imported other files.
    return {"examples": made.num_examples, "fingerprint": planned.fingerprint}


def _plan(task: Task, split: str, request: Request, *, export_dir: Path, module_digests: Sequence[str]) -> SplitPlan:
    return plan(
        task,
        split,
        lengths=request.lengths,
        export_dir=export_dir,
        module_digests=module_digests,
        max_truncated_targets=request.max_truncated_targets,
    )


def _definition_of(request: Request) -> tuple[str | None, str | None, str | None]:
    return request.module, request.vocabulary, request.tfds_data_dir


def export_mixture(
    request: Request,
    *,
    export_dir: Path | str,
    module_files: Sequence[str] = (),
    workers: Workers | None = None,
    processes: int | None = None,
) -> MixtureManifest:
    """Exports every member of a mixture (or a task by itself) for one split, and writes the mixture's manifest.

    Args:
      request: The export to make; its tasks are registered.
      export_dir: The export directory.
      module_files: User files that define them.
      workers: Other processes, to share a long export; None when only this one knows the tasks.
      processes: How many processes may export at a time; None for one per core.

    Raises:
      UnknownNameError: No such mixture or task.
      UserError: No task has this split, an empty split, two vocabularies, or too many targets that are too long.
    """
    export_dir = Path(export_dir)
    provider, tasks, left_out = _selected(request)
    absent = _absent(request, tasks)
    skipped = {
        **left_out,
        **{name: f"{NO_SOURCE}: {source.reason}" for name, source in absent.items()},
    }
    digests = digests_of(module_files)
    plans = [
        _plan(task, request.split, request, export_dir=export_dir, module_digests=digests)
        for name, task in tasks.items()
        if name not in absent
    ]
    # Rows of all members share batches, and so one embedding table.
    _require_one_vocabulary(request, plans)
    _report_skipped(request, skipped)
    title = f"Exporting {request.name} ({request.split})"
    manifests = export_plans(plans, export_dir=export_dir, title=title, workers=workers, processes=processes)
    # Again after the samples: a share may exceed the limit only later in a split.
    _require_short_targets(request, manifests)
    manifest = _mixture_manifest(
        request,
        provider,
        plans,
        manifests,
        skipped=skipped,
        absent=absent,
        export_dir=export_dir,
        module_files=module_files,
    )
    # Last: a manifest promises that all splits it names are complete.
    write(request.manifest_path(export_dir), manifest)
    return manifest


def _absent(request: Request, tasks: Mapping[str, Task]) -> dict[str, MissingSource]:
    """The tasks whose rows are not on this machine, if the request allows leaving them out.

    Raises:
      MissingFileError: It does not, or there are no others.
    """
    sources = {name: task.missing_source(request.split) for name, task in tasks.items()}
    missing = {name: source for name, source in sources.items() if source is not None}
    if not missing or (request.on_missing_source == "skip" and len(missing) < len(tasks)):
        return missing
    if len(missing) == 1 == len(tasks):
        raise MissingFileError(next(iter(missing.values())).reason)
    listed = _lines({name: source.reason for name, source in missing.items()})
    fix = "" if len(missing) == len(tasks) else " Get them, or leave these members out: on_missing_source='skip'."
    raise MissingFileError(
        f"{request.name!r}, split {request.split!r}: the rows of {len(missing):,} of its "
        f"{counted(len(tasks), 'task')} are not on this machine.{fix}{listed}"
    )


def _report_skipped(request: Request, skipped: Mapping[str, str]) -> None:
    if skipped:
        left_out = counted(len(skipped), "task")
        _report(f"Left out of {request.name} ({request.split}), {left_out}; the manifest lists all:{_lines(skipped)}")


def _lines(reasons: Mapping[str, str]) -> str:
    return "".join(f"\n  {line}" for line in grouped(reasons, noun="task"))


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _require_one_vocabulary(request: Request, plans: Sequence[SplitPlan]) -> None:
    for first, planned in zip(plans, plans[1:], strict=False):
        if planned.vocabulary.digest != first.vocabulary.digest:
            raise UserError(
                f"{request.name!r} mixes vocabularies: {first.name!r} has {_vocabulary_text(first)}, {planned.name!r} "
                f"has {_vocabulary_text(planned)}. Register its tasks under one (the vocabulary of the run is for "
                "tasks that name none), or leave one of them out."
            )


def _vocabulary_text(planned: SplitPlan) -> str:
    v = planned.vocabulary
    return f"{v.kind} with {v.size:,} ids, digest {v.digest[:12]}"


def _require_short_targets(request: Request, manifests: Sequence[TaskManifest]) -> None:
    limit = request.max_truncated_targets
    counts = (Truncated(task=m.task, targets=m.truncated.get("targets", 0), examples=m.num_examples) for m in manifests)
    over = sorted((c for c in counts if c.share > limit), key=lambda c: (-c.share, c.task))
    if over:
        raise refusal(over, name=request.name, split=request.split, limit=limit, length=request.lengths["targets"])


def _mixture_manifest(
    request: Request,
    provider: Any,
    plans: Sequence[SplitPlan],
    manifests: Sequence[TaskManifest],
    *,
    skipped: Mapping[str, str],
    absent: Mapping[str, MissingSource],
    export_dir: Path,
    module_files: Sequence[str],
) -> MixtureManifest:
    # A task of the mixture, with or without the split.
    any_task = next(iter(members.tasks_of(provider)))
    vocabulary = (
        plans[0].vocabulary if plans else reference(registry.of_seqio(any_task).vocabulary, export_dir=export_dir)
    )
    counts = {manifest.task: manifest.num_examples for manifest in manifests}
    mean_tokens = {manifest.task: manifest.mean_tokens for manifest in manifests}
    rates = members.rates(provider, counts=counts, absent=absent.keys(), mean_tokens=mean_tokens) if counts else {}
    paths = {planned.name: planned.path for planned in plans}
    data_files = {file for planned in plans for file in planned.files}
    patterns = registry.definition_patterns()
    # The patterns as well as their files, so that a new file is noticed.
    files: list[tuple[str, definitions.Kind]] = [(pattern, "package") for pattern in patterns]
    files += [(path, "package") for path in definitions.package_files(patterns)]
    files += [(path, "module") for path in module_files]
    files += [(file, "vocabulary") for planned in plans for file in planned.task.vocabulary_files]
    files += [(path, "data") for path in data_files]
    return MixtureManifest(
        request=request,
        members=tuple(
            Member(task=name, rate=rate.rate, cap=rate.cap, path=paths[name], examples=counts[name])
            for name, rate in rates.items()
        ),
        skipped=dict(sorted({**skipped, **dict.fromkeys(counts.keys() - rates.keys(), "has rate 0")}.items())),
        looked_for=tuple(sorted({path for source in absent.values() for path in source.looked_for})),
        shares=realized(provider, rates={n: rate.rate for n, rate in rates.items()}, mean_tokens=mean_tokens),
        hold_out=registry.hold_out_of(request.name),
        notes=registry.notes_of(request.name),
        vocabulary=vocabulary,
        definition_files=definitions.describe(files),
        given_files={**definitions.given_files(request), **definitions.given_folders(data_files)},
    )


@contextmanager
def _locked(export_dir: Path) -> Iterator[None]:
    """Locks an export directory for one process at a time; the next one uses what the first has exported."""
    export_dir.mkdir(parents=True, exist_ok=True)
    with open(export_dir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _report(f"Another process exports to {export_dir}; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        # Under the lock, where no other process can be writing them.
        for folder in ("mixtures", "vocabularies"):
            remove_temporary(export_dir / folder, ".*")
        yield
