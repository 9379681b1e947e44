"""The child is a stand-in without SeqIO; tests/commands/test_export_command.py runs the real one."""

import os
import signal
import subprocess
import sys

import pytest

from flan_jax.data.manifest import Request
from flan_jax.run import export_process
from flan_jax.run.export_process import ExportFailed
from tests.data.export_made_by_hand import LENGTHS
from tests.waiting import wait_for

REQUEST = Request(name="toys", lengths=LENGTHS)
PREAMBLE = "import sys, os, time, json, pathlib\norder, export_dir, answer = map(pathlib.Path, sys.argv[2:])\n"
WATCHES_PARENT = "from flan_jax.run.export_child import leave_with_parent\nleave_with_parent()\n"


def run_child(export_dir):
    export_process.run_child([REQUEST], export_dir, module="stand_in_child")


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Returns a function that sets the code of the child."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(code):
        (tmp_path / "stand_in_child.py").write_text(PREAMBLE + code)

    return write


def test_the_child_gets_the_requests_and_an_environment_without_accelerators(tmp_path, child):
    child(
        "names = ['TF_CPP_MIN_LOG_LEVEL', 'CUDA_VISIBLE_DEVICES', 'JAX_PLATFORMS']\n"
        "got = [json.loads(order.read_text()), str(export_dir), [os.environ[n] for n in names], sys.path]\n"
        "(export_dir / 'got.json').write_text(json.dumps(got))"
    )
    run_child(tmp_path)
    import json

    orders, export_dir, environment, path = json.loads((tmp_path / "got.json").read_text())
    assert [order["name"] for order in orders] == ["toys"]
    assert export_dir == str(tmp_path)
    assert environment == ["3", "", "cpu"]
    assert str(tmp_path) in path


def test_a_user_error_is_raised_with_its_text_and_not_printed(child, tmp_path, capfd):
    child("""answer.write_text('{"message": "no such mixture", "traceback": "Traceback"}'); sys.exit(2)""")
    with pytest.raises(ExportFailed) as raised:
        run_child(tmp_path)
    assert str(raised.value) == "no such mixture"
    assert raised.value.__notes__ == ["Traceback"]
    assert "no such mixture" not in "".join(capfd.readouterr())


def test_a_defect_is_not_reported_as_a_user_error(child, tmp_path, capfd):
    child("raise TypeError('ours')")
    with pytest.raises(RuntimeError, match=r"The export process ended with status 1; finished shards are not lost"):
        run_child(tmp_path)
    assert "TypeError: ours" in capfd.readouterr().err


def test_a_killed_child_is_reported_as_killed(child, tmp_path):
    child("os.kill(os.getpid(), 9)")
    with pytest.raises(RuntimeError, match=r"was killed by SIGKILL \(often: out of memory\)"):
        run_child(tmp_path)


def parent_with_child(tmp_path, child_code):
    """A process that exports, with a stand-in for its child; waits until the child runs and returns (parent, pid)."""
    (tmp_path / "stand_in_child.py").write_text(
        PREAMBLE + child_code + "(export_dir / 'pid').write_text(str(os.getpid())); time.sleep(900)"
    )
    code = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # Whoever runs the tests may ignore it, as a shell's "&" does.
sys.path.insert(0, {str(tmp_path)!r})
from pathlib import Path
from flan_jax.data.manifest import Request
from flan_jax.run.export_process import run_child
run_child([Request(name="toys", lengths={LENGTHS!r})], Path({str(tmp_path)!r}), module="stand_in_child")
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    pid = wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    return parent, int(pid)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_child_ends_with_its_parent(tmp_path, number):
    parent, pid = parent_with_child(tmp_path, WATCHES_PARENT)
    assert is_running(pid)
    os.kill(parent.pid, number)
    assert parent.wait() != 0
    wait_for(lambda: not is_running(pid))


def test_a_stop_that_the_parent_only_records_still_ends_the_child(child, tmp_path, monkeypatch):
    child(f"os.kill({os.getpid()}, 15); time.sleep(900)")
    noted = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    try:
        with pytest.raises(RuntimeError, match=r"was killed by SIGTERM"):
            run_child(tmp_path)
        assert noted == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is not None
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_an_interrupt_ends_the_child_before_it_is_raised(child, tmp_path):
    child(f"(export_dir / 'pid').write_text(str(os.getpid())); os.kill({os.getpid()}, 2); time.sleep(900)")
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_child(tmp_path)
        assert not is_running(int((tmp_path / "pid").read_text()))
    finally:
        signal.signal(signal.SIGINT, previous)
