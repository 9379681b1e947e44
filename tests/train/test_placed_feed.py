import threading
import time

import numpy as np
import pytest

from flan_jax.train.placed_feed import AHEAD_BATCHES, PlacedFeed


class _Feed:
    def __init__(self, last=10**9):
        self.drawn, self.last = 0, last

    def __next__(self):
        if self.drawn == self.last:
            raise StopIteration
        self.drawn += 1
        return {"encoder_input_tokens": np.full((2, 4), self.drawn)}, {"rows": 2}

    def state(self):
        return {"drawn": self.drawn}

    def restore(self, state):
        self.drawn = state["drawn"]


def _until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_batches_are_placed_before_they_are_asked_for_in_a_thread_and_no_more_than_some():
    placed_in = []
    feed = _Feed()
    placed = PlacedFeed(feed, lambda batch: placed_in.append(threading.current_thread().name) or batch)
    # One more than wait: the thread has it in its hands.
    _until(lambda: len(placed_in) == AHEAD_BATCHES + 1)
    time.sleep(0.05)
    assert feed.drawn == AHEAD_BATCHES + 1 and set(placed_in) == {"prefetch"}
    placed.close()
    assert AHEAD_BATCHES >= 2


def test_the_position_is_behind_the_last_batch_returned_however_many_are_placed():
    feed = _Feed()
    feed.restore({"drawn": 7})
    placed = PlacedFeed(feed, lambda batch: batch)
    _until(lambda: feed.drawn > 8)
    assert placed.state() == {"drawn": 7}
    for wanted in (8, 9, 10):
        batch, stats, slots = next(placed)
        assert batch["encoder_input_tokens"][0, 0] == wanted and placed.state() == {"drawn": wanted}
        assert (stats, slots) == ({"rows": 2}, 8)
    placed.close()


def test_the_end_of_a_feed_comes_after_its_last_batch():
    placed = PlacedFeed(_Feed(last=1), lambda batch: batch)
    next(placed)
    with pytest.raises(StopIteration):
        next(placed)
    placed.close()


def test_what_placing_raises_is_raised_where_the_batch_is_asked_for():
    def place(batch):
        raise ValueError("no such device")

    placed = PlacedFeed(_Feed(), place)
    with pytest.raises(ValueError, match="no such device"):
        next(placed)
    placed.close()
