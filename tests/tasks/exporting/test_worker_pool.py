"""An export that takes long is shared with other processes, to the same bytes."""

import json
import threading
import time

import pytest

from flan_jax.data.manifest import Request
from flan_jax.tasks.exporting import export, worker_pool
from flan_jax.tasks.exporting.worker import Worker
from flan_jax.tasks.exporting.worker_pool import Definition, available_cores
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 16, "targets": 8}
NAMES = "abcdef"


class FakeWorker:
    """A worker in this process: what the lanes ask of one, without the loading."""

    made: list = []
    export_dir = None

    def __init__(self, request, *, export_dir, module_files):
        self.export_dir, self.killed = export_dir, threading.Event()
        self.made.append(self)
        self.exported, self.closed = [], False

    def export(self, task, split):
        self.exported.append(task)
        return worker_pool.export_one(task, split, lengths=LENGTHS, export_dir=self.export_dir, module_files=())

    def kill(self):
        self.killed.set()

    def close(self):
        self.closed = True


@pytest.fixture
def six(registries, monkeypatch, tmp_path):
    """Six tasks, two lanes, and workers that pay at once; returns the request and its definition."""
    for name in NAMES:
        source = InMemorySource(data={"train": [{"q": f"{name}{i}", "a": "x"} for i in range(3)]})
        templates = (Template(inputs="{q}", targets="{a}"),)
        registries.register(registries.TemplatedTask(name=name, source=source, cluster="toys", templates=templates))
    registries.register_mixture("all", list(NAMES))
    monkeypatch.setattr(worker_pool, "available_cores", lambda: 2)
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", -1.0)
    monkeypatch.setattr(worker_pool, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "made", [])
    real = worker_pool._export_split

    def slowly(*args, **more):
        time.sleep(0.05)  # So that no lane has done it all before the others have begun.
        return real(*args, **more)

    monkeypatch.setattr(worker_pool, "_export_split", slowly)
    request = Request(name="all", lengths=LENGTHS)
    return request, Definition(request=request, module_files=())


def all_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.array_record")}


def test_the_second_lane_has_a_process_of_its_own_and_the_bytes_are_the_same(six, tmp_path):
    request, definition = six
    shared = export.export_mixture(request, export_dir=tmp_path / "shared", definition=definition)
    (worker,) = FakeWorker.made
    assert worker.closed and worker.exported and set(worker.exported) <= set(NAMES)
    alone = export.export_mixture(request, export_dir=tmp_path / "alone")
    assert len(FakeWorker.made) == 1
    assert shared.members == alone.members
    assert all_files(tmp_path / "shared") == all_files(tmp_path / "alone")


def test_a_short_export_loads_no_other_process(six, tmp_path, monkeypatch):
    request, definition = six
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", 5.0)
    export.export_mixture(request, export_dir=tmp_path, definition=definition)
    assert not FakeWorker.made


@pytest.mark.parametrize("answer", [None, (3, "another fingerprint")])
def test_what_a_worker_cannot_make_alike_is_made_here(six, tmp_path, monkeypatch, answer):
    request, definition = six
    monkeypatch.setattr(FakeWorker, "export", lambda self, task, split: answer)
    manifest = export.export_mixture(request, export_dir=tmp_path, definition=definition)
    assert [member.examples for member in manifest.members] == [3] * 6


def test_a_refusal_of_a_worker_is_the_exports(six, tmp_path, monkeypatch):
    request, definition = six

    def refuse(self, task, split):
        raise ValueError(f"Task {task!r} says no.")

    monkeypatch.setattr(FakeWorker, "export", refuse)
    with pytest.raises(ValueError, match="Task '.' says no"):
        export.export_mixture(request, export_dir=tmp_path, definition=definition)
    (worker,) = FakeWorker.made
    assert worker.killed.wait(10) and worker.closed


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(worker_pool.os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(worker_pool.os, "sched_getaffinity")
    monkeypatch.setattr(worker_pool.os, "cpu_count", lambda: 7)
    assert available_cores() == 7


def test_a_task_that_cannot_be_registered_is_nobodys(registries, tmp_path):
    assert worker_pool.export_one("absent", "train", lengths=LENGTHS, export_dir=tmp_path, module_files=()) is None


YAML = """
vocabulary: bytes
tasks:
  sums:
    cluster: toys
    source: jsonl
    splits: {train: sums.jsonl, empty: empty.jsonl}
    templates: [{inputs: "{q}", targets: "{a}"}]
"""


def test_a_process_registers_the_same_tasks_and_ends_when_told_to(registries, tmp_path):
    """One real worker for all that it answers, since loading one takes seconds."""
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps({"q": f"{i}", "a": "x"}) for i in range(5)))
    (tmp_path / "empty.jsonl").write_text("\n")
    module = tmp_path / "my.yaml"
    module.write_text(YAML)
    request = Request(name="sums", lengths=LENGTHS, module=str(module), vocabulary="bytes")
    worker = Worker(request, export_dir=tmp_path / "export", module_files=[str(module)])
    try:
        made = worker.export("sums", "train")
        assert worker.export("absent", "train") is None
        with pytest.raises(ValueError, match=r"The split 'empty' of .*empty.jsonl is empty"):
            worker.export("sums", "empty")
        files = export.define(request)
        manifest = export.export_task(registries.task("sums"), "train", lengths=LENGTHS, export_dir=tmp_path / "export")
        assert made == (5, manifest.fingerprint) and files == (str(module),)
        worker.kill()
        with pytest.raises(
            RuntimeError, match="A worker was killed by SIGKILL .*out of memory.* while it exported 'sums'"
        ):
            worker.export("sums", "train")
    finally:
        worker.close()


def test_a_large_export_loads_other_processes_at_once(six, tmp_path, monkeypatch):
    request, definition = six
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", 1e9)
    monkeypatch.setattr(worker_pool, "BYTES_FOR_WORKERS", 1)
    export.export_mixture(request, export_dir=tmp_path, definition=definition)
    assert len(FakeWorker.made) == 1
