"""How a process finds the others of its run: from settings, or from what SLURM, Open MPI or a TPU's metadata say.

What they then tell each other is `processes`'. Comes before anything that asks JAX for a device.
"""

import contextlib
import dataclasses
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from flan_jax import processes
from flan_jax.errors import UserError
from flan_jax.processes import Group, Store

CLUSTERS = ("slurm", "ompi", "gcetpu", "gketpu")  # JAX's names of what it can read: SLURM, Open MPI, TPU metadata.


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """A cluster that JAX knows how to read."""

    name: str
    count: int


def join(
    *,
    coordinator_address: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    patience_seconds: float = processes.PATIENCE_SECONDS,
) -> Group:
    """Makes this process one of several, where it was started as such; before anything asks JAX for a device.

    All three settings, or none: then SLURM, Open MPI or a TPU's metadata say it. Where they say nothing, or that there
    is one process, it is alone. On CPU the processes' arrays go through gloo, JAX's default.

    Args:
      coordinator_address: HOST:PORT of process 0, the same for all.
      process_count: how many processes there are.
      process_index: which one this is, from 0.
      patience_seconds: how long to wait for the others, here and wherever all have to agree.

    Raises:
      UserError: settings that are incomplete or impossible, an address that cannot be had, processes that disagree.
    """
    settings = {
        "coordinator_address": coordinator_address,
        "process_count": process_count,
        "process_index": process_index,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if given:
        _require_whole(settings)
        if process_count == 1:
            return processes.group()
        arguments: dict[str, Any] = {
            "coordinator_address": coordinator_address,
            "num_processes": process_count,
            "process_id": process_index,
            "cluster_detection_method": "deactivate",
        }
        what = f"{process_count} processes at {coordinator_address}"
    else:
        found = _detected()
        if found is None or found.count == 1:
            return processes.group()
        arguments = {"cluster_detection_method": found.name}
        what = f"the {found.count} processes that {found.name} speaks of"
    if processes.group().count > 1:
        return processes.group()
    with _impatient(f"{what} did not all come together", seconds=patience_seconds):
        index, count, client = _initialize(arguments, timeout_seconds=patience_seconds + 60)
    joined = Group(index=index, count=count, store=client, patience_seconds=patience_seconds)
    processes.become_one_of(joined)
    joined.require_agreement({"process_count": count})
    return joined


def _require_whole(settings: Mapping[str, Any]) -> None:
    """Refuses settings with which no processes can find each other."""
    missing = [name for name, value in settings.items() if value is None]
    if missing:
        raise UserError(
            f"Several processes need --coordinator_address=HOST:PORT, --process_count and --process_index; got no "
            f"{', '.join(missing)}. Give all three, or none under SLURM, Open MPI or on a TPU pod."
        )
    address, count, index = settings.values()
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"coordinator_address is {address!r}; wanted HOST:PORT of process 0, as 10.0.0.1:8476.")
    if not isinstance(count, int) or count < 1:
        raise UserError(f"process_count is {count!r}; it is a whole number from 1.")
    if not isinstance(index, int) or not 0 <= index < count:
        raise UserError(f"process_index is {index!r}; of {count} processes they are 0 to {count - 1}.")


def _detected() -> _Found | None:
    """Returns the cluster in which this process was started, as JAX reads it, None where it sees none."""
    from jax._src import clusters  # Public is only the call that fails where there is none.

    for kind in clusters.ClusterEnv._cluster_types:  # pylint: disable=protected-access
        if kind.name in CLUSTERS and kind.is_env_present():
            return _Found(name=kind.name, count=kind.get_process_count())
    return None


def _initialize(arguments: Mapping[str, Any], *, timeout_seconds: float) -> tuple[int, int, Store]:
    import jax
    from jax._src import distributed

    # It would take SIGTERM to itself from here on, also while there is nothing to save yet; see `train.stopping`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=round(timeout_seconds))
    except RuntimeError as error:  # Such as a port in use.
        reason = str(error).splitlines()[0]
        raise UserError(
            f"The processes could not be brought together ({', '.join(map(str, arguments.values()))}): {reason}. See "
            "that the address is process 0's and its port is free, and start all of them again."
        ) from error
    state = distributed.global_state
    assert state.client is not None and state.num_processes is not None
    return state.process_id, state.num_processes, state.client


@contextlib.contextmanager
def _impatient(what: str, *, seconds: float) -> Iterator[None]:
    """Ends the process with a message when the inside takes too long: JAX would abort it with a stack of C++."""

    def give_up() -> None:
        print(
            f"flan-jax: {what} within {seconds:.0f} s. See that each was started, with an index of its own and the same "
            "address, and that this address can be reached from all of their machines.",
            file=sys.stderr,
        )
        processes.end_now(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
