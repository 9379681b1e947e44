"""Paths that cannot be read or written: one message and status 2, before any work, and nothing left behind."""

import os
import subprocess
from pathlib import Path

import pytest

from flan_jax import cli
from flan_jax.files import accessing, require_writable_directory, write_atomic
from tests.integration.conftest import arguments

pytestmark = pytest.mark.tensorflow

BAD = {
    "missing": "nowhere/x",
    "below a file": "file/x",
    "below /proc": "/proc/x",
    "too long": "x" * 300,
    "with a null character": "a\0b",
}
READ = {
    "gin file": ["train", "--gin_file={}"],
    "gin search path": ["train", "--gin_file=x.gin", "--gin_search_paths={}"],
    "YAML file": ["show", "tasks", "--mixture_or_task_module={}.yaml"],
    "module": ["show", "tasks", "--mixture_or_task_module={}.py"],
    "vocabulary": ["show", "tasks", "--vocabulary={}.model"],
    "template": ["show", "template", "{}"],
    "run": ["show", "run", "{}"],
    "export": ["show", "export", "{}"],
    "checkpoint": ["show", "checkpoint", "{}"],
    "weights to convert": ["convert", "--from={}", "--to=out", "--format=hf"],
    "weights of infer": ["infer", "{}", "--input=file"],
    "weights of evaluate": ["evaluate", "{}"],
}
EXPORT = ["export", "--mixture_or_task_name=embedded_train", "--task_feature_lengths={'inputs': 64, 'targets': 16}"]
WRITTEN = {
    "MODEL_DIR": arguments("TRAIN_STEPS=1", "EXPORT_DIR=exports", "MODEL_DIR={}"),
    "EXPORT_DIR": arguments("TRAIN_STEPS=1", "MODEL_DIR=run", "EXPORT_DIR={}"),
    "--export_dir": [*EXPORT, "--export_dir={}"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("{}\n")
    Path("directory").mkdir()
    return tmp_path


def refused(line, path, capfd):
    capfd.readouterr()
    status, error = cli.run([argument.replace("{}", path) for argument in line]), capfd.readouterr().err
    assert status == 2 and "Traceback" not in error, error
    return error[error.index("flan-jax: ") :]


def test_paths_that_cannot_be_read(here, capfd, subtests):
    for what, line in READ.items():
        for why, path in {**BAD, "a directory": "directory"}.items():
            with subtests.test(what, why=why):
                refused(line, path, capfd)
    assert sorted(p.name for p in here.iterdir()) == ["directory", "file"]


def test_paths_that_cannot_be_written(here, capfd, subtests):
    reasons = {
        "below a file": "file is a file, not a directory",
        "too long": "too long",
        "with a null character": "null",
    }
    for setting, line in WRITTEN.items():
        for why, reason in reasons.items():
            with subtests.test(setting, why=why):
                message = refused(line, BAD[why], capfd)
                assert reason in message and (setting in message or why == "with a null character")
    assert sorted(p.name for p in here.iterdir()) == ["directory", "file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser may write anywhere")
def test_a_directory_without_write_permission_is_named_before_work(here, capfd):
    Path("directory").chmod(0o500)
    for setting, line in WRITTEN.items():
        message = refused(line, "directory/x", capfd)
        assert setting in message and "permission denied" in message


@pytest.fixture
def mounted(tmp_path):
    """Mounts a file system of 64 KiB, or skips where that is not permitted."""
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_read_only_file_system_is_named_before_work(here, mounted, capfd):
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    for setting, line in WRITTEN.items():
        message = refused(line, f"{mounted}/x", capfd)
        assert setting in message and "the file system is read-only" in message


def test_a_full_file_system_is_reported_where_it_fills(mounted):
    with pytest.raises(OSError, match="no space is left on the device. Free some space") as raised:
        write_atomic(mounted / "file", b"x" * 2**17)
    assert isinstance(raised.value, ValueError)
    assert list(mounted.iterdir()) == []


def test_what_is_writable_passes_without_a_trace(here):
    require_writable_directory(here / "a" / "b", setting="MODEL_DIR")
    require_writable_directory("directory", setting="MODEL_DIR")
    assert sorted(p.name for p in here.iterdir()) == ["directory", "file"]


def test_a_closed_pipe_is_not_a_wrong_path():
    with pytest.raises(BrokenPipeError) as raised, accessing("-", setting="--output", action="written"):
        raise BrokenPipeError
    assert not isinstance(raised.value, ValueError)
