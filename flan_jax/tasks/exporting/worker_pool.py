"""Planned splits exported concurrently: in the main thread of this process and, when it takes long, in other processes.

Processes, not threads: Python runs one thread at a time, and so does the tokenizer when Python calls it, and only the
main thread of a process can interrupt a row that takes too long. A worker registers the same tasks as this process,
from the same request, and exports the splits that it is given by name.
"""

import contextlib
import dataclasses
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from flan_jax.data.manifest import Request, TaskManifest
from flan_jax.files import require_free_space
from flan_jax.tasks.exporting.child import Child
from flan_jax.tasks.exporting.plans import SplitPlan, estimated_bytes
from flan_jax.tasks.exporting.progress import ExportProgress
from flan_jax.tasks.exporting.splits import Stopped, export_split, published

SECONDS_WITHOUT_WORKERS = 5.0  # About as long as one takes to load.
BYTES_FOR_WORKERS = 2**26  # An estimate of shards that take several times as long.
MAX_WORKERS = 16  # Each loads TensorFlow: about half a gigabyte.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workers:
    """How worker processes are started, and the request from which they register the same tasks."""

    start: Callable[[], Child]
    request: Request


@dataclasses.dataclass(kw_only=True)
class _Work:
    """The state that concurrent exports share.

    Attributes:
      workers: None when only this process knows the tasks.
      waiting: Splits that have not been started.
      bytes: Lower bound of the shards' size.
      returned: Splits that a worker cannot export as this process would.
      emptied: Set when no split waits any more.
      stop: Set when a split failed or all are exported; ends the workers.
    """

    progress: ExportProgress
    workers: Workers | None
    waiting: deque[SplitPlan]
    bytes: int
    returned: deque[SplitPlan] = dataclasses.field(default_factory=deque)
    emptied: threading.Event = dataclasses.field(default_factory=threading.Event)
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def needs_workers(self) -> bool:
        """Whether starting another process saves time: a split waits, and it will take, or has taken, a while."""
        takes_long = self.bytes > BYTES_FOR_WORKERS or time.monotonic() - self.started > SECONDS_WITHOUT_WORKERS
        return self.workers is not None and len(self.waiting) > 0 and takes_long


def export_plans(
    plans: Sequence[SplitPlan], *, export_dir: Path, title: str, workers: Workers | None, processes: int | None
) -> list[TaskManifest]:
    """Exports the splits that are missing: concurrently where the tasks allow it, the others one by one.

    Args:
      plans: Of splits, exported or missing.
      export_dir: The export directory.
      title: Of the progress bar.
      workers: Other processes; None exports everything in this one.
      processes: How many processes may export at a time; None for one per core.

    Raises:
      UserError: The export cannot be made; nothing half-written is published.
    """
    missing = [planned for planned in plans if published(planned, export_dir) is None]
    if missing:
        # Before anything is written: an export can run for hours before it fills a disk.
        require_free_space(export_dir, estimated_bytes(missing), for_what=f"the export in {export_dir}")
        concurrent = [planned for planned in missing if planned.task.thread_safe]
        with ExportProgress(tasks=len(missing), title=title) as progress:
            size = estimated_bytes(concurrent)
            work = _Work(progress=progress, workers=workers, waiting=deque(concurrent), bytes=size)
            _export_concurrently(work, export_dir, count=min(len(concurrent), processes or available_cores()))
            for planned in missing:
                if not planned.task.thread_safe:
                    export_split(planned, export_dir, on_chunk=progress.examples_done)
                    progress.task_done()
    return [_made(planned, export_dir) for planned in plans]


def _made(planned: SplitPlan, export_dir: Path) -> TaskManifest:
    manifest = published(planned, export_dir)
    assert manifest is not None, planned.path
    return manifest


def _export_concurrently(work: _Work, export_dir: Path, *, count: int) -> None:
    """Exports the waiting splits here and, once that pays, in workers; the first failure stops the others."""
    num_workers = 0 if work.workers is None else min(count, MAX_WORKERS) - 1
    with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="export") as pool:
        futures = [pool.submit(_export_in_worker, export_dir, work) for _ in range(num_workers)]
        try:
            with contextlib.suppress(Stopped):  # A worker failed: `result` raises its error below.
                _export_here(work.waiting, export_dir, work)
                work.emptied.set()
                wait(futures, return_when=FIRST_EXCEPTION)
                _export_here(work.returned, export_dir, work)
        finally:
            work.emptied.set()
            work.stop.set()
        for future in futures:
            future.result()


def _export_here(splits: deque[SplitPlan], export_dir: Path, work: _Work) -> None:
    while splits and not work.stop.is_set():
        try:
            planned = splits.popleft()  # Atomic, so threads need no lock.
        except IndexError:
            return
        export_split(planned, export_dir, on_chunk=work.progress.examples_done, stop=work.stop)
        work.progress.task_done()


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _export_in_worker(export_dir: Path, work: _Work) -> None:
    """Has a worker export one waiting split after another; short exports end before one would have loaded."""
    assert work.workers is not None
    while not work.needs_workers:
        if work.emptied.wait(0.1):
            return
    try:
        with work.workers.start() as worker:
            _kill_when_stopped(worker, work.stop)
            while work.waiting and not work.stop.is_set():
                try:
                    planned = work.waiting.popleft()
                except IndexError:
                    return
                made = _exported_by(worker, planned, export_dir, work)
                if made.get("fingerprint") == planned.fingerprint:
                    work.progress.examples_done(made["examples"])
                    work.progress.task_done()
                else:  # Also where a worker cannot register the task, or registers another one.
                    work.returned.append(planned)
    except BaseException:
        work.stop.set()
        raise


def _exported_by(worker: Child, planned: SplitPlan, export_dir: Path, work: _Work) -> dict[str, Any]:
    """Returns a worker's answer for a split: its examples and fingerprint, or nothing."""
    assert work.workers is not None
    order = {"request": dataclasses.asdict(work.workers.request), "export_dir": str(export_dir)}
    return worker.ask({**order, "task": planned.name, "split": planned.split}, work=f"exported {planned.name!r}")


def _kill_when_stopped(worker: Child, stop: threading.Event) -> None:
    """Kills a worker when another thread fails, whatever it is doing."""

    def watch() -> None:
        stop.wait()
        worker.kill()

    threading.Thread(target=watch, daemon=True).start()
