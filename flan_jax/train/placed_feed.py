"""A feed whose next batches are on the devices before the loop needs them: one thread, one position."""

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, final

from flan_jax.shapes import Batch
from flan_jax.train.metrics import token_slots

AHEAD_BATCHES = 4


class Feed(Protocol):
    """Batches of this process's rows with their counts, and a position."""

    def __next__(self) -> tuple[Mapping[str, Any], Mapping[str, int]]: ...

    def state(self) -> Any:
        """Returns the position after the last batch, as JSON."""

    def restore(self, state: Any) -> None:
        """Moves to a position."""


class Placed(NamedTuple):
    """A batch on the devices, the counts of this process's rows, and the number of tokens that fit into them."""

    batch: Batch
    stats: Mapping[str, int]
    slots: int


class _Made(NamedTuple):
    placed: Placed | None
    position: Any
    failure: BaseException | None


@final
class PlacedFeed:
    """Reads batches and transfers them to the devices in a thread, so that neither delays a step.

    The position is the one after the last batch returned: batches that are placed ahead do not count, and are read
    again after a restart. Nothing else may read from the feed meanwhile. What the feed raises ends the thread and is
    raised after the batches that were made before it.
    """

    def __init__(self, feed: Feed, place: Callable[[Mapping[str, Any]], Batch]):
        """Starts the thread.

        Args:
          feed: At its position.
          place: Transfers this process's rows of a batch to the devices.
        """
        # Before the thread starts: afterwards the feed's own position is up to `AHEAD_BATCHES` further.
        self._position = feed.state()
        self._failure: BaseException | None = None
        self._ready: queue.Queue[_Made] = queue.Queue(maxsize=AHEAD_BATCHES)
        self._stop = threading.Event()
        # The thread refers to the queue and not to this object, and is a daemon: an unclosed feed blocks nothing.
        arguments = (feed, place, self._ready, self._stop)
        self._thread = threading.Thread(target=_place_ahead, args=arguments, name="place batches", daemon=True)
        self._thread.start()

    def __next__(self) -> Placed:
        if self._failure is None:
            placed, position, self._failure = self._ready.get()
            if placed is not None:
                self._position = position
                return placed
        assert self._failure is not None
        raise self._failure

    def state(self) -> Any:
        """Returns the feed's position after the last batch returned."""
        return self._position

    def close(self) -> None:
        """Ends the thread; waits for the batch that it is working on."""
        self._stop.set()
        while not self._ready.empty():  # The thread may be waiting for room.
            self._ready.get_nowait()
        self._thread.join()


def _place_ahead(
    feed: Feed, place: Callable[[Mapping[str, Any]], Batch], ready: "queue.Queue[_Made]", stop: threading.Event
) -> None:
    failed = False
    while not (stop.is_set() or failed):
        try:
            batch, stats = next(feed)
            # Each batch carries the position after it, which the loop's saves then record.
            made = _Made(Placed(place(batch), stats, token_slots(batch)), feed.state(), None)
        except BaseException as error:  # Whatever it is, the loop must not wait forever.
            made, failed = _Made(None, None, error), True
        while not stop.is_set():
            try:
                # With a timeout, since `close` sets a flag that a blocked thread would not see.
                ready.put(made, timeout=0.1)
                break
            except queue.Full:
                continue
