"""The exports of a run: reuses exports on disk or creates them in a child process.

The training process must not load TensorFlow. The child shares the terminal, where it shows its progress, and exits
when its parent exits, for whatever reason.
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

from flan_jax.data import exports
from flan_jax.data.exports import UseCached
from flan_jax.data.manifest import MixtureManifest, Request
from flan_jax.errors import UserError
from flan_jax.run import export_child
from flan_jax.tasks.exporting.worker import how_it_ended


class ExportFailed(UserError):
    """The export failed with a user error; the text is the child's message."""


def ensure_exports(
    requests: Sequence[Request], *, export_dir: Path, use_cached: UseCached = "auto"
) -> tuple[MixtureManifest, ...]:
    """Returns the exports for requests; a child process creates those that are missing or out of date.

    Args:
      requests: the exports of a run.
      export_dir: the export directory.
      use_cached: True never exports; "auto" and False export what is missing or out of date.

    Raises:
      UserError: `use_cached` is True and an export is missing or out of date: the fields that differ are named.
      ExportFailed: the export failed with a user error.
    """
    return exports.ensure_all(requests, export_dir=export_dir, use_cached=use_cached, exporter=run_child)


def run_child(requests: Sequence[Request], export_dir: Path, *, module: str = export_child.MODULE) -> None:
    """Exports requests in a child process and waits for it.

    Args:
      requests: of one module, vocabulary and data directory.
      export_dir: the export directory.
      module: the Python module that the child runs.

    Raises:
      ExportFailed: the export failed with a user error; the text is the child's message.
      RuntimeError: the child failed, or was killed; its traceback is on the terminal.
    """
    with tempfile.TemporaryDirectory(prefix="flan_jax_export_") as folder:
        order, answer = Path(folder) / "requests.json", Path(folder) / "answer.json"
        order.write_text(json.dumps([dataclasses.asdict(request) for request in requests]))
        # -P: the child's modules are this process's, not those of the working directory.
        command = [sys.executable, "-P", "-m", module, "export", str(order), str(export_dir), str(answer)]
        child = subprocess.Popen(command, env=export_child.environment(), stdin=subprocess.PIPE)
        with _ended_with_parent(child):
            status = child.wait()
        if status == 0:
            return
        is_refusal = status == export_child.USER_ERROR_STATUS and answer.exists()
        refusal = json.loads(answer.read_text()) if is_refusal else None
    if refusal is not None:
        failure = ExportFailed(refusal["message"])
        failure.add_note(refusal["traceback"])
        raise failure
    raise RuntimeError(
        f"The export process {how_it_ended(status)}; finished shards are not lost: run the same command again to "
        "continue."
    )


@contextmanager
def _ended_with_parent(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Ends the child when the wait is left early: by an exception, or by SIGTERM, which is then raised again.

    A parent that is killed with SIGKILL closes the child's standard input, which the child watches
    (`export_child.leave_with_parent`).
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
