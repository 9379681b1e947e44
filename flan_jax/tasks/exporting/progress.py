"""The progress of an export: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from flan_jax.names import counted

SECONDS_BETWEEN_LINES = 5.0


class ExportProgress:
    """Counts tasks and examples from several threads and shows them on standard error."""

    def __init__(self, *, tasks: int, title: str, stream: TextIO | None = None):
        """Shows nothing yet.

        Args:
          tasks: Number of splits to export.
          title: Name of the export.
          stream: Standard error if None.
        """
        self._stream = sys.stderr if stream is None else stream
        self._title, self._tasks = title, tasks
        self._tasks_done = self._examples = 0
        self._started = self._last_line = time.monotonic()
        self._lock = threading.Lock()
        self._bar = self._new_bar() if self._stream.isatty() else None
        self._bar_task = self._bar.add_task(title, total=tasks, detail="") if self._bar else None

    def _new_bar(self) -> Progress:
        console = Console(file=self._stream)
        # Counts and time stay whole; a long title gives way, and on a narrow terminal there is no bar.
        columns = (
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            *([BarColumn(bar_width=16)] if console.width >= 100 else []),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("tasks  {task.fields[detail]}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
        )
        return Progress(*columns, console=console, transient=True, expand=True)

    def __enter__(self) -> "ExportProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del error, trace
        if self._bar:
            self._bar.stop()
        if kind is None:
            self._write(f"{self._summary()} in {time.monotonic() - self._started:.1f} s")

    def examples_done(self, examples: int) -> None:
        """Counts examples."""
        self._count(tasks=0, examples=examples)

    def task_done(self) -> None:
        """Counts a split."""
        self._count(tasks=1, examples=0)

    def _count(self, *, tasks: int, examples: int) -> None:
        with self._lock:
            self._tasks_done += tasks
            self._examples += examples
            now = time.monotonic()
            if self._bar and self._bar_task is not None:
                detail = f"{counted(self._examples, 'example')}"
                self._bar.update(self._bar_task, completed=self._tasks_done, detail=detail)
            elif now - self._last_line >= SECONDS_BETWEEN_LINES:
                self._last_line = now
                self._write(self._summary())

    def _summary(self) -> str:
        done = f"{self._tasks_done:,} of {counted(self._tasks, 'task')}"
        return f"{self._title}: {done}, {counted(self._examples, 'example')}"

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
