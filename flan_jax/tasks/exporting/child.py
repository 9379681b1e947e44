"""Child processes that export: TensorFlow stays out of the process that trains, and several cores share an export.

    parent -> child, its standard input:    one order per line, JSON
    child -> parent, its standard output:   one answer per line; {"error": ..., "traceback": ...} for a user error

A child ends when its parent does, for whatever reason, because its standard input closes then. Its temporary files (and
those of its own children) are in one folder, which the parent removes, or the next parent when this one was killed.
"""

import contextlib
import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self, final

from flan_jax.errors import UserError, as_user_error

_PREFIX = "flan_jax_export_"
_KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


class ExportFailed(UserError):
    """The export failed with a user error; the text is the child's message."""


@final
class Child:
    """A child process; takes several seconds to start. A context manager: its exit ends the process."""

    def __init__(self, module: str):
        """Starts the process.

        Args:
          module: A Python module that calls `serve` when it is run.
        """
        self._folder = _TemporaryFolder() if "FLAN_JAX_EXPORT_TMPDIR" not in os.environ else None
        # -P: the child's modules are this process's, not those of the working directory.
        command = [sys.executable, "-P", "-m", module]
        self._process = subprocess.Popen(
            command, env=self._environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # An order that it did not read.
                stream.close()
        if self._folder is not None:
            self._folder.remove()

    def ask(self, order: Mapping[str, Any], *, work: str) -> dict[str, Any]:
        """Sends an order and returns the answer.

        Args:
          order: JSON.
          work: Purpose of the order, "exported 'rte'", for messages.

        Raises:
          ExportFailed: The child reports a user error, or was killed from outside.
          RuntimeError: The child failed; its traceback is on the terminal.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with contextlib.suppress(BrokenPipeError):  # It may have ended; reading its answer shows how.
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
        line = stdout.readline()
        if not line:
            raise _died(self._process.wait(), work)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            refusal = ExportFailed(answer["error"])
            refusal.add_note(answer["traceback"])
            raise refusal
        return answer

    def kill(self) -> None:
        """Ends the process, from any thread; splits that it has not finished are exported again."""
        self._process.kill()

    def _environment(self) -> dict[str, str]:
        """Returns this process's modules, TensorFlow quiet, no accelerator for either library, and the folder."""
        folder = os.environ["FLAN_JAX_EXPORT_TMPDIR"] if self._folder is None else str(self._folder.path)
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),  # "" is the working directory.
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
            "TMPDIR": folder,
            "FLAN_JAX_EXPORT_TMPDIR": folder,
        }


class _TemporaryFolder:
    """A folder that is locked while this process lives; removes those of processes that were killed."""

    def __init__(self) -> None:
        for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):  # Of a process that lives, or of another user.
                with open(path / ".lock") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock: IO[str] = open(self.path / ".lock", "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def serve(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Answers the parent's orders until the parent closes the pipe; the child's side of `Child`.

    Args:
      answer: Maps an order to its answer; a user error that it raises is sent to the parent, anything else ends the
        process with a traceback.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Output of imported modules goes to standard error: standard output carries the answers.
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    while True:
        try:
            reply = answer(orders.get())
        except KeyboardInterrupt:  # The terminal interrupts parent and child; the parent reports it.
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            refusal = as_user_error(error)
            if refusal is None:
                raise
            reply = {"error": str(refusal), "traceback": "".join(traceback.format_exception(error))}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def _listen(orders: "queue.Queue[dict[str, Any]]") -> None:
    # A reader of its own: at exit the interpreter would wait for the lock of `sys.stdin`.
    for line in open(0, "rb", closefd=False):
        orders.put(json.loads(line))
    os._exit(0)  # Finished shards are on disk; the rest is exported again.


def _died(status: int, work: str) -> Exception:
    """Returns the error for a child that ended without an answer; a negative status is the signal that killed it."""
    again = "Finished shards are not lost: run the same command again to continue."
    if -status in _KILLS:
        reason = " The system kills a process when memory is full." if -status == signal.SIGKILL else ""
        return ExportFailed(
            f"An export process was killed by {signal.Signals(-status).name} while it {work}.{reason} {again} With "
            "less memory, export with fewer processes first: flan-jax export --processes=1."
        )
    how = f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
    return RuntimeError(f"An export process {how} while it {work}. {again}")
