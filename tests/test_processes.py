"""Processes that share a store: here threads and a dictionary, so that every message is visible."""

import json
import threading
import time

import pytest

from flan_jax import processes
from flan_jax.processes import Disagreement, Group
from tests.dictionary_store import DictionaryStore
from tests.waiting import HANGS_SECONDS, wait_for


@pytest.fixture(autouse=True)
def no_timer_outlives_its_test():
    """A process that failed exits some seconds later, which would be the process of the tests."""
    yield
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


def in_threads(call, *, count=2, store=None):
    """Returns what `call` gives, or raises, in each of several processes of one group."""
    store = store or DictionaryStore()
    store.count = count
    outcomes = [None] * count

    def one(index):
        group = Group(index=index, count=count, store=store, patience_seconds=HANGS_SECONDS)
        try:
            outcomes[index] = call(group)
        except Exception as error:
            outcomes[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_single_process_waits_for_nobody():
    group = Group()
    assert group.is_first and group.gather({"a": 1}) == [{"a": 1}] and group.sum_counts({"a": 1}) == {"a": 1}
    assert group.broadcast(3) == 3 and group.first_then_others(lambda: 4) == 4
    group.require_agreement({"a": 1})
    with pytest.raises(TypeError), group.ended_together():
        raise TypeError
    group.leave(2)  # It does not exit, so that it can report its own error.


def test_values_are_in_the_order_of_processes_and_counts_are_summed():
    def call(group):
        return group.gather({"index": group.index}), group.sum_counts({"rows": group.index + 1, "none": 0})

    assert in_threads(call, count=3) == [([{"index": 0}, {"index": 1}, {"index": 2}], {"rows": 6, "none": 0})] * 3


def test_messages_that_all_have_read_are_removed():
    store = DictionaryStore()

    def call(group):
        return [group.broadcast(7), group.gather(1), group.broadcast(8), group.gather(2)]

    assert in_threads(call, store=store) == [[7, [1, 1], 8, [2, 2]]] * 2
    assert sorted(store.values) == ["flan_jax/4/0", "flan_jax/4/1"]


def test_the_first_process_calls_first_and_broadcasts():
    order = []

    def call(group):
        if group.is_first:
            time.sleep(0.1)
        group.first_then_others(lambda: order.append(group.index))
        return group.broadcast(group.index)

    assert in_threads(call) == [0, 0] and order == [0, 1]


def test_processes_that_agree_continue():
    assert in_threads(lambda group: group.require_agreement({"seed": 1, "lengths": (1, 2)})) == [None, None]


def test_processes_that_disagree_all_raise_the_same_differences():
    def call(group):
        jax = "0.10.2" if group.index < 2 else "0.12.0"
        fingerprint = "abc" if group.index != 1 else "abd"
        group.require_agreement({"seed": 1, "versions": {"jax": jax}, "data": {"fingerprint": fingerprint}})

    outcomes = in_threads(call, count=3)
    assert all(isinstance(outcome, Disagreement) for outcome in outcomes)
    assert len({str(outcome) for outcome in outcomes}) == 1
    assert str(outcomes[0]) == (
        "The processes of this run disagree; nothing was trained:\n"
        "  process 1: data.fingerprint is 'abd', in process 0 it is 'abc'\n"
        "  process 2: versions.jax is '0.12.0', in process 0 it is '0.10.2'\n"
        "Start all of them with the same command, the same versions and the same data."
    )


def test_a_long_list_of_differences_is_truncated():
    outcomes = in_threads(lambda group: group.require_agreement({str(n): group.index for n in range(50)}))
    assert "  and 30 more\n" in str(outcomes[1])
    assert str(outcomes[1]).count("  process 1:") == 20


def test_missing_processes_are_named():
    def call(group):
        return None if group.index == 1 else group.gather(1)

    store = DictionaryStore()
    store.absent = 1
    first, _, third = in_threads(call, count=3, store=store)
    assert isinstance(
        first, ValueError
    ) and "Of 3 processes, 1 (1) did not reach the point where process 0 waited" in str(first)
    assert "start all of them again" in str(third)


def test_a_barrier_that_fails_for_another_reason_raises_it():
    class Broken(DictionaryStore):
        def wait_at_barrier(self, barrier_id, timeout_in_ms):
            self.arrived[barrier_id] += 1
            while self.arrived[barrier_id] < self.count:
                time.sleep(0.01)
            raise RuntimeError("UNAVAILABLE: the service is gone")

        def blocking_key_value_get(self, key, timeout_in_ms):
            raise RuntimeError("UNAVAILABLE: the service is gone")

    store = Broken()
    outcomes = in_threads(lambda group: group.gather(1), store=store)
    assert [str(outcome) for outcome in outcomes] == ["UNAVAILABLE: the service is gone"] * 2
    with pytest.raises(RuntimeError, match="service is gone"):
        Group(index=1, count=2, store=store).broadcast(None)


@pytest.mark.parametrize(
    "error, reported",
    [
        (TypeError("x"), {"process": 1, "status": 1, "message": "TypeError: x"}),
        (KeyboardInterrupt(), {"process": 1, "status": 130, "message": "interrupted"}),
    ],
)
def test_a_failure_ends_the_other_processes_and_soon_this_one(error, reported, monkeypatch, capsys):
    ended = {}
    monkeypatch.setattr(processes, "end_now", lambda status: ended.update({threading.current_thread(): status}))
    monkeypatch.setattr(processes, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(processes, "_FAREWELL_SECONDS", 0.05)
    store = DictionaryStore()
    failing = Group(index=1, count=2, store=store)
    other = Group(index=0, count=2, store=store)
    stop = threading.Event()
    watcher = threading.Thread(target=other._watch, args=(stop,), daemon=True)
    watcher.start()
    with pytest.raises(type(error)), failing.ended_together(), failing.ended_together():
        raise error
    assert json.loads(store.values["flan_jax/failed"]) == reported
    wait_for(lambda: len(ended) == 2)  # The other process ends first, and this one after its message.
    stop.set()
    watcher.join()
    printed = capsys.readouterr().err
    assert f"flan-jax: process 1 stopped: {reported['message']}\n" in printed
    assert f"flan-jax: {reported['message']}\n" in printed and set(ended.values()) == {reported["status"]}
    ended.clear()
    failing.leave(reported["status"])
    other.leave(3)  # It did not fail.
    assert list(ended.values()) == [reported["status"]]


def test_a_disagreement_is_not_reported_twice(monkeypatch):
    store = DictionaryStore()
    with pytest.raises(Disagreement), Group(index=0, count=2, store=store).ended_together():
        raise Disagreement("all know")
    assert not store.values


def test_the_consequence_of_another_failure_is_not_reported_as_a_failure(monkeypatch, capsys):
    class Ended(BaseException):
        pass

    def end_now(status):
        raise Ended(status)

    monkeypatch.setattr(processes, "end_now", end_now)
    monkeypatch.setattr(processes, "_FAREWELL_SECONDS", 0.05)
    store = DictionaryStore()
    store.key_value_set("flan_jax/failed", json.dumps({"process": 1, "status": 2, "message": "no room on disk"}))
    with pytest.raises(Ended), Group(index=0, count=2, store=store).ended_together():
        raise RuntimeError("Gloo: connection closed by peer")
    assert capsys.readouterr().err == "flan-jax: process 1 stopped: no room on disk\n"


def test_an_unexplained_error_notes_that_another_process_may_have_been_killed(monkeypatch):
    monkeypatch.setattr(processes, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(processes, "end_now", lambda status: None)
    with pytest.raises(RuntimeError) as raised, Group(index=0, count=2, store=DictionaryStore()).ended_together():
        raise RuntimeError("Gloo: connection closed by peer")
    assert raised.value.__notes__ == [
        "This was process 0 of 2. If another one was killed, this error is a consequence: start all of them again with "
        "the same command, which resumes."
    ]


def test_the_first_process_leaves_last(monkeypatch):
    left = []
    monkeypatch.setattr(processes, "end_now", lambda status: left.append(threading.current_thread().name))
    monkeypatch.setattr(processes, "_FAREWELL_SECONDS", HANGS_SECONDS)
    store = DictionaryStore()
    groups = [Group(index=index, count=3, store=store) for index in range(3)]
    with pytest.raises(ValueError), groups[0].ended_together():
        raise ValueError("no room")
    threads = [threading.Thread(target=group.leave, args=(2,), name=f"{group.index}") for group in groups[:1]]
    threads += [threading.Thread(target=group._poll, name=f"{group.index}") for group in groups[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(left[:2]) == ["1", "2"] and left[2] == "0"
