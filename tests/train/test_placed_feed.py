"""Batches are placed ahead in a thread; the position stays behind the last one that was returned."""

import threading
import time

import numpy as np
import pytest

from flan_jax.train.placed_feed import AHEAD_BATCHES, PlacedFeed
from tests.waiting import wait_for


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


def test_batches_are_placed_before_they_are_requested_in_one_thread_and_only_some():
    placed_in = []
    feed = _Feed()
    placed = PlacedFeed(feed, lambda batch: placed_in.append(threading.current_thread()) or batch)
    wait_for(lambda: len(placed_in) == AHEAD_BATCHES + 1)  # One more than wait: the thread holds it.
    time.sleep(0.05)
    assert feed.drawn == AHEAD_BATCHES + 1
    (thread,) = set(placed_in)
    assert thread is not threading.current_thread()
    placed.close()
    assert not thread.is_alive()  # It was waiting for room.
    assert AHEAD_BATCHES >= 2


def test_the_position_is_after_the_last_batch_returned_however_many_are_placed():
    feed = _Feed()
    feed.restore({"drawn": 7})
    placed = PlacedFeed(feed, lambda batch: batch)
    wait_for(lambda: feed.drawn > 8)
    assert placed.state() == {"drawn": 7}
    for expected in range(8, 28):
        batch, stats, slots = next(placed)
        assert batch["encoder_input_tokens"][0, 0] == expected and placed.state() == {"drawn": expected}
        assert (stats, slots) == ({"rows": 2}, 8)
    placed.close()


def test_the_end_of_a_feed_comes_after_its_last_batch():
    placed = PlacedFeed(_Feed(last=1), lambda batch: batch)
    next(placed)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(placed)
    assert placed.state() == {"drawn": 1}
    placed.close()


def test_a_failure_is_raised_after_the_batches_before_it_and_stays():
    def place(batch):
        if batch["encoder_input_tokens"][0, 0] == 3:
            raise ValueError("no such device")
        return batch

    placed = PlacedFeed(_Feed(), place)
    assert [next(placed).batch["encoder_input_tokens"][0, 0] for _ in range(2)] == [1, 2]
    for _ in range(3):
        with pytest.raises(ValueError, match="no such device"):
            next(placed)
    assert placed.state() == {"drawn": 2}
    placed.close()
