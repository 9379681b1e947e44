"""An export in a child process, so that TensorFlow never enters the process that trains.

The child shares the terminal (its progress bar is the user's) and ends with its parent, whatever ends that one.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from flan_jax.data.manifest import Request
from flan_jax.errors import UserError

CHILD_MODULE = "flan_jax.commands.export"
USER_ERROR_STATUS = 2


class ExportFailed(UserError):
    """An export was refused for something that the user can mend; the text is the child's, printed nowhere else."""


def run_child(requests: Sequence[Request], *, export_dir: Path) -> None:
    """Exports what is asked for in a child process and waits for it.

    Raises:
      ExportFailed: the child refused; the text says what to do.
      RuntimeError: the child broke, or was killed; its own lines are on the terminal.
    """
    with tempfile.TemporaryDirectory(prefix="flan_jax_export_") as folder:
        order, answer = Path(folder) / "requests.json", Path(folder) / "answer.txt"
        order.write_text(json.dumps([dataclasses.asdict(request) for request in requests]))
        # -P: the child's modules are the parent's, by the path below, not whatever lies in the working directory.
        command = [sys.executable, "-P", "-m", CHILD_MODULE, str(order), str(export_dir), str(answer)]
        child = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE)
        with _ended_with_us(child):
            status = child.wait()
        if status == 0:
            return
        refusal = json.loads(answer.read_text()) if status == USER_ERROR_STATUS and answer.exists() else None
    if refusal is not None:
        failure = ExportFailed(refusal["message"])
        failure.add_note(refusal["traceback"])
        raise failure
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    hint = " (often: out of memory)" if status == -signal.SIGKILL else ""
    raise RuntimeError(f"The export process {how}{hint}; finished shards are kept, the same command goes on from them.")


def environment() -> dict[str, str]:
    """Returns a child's: the same modules as ours, TensorFlow quiet, no accelerator touched by either library."""
    paths = [os.path.abspath(path) for path in sys.path]  # "" is the working directory.
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }


@contextmanager
def _ended_with_us(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the child when the wait is left early: by an exception, or by SIGTERM, which then takes its usual course.

    A parent that is killed outright closes the child's standard input; the child watches it and leaves (see
    `flan_jax.commands.export`).
    """
    previous = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    in_main_thread = threading.current_thread() is threading.main_thread()  # Only there can handlers be set.

    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        child.terminate()  # No wait here: the interrupted `wait` below holds its lock.
        signal.signal(number, previous)
        os.kill(os.getpid(), number)

    if in_main_thread:
        signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, previous)
        if child.poll() is None:
            child.terminate()
            child.wait()
        if child.stdin is not None:
            child.stdin.close()
