"""Settings or the environment decide whether a process is one of several."""

import json
import signal

import pytest

from flan_jax import launch, processes
from flan_jax.processes import Group
from tests.dictionary_store import DictionaryStore
from tests.waiting import wait_for


@pytest.fixture
def joined(monkeypatch):
    """The arguments that JAX receives when a process joins, without calling it."""
    passed = {}

    def initialize(arguments, *, timeout_seconds):
        passed.update(arguments)
        return 1, 2, StoreOfAgreement()

    class StoreOfAgreement(DictionaryStore):
        def wait_at_barrier(self, barrier_id, timeout_in_ms):
            self.values.setdefault(f"{barrier_id}/0", json.dumps({"process_count": 2}))

    monkeypatch.setattr(launch, "_initialize", initialize)
    monkeypatch.setattr(processes, "_GROUP", Group())
    monkeypatch.setattr(Group, "watch", lambda self: None)
    before = signal.getsignal(signal.SIGTERM)
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "OMPI_MCA_orte_hnp_uri"):
        monkeypatch.delenv(name, raising=False)
    yield passed
    signal.signal(signal.SIGTERM, before)


def test_without_settings_or_a_cluster_there_is_a_single_process(joined, monkeypatch):
    assert launch.join() is processes.group() and processes.group().count == 1 and not joined
    for name, value in {"JOB_ID": "7", "STEP_NODELIST": "a", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert launch.join().count == 1 and not joined
    assert launch.join(coordinator_address="a:1", process_count=1, process_index=0).count == 1 and not joined


def test_sigterm_unwinds_one_of_several_processes(joined):
    launch.join(coordinator_address="10.0.0.1:8476", process_count=2, process_index=1)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_explicit_settings_are_passed_on_unchanged(joined):
    group = launch.join(coordinator_address="10.0.0.1:8476", process_count=2, process_index=1)
    assert (group.index, group.count) == (1, 2) and processes.group() is group
    assert joined == {
        "coordinator_address": "10.0.0.1:8476",
        "num_processes": 2,
        "process_id": 1,
        "cluster_detection_method": "deactivate",
    }
    joined.clear()
    assert launch.join(coordinator_address="10.0.0.1:8476", process_count=2, process_index=1) is group and not joined


@pytest.mark.parametrize(
    "name, environment",
    [
        (
            "slurm",
            {
                "SLURM_JOB_ID": "7",
                "SLURM_STEP_NODELIST": "a[1-2]",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": "1",
                "SLURM_LOCALID": "0",
            },
        ),
        ("ompi", {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"}),
    ],
)
def test_clusters_are_recognized(name, environment, joined, monkeypatch):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert launch.join().count == 2
    assert joined == {"cluster_detection_method": name}


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"process_count": 2}, "got no coordinator_address, process_index. Give all three, or none under SLURM"),
        ({"coordinator_address": "here", "process_count": 2, "process_index": 0}, "'here'; it must be HOST:PORT"),
        ({"coordinator_address": "a:99999", "process_count": 2, "process_index": 0}, "it must be HOST:PORT"),
        (
            {"coordinator_address": "a:1", "process_count": 0, "process_index": 0},
            "process_count is 0; it must be a whole",
        ),
        (
            {"coordinator_address": "a:1", "process_count": 2, "process_index": 2},
            "is 2; with 2 processes it must be 0 to 1",
        ),
    ],
)
def test_impossible_settings_are_refused(settings, text, joined):
    with pytest.raises(ValueError, match=text):
        launch.join(**settings)
    assert not joined


def test_an_address_that_is_not_available_is_a_users_error(monkeypatch):
    import jax

    def initialize(**arguments):
        raise RuntimeError("UNKNOWN: Failed to start RPC server\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"could not connect \(a:1, 2, 0, deactivate\): UNKNOWN: Failed to start RPC"):
        launch.join(coordinator_address="a:1", process_count=2, process_index=0)


def test_waiting_for_missing_processes_ends(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(processes, "end_now", ended.append)
    with launch._time_limit("2 processes at a:1 did not all connect", seconds=0.05):
        wait_for(lambda: ended)
    assert ended == [2]
    assert "2 processes at a:1 did not all connect within 0 s. Check that each was started" in capsys.readouterr().err
