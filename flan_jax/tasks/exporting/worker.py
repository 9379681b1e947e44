"""Other processes that export splits: Python runs one thread at a time, and so does the tokeniser when Python calls it.

A worker registers the same tasks as the process that it works for, from the same request, and exports the splits that
it is given by name, one after another. It ends with that process, whatever ends it.

    parent -> worker, its standard input:   {"task": "rte", "split": "train"}
    worker -> parent, its standard output:  {"examples": 2490, "fingerprint": "..."}
                                            {"error": "...", "traceback": "..."}
                                            {}, when it knows no such task
"""

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from flan_jax.data.export_process import environment
from flan_jax.data.manifest import Request, request_from_json
from flan_jax.errors import UserError, as_user_error


class Worker:
    """A process that exports splits; start it where it is worth some seconds of loading. Close it, or it lives on."""

    def __init__(self, request: Request, *, export_dir: Path, module_files: Sequence[str]):
        """Starts the process.

        Args:
          request: what the tasks are registered from; its name and split do not matter.
          export_dir: where exports lie; the caller keeps others from writing there.
          module_files: the files that define the request's tasks, beyond the package's own.
        """
        order = {"request": dataclasses.asdict(request), "export_dir": str(export_dir), "files": list(module_files)}
        # -P: the worker's modules are ours, by the path in its environment, not whatever lies in the working directory.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(order)

    def export(self, task: str, split: str) -> tuple[int, str] | None:
        """Exports a split; returns its number of examples and its fingerprint, None when the worker knows no such task.

        Raises:
          UserError: as the export itself.
          RuntimeError: the worker broke, or was killed.
        """
        self._tell({"task": task, "split": split})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            hint = " (often: out of memory)" if status == -signal.SIGKILL else ""
            raise RuntimeError(
                f"A worker {how}{hint} while it exported {task!r}; finished shards are kept, the same command goes on "
                "from them."
            )
        said = json.loads(line)
        if "error" in said:
            refusal = UserError(said["error"])
            refusal.add_note(said["traceback"])
            raise refusal
        return (said["examples"], said["fingerprint"]) if said else None

    def kill(self) -> None:
        """Ends the process, from any thread; what it has not finished is made again."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process and waits for its end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # Words that it did not come to hear.
                stream.close()

    def _tell(self, words: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended; reading its answer tells how.


def _work() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever modules print belongs to the terminal.
    orders = _orders()
    first = orders.get()
    from flan_jax.tasks.exporting import export, worker_pool

    request, export_dir = request_from_json(first["request"]), Path(first["export_dir"])
    export.define(request)
    while True:
        order = orders.get()
        try:
            made = worker_pool.export_one(
                order["task"],
                order["split"],
                lengths=request.lengths,
                export_dir=export_dir,
                module_files=first["files"],
            )
            said: dict[str, object] = {} if made is None else {"examples": made[0], "fingerprint": made[1]}
        except Exception as error:
            refusal = as_user_error(error)
            if refusal is None:
                raise
            said = {"error": str(refusal), "traceback": "".join(traceback.format_exception(error))}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


def _orders() -> "queue.Queue[dict]":
    """What the parent says; ends this process when the parent's end closes: it was killed, or wants no more."""
    orders: queue.Queue[dict] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        os._exit(0)  # Finished shards lie on disk; the rest is made again.

    threading.Thread(target=listen, daemon=True).start()
    return orders


if __name__ == "__main__":
    _work()
