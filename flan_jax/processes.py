"""The processes of one run: small messages between them, and a common end.

Uses the coordination service that JAX starts in process 0. Arrays are exchanged by the devices; messages here are
small: a position, a decision, a failure. Nothing waits forever: missing processes are named, and when one fails, the
others end within seconds instead of waiting for it in a collective. `launch` connects the processes.
"""

import atexit
import collections
import contextlib
import json
import os
import re
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
HEARTBEAT_SECONDS = 12  # A process that is silent for so long was killed: JAX sends heartbeats from a thread in C++.
_POLL_SECONDS = 1.0  # How often a process checks whether another one failed: one small request.
_FAREWELL_SECONDS = 10.0
_SHOWN = 20
_LOST_CONNECTION = ("Gloo", "NCCL", "UNAVAILABLE", "Connection reset", "Connection closed", "Socket closed")


class Disagreement(UserError):
    """The processes were not started as one run; all of them raise the same text."""


class Store(Protocol):
    """A key-value store of strings that all processes share: what is used here of JAX's coordination client."""

    def key_value_set(self, key: str, value: str) -> None:
        """Sets a key once."""

    def key_value_try_get(self, key: str) -> str:
        """Returns a value; raises when there is none yet."""

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        """Waits for a value; raises after the timeout."""

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """Returns the keys below a prefix, with their values."""

    def wait_at_barrier(self, barrier_id: str, timeout_in_ms: int) -> None:
        """Waits for all processes; raises after the timeout."""

    def key_value_delete(self, key: str) -> None:
        """Removes a key."""


@final
class Group:
    """The processes of one run; a single process waits for nobody.

    All processes must call the same methods in the same order.
    """

    def __init__(
        self, *, index: int = 0, count: int = 1, store: Store | None = None, patience_seconds: float = PATIENCE_SECONDS
    ):
        """Stores which process this is.

        Args:
          index: The index of this process.
          count: The number of processes.
          store: The shared store; None for a single process.
          patience_seconds: How long to wait for the others to make the same call.
        """
        assert store is not None or count == 1
        self.index = index
        self.count = count
        self._store = store
        self._patience_seconds = patience_seconds
        self._round = 0
        self._read: list[str] = []  # Keys of earlier rounds, to be removed once all processes have read them.
        self._failed = False
        self._ending = threading.Lock()

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.index == 0

    def first_then_others(self, call: Callable[[], T]) -> T:
        """Returns the result of `call`; the first process calls it before all others, so that they find its files."""
        if self.is_first:
            value = call()
            self.broadcast(True)
            return value
        self.broadcast(None)
        return call()

    def broadcast(self, value: Any) -> Any:
        """Returns the first process's value (JSON) in every process, however long the first process takes."""
        key = self._next_key()
        if self._store is None:
            return value
        if self.is_first:
            self._store.key_value_set(key, json.dumps(value))
            return value
        while True:  # If the first process fails or disappears, this process ends too.
            text = self._get(key, seconds=60.0)
            if text is not None:
                return json.loads(text)

    def gather(self, value: Any) -> list[Any]:
        """Returns the values (JSON) of all processes, by index.

        Raises:
          UserError: A process did not make this call in time.
        """
        prefix = self._next_key()
        if self._store is None:
            return [value]
        # Before the barrier: whoever has passed it can read the values of all.
        self._store.key_value_set(f"{prefix}/{self.index}", json.dumps(value))
        failure: Exception | None = None
        try:
            self._store.wait_at_barrier(prefix, round(1000 * self._patience_seconds))
        except Exception as error:
            failure = error
        texts = {int(key.rpartition("/")[2]): text for key, text in self._store.key_value_dir_get(prefix)}
        late = [i for i in range(self.count) if i not in texts]
        # Everybody arrived, and the service itself failed.
        if failure is not None and not late:
            raise failure
        if late:
            raise UserError(
                f"Of {self.count} processes, {_listed(late)} did not reach the point where process {self.index} waited "
                f"for {self._patience_seconds:.0f} s: they are slow, stopped, or started with another command. Read "
                "their last output; start all of them again with the same command, which resumes."
            ) from failure
        self._forget(upto=prefix)
        return [json.loads(texts[i]) for i in range(self.count)]

    def sum_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Returns the sums of counts over all processes."""
        sums: collections.Counter[str] = collections.Counter()
        for value in self.gather(dict(counts)):
            sums.update(value)
        return dict(sums)

    def require_agreement(self, fields: Mapping[str, Any]) -> None:
        """Refuses processes that were not started as one run.

        Args:
          fields: Values that must be equal in all processes, as JSON.

        Raises:
          Disagreement: A field differs; processes, fields and values are named. All processes raise the same text.
          UserError: A process did not make this call in time.
        """
        first, *others = self.gather(json.loads(json.dumps(fields, default=str)))
        lines = [
            f"  process {number}: {name} is {theirs!r}, in process 0 it is {ours!r}"
            for number, other in enumerate(others, start=1)
            for name, ours, theirs in differing_fields(first, other)
        ]
        if lines:
            shown = lines[:_SHOWN] + ([f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])
            raise Disagreement(
                "The processes of this run disagree; nothing was trained:\n" + "\n".join(shown) + "\n"
                "Start all of them with the same command, the same versions and the same data."
            )

    @contextlib.contextmanager
    def ended_together(self) -> Iterator[None]:
        """Reports a failure inside to the other processes, so that they end too; this process exits soon after."""
        try:
            yield
        except Disagreement:
            raise
        except BaseException as error:
            if self._store is not None and not self._failed:
                if isinstance(error, Exception) and errors.as_user_error(error) is None:
                    self._wait_for_other_failure(error)
                self._report_failure(error)
            raise

    def leave(self, status: int) -> None:
        """Exits a process that failed, without JAX's own shutdown, which would wait for the others."""
        if self._failed:
            self._depart(status)

    def watch(self) -> None:
        """Starts to poll for failures of other processes, which end this one."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), daemon=True, name="other processes")
        watcher.start()

        def stop() -> None:
            ended.set()
            watcher.join()

        atexit.register(stop)  # Before JAX's own shutdown, which stops the store.

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(_POLL_SECONDS):
            self._poll()

    def _poll(self) -> None:
        """Exits if another process failed."""
        assert self._store is not None
        try:
            failure = json.loads(self._store.key_value_try_get("flan_jax/failed"))
        except Exception:  # There is no failure, or the service is gone, which JAX itself handles.
            return
        with self._ending:  # Of two threads that have read it, one prints.
            if failure["process"] != self.index and not self._failed:
                print(f"flan-jax: process {failure['process']} stopped: {failure['message']}", file=sys.stderr)
                self._depart(failure["status"])

    def end_as_lost(self, reason: str) -> None:
        """Exits because another process was killed, unless this one is failing itself."""
        with self._ending:
            if not self._failed:
                print(f"flan-jax: {reason}", file=sys.stderr)
                end_now(2)

    def _depart(self, status: int) -> None:
        """Exits immediately; process 0 exits last, because JAX aborts the others when its store is gone."""
        assert self._store is not None
        with contextlib.suppress(Exception):
            if not self.is_first:
                self._store.key_value_set(f"flan_jax/gone/{self.index}", "")
            deadline = time.monotonic() + _FAREWELL_SECONDS
            while self.is_first and time.monotonic() < deadline:
                if len(self._store.key_value_dir_get("flan_jax/gone")) == self.count - 1:
                    break
                time.sleep(0.1)
        if self.is_first:
            time.sleep(0.3)  # Between the last message of the others and their end.
        end_now(status)

    def _wait_for_other_failure(self, error: BaseException) -> None:
        """Waits a moment: an error here may only be the consequence of a failure in another process.

        A lost connection may be that to a killed process, which JAX notices by its silence; see `end_as_lost`.
        """
        is_lost = any(text in str(error) for text in _LOST_CONNECTION)
        for _ in range(HEARTBEAT_SECONDS + 5 if is_lost else 3):
            self._poll()
            time.sleep(_POLL_SECONDS)
        error.add_note(
            f"This was process {self.index} of {self.count}. If another one was killed, this error is a consequence: "
            "start all of them again with the same command, which resumes."
        )

    def _report_failure(self, error: BaseException) -> None:
        assert self._store is not None
        self._failed = True
        status, message = _described(error)
        failure = {"process": self.index, "status": status, "message": message}
        with contextlib.suppress(Exception):  # Another process was first, and its failure is reported.
            # JAX's store refuses to set a key twice, so that the first failure is the one that is reported.
            self._store.key_value_set("flan_jax/failed", json.dumps(failure))
        # Unwinding may wait for processes that are gone.
        end = threading.Timer(_FAREWELL_SECONDS, self._end, args=(message, status))
        end.daemon = True
        end.start()

    def _end(self, message: str, status: int) -> None:
        print(f"flan-jax: {message}", file=sys.stderr)
        self._depart(status)

    def _next_key(self) -> str:
        """Returns the key of the next round, the same in all processes."""
        self._round += 1
        self._read.append(f"flan_jax/{self._round}")
        return self._read[-1]

    def _forget(self, *, upto: str) -> None:
        """Removes the keys before a round in which all processes took part, and which they have therefore read."""
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
    """Returns the group of this process."""
    return _GROUP


def join(joined: Group) -> None:
    """Makes this process a member of a group: it ends when another member fails, and reports its own end."""
    global _GROUP
    _GROUP = joined
    joined.watch()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def end_as_lost(log: bytes) -> None:
    """Exits because the connection to another process is lost.

    Args:
      log: Text of JAX's coordination service, which names a silent process.
    """
    silent = re.search(rb"heartbeats\):\s*(?:\S*task:)?(\d+)", log)
    lost = f"process {int(silent[1])} is silent" if silent else "process 0 cannot be reached"
    _GROUP.end_as_lost(
        f"{lost}: it was killed, or its machine or the network failed. Start all processes again with the same "
        "command, which resumes."
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Unwinds the process, so that its end is reported; by default SIGTERM ends it silently."""
    raise KeyboardInterrupt(number)


def _described(error: BaseException) -> tuple[int, str]:
    """Returns the exit status of an error, and its text for the other processes."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.args[0] if error.args else signal.SIGINT), "interrupted"
    refusal = errors.as_user_error(error) if isinstance(error, Exception) else None
    if refusal is not None:
        return 2, str(refusal)
    return 1, f"{type(error).__name__}: {error}"


def end_now(status: int) -> None:
    """Exits without unwinding, which would wait for processes that are gone."""
    # `os._exit` does not flush.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return f"{len(numbers)} ({shown}{', ...' if len(numbers) > _SHOWN else ''})"
