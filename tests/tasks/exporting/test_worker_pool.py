"""A long export is shared with worker processes and gives the same bytes."""

import dataclasses
import json
import threading
import time
from pathlib import Path

import pytest

from flan_jax.data.manifest import Request
from flan_jax.run import export_process
from flan_jax.tasks import identity
from flan_jax.tasks.exporting import export, worker_pool
from flan_jax.tasks.exporting.child import ExportFailed
from flan_jax.tasks.exporting.export import export_one
from flan_jax.tasks.exporting.worker_pool import Workers, available_cores
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template
from tests.tasks.exporting.exported import export_task

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 16, "targets": 8}
NAMES = "abcdef"


class FakeWorker:
    """A worker within this process, which needs no loading."""

    def __init__(self):
        self.exported, self.killed, self.closed = [], threading.Event(), False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.closed = True

    def ask(self, order, *, work):
        self.exported.append(order["task"])
        return export_one(
            order["task"],
            order["split"],
            request=Request(name="all", lengths=LENGTHS),
            export_dir=Path(order["export_dir"]),
            module_files=(),
        )

    def kill(self):
        self.killed.set()


@pytest.fixture
def six(registries, monkeypatch, tmp_path):
    """Six tasks, two cores, and workers that start at once; returns the request, its workers and those started."""
    for name in NAMES:
        source = InMemorySource(data={"train": [{"q": f"{name}{i}", "a": "x"} for i in range(3)]})
        templates = (Template(inputs="{q}", targets="{a}"),)
        registries.register(registries.TemplatedTask(name=name, source=source, cluster="toys", templates=templates))
    registries.register_mixture("all", list(NAMES))
    monkeypatch.setattr(worker_pool, "available_cores", lambda: 2)
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", -1.0)
    real = worker_pool.export_split

    def slowly(*args, **more):
        time.sleep(0.05)  # So that this process has not done it all before a worker has begun.
        return real(*args, **more)

    monkeypatch.setattr(worker_pool, "export_split", slowly)
    request = Request(name="all", lengths=LENGTHS)
    started = []
    return request, Workers(start=lambda: started.append(FakeWorker()) or started[-1], request=request), started


def all_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.array_record")}


def test_the_second_thread_uses_a_worker_and_the_bytes_are_the_same(six, tmp_path):
    request, workers, started = six
    shared = export.export_mixture(request, export_dir=tmp_path / "shared", workers=workers)
    (worker,) = started
    assert worker.closed and worker.exported and set(worker.exported) <= set(NAMES)
    alone = export.export_mixture(request, export_dir=tmp_path / "alone")
    assert len(started) == 1
    assert shared.members == alone.members
    assert all_files(tmp_path / "shared") == all_files(tmp_path / "alone")


def test_a_short_export_starts_no_worker(six, tmp_path, monkeypatch):
    request, workers, started = six
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", 5.0)
    export.export_mixture(request, export_dir=tmp_path, workers=workers)
    assert not started


@pytest.mark.parametrize("answer", [{}, {"examples": 3, "fingerprint": "another"}])
def test_what_a_worker_cannot_export_alike_is_exported_here(six, tmp_path, monkeypatch, answer):
    request, workers, started = six
    monkeypatch.setattr(FakeWorker, "ask", lambda self, order, work: answer)
    manifest = export.export_mixture(request, export_dir=tmp_path, workers=workers)
    assert [member.examples for member in manifest.members] == [3] * 6


def test_an_error_of_a_worker_is_raised_by_the_export(six, tmp_path, monkeypatch):
    request, workers, started = six

    def refuse(self, order, *, work):
        raise ValueError(f"Task {order['task']!r} says no.")

    monkeypatch.setattr(FakeWorker, "ask", refuse)
    with pytest.raises(ValueError, match="Task '.' says no"):
        export.export_mixture(request, export_dir=tmp_path, workers=workers)
    (worker,) = started
    assert worker.killed.wait(10) and worker.closed


def test_a_task_that_fails_in_a_worker_stops_the_one_that_is_exported_here(six, tmp_path, monkeypatch, registries):
    request, workers, started = six

    is_read_here = threading.Event()

    def endless():
        is_read_here.set()
        while True:
            yield {"q": "q", "a": "a"}

    def refuse(self, order, *, work):
        raise ValueError(f"Task {order['task']!r} says no.")

    monkeypatch.setattr(FakeWorker, "ask", refuse)
    monkeypatch.setattr(identity, "identity", lambda task, split: {"revision": task.name})  # Would read it all.
    templates = (Template(inputs="{q}", targets="{a}"),)
    source = InMemorySource(data={"train": endless})
    registries.register(registries.TemplatedTask(name="_endless", source=source, cluster="toys", templates=templates))
    registries.register_mixture("endless_first", ["_endless", *NAMES])
    request = dataclasses.replace(request, name="endless_first")
    # Otherwise the worker may be the one that takes the first task.
    later = dataclasses.replace(workers, start=lambda: is_read_here.wait(60) and workers.start())
    with pytest.raises(ValueError, match="Task 'a' says no"):
        export.export_mixture(request, export_dir=tmp_path, workers=later)


def test_available_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(worker_pool.os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(worker_pool.os, "sched_getaffinity")
    monkeypatch.setattr(worker_pool.os, "cpu_count", lambda: 7)
    assert available_cores() == 7


def test_a_worker_exports_no_task_that_it_cannot_register(registries, tmp_path):
    request = Request(name="all", lengths=LENGTHS)
    assert export_one("absent", "train", request=request, export_dir=tmp_path, module_files=()) == {}


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
    order = {"request": dataclasses.asdict(request), "export_dir": str(tmp_path / "export")}
    with export_process.start() as worker:

        def ask(task, split):
            return worker.ask({**order, "task": task, "split": split}, work=f"exported {task!r}")

        made = ask("sums", "train")
        assert ask("absent", "train") == {}
        with pytest.raises(ExportFailed, match=r"The split 'empty' of .*empty.jsonl is empty") as refused:
            ask("sums", "empty")
        assert refused.value.__notes__[0].startswith("Traceback")
        files = registries.prepare(request)
        manifest = export_task(registries.task("sums"), "train", lengths=LENGTHS, export_dir=tmp_path / "export")
        assert made == {"examples": 5, "fingerprint": manifest.fingerprint} and files == (str(module),)


def test_a_limit_of_one_process_starts_no_worker(six, tmp_path):
    request, workers, started = six
    export.export_mixture(request, export_dir=tmp_path, workers=workers, processes=1)
    assert not started


def test_a_large_export_starts_workers_at_once(six, tmp_path, monkeypatch):
    request, workers, started = six
    monkeypatch.setattr(worker_pool, "SECONDS_WITHOUT_WORKERS", 1e9)
    monkeypatch.setattr(worker_pool, "BYTES_FOR_WORKERS", 1)
    export.export_mixture(request, export_dir=tmp_path, workers=workers)
    assert len(started) == 1


def test_rows_are_rendered_in_the_main_thread_where_they_can_be_interrupted(registries, tmp_path):
    threads = []

    def normalizer(row):
        threads.append(threading.current_thread())
        return row

    for name in "ab":
        templates = (Template(inputs="{q}", targets="{a}"),)
        source = InMemorySource(data={"train": [{"q": "1", "a": "x"}]})
        registries.register(
            registries.TemplatedTask(
                name=name, source=source, cluster="toys", templates=templates, normalizer=normalizer
            )
        )
    registries.register_mixture("both", ["a", "b"])
    export.export_mixture(Request(name="both", lengths=LENGTHS), export_dir=tmp_path)
    assert threads == [threading.main_thread()] * 2
