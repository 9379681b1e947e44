"""Measures where the time between the start of a process and the end of its first step goes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import final

from flan_jax.train.metrics import process_seconds

IMPORTS = "imports"


@final
class StartUp:
    """Phases of a start, sequential or nested; each second belongs to the innermost phase.

    Time before this object was created counts as imports.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.perf_counter,
        alive: Callable[[], float | None] = process_seconds,
    ):
        """Starts the clock.

        Args:
          now: A clock, in seconds.
          alive: The age of the process in seconds; None where the system does not report it.
        """
        self._now, self._alive = now, alive
        self._begin = now()
        self._before = alive()
        self._phases: dict[str, float] = {} if self._before is None else {IMPORTS: self._before}
        self._background: dict[str, float] = {}
        self._inner: list[float] = []  # Seconds in phases inside each of the open ones.

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a phase; for the main thread."""
        start = self._now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            seconds = self._now() - start
            # Without the phases inside, which have counted these seconds already.
            self._phases[name] = self._phases.get(name, 0.0) + seconds - self._inner.pop()
            if self._inner:
                self._inner[-1] += seconds

    @contextlib.contextmanager
    def in_background(self, name: str) -> Iterator[None]:
        """Measures work in a thread that runs in parallel to the phases."""
        start = self._now()
        try:
            yield
        finally:
            self._background[name] = self._now() - start

    def values(self) -> dict[str, float | None]:
        """Returns the seconds of each phase, and the total, which is None where the start of the process is unknown."""
        total = None if self._before is None else self._before + self._now() - self._begin
        values: dict[str, float | None] = {f"{name}_seconds": seconds for name, seconds in self._phases.items()}
        values |= {f"{name}_thread_seconds": seconds for name, seconds in self._background.items()}
        return {**values, "rest_seconds": self._rest(), "first_step_seconds": total}

    def sentence(self) -> str:
        """Returns the phases in seconds as text, without those below 0.05; a phase in a thread with its whole time."""
        total = self.values()["first_step_seconds"]
        after = "" if total is None else f" {total:.1f} s after the process started"
        parts = [
            f"{name} {self._background[name]:.1f} ({self._background[name] - seconds:.1f} alongside the others)"
            if name in self._background
            else f"{name} {seconds:.1f}"
            for name, seconds in {**self._phases, "rest": self._rest()}.items()
            if seconds >= 0.05 or name in self._background
        ]
        return f"first step finished{after}: {', '.join(parts)}"

    def _rest(self) -> float:
        """Seconds since the start that belong to no phase."""
        return self._now() - self._begin - sum(s for name, s in self._phases.items() if name != IMPORTS)
