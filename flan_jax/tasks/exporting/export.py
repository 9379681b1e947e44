"""From registered tasks and mixtures to tokenised shards with manifests: deterministic, resumable, in parallel.

An export that is there and whole is taken as it is; what is missing is made. A mixture's manifest is written last, so
that a reader finds a finished export or none. What decides a task's bytes is planned in `plans`, carried out in
`export_lanes`; rates are computed in `members` from the counts measured there.
"""

import fcntl
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flan_jax.data import definitions
from flan_jax.data.manifest import NO_SOURCE, Lengths, Member, MixtureManifest, Request, TaskManifest, write
from flan_jax.errors import MissingFileError, UserError
from flan_jax.tasks import external, members, registry
from flan_jax.tasks.exporting.plans import Gap, SplitPlan, gap_of, plan
from flan_jax.tasks.exporting.shares import realised
from flan_jax.tasks.exporting.worker_pool import Definition, digests_of, export_plans
from flan_jax.tasks.sources.file_sources import set_tfds_data_dir

SHOWN = 8  # Of a list of names in a message.


def export_requests(requests: Sequence[Request], *, export_dir: Path | str) -> list[MixtureManifest]:
    """Exports what several requests ask for; they must agree in module, vocabulary and data directory.

    Raises:
      UserError, UnknownNameError, MissingFileError: what the user can mend; nothing half-written is published.
    """
    first = requests[0]
    assert all(_definition_of(request) == _definition_of(first) for request in requests), requests
    files = define(first)
    with _locked(Path(export_dir)):
        return [
            export_mixture(
                request,
                export_dir=export_dir,
                module_files=files,
                definition=Definition(request=request, module_files=files),
            )
            for request in requests
        ]


def _definition_of(request: Request) -> tuple[str | None, str | None, str | None]:
    return request.module, request.vocabulary, request.tfds_data_dir


def define(request: Request) -> tuple[str, ...]:
    """Registers the package's tasks and those of the request's modules; returns the modules' files."""
    set_tfds_data_dir(request.tfds_data_dir)
    registry.use_vocabulary(request.vocabulary or "embedded")
    registry.register_all()
    return registry.import_module(request.module) if request.module else ()


def export_mixture(
    request: Request,
    *,
    export_dir: Path | str,
    module_files: Sequence[str] = (),
    definition: Definition | None = None,
) -> MixtureManifest:
    """Exports every member of a mixture (or a task by itself) for one split, and writes the mixture's manifest.

    Args:
      request: what is asked for; its tasks are registered.
      export_dir: where exports lie.
      module_files: the files that define them, beyond the package's own.
      definition: what other processes can register the tasks from, to share in a long export; None when only this one
        knows them.

    Raises:
      UnknownNameError: no such mixture or task.
      UserError: no task with this split, an empty split, two vocabularies, or too many targets that are too long.
    """
    export_dir = Path(export_dir)
    provider = registry.mixture_or_task(request.name)
    selection = members.select(provider, request.split, on_missing_split=request.on_missing_split)
    never = members.zero_rate(provider)
    absent = _absent(request, {name: task for name, task in selection.tasks.items() if name not in never})
    skipped = {
        **selection.skipped,
        **dict.fromkeys(never & selection.tasks.keys(), "has rate 0"),
        **{name: f"{NO_SOURCE}: {gap.reason}" for name, gap in absent.items()},
    }
    digests = digests_of(module_files)
    plans = [
        plan(task, request.split, lengths=request.lengths, export_dir=export_dir, module_digests=digests)
        for name, task in selection.tasks.items()
        if name not in never and name not in absent
    ]
    _require_one_vocabulary(request, plans)
    _tell_skipped(request, skipped)
    title = f"Exporting {request.name} ({request.split})"
    manifests = export_plans(plans, export_dir=export_dir, title=title, definition=definition)
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
    write(request.manifest_path(export_dir), manifest)
    return manifest


def _absent(request: Request, tasks: Mapping[str, Any]) -> dict[str, Gap]:
    """The tasks whose rows are not on this machine, when the request allows that.

    Raises:
      MissingFileError: it does not, or there are no others.
    """
    gaps = {name: gap for name, task in tasks.items() if (gap := gap_of(task, request.split)) is not None}
    if not gaps or (request.on_missing_source == "skip" and len(gaps) < len(tasks)):
        return gaps
    if len(gaps) == 1 == len(tasks):
        raise MissingFileError(next(iter(gaps.values())).reason)
    listed = "; ".join(f"{name}: {gap.reason}" for name, gap in list(gaps.items())[:SHOWN])
    more = f"; and {len(gaps) - SHOWN:,} more" if len(gaps) > SHOWN else ""
    mend = "" if len(gaps) == len(tasks) else " Get them, or leave these members out: on_missing_source='skip'."
    raise MissingFileError(
        f"{request.name!r}, split {request.split!r}: the rows of {len(gaps):,} of its {len(tasks):,} tasks are not on "
        f"this machine ({listed}{more}).{mend}"
    )


def _tell_skipped(request: Request, skipped: Mapping[str, str]) -> None:
    if skipped:
        shown = "; ".join(f"{name} {reason}" for name, reason in list(skipped.items())[:SHOWN])
        more = f"; and {len(skipped) - SHOWN:,} more, listed in the manifest" if len(skipped) > SHOWN else ""
        _say(f"Left out of {request.name} ({request.split}), {len(skipped):,} tasks: {shown}{more}.")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def export_task(task: Any, split: str, *, lengths: Lengths, export_dir: Path | str) -> TaskManifest:
    """Exports one split of one SeqIO task and returns its manifest; see `export_mixture`."""
    planned = plan(task, split, lengths=lengths, export_dir=Path(export_dir))
    title = f"Exporting {task.name} ({split})"
    return export_plans([planned], export_dir=Path(export_dir), title=title, definition=None)[0]


def _require_one_vocabulary(request: Request, plans: Sequence[SplitPlan]) -> None:
    for first, planned in zip(plans, plans[1:], strict=False):
        if planned.vocabulary.digest != first.vocabulary.digest:
            raise UserError(
                f"{request.name!r} mixes vocabularies: {first.task!r} has {_vocabulary_words(first)}, {planned.task!r} "
                f"has {_vocabulary_words(planned)}. Register its tasks under one (the vocabulary of the run is for "
                "tasks that name none), or leave one of them out."
            )


def _vocabulary_words(planned: SplitPlan) -> str:
    v = planned.vocabulary
    return f"{v.kind} with {v.size:,} ids, digest {v.digest[:12]}"


def _require_short_targets(request: Request, manifests: Sequence[TaskManifest]) -> None:
    limit = request.max_truncated_targets
    over = sorted(
        (m for m in manifests if m.truncated_targets_share > limit), key=lambda m: (-m.truncated_targets_share, m.task)
    )
    if not over:
        return
    shown = "; ".join(
        f"{m.task!r} {m.truncated['targets']:,} of {m.num_examples:,} ({m.truncated_targets_share:.1%})"
        for m in over[:SHOWN]
    )
    more = f"; and {len(over) - SHOWN} more tasks" if len(over) > SHOWN else ""
    raise UserError(
        f"{request.name!r}, split {request.split!r}: too many targets are longer than {request.lengths['targets']} "
        f"tokens and would be cut: {shown}{more}. At most {limit:.1%} of a task's targets may be "
        "(max_truncated_targets). Raise TASK_FEATURE_LENGTHS['targets'], leave these tasks out, or allow it: "
        f"max_truncated_targets = {_rounded_up(over[0].truncated_targets_share)}."
    )


def _rounded_up(share: float) -> float:
    return min(1.0, -(-share * 100 // 1) / 100)


def _mixture_manifest(
    request: Request,
    provider: Any,
    plans: Sequence[SplitPlan],
    manifests: Sequence[TaskManifest],
    *,
    skipped: Mapping[str, str],
    absent: Mapping[str, Gap],
    export_dir: Path,
    module_files: Sequence[str],
) -> MixtureManifest:
    # A task of the mixture, with or without the split.
    any_task = next(iter(members.tasks_of(provider)))
    vocabulary = (
        plans[0].vocabulary
        if plans
        else external.vocabulary_ref(any_task.output_features["inputs"].vocabulary, export_dir=export_dir)
    )
    counts = {manifest.task: manifest.num_examples for manifest in manifests}
    mean_tokens = {manifest.task: manifest.mean_tokens for manifest in manifests}
    rates = members.rates(provider, counts=counts, absent=absent.keys(), mean_tokens=mean_tokens) if counts else {}
    paths = {planned.task: planned.path for planned in plans}
    data_files = {file for planned in plans for file in planned.data_files}
    files: list[tuple[str, definitions.Kind]] = [(path, "package") for path in definitions.package_files()]
    files += [(path, "module") for path in module_files]
    files += [(planned.vocabulary_file, "vocabulary") for planned in plans if planned.vocabulary_file]
    files += [(path, "data") for path in data_files]
    return MixtureManifest(
        request=request,
        members=tuple(
            Member(task=name, rate=rate.rate, cap=rate.cap, path=paths[name], examples=counts[name])
            for name, rate in rates.items()
        ),
        skipped=dict(sorted({**skipped, **dict.fromkeys(counts.keys() - rates.keys(), "has rate 0")}.items())),
        looked_for=tuple(sorted({path for gap in absent.values() for path in gap.looked_for})),
        shares=realised(provider, rates={n: rate.rate for n, rate in rates.items()}, mean_tokens=mean_tokens),
        hold_out=registry.hold_out_of(request.name),
        notes=registry.notes_of(request.name),
        vocabulary=vocabulary,
        definition_files=definitions.describe(files),
        given_files={**definitions.given_files(request), **definitions.given_folders(data_files)},
    )


@contextmanager
def _locked(export_dir: Path) -> Iterator[None]:
    """Lets one process at a time write into an export directory; the next finds what the first has made."""
    export_dir.mkdir(parents=True, exist_ok=True)
    with open(export_dir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Another process exports to {export_dir}; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
