import contextlib
import threading

import numpy as np
import pytest

from flan_jax.data import source
from flan_jax.data.manifest import Request
from flan_jax.data.source import ExportedTask, open_members
from flan_jax.tasks.exporting import shards
from tests.data.export_made_by_hand import LENGTHS, write_mixture, write_task


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "CHUNK_EXAMPLES", 2)
    monkeypatch.setattr(shards, "SHARD_EXAMPLES", 4)


def examples(number):
    return [(list(range(3, 4 + i % 5)), [i + 3, 1], {"row": i}) for i in range(number)]


def test_examples_come_back_in_the_order_asked_for_over_several_shards(tmp_path, small_shards):
    wanted = examples(11)
    task = ExportedTask(write_task(tmp_path, wanted))
    assert task.manifest.num_shards == 3
    assert len(task) == 11
    indices = [10, 0, 3, 4, 4, 9, 0]
    read = task.read(np.array(indices))
    assert [(i.tolist(), t.tolist()) for i, t in read] == [wanted[i][:2] for i in indices]
    assert [meta["row"] for meta in task.read_meta(indices)] == indices
    assert all(a.dtype == np.int32 for pair in read for a in pair)


def test_lengths_are_those_of_the_examples(tmp_path, small_shards):
    wanted = examples(9)
    task = ExportedTask(write_task(tmp_path, wanted))
    assert task.lengths.dtype == np.int32
    assert task.lengths.tolist() == [[len(i), len(t)] for i, t, _ in wanted]


def test_nothing_is_asked_for_and_nothing_comes(tmp_path):
    task = ExportedTask(write_task(tmp_path, examples(2)))
    assert task.read([]) == []


def test_an_example_without_meta_has_an_empty_one(tmp_path):
    assert ExportedTask(write_task(tmp_path, [([5, 1], [6, 1])])).read_meta([0]) == [{}]


@pytest.mark.parametrize("indices", [[-1], [0, 2]])
def test_an_index_outside_is_refused(tmp_path, indices):
    with pytest.raises(IndexError, match=r"of 2 examples"):
        ExportedTask(write_task(tmp_path, examples(2))).read(indices)


def test_opening_reads_nothing(tmp_path):
    ExportedTask(tmp_path / "nowhere")


def test_open_files_are_bounded_however_many_tasks_there_are(tmp_path, monkeypatch):
    opened = source._OpenShards(4)
    monkeypatch.setattr(source, "_SHARDS", opened)
    tasks = [ExportedTask(write_task(tmp_path, examples(i + 1), task=f"t{i}")) for i in range(7)]
    for _ in range(2):
        for i, task in enumerate(tasks):
            assert task.read([i])[0][1].tolist() == [i + 3, 1]
            assert len(opened) == min(4, i + 1) or len(opened) == 4
    del task, tasks[:]
    assert len(opened) == 2  # What was kept is given back, what was lent waits to be read again.


def test_a_process_may_open_as_many_files_as_its_hard_limit_says(monkeypatch):
    limits, infinite = [1024, 8192], source.resource.RLIM_INFINITY

    def set_limits(kind, wanted):
        limits[:] = wanted

    monkeypatch.setattr(source.resource, "getrlimit", lambda kind: tuple(limits))
    monkeypatch.setattr(source.resource, "setrlimit", set_limits)
    assert source.max_open_shards() == 4096 and limits == [8192, 8192]
    limits[:] = [256, infinite]
    assert source.max_open_shards() == 2**19 and limits == [2**20, infinite]
    limits[:] = [infinite, infinite]
    assert source.max_open_shards() == 2**19 and limits == [infinite, infinite]


def test_a_system_that_refuses_more_files_keeps_what_it_has(monkeypatch):
    def refuse(kind, wanted):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(source.resource, "getrlimit", lambda kind: (1024, 8192))
    monkeypatch.setattr(source.resource, "setrlimit", refuse)
    assert source.max_open_shards() == 512


def test_threads_may_read_the_same_tasks_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_SHARDS", source._OpenShards(2))
    tasks = [ExportedTask(write_task(tmp_path, examples(20), task=f"t{i}")) for i in range(4)]
    wrong = []

    def read_all():
        for i in range(100):
            for task in tasks:
                if task.read([i % 20])[0][1].tolist() != [i % 20 + 3, 1]:
                    wrong.append(i)

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_lost_shard_is_named(tmp_path):
    directory = write_task(tmp_path, examples(2))
    (shard,) = directory.glob("*.array_record")
    shard.unlink()
    with pytest.raises(ValueError, match=r"Cannot read the shard .*examples-00000-of-00001.*export again"):
        ExportedTask(directory).read([0])


def test_a_damaged_shard_is_named(tmp_path):
    directory = write_task(tmp_path, examples(2))
    (shard,) = directory.glob("*.array_record")
    content = bytearray(shard.read_bytes())
    content[65536 : 65536 + 200] = bytes(200)
    content[:200] = bytes(200)
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"Cannot read the shard .*examples-00000-of-00001.*damaged"):
        ExportedTask(directory).read([0])


@pytest.mark.parametrize("lengths", [np.zeros((3, 2), np.int32), np.full((2, 2), 7, np.int32)])
def test_lengths_that_are_not_those_of_the_export_are_refused(tmp_path, lengths):
    directory = write_task(tmp_path, examples(2))
    np.save(directory / "lengths.npy", lengths)
    with pytest.raises(ValueError, match=r"lengths.npy is damaged: it is not as it was written. Delete the folder"):
        _ = ExportedTask(directory).lengths


def test_no_flipped_bit_of_a_shard_changes_an_example(tmp_path):
    """Each chunk of the shard carries a hash, which the reader compares."""
    directory = write_task(tmp_path, examples(4))
    (shard,) = directory.glob("*.array_record")
    content = shard.read_bytes()
    expected = ExportedTask(directory)._records(range(4))
    used = [i for i in range(len(content)) if content[i]]  # The rest is filling between blocks.
    for position in used[:: max(1, len(used) // 400)]:
        shard.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with contextlib.suppress(ValueError):
            assert ExportedTask(directory)._records(range(4)) == expected, position


def test_members_open_in_the_order_of_the_manifest(tmp_path):
    manifest = write_mixture(tmp_path, Request(name="toys", lengths=LENGTHS), {"b": 2, "a": 1})
    assert [len(task) for task in open_members(manifest, export_dir=tmp_path)] == [2, 1]
