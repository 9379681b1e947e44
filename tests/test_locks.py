"""One process holds a lock; others learn who, and a killed owner does not block the next one."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flan_jax import locks
from flan_jax.locks import locked
from tests.waiting import wait_for

HOLDER = """
import sys, time
from pathlib import Path
from flan_jax.locks import locked
with locked(Path(sys.argv[1]), what="The run directory"):
    print("held", flush=True)
    time.sleep(900)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock `<tmp_path>/run/.lock`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run" / ".lock"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_leaves_nothing_behind_and_can_be_taken_again(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "run" / ".lock", what="The run directory") as note:
            assert note == ""
        assert list((tmp_path / "run").iterdir()) == []


def test_a_second_owner_is_refused_with_the_first_one_and_since_when(tmp_path, holder):
    with pytest.raises(
        ValueError, match=rf"The run directory is in use by process {holder.pid} on \S+ since 20\d\d-.*Z?"
    ):
        with locked(tmp_path / "run" / ".lock", what="The run directory"):
            raise AssertionError("entered")
    assert holder.poll() is None


def test_a_second_owner_in_the_same_process_is_refused(tmp_path):
    with locked(tmp_path / ".lock", what="x"), pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
        with locked(tmp_path / ".lock", what="x"):
            raise AssertionError("entered")


def test_the_lock_of_a_killed_process_is_taken_over_with_a_note(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "run" / ".lock", what="The run directory") as note:
        assert note.startswith(f"The run directory was in use by process {holder.pid} on ") and "was killed" in note


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": '])
def test_a_lock_that_was_not_written_completely_is_taken_over(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with locked(tmp_path / ".lock", what="x") as note:
        assert note == ""


def test_the_lock_of_a_living_process_on_another_host_is_explained_and_of_a_dead_one_taken_over(tmp_path, monkeypatch):
    """The other host's file system locks are not visible here; the time of its file is."""
    file = tmp_path / ".lock"
    file.write_text(json.dumps({"host": "elsewhere", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}))
    with pytest.raises(
        ValueError, match=r"process 7 on elsewhere since 2026.*on another host. .*wait 1\d\d s, or delete"
    ):
        with locked(file, what="x"):
            raise AssertionError("entered")
    os.utime(file, (time.time() - 121, time.time() - 121))
    with locked(file, what="x") as note:
        assert "process 7 on elsewhere" in note


def test_without_locks_of_the_file_system_the_age_decides_on_one_host_too(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / ".lock", what="x") as note:
        assert note == ""
        with pytest.raises(ValueError, match=f"in use by process {os.getpid()} on .*, on a file system without locks"):
            with locked(tmp_path / ".lock", what="x"):
                raise AssertionError("entered")
    assert not (tmp_path / ".lock").exists()


def test_the_renewal_ends_before_the_lock(tmp_path):
    with locked(tmp_path / ".lock", what="x"):
        assert "lock" in {thread.name for thread in threading.enumerate()}
    assert "lock" not in {thread.name for thread in threading.enumerate()}


def test_the_time_of_a_held_lock_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_RENEWED_SECONDS", 0.01)
    with locked(tmp_path / ".lock", what="x"):
        os.utime(tmp_path / ".lock", (0, 0))
        wait_for(lambda: (tmp_path / ".lock").stat().st_mtime > 1e9)


def test_a_directory_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="The run directory .*cannot be written: .*file is a file, not a directory"):
        with locked(tmp_path / "file" / ".lock", what="The run directory"):
            raise AssertionError("entered")
