"""A child process that answers orders: what it gets, how it fails, and what remains of it. It is a stand-in."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flan_jax.errors import UserError
from flan_jax.tasks.exporting.child import Child, ExportFailed
from tests.waiting import wait_for

SERVE = """
import os, pathlib, sys, tempfile, time
from flan_jax.errors import UserError
from flan_jax.tasks.exporting.child import Child, serve

def answer(order):
    {code}

serve(answer)
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Returns a function from the code of an answer to a child; temporary files go to `<tmp_path>/tmp`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def start(code):
        (tmp_path / "stand_in_child.py").write_text(SERVE.format(code=code))
        return Child("stand_in_child")

    return start


def leftovers(tmp_path):
    return sorted((tmp_path / "tmp").iterdir())


def test_orders_are_answered_one_after_the_other_without_accelerators(child, tmp_path):
    names = "['TF_CPP_MIN_LOG_LEVEL', 'CUDA_VISIBLE_DEVICES', 'JAX_PLATFORMS']"
    with child(f"print('noise'); return {{**order, 'got': [os.environ[n] for n in {names}], 'path': sys.path}}") as it:
        for number in range(3):
            answer = it.ask({"number": number}, work="exported 'x'")
            assert answer["number"] == number and answer["got"] == ["3", "", "cpu"]
            assert str(tmp_path) in answer["path"]


def test_a_user_error_is_raised_with_its_text_and_the_child_lives_on(child, capfd):
    with child("raise UserError(order['text'])") as it:
        for text in ("no such mixture", "nor that"):
            with pytest.raises(ExportFailed) as raised:
                it.ask({"text": text}, work="exported 'x'")
            assert str(raised.value) == text and raised.value.__notes__[0].startswith("Traceback")
    assert "no such mixture" not in "".join(capfd.readouterr())


def test_a_defect_is_not_reported_as_a_user_error(child, capfd):
    with child("raise TypeError('ours')") as it:
        with pytest.raises(RuntimeError, match="An export process ended with status 1 while it exported 'x'") as raised:
            it.ask({}, work="exported 'x'")
    assert not isinstance(raised.value, UserError) and "TypeError: ours" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP"])
def test_a_killed_child_is_not_our_defect_and_the_message_says_what_to_do(child, name):
    with child(f"os.kill(os.getpid(), {int(signal.Signals[name])})") as it:
        with pytest.raises(
            ExportFailed, match=f"was killed by {name} while .*run the same command again .*processes=1"
        ):
            it.ask({}, work="exported 'x'")


def test_a_crashed_child_is_our_defect(child):
    with child("os.kill(os.getpid(), 11)") as it, pytest.raises(RuntimeError, match="was killed by SIGSEGV"):
        it.ask({}, work="exported 'x'")


@pytest.mark.parametrize("code", ["return {}", "raise TypeError('ours')", "os.kill(os.getpid(), 9)"])
def test_temporary_files_of_a_child_and_its_children_are_removed_however_it_ends(child, tmp_path, code):
    inner = "tempfile.mkdtemp('tfds'); os.system(sys.executable + ' -c \"import tempfile; tempfile.mkdtemp()\"')"
    with child(f"{inner}; {code}") as it:
        try:
            it.ask({}, work="exported 'x'")
        except (RuntimeError, ExportFailed):
            pass
        (folder,) = leftovers(tmp_path)
        assert len(list(folder.iterdir())) == 3
    assert not leftovers(tmp_path)


def test_a_child_of_a_child_shares_its_folder(child, tmp_path):
    code = "return {} if order['deep'] else Child('stand_in_child').__enter__().ask({'deep': 1}, work='')"
    with child(code) as it:
        assert it.ask({"deep": 0}, work="exported 'x'") == {}
        assert len(leftovers(tmp_path)) == 1


PARENT = """
import signal, sys, tempfile
signal.signal(signal.SIGINT, signal.default_int_handler)  # Whoever runs the tests may ignore it, as a shell's "&" does.
sys.path.insert(0, {path!r})
tempfile.tempdir = {path!r} + "/tmp"
from flan_jax.tasks.exporting.child import Child
with Child("stand_in_child") as child:
    child.ask({{}}, work="exported 'x'")
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_child_ends_with_its_parent_and_the_next_parent_removes_its_files(child, tmp_path, number):
    pid_file = tmp_path / "pid"
    code = f"pathlib.Path({str(pid_file)!r} + '_').write_text(str(os.getpid())); os.rename({str(pid_file)!r} + '_', {str(pid_file)!r}); time.sleep(900)"
    (tmp_path / "stand_in_child.py").write_text(SERVE.format(code=code))
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(path=str(tmp_path))], stderr=subprocess.DEVNULL)
    pid = int(wait_for(lambda: pid_file.exists() and pid_file.read_text()))
    assert is_running(pid) and len(leftovers(tmp_path)) == 1
    os.kill(parent.pid, number)
    assert parent.wait() != 0
    wait_for(lambda: not is_running(pid))
    with child("return {}"):
        assert len(leftovers(tmp_path)) == 1
    assert not leftovers(tmp_path)


def test_the_folder_of_a_living_parent_stays(child, tmp_path):
    with child("return {}") as first:
        with child("return {}") as second:
            assert len(leftovers(tmp_path)) == 2
        assert first.ask({}, work="") == {} and second is not first
        (folder,) = leftovers(tmp_path)
        assert isinstance(folder, Path)
