"""Waiting for events. A test never fails because the machine is busy: the limit here is only that of a hang."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
HANGS_SECONDS = 900.0


def wait_for(condition: Callable[[], T]) -> T:
    """Polls until the condition's value is true, and returns it."""
    deadline = time.monotonic() + HANGS_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "this does not happen"
        time.sleep(0.01)
    return value
