"""A feed whose next batches lie on the devices before they are asked for."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, final

from flan_jax.prefetch import Prefetcher
from flan_jax.shapes import Batch
from flan_jax.train.metrics import token_slots

AHEAD_BATCHES = 2


class Feed(Protocol):
    """Batches of this process's rows with their counts, and a position in them."""

    def __next__(self) -> tuple[Mapping[str, Any], Mapping[str, int]]: ...

    def state(self) -> Any:
        """Returns, as JSON, the position behind the last batch returned."""

    def restore(self, state: Any) -> None:
        """Goes to a position."""


class Placed(NamedTuple):
    """A batch on the devices, the counts of this process's rows, and the tokens that they have room for."""

    batch: Batch
    stats: Mapping[str, int]
    slots: int


@final
class PlacedFeed:
    """Draws and places batches in a thread, so that neither reading nor copying holds up a step.

    The position is the one behind the last batch returned: those placed ahead do not count, and are drawn again after
    a restart. Nothing else may draw from the feed meanwhile.
    """

    def __init__(self, feed: Feed, place: Callable[[Mapping[str, Any]], Batch], *, ahead_batches: int = AHEAD_BATCHES):
        """Begins to draw.

        Args:
          feed: at its position.
          place: from the arrays of this process's rows to arrays on the devices.
          ahead_batches: how many wait on the devices.
        """
        self._position = feed.state()

        def produce() -> tuple[Placed, Any]:
            batch, stats = next(feed)
            return Placed(place(batch), stats, token_slots(batch)), feed.state()

        self._made: Prefetcher[tuple[Placed, Any]] = Prefetcher(produce, size=ahead_batches)

    def __next__(self) -> Placed:
        placed, self._position = self._made.get()
        return placed

    def state(self) -> Any:
        """Returns the feed's position behind the last batch returned."""
        return self._position

    def close(self) -> None:
        """Ends the thread; the feed is then somewhat further than the batches returned."""
        self._made.close()
