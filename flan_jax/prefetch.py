"""A thread that makes things before they are asked for, fails where they are asked for, and ends when told to."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Calls `produce` again and again in a thread, keeping at most `size` results waiting.

    An exception of `produce` ends the thread and is raised by `get`, after the results made before it.
    """

    def __init__(self, produce: Callable[[], T], *, size: int):
        self._ready: queue.Queue = queue.Queue(maxsize=size)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        # The thread knows the queue and not this object, and is a daemon: forgetting to close hangs nothing.
        arguments = (produce, self._ready, self._stop)
        self._thread = threading.Thread(target=_run, args=arguments, name="prefetch", daemon=True)
        self._thread.start()

    def get(self) -> T:
        """Returns the next result, waiting for it; raises what `produce` raised, every time from then on."""
        if self._failure is None:
            result, failure = self._ready.get()
            if failure is None:
                return result
            self._failure = failure
        raise self._failure

    def close(self) -> None:
        """Stops the thread and waits until the call of `produce` under way, if any, has returned."""
        self._stop.set()
        while not self._ready.empty():  # Makes room, in case the thread waits for some.
            self._ready.get_nowait()
        self._thread.join()


def _run(produce: Callable[[], T], ready: queue.Queue, stop: threading.Event) -> None:
    failed = False
    while not (stop.is_set() or failed):
        try:
            item: tuple[T | None, BaseException | None] = (produce(), None)
        except BaseException as error:  # Whatever it is, the consumer must not wait forever.
            item, failed = (None, error), True
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                break
            except queue.Full:
                continue
