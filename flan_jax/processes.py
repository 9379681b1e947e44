"""Several processes as one run: what they tell each other, and how they end together.

Knows the coordination service that JAX starts in process 0, and nothing of training. Arrays are the devices' business;
what goes through here is small: a position, a verdict, a failure. Nothing waits for ever: processes that do not turn up
are named, and when one fails, the others hear of it within seconds instead of waiting for it in a collective. How they
find each other is left to `launch`.
"""

import atexit
import collections
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, Protocol, TypeVar, final

from flan_jax import errors
from flan_jax.errors import UserError
from flan_jax.files import differing_fields

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
_LOOKS_SECONDS = 1.0  # How often a process looks whether another one failed: one small request.
_LAST_WORDS_SECONDS = 10.0
_SHOWN = 20


class Disagreement(UserError):
    """The processes were not started as one run; every one of them raises the same text."""


class Store(Protocol):
    """Texts by name, seen by all processes: the part of JAX's coordination client that is used here."""

    def key_value_set(self, key: str, value: str) -> None:
        """Sets a name once."""

    def key_value_try_get(self, key: str) -> str:
        """Returns a value; raises when there is none yet."""

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        """Returns a value, waiting for it; raises when none came in time."""

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """Returns the names below one, with their values."""

    def wait_at_barrier(self, barrier_id: str, timeout_in_ms: int) -> None:
        """Returns when all processes are there; raises when not all came in time."""

    def key_value_delete(self, key: str) -> None:
        """Removes a name."""


@final
class Group:
    """The processes of one run. One that is alone has nobody to wait for.

    What several processes call has to be called by all of them, in the same order.
    """

    def __init__(
        self, *, index: int = 0, count: int = 1, store: Store | None = None, patience_seconds: float = PATIENCE_SECONDS
    ):
        """Takes who this process is.

        Args:
          index: its number.
          count: how many there are.
          store: what they share; None for one alone.
          patience_seconds: how long others may take to come to the same place.
        """
        assert store is not None or count == 1
        self.index = index
        self.count = count
        self._store = store
        self._patience_seconds = patience_seconds
        self._round = 0
        self._read: list[str] = []  # Names of earlier rounds, to be forgotten once all have read them.
        self._failed = False
        self._ending = threading.Lock()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes for all."""
        return self.index == 0

    def first_first(self, call: Callable[[], T]) -> T:
        """Returns what `call` gives; the first process calls it before all others, which find what it made."""
        if self.is_first:
            value = call()
            self.told_by_first(True)
            return value
        self.told_by_first(None)
        return call()

    def told_by_first(self, value: Any) -> Any:
        """Returns the first process's value, JSON, in every process, however long that one takes to come to it."""
        key = self._next_key()
        if self._store is None:
            return value
        if self.is_first:
            self._store.key_value_set(key, json.dumps(value))
            return value
        while True:  # Ends with the first process: its failure, or its silence, ends this process too.
            found = self._get(key, seconds=60.0)
            if found is not None:
                return json.loads(found)

    def gathered(self, value: Any) -> list[Any]:
        """Returns the values, JSON, of all processes in their order.

        Raises:
          UserError: some process did not come to this place in time.
        """
        prefix = self._next_key()
        if self._store is None:
            return [value]
        self._store.key_value_set(f"{prefix}/{self.index}", json.dumps(value))
        failure: Exception | None = None
        try:
            self._store.wait_at_barrier(prefix, round(1000 * self._patience_seconds))
        except Exception as error:
            failure = error
        found = {int(key.rpartition("/")[2]): text for key, text in self._store.key_value_dir_get(prefix)}
        late = [i for i in range(self.count) if i not in found]
        if failure is not None and not late:
            raise failure
        if late:
            raise UserError(
                f"Of {self.count} processes, {_listed(late)} did not come to where process {self.index} waited for "
                f"{self._patience_seconds:.0f} s: slow, stopped, or started with another command. See what they said "
                "last; start all of them again with the same command, which resumes."
            ) from failure
        self._forget(upto=prefix)
        return [json.loads(found[i]) for i in range(self.count)]

    def summed(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Returns the sums of counts over all processes."""
        sums: collections.Counter[str] = collections.Counter()
        for value in self.gathered(dict(counts)):
            sums.update(value)
        return dict(sums)

    def require_agreement(self, fields: Mapping[str, Any]) -> None:
        """Refuses processes that were not started as one run.

        Args:
          fields: what has to be the same everywhere, JSON.

        Raises:
          Disagreement: some field differs; processes, fields and values are named. The same text in all of them.
          UserError: some process did not come in time.
        """
        first, *others = self.gathered(json.loads(json.dumps(fields, default=str)))
        lines = [
            f"  process {number}: {name} is {there!r}, in process 0 it is {here!r}"
            for number, other in enumerate(others, start=1)
            for name, here, there in differing_fields(first, other)
        ]
        if lines:
            shown = lines[:_SHOWN] + ([f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])
            raise Disagreement(
                "The processes of this run disagree; nothing was trained:\n" + "\n".join(shown) + "\n"
                "Start all of them with the same command, the same versions and the same data."
            )

    @contextlib.contextmanager
    def ended_together(self) -> Iterator[None]:
        """What fails inside is told to the other processes, and they end too; this one is gone soon after."""
        try:
            yield
        except Disagreement:
            raise
        except BaseException as error:
            if self._store is not None and not self._failed:
                if isinstance(error, Exception) and not isinstance(error, errors.UserError):
                    self._end_with_another(error)
                self._tell_failure(error)
            raise

    def leave(self, status: int) -> None:
        """Ends a process that failed, without the farewell for which JAX would wait; one that did not fail stays."""
        if self._failed:
            self._depart(status)

    def watch(self) -> None:
        """From now on, ends this process when another one says that it failed."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), daemon=True, name="other processes")
        watcher.start()

        def stop() -> None:
            ended.set()
            watcher.join()

        atexit.register(stop)  # Before JAX's own farewell, which ends the store.

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(_LOOKS_SECONDS):
            self._look()

    def _look(self) -> None:
        """Ends this process if another one failed."""
        assert self._store is not None
        try:
            failure = json.loads(self._store.key_value_try_get("flan_jax/failed"))
        except Exception:  # There is none, or the service is gone, which JAX itself looks after.
            return
        with self._ending:  # Of two threads that have read it, one speaks.
            if failure["process"] != self.index and not self._failed:
                print(f"flan-jax: process {failure['process']} stopped: {failure['message']}", file=sys.stderr)
                self._depart(failure["status"])

    def _depart(self, status: int) -> None:
        """Ends this process at once, the first one after all others: it holds the store, without which JAX aborts them."""
        assert self._store is not None
        with contextlib.suppress(Exception):
            if not self.is_first:
                self._store.key_value_set(f"flan_jax/gone/{self.index}", "")
            deadline = time.monotonic() + _LAST_WORDS_SECONDS
            while self.is_first and time.monotonic() < deadline:
                if len(self._store.key_value_dir_get("flan_jax/gone")) == self.count - 1:
                    break
                time.sleep(0.1)
        if self.is_first:
            time.sleep(0.3)  # From its last word to its end.
        end_now(status)

    def _end_with_another(self, error: BaseException) -> None:
        """Waits a moment whether an error here is only what a failure elsewhere looks like from here."""
        for _ in range(3):
            self._look()
            time.sleep(_LOOKS_SECONDS)
        error.add_note(
            f"This was process {self.index} of {self.count}. If another one was killed, this is how it shows here: start "
            "all of them again with the same command, which resumes."
        )

    def _tell_failure(self, error: BaseException) -> None:
        assert self._store is not None
        self._failed = True
        status, message = _put(error)
        failure = {"process": self.index, "status": status, "message": message}
        with contextlib.suppress(Exception):  # Another one was first, and its failure is told.
            self._store.key_value_set("flan_jax/failed", json.dumps(failure))
        # What is unwound behind this may wait for processes that are gone.
        end = threading.Timer(_LAST_WORDS_SECONDS, self._end, args=(message, status))
        end.daemon = True
        end.start()

    def _end(self, message: str, status: int) -> None:
        print(f"flan-jax: {message}", file=sys.stderr)
        self._depart(status)

    def _next_key(self) -> str:
        """A name for what all processes do next."""
        self._round += 1
        self._read.append(f"flan_jax/{self._round}")
        return self._read[-1]

    def _forget(self, *, upto: str) -> None:
        """Removes what was told before a round in which all have spoken, and so have read everything before it."""
        assert self._store is not None
        if self.is_first:
            for key in self._read[:-1]:
                self._store.key_value_delete(key)
        self._read = [upto]

    def _get(self, key: str, *, seconds: float) -> str | None:
        assert self._store is not None
        try:
            return self._store.blocking_key_value_get(key, max(1, round(1000 * seconds)))
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            return None


_GROUP = Group()


def group() -> Group:
    """Returns the processes that this one belongs to."""
    return _GROUP


def become_one_of(joined: Group) -> None:
    """From now on this process belongs to these, ends when one of them fails, and tells them when it is ended."""
    global _GROUP
    _GROUP = joined
    joined.watch()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Unwinds the process, so that the others hear of it at once; by default SIGTERM ends it without a word."""
    raise KeyboardInterrupt


def _put(error: BaseException) -> tuple[int, str]:
    """Returns the exit status of an error, and how the other processes tell it."""
    if isinstance(error, errors.UserError):
        return 2, errors.message(error)
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT, "interrupted"
    return 1, f"{type(error).__name__}: {error}"


def end_now(status: int) -> None:
    """Ends this process without unwinding it: what it would wait for is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return f"{len(numbers)} ({shown}{', ...' if len(numbers) > _SHOWN else ''})"
