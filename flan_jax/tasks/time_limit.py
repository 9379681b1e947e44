"""A limit on the time that one row may take in a template, a normalizer or a filter.

`templates.budget` bounds what templates do; the Python of a user, such as a regular expression that backtracks for
years, can only be interrupted. The limit holds in the main thread, where Python runs signal handlers, also inside
regular expressions and long multiplications; exports therefore render in main threads.
"""

import atexit
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from flan_jax.errors import UserError, user_line

ROW_SECONDS = 60.0
"""A row that takes longer is refused, and at most a quarter of this later."""
_TICKS = 4
_MAIN_THREAD = threading.main_thread().ident


class _OutOfTime(BaseException):
    """Raised into a row's work; no `except Exception` of a user's function catches it.

    Attributes:
      work: The innermost work that was interrupted.
    """

    work: str | None = None


class _Watch:
    """The timer of the process, which ticks while the main thread works on rows.

    A row is over its time after four ticks in which no other was begun. It therefore costs assignments instead of
    system calls, and a process that was suspended has missed at most one tick.
    """

    __slots__ = ("begun", "earlier_handler", "is_running", "seen", "ticks", "work")

    def __init__(self) -> None:
        self.work: limited | None = None
        self.begun, self.seen, self.ticks = 0, 0, 0  # Counts of blocks, and of ticks in the same one.
        self.is_running = False
        self.earlier_handler: Any = None

    def start(self) -> None:
        self.earlier_handler = signal.signal(signal.SIGALRM, self.tick)
        signal.setitimer(signal.ITIMER_REAL, ROW_SECONDS / _TICKS, ROW_SECONDS / _TICKS)
        self.is_running = True

    def tick(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.work is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.earlier_handler)
            self.is_running = False
        elif self.begun != self.seen:
            self.seen, self.ticks = self.begun, 0
        else:
            self.ticks += 1
            if self.ticks >= _TICKS:  # At each later tick too, for code that catches everything.
                raise _OutOfTime


_watch = _Watch()
# The interpreter gives signals back to the system before it frees its modules: a tick would then kill the process.
atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)


class limited:
    """Limits the time of a row in a `with` block to `ROW_SECONDS`; does nothing in other threads than the main one.

    Blocks may be nested: inner ones restart the time and name the work, the outermost one raises.

    Raises:
      UserError: The time is over. It is no bad row, which could be skipped: which rows are slow depends on the machine.
    """

    __slots__ = ("_outer", "_place", "_task", "_template")

    def __init__(self, task: str, place: str, template: int | None = None):
        """Names the work.

        Args:
          task: Name of the task.
          place: File and line of the row, or another name of it.
          template: Position of the template among the task's; None for what comes before the templates.
        """
        self._task, self._place, self._template = task, place, template

    def __enter__(self) -> None:
        if threading.get_ident() == _MAIN_THREAD:
            watch = _watch
            self._outer = watch.work
            watch.work = self
            watch.begun += 1
            if not watch.is_running:
                watch.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if _watch.work is self:
            _watch.work = self._outer
        if isinstance(error, _OutOfTime):
            error.work = error.work or self._described(user_line(error))
            if self._outer is None:
                raise UserError(
                    f"{error.work} Fix it: the usual reasons are a loop without an end and a regular expression with "
                    "nested repetitions, such as (a+)+. Such a row is not skipped, because which rows are slow depends "
                    "on the machine."
                ) from error

    def _described(self, line: str | None) -> str:
        work = "the normalizer or a filter" if self._template is None else f"template {self._template}"
        where = f" It was interrupted at {line}." if line else ""
        return f"{self._place}: {work} of task {self._task!r} took more than {ROW_SECONDS:g} seconds.{where}"
