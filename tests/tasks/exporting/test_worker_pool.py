"""A long export is shared with worker processes and gives the same bytes."""

import json
import threading
import time

import pytest

from flan_jax.data.manifest import Request
from flan_jax.run.export_child import start_worker
from flan_jax.tasks.exporting import export, serving, worker_pool
from flan_jax.tasks.exporting.worker import Worker
from flan_jax.tasks.exporting.worker_pool import Workers, available_cores
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 16, "targets": 8}
NAMES = "abcdef"


class FakeWorker:
    """A worker within this process, which needs no loading."""

    made: list = []
    export_dir = None

    def __init__(self, process, request, *, export_dir, module_files):
        self.export_dir, self.killed = export_dir, threading.Event()
        self.made.append(self)
        self.exported, self.closed = [], False

    def export(self, task, split):
        self.exported.append(task)
        return serving.export_one(task, split, lengths=LENGTHS, export_dir=self.export_dir, module_files=())

    def kill(self):
        self.killed.set()

    def close(self):
        self.closed = True


@pytest.fixture
def six(registries, monkeypatch, tmp_path):
    """Six tasks, two threads, and workers that start at once; returns the request and its workers."""
    for name in NAMES:
        source = InMemorySource(data={"train": [{"q": f"{name}{i}", "a": "x"} for i in range(3)]})
        templates = (Template(inputs="{q}", targets="{a}"),)
        registries.register(registries.TemplatedTask(name=name, source=source, cluster="toys", templates=templates))
    registries.register_mixture("all", list(NAMES))
    monkeypatch.setattr(worker_pool, "available_cores", lambda: 2)
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", -1.0)
    monkeypatch.setattr(worker_pool, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "made", [])
    real = worker_pool.export_split

    def slowly(*args, **more):
        time.sleep(0.05)  # So that no lane has done it all before the others have begun.
        return real(*args, **more)

    monkeypatch.setattr(worker_pool, "export_split", slowly)
    request = Request(name="all", lengths=LENGTHS)
    return request, Workers(start=lambda: None, request=request, module_files=())


def all_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.array_record")}


def test_the_second_thread_uses_a_worker_and_the_bytes_are_the_same(six, tmp_path):
    request, workers = six
    shared = export.export_mixture(request, export_dir=tmp_path / "shared", workers=workers)
    (worker,) = FakeWorker.made
    assert worker.closed and worker.exported and set(worker.exported) <= set(NAMES)
    alone = export.export_mixture(request, export_dir=tmp_path / "alone")
    assert len(FakeWorker.made) == 1
    assert shared.members == alone.members
    assert all_files(tmp_path / "shared") == all_files(tmp_path / "alone")


def test_a_short_export_starts_no_worker(six, tmp_path, monkeypatch):
    request, workers = six
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", 5.0)
    export.export_mixture(request, export_dir=tmp_path, workers=workers)
    assert not FakeWorker.made


@pytest.mark.parametrize("answer", [None, (3, "another fingerprint")])
def test_what_a_worker_cannot_export_alike_is_exported_here(six, tmp_path, monkeypatch, answer):
    request, workers = six
    monkeypatch.setattr(FakeWorker, "export", lambda self, task, split: answer)
    manifest = export.export_mixture(request, export_dir=tmp_path, workers=workers)
    assert [member.examples for member in manifest.members] == [3] * 6


def test_an_error_of_a_worker_is_raised_by_the_export(six, tmp_path, monkeypatch):
    request, workers = six

    def refuse(self, task, split):
        raise ValueError(f"Task {task!r} says no.")

    monkeypatch.setattr(FakeWorker, "export", refuse)
    with pytest.raises(ValueError, match="Task '.' says no"):
        export.export_mixture(request, export_dir=tmp_path, workers=workers)
    (worker,) = FakeWorker.made
    assert worker.killed.wait(10) and worker.closed


def test_available_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(worker_pool.os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(worker_pool.os, "sched_getaffinity")
    monkeypatch.setattr(worker_pool.os, "cpu_count", lambda: 7)
    assert available_cores() == 7


def test_a_worker_exports_no_task_that_it_cannot_register(registries, tmp_path):
    assert serving.export_one("absent", "train", lengths=LENGTHS, export_dir=tmp_path, module_files=()) is None


YAML = """
vocabulary: bytes
tasks:
  sums:
    cluster: toys
    source: jsonl
    splits: {train: sums.jsonl, empty: empty.jsonl}
    templates: [{inputs: "{q}", targets: "{a}"}]
"""


def test_a_worker_registers_the_same_tasks_and_ends_on_request(registries, tmp_path):
    """One real worker for all of its answers, since loading one takes seconds."""
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps({"q": f"{i}", "a": "x"}) for i in range(5)))
    (tmp_path / "empty.jsonl").write_text("\n")
    module = tmp_path / "my.yaml"
    module.write_text(YAML)
    request = Request(name="sums", lengths=LENGTHS, module=str(module), vocabulary="bytes")
    worker = Worker(start_worker(), request, export_dir=tmp_path / "export", module_files=[str(module)])
    try:
        made = worker.export("sums", "train")
        assert worker.export("absent", "train") is None
        with pytest.raises(ValueError, match=r"The split 'empty' of .*empty.jsonl is empty"):
            worker.export("sums", "empty")
        files = registries.prepare(request)
        manifest = export.export_task(registries.task("sums"), "train", lengths=LENGTHS, export_dir=tmp_path / "export")
        assert made == (5, manifest.fingerprint) and files == (str(module),)
        worker.kill()
        with pytest.raises(
            RuntimeError, match="A worker was killed by SIGKILL .*out of memory.* while it exported 'sums'"
        ):
            worker.export("sums", "train")
    finally:
        worker.close()


def test_a_large_export_starts_workers_at_once(six, tmp_path, monkeypatch):
    request, workers = six
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", 1e9)
    monkeypatch.setattr(worker_pool, "BYTES_FOR_WORKERS", 1)
    export.export_mixture(request, export_dir=tmp_path, workers=workers)
    assert len(FakeWorker.made) == 1
