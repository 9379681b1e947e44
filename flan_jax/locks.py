"""Locks of directories and output files: one process writes; a second one is refused, with the owner.

A lock is a file that the operating system releases when its process ends, however it ends. The file names its owner.
Its time is renewed while the owner lives, so that other hosts see whether it does, also where the file system does not
share locks between hosts. A leaf: any module may import it.
"""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flan_jax.errors import UserError
from flan_jax.files import accessing, remove_temporary

_RENEWED_SECONDS = 20.0
_DEAD_SECONDS = 120.0


@contextlib.contextmanager
def locked(file: Path, *, what: str, leftovers: Sequence[str] = ()) -> Iterator[str]:
    """Holds a lock while the inside runs.

    Args:
      file: The lock; created with its directory, and removed afterwards.
      what: The protected path, for messages: "The run directory runs/a".
      leftovers: Patterns of `remove_temporary` in the lock's directory, whose files are removed first.

    Yields:
      A sentence about a previous owner that was killed; "" when there is none.

    Raises:
      UserError: Another process holds it; the text names the process and what to do.
    """
    with accessing(file, setting=what, action="written"):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, is_exclusive = _acquired(file, what=what)
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(descriptor, ended), daemon=True, name="lock")
    try:
        previous = _owner_in(descriptor)
        is_elsewhere = previous.get("host", socket.gethostname()) != socket.gethostname()
        if previous and (is_elsewhere or not is_exclusive):
            idle_seconds = time.time() - os.fstat(descriptor).st_mtime
            if idle_seconds < _DEAD_SECONDS:
                reason = "on another host" if is_elsewhere else "on a file system without locks"
                raise UserError(
                    f"{what} is in use by {_shown(previous)}, {reason}. If that process has ended, wait "
                    f"{_DEAD_SECONDS - idle_seconds:.0f} s, or delete {file}."
                )
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        renewal.start()
        try:
            for pattern in leftovers:
                remove_temporary(file.parent, pattern)
            yield f"{what} was in use by {_shown(previous)}, which was killed." if previous else ""
        finally:
            with contextlib.suppress(OSError):
                file.unlink()  # While it is locked: nobody else can have taken it.
    finally:
        ended.set()
        if renewal.ident is not None:
            renewal.join()  # Another file may get the descriptor's number as soon as it is closed.
        os.close(descriptor)


def _acquired(file: Path, *, what: str) -> tuple[int, bool]:
    """Returns the open file, and whether it is locked."""
    while True:
        # Not truncated: the content names the present owner until the lock is held.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner_in(descriptor)
            os.close(descriptor)
            raise UserError(
                f"{what} is in use by {_shown(owner)}. Wait until that process has ended, stop it, or use another path."
            ) from None
        except OSError:  # A file system without locks: the owner in the file and its time remain.
            return descriptor, False
        with contextlib.suppress(FileNotFoundError):  # Released and removed by its owner meanwhile.
            # The lock may be on a file that its owner has just removed; then a new file of this name can be locked as
            # well.
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor, True
        os.close(descriptor)


def _owner_in(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # New, or its owner was killed while it wrote.
        return {}
    return owner if isinstance(owner, dict) else {}


def _shown(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')}"


def _renew(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(_RENEWED_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
