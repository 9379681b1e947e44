"""A request to end a run, from outside: a machine that is taken away sends SIGTERM, a person at a terminal Ctrl-C."""

import signal
import threading
from types import FrameType
from typing import Any, Self, final


@final
class StopRequest:
    """A flag that SIGTERM or SIGINT raises, and the loop reads at every step boundary.

    A context manager: the handlers are installed inside it and put back behind it. A second Ctrl-C interrupts at once.
    In a thread other than the main one no handler can be installed; the flag is then raised by `request` alone.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Returns whether the run shall end."""
        return self._requested

    def request(self) -> None:
        """Raises the flag."""
        self._requested = True

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = True
