"""Where the time between the start of a process and the end of its first step goes, for a person and for a program."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import final

from flan_jax.train.metrics import process_seconds

IMPORTS = "imports"


@final
class StartUp:
    """Phases of a start, one after the other or one inside the other; each second belongs to the innermost.

    What happened before this object was made counts as imports.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.perf_counter,
        alive: Callable[[], float | None] = process_seconds,
    ):
        """Starts the clock.

        Args:
          now: a clock, in seconds.
          alive: how long the process has been there; None where the system does not say so.
        """
        self._now, self._alive = now, alive
        self._begin = now()
        self._before = alive()
        self._phases: dict[str, float] = {} if self._before is None else {IMPORTS: self._before}
        self._beside: dict[str, float] = {}
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
            self._phases[name] = self._phases.get(name, 0.0) + seconds - self._inner.pop()
            if self._inner:
                self._inner[-1] += seconds

    @contextlib.contextmanager
    def beside(self, name: str) -> Iterator[None]:
        """Remembers how long something took in a thread, while the phases went on."""
        start = self._now()
        try:
            yield
        finally:
            self._beside[name] = self._now() - start

    def values(self) -> dict[str, float | None]:
        """Returns the phases until now in seconds, and the whole, None where the system does not say when it began."""
        whole = None if self._before is None else self._before + self._now() - self._begin
        told: dict[str, float | None] = {f"{name}_seconds": seconds for name, seconds in self._phases.items()}
        told |= {f"{name}_thread_seconds": seconds for name, seconds in self._beside.items()}
        return {**told, "rest_seconds": self._rest(), "first_step_seconds": whole}

    def sentence(self) -> str:
        """Returns the same for a person; what took less than a twentieth of a second is not worth a word."""
        whole = self.values()["first_step_seconds"]
        after = "" if whole is None else f" {whole:.1f} s after the process started"
        parts = [
            f"{name} {seconds:.1f}" + (f" ({self._beside[name]:.1f} in a thread)" if name in self._beside else "")
            for name, seconds in {**self._phases, "rest": self._rest()}.items()
            if seconds >= 0.05 or name in self._beside
        ]
        return f"first step finished{after}: {', '.join(parts)}"

    def _rest(self) -> float:
        """Seconds since the clock's start that no phase has."""
        return self._now() - self._begin - sum(s for name, s in self._phases.items() if name != IMPORTS)
