"""Plans carried out: splits exported side by side, in this process and, when it takes long, in others.

What a split's export is made of is planned in `plans`; its shards are written by `shards`.
"""

import dataclasses
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from flan_jax.data import definitions
from flan_jax.data.exports import shard_damage
from flan_jax.data.manifest import Lengths, Request, TaskManifest, read_task
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.files import require_free_space
from flan_jax.tasks import registry
from flan_jax.tasks.exporting import shards
from flan_jax.tasks.exporting.plans import SplitPlan, estimated_bytes, plan
from flan_jax.tasks.exporting.progress import ExportProgress
from flan_jax.tasks.exporting.worker import Worker

SECONDS_WITHOUT_WORKERS = 5.0  # About as long as one takes to load.
BYTES_FOR_WORKERS = 2**26  # An estimate of shards that take several times as long.
MAX_WORKERS = 16  # Each holds TensorFlow: about half a gigabyte.


class _Stopped(Exception):
    """Another task failed: this one stops at its next example."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Definition:
    """What other processes can register the same tasks from.

    Attributes:
      request: as of the export.
      module_files: the files that define its tasks, beyond the package's own.
    """

    request: Request
    module_files: Sequence[str]


@dataclasses.dataclass(kw_only=True)
class _Work:
    """What tasks that are exported at the same time share.

    Attributes:
      definition: None when only this process knows the tasks.
      waiting: splits that nobody has begun.
      bytes: of all shards, at least.
    """

    progress: ExportProgress
    definition: Definition | None
    waiting: deque[SplitPlan]
    bytes: int
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def needs_workers(self) -> bool:
        """Whether loading another process pays: several splits wait, and it will take, or has taken, a while."""
        takes_long = self.bytes > BYTES_FOR_WORKERS or time.monotonic() - self.started > SECONDS_WITHOUT_WORKERS
        return self.definition is not None and len(self.waiting) >= 2 and takes_long


def export_plans(
    plans: Sequence[SplitPlan], *, export_dir: Path, title: str, definition: Definition | None
) -> list[TaskManifest]:
    """Carries plans out: ours side by side, as many as there are cores, others one by one.

    Args:
      plans: of splits, whole or missing.
      export_dir: where exports lie.
      title: of the progress.
      definition: what other processes can register the tasks from; None keeps all work in this one.

    Raises:
      UserError, UnknownNameError: what the user can mend; nothing half-written is published.
    """
    missing = [planned for planned in plans if published(planned, export_dir) is None]
    if missing:
        require_free_space(export_dir, estimated_bytes(missing), for_what=f"the export in {export_dir}")
        ours = [planned for planned in missing if planned.templated]
        with ExportProgress(tasks=len(missing), title=title) as progress:
            size = estimated_bytes(ours)
            work = _Work(progress=progress, definition=definition, waiting=deque(ours), bytes=size)
            _side_by_side(work, export_dir)
            for planned in missing:
                if not planned.templated:
                    _export_split(planned, export_dir, on_chunk=progress.examples_done)
                    progress.task_done()
    return [_made(planned, export_dir) for planned in plans]


def export_one(
    name: str, split: str, *, lengths: Lengths, export_dir: Path, module_files: Sequence[str]
) -> tuple[int, str] | None:
    """Exports one split for another process: returns its number of examples and its fingerprint.

    None when no task of that name can be registered here, as one that only the other process knows.
    """
    try:
        task = registry.task(name)
    except UnknownNameError:
        return None
    planned = plan(task, split, lengths=lengths, export_dir=export_dir, module_digests=digests_of(module_files))
    made = published(planned, export_dir) or _export_split(planned, export_dir, on_chunk=lambda examples: None)
    return made.num_examples, planned.fingerprint


def digests_of(module_files: Sequence[str]) -> list[str]:
    """Returns the digests of files that define tasks of others."""
    return [file.digest for file in definitions.describe((path, "module") for path in module_files).values()]


def published(planned: SplitPlan, export_dir: Path) -> TaskManifest | None:
    """Returns the manifest of a split that is exported and whole, None when it has to be made."""
    directory = export_dir / planned.path
    try:
        manifest = read_task(directory)
    except UserError:
        return None
    is_whole = manifest.fingerprint == planned.fingerprint and not shard_damage(manifest, directory)
    return manifest if is_whole else None


def _made(planned: SplitPlan, export_dir: Path) -> TaskManifest:
    manifest = published(planned, export_dir)
    assert manifest is not None, planned.path
    return manifest


def _side_by_side(work: _Work, export_dir: Path) -> None:
    """Exports splits in several lanes; the first failure, in the order of the lanes, stops the others."""
    lanes = min(len(work.waiting), available_cores())
    with ThreadPoolExecutor(max(1, lanes), thread_name_prefix="export") as pool:
        futures = [pool.submit(_lane, number, export_dir, work) for number in range(lanes)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = [f for f in futures if f.done() and not f.cancelled() and f.exception() is not None]
            for future in failed:
                future.result()
        except BaseException:
            work.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            work.stop.set()  # For those that only wait for it.


def available_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lane(number: int, export_dir: Path, work: _Work) -> None:
    """Exports one waiting split after another: in this process, or, all lanes but the first, in one of their own.

    Threads of one process only take turns, which is enough for the short exports that end before others have loaded.
    """
    worker = None
    try:
        while not work.stop.is_set():
            if worker is None and 0 < number < MAX_WORKERS and work.needs_workers:
                assert work.definition is not None
                worker = _started_worker(work.definition, export_dir, work.stop)
            try:
                planned = work.waiting.popleft()
            except IndexError:
                return
            made = worker.export(planned.task, planned.split) if worker is not None else None
            if made is not None and made[1] == planned.fingerprint:
                work.progress.examples_done(made[0])
            else:  # Also where a worker cannot register the task, or not the same one.
                _export_split(planned, export_dir, on_chunk=work.progress.examples_done, stop=work.stop)
            work.progress.task_done()
    finally:
        if worker is not None:
            worker.close()


def _started_worker(definition: Definition, export_dir: Path, stop: threading.Event) -> Worker:
    """A worker that ends when another lane fails, whatever it is doing."""
    worker = Worker(definition.request, export_dir=export_dir, module_files=definition.module_files)

    def watch() -> None:
        stop.wait()
        worker.kill()

    threading.Thread(target=watch, daemon=True).start()
    return worker


def _export_split(
    planned: SplitPlan,
    export_dir: Path,
    *,
    on_chunk: Callable[[int], None],
    stop: threading.Event | None = None,
) -> TaskManifest:
    directory = export_dir / planned.path
    dropped, rows = Counter[str](), _Rows(put_together=planned.rows_put_together)
    totals = shards.build(
        directory,
        rows.counted(planned.examples(dropped), stop or threading.Event()),
        encode=planned.encode,
        on_chunk=on_chunk,
    )
    dropped.update(totals.dropped)
    num_examples = sum(counts.examples for counts in totals.shards)
    if not num_examples:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(dropped.items())) or "its source has no rows"
        raise UserError(
            f"Task {planned.task!r}: split {planned.split!r} is empty, no example is left to export ({reasons}). "
            "Mend its rows or templates, or leave the task out."
        )
    rows_left_out = sum(dropped.values()) - sum(totals.dropped.values())
    manifest = TaskManifest(
        task=planned.task,
        split=planned.split,
        fingerprint=planned.fingerprint,
        identity=planned.identity,
        lengths=dict(planned.lengths),
        vocabulary=planned.vocabulary,
        num_examples=num_examples,
        num_shards=len(totals.shards),
        shard_examples=tuple(counts.examples for counts in totals.shards),
        shard_bytes=tuple(counts.bytes for counts in totals.shards),
        tokens={name: int(totals.lengths[:, i].sum()) for i, name in enumerate(("inputs", "targets"))},
        rows_read=rows.kept + rows_left_out,
        dropped={reason: n for reason, n in sorted(dropped.items()) if n},
        truncated={name: totals.truncated.get(name, 0) for name in ("inputs", "targets")},
        **dataclasses.asdict(planned.recorded),
    )
    shards.publish(directory, manifest, lengths=totals.lengths)
    return manifest


class _Rows:
    """How many rows examples came from."""

    def __init__(self, *, put_together: bool):
        self._put_together = put_together
        self.kept = 0

    def counted(self, examples: Iterator[Any], stop: threading.Event) -> Iterator[Any]:
        last = -1
        for example in examples:
            if stop.is_set():
                raise _Stopped
            row = example[0]
            if row != last:
                # Not its place, unless rows are put together: those that no template has a word for, or no exemplar
                # fits, have places too and are counted among those left out.
                self.kept += row - last if self._put_together else 1
                last = row
            yield example
