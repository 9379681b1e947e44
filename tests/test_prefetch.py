import itertools
import threading

import pytest

from flan_jax.prefetch import Prefetcher


def test_results_come_in_order():
    numbers = itertools.count()
    prefetcher = Prefetcher(lambda: next(numbers), size=3)
    assert [prefetcher.get() for _ in range(20)] == list(range(20))
    prefetcher.close()


def test_no_more_than_asked_for_are_made_ahead():
    made, enough = [], threading.Event()

    def produce():
        made.append(1)
        if len(made) == 4:
            enough.set()
        return len(made)

    prefetcher = Prefetcher(produce, size=3)
    assert enough.wait(5)
    assert not threading.Event().wait(0.2) and len(made) == 4  # Three wait, one is in the thread's hand.
    prefetcher.close()


def test_what_was_made_before_a_failure_is_still_given_and_the_failure_stays():
    steps = iter([1, 2])

    def produce():
        return next(steps, None) or 1 // 0

    prefetcher = Prefetcher(produce, size=5)
    assert [prefetcher.get(), prefetcher.get()] == [1, 2]
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            prefetcher.get()
    prefetcher.close()


@pytest.mark.parametrize("taken", [0, 1])
def test_closing_ends_a_thread_that_waits_for_room(taken):
    prefetcher = Prefetcher(lambda: 1, size=1)
    for _ in range(taken):
        prefetcher.get()
    prefetcher.close()
    assert not prefetcher._thread.is_alive()
