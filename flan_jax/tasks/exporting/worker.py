"""Worker processes that export splits.

Processes, not threads: Python runs one thread at a time, and so does the tokenizer when Python calls it. A
worker registers the same tasks as its parent, from the same request, and exports the splits that it is given by name,
one after another. It exits when its parent exits, for whatever reason. This is the parent's side; the worker's is
`serving`.

    parent -> worker, its standard input:   {"task": "rte", "split": "train"}
    worker -> parent, its standard output:  {"examples": 2490, "fingerprint": "..."}
                                            {"error": "...", "traceback": "..."}
                                            {}, when it does not have the task
"""

import contextlib
import dataclasses
import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from flan_jax.data.manifest import Request
from flan_jax.errors import UserError


def how_it_ended(status: int) -> str:
    """Describes the exit status of a child process that failed; a negative one is the signal that killed it."""
    if status >= 0:
        return f"ended with status {status}"
    hint = " (often: out of memory)" if status == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{hint}"


class Worker:
    """A process that exports splits. Takes several seconds to start. Must be closed."""

    def __init__(
        self, process: "subprocess.Popen[str]", request: Request, *, export_dir: Path, module_files: Sequence[str]
    ):
        """Sends a started process what it registers tasks from.

        Args:
          process: runs `serving.serve`, its standard input and output are pipes.
          request: what the tasks are registered from; its name and split do not matter.
          export_dir: the export directory; the caller prevents others from writing there.
          module_files: user files that define the request's tasks.
        """
        self._process = process
        self._send({"request": dataclasses.asdict(request), "export_dir": str(export_dir), "files": list(module_files)})

    def export(self, task: str, split: str) -> tuple[int, str] | None:
        """Exports a split; returns its number of examples and fingerprint, None when the worker does not have the task.

        Raises:
          UserError: as the export itself.
          RuntimeError: the worker failed, or was killed.
        """
        self._send({"task": task, "split": split})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise RuntimeError(
                f"A worker {how_it_ended(status)} while it exported {task!r}. Finished shards are not lost: run the "
                "same command again to continue."
            )
        answer = json.loads(line)
        if "error" in answer:
            refusal = UserError(answer["error"])
            refusal.add_note(answer["traceback"])
            raise refusal
        return (answer["examples"], answer["fingerprint"]) if answer else None

    def kill(self) -> None:
        """Ends the process, from any thread; splits that it has not finished are exported again."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process and waits for its end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # A message that it did not read.
                stream.close()

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        # It may have ended; reading its answer shows how.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
