"""Planned splits exported concurrently: in threads of this process and, when it takes long, in other processes.

Processes, not threads: Python runs one thread at a time, and so does the tokenizer when Python calls it. A worker
registers the same tasks as this process, from the same request, and exports the splits that it is given by name.
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
from flan_jax.tasks.exporting.splits import export_split, published

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
    """

    progress: ExportProgress
    workers: Workers | None
    waiting: deque[SplitPlan]
    bytes: int
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def needs_workers(self) -> bool:
        """Whether starting another process saves time: several splits wait, and it will take, or has taken, a while."""
        takes_long = self.bytes > BYTES_FOR_WORKERS or time.monotonic() - self.started > SECONDS_WITHOUT_WORKERS
        return self.workers is not None and len(self.waiting) >= 2 and takes_long


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
        # External SeqIO tasks run TensorFlow graphs of their authors, which need not be safe in threads.
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
    """Exports the waiting splits in several threads; the first failure stops the others."""
    with ThreadPoolExecutor(max(1, count), thread_name_prefix="export") as pool:
        futures = [pool.submit(_export_waiting, number, export_dir, work) for number in range(count)]
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
            work.stop.set()  # Ends the threads that only wait for it.


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _export_waiting(number: int, export_dir: Path, work: _Work) -> None:
    """Exports one waiting split after another: thread 0 in this process, the others in a worker once that pays.

    Threads of one process only take turns, which is enough for short exports, which end before workers have loaded.
    """
    worker: Child | None = None
    with contextlib.ExitStack() as stack:
        while not work.stop.is_set():
            if worker is None and 0 < number < MAX_WORKERS and work.needs_workers:
                assert work.workers is not None
                worker = stack.enter_context(work.workers.start())
                _kill_when_stopped(worker, work.stop)
            try:
                # Atomic, so threads need no lock.
                planned = work.waiting.popleft()
            except IndexError:
                return
            made = {} if worker is None else _exported_by(worker, planned, export_dir, work)
            if made.get("fingerprint") == planned.fingerprint:
                work.progress.examples_done(made["examples"])
            else:  # Also where a worker cannot register the task, or registers another one.
                export_split(planned, export_dir, on_chunk=work.progress.examples_done, stop=work.stop)
            work.progress.task_done()


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
