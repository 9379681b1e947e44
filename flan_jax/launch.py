"""Connects the processes of a run: by settings, or by the environment of SLURM, Open MPI or a TPU's metadata.

Must run before anything asks JAX for a device. `processes` exchanges messages afterwards.
"""

import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from flan_jax import processes
from flan_jax.errors import UserError
from flan_jax.processes import Group, Store

_LOSS = re.compile(
    rb"coordination_service\w*\.cc:.*(Polled an error|Use error polling)|client\.h:.*Terminating process"
)
CLUSTERS = ("slurm", "ompi", "gcetpu", "gketpu")  # JAX's names for SLURM, Open MPI and TPU metadata.


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cluster:
    """A cluster environment that JAX supports."""

    name: str
    count: int


def join(
    *,
    coordinator_address: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    patience_seconds: float = processes.PATIENCE_SECONDS,
) -> Group:
    """Connects this process to the others of its run, if there are any.

    Give all three settings, or none: then SLURM, Open MPI or a TPU's metadata provide them. Without either there is a
    single process. On CPU, arrays are exchanged through gloo, JAX's default.

    Args:
      coordinator_address: HOST:PORT of process 0, the same for all.
      process_count: The number of processes.
      process_index: The index of this process, from 0.
      patience_seconds: How long to wait for the others, here and whenever all must agree.

    Raises:
      UserError: The settings are incomplete or impossible, the address is not available, or the processes disagree.
    """
    settings = {
        "coordinator_address": coordinator_address,
        "process_count": process_count,
        "process_index": process_index,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if given:
        _require_complete(settings)
        if process_count == 1:
            return processes.group()
        arguments: dict[str, Any] = {
            "coordinator_address": coordinator_address,
            "num_processes": process_count,
            "process_id": process_index,
            # What the user states applies, also inside of a SLURM job.
            "cluster_detection_method": "deactivate",
        }
        what = f"{process_count} processes at {coordinator_address}"
    else:
        cluster = _detected()
        if cluster is None or cluster.count == 1:
            return processes.group()
        arguments = {"cluster_detection_method": cluster.name}
        what = f"the {cluster.count} processes of {cluster.name}"
    if processes.group().count > 1:
        return processes.group()
    with _time_limit(f"{what} did not all connect", seconds=patience_seconds):
        # JAX's timeout is the longer one, so that our message comes first.
        index, count, client = _initialize(arguments, timeout_seconds=patience_seconds + 60)
    joined = Group(index=index, count=count, store=client, patience_seconds=patience_seconds)
    processes.join(joined)
    joined.require_agreement({"process_count": count})
    return joined


def _require_complete(settings: Mapping[str, Any]) -> None:
    """Refuses settings with which processes cannot connect."""
    missing = [name for name, value in settings.items() if value is None]
    if missing:
        raise UserError(
            f"Several processes need --coordinator_address=HOST:PORT, --process_count and --process_index; got no "
            f"{', '.join(missing)}. Give all three, or none under SLURM, Open MPI or on a TPU pod."
        )
    address, count, index = settings.values()
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"coordinator_address is {address!r}; it must be HOST:PORT of process 0, such as 10.0.0.1:8476."
        )
    if not isinstance(count, int) or count < 1:
        raise UserError(f"process_count is {count!r}; it must be a whole number of at least 1.")
    if not isinstance(index, int) or not 0 <= index < count:
        raise UserError(f"process_index is {index!r}; with {count} processes it must be 0 to {count - 1}.")


def _detected() -> _Cluster | None:
    """Returns the cluster in which this process was started, according to JAX, or None."""
    from jax._src import clusters  # The public call fails where there is none.

    for kind in clusters.ClusterEnv._cluster_types:  # pylint: disable=protected-access
        if kind.name in CLUSTERS and kind.is_env_present():
            return _Cluster(name=kind.name, count=kind.get_process_count())
    return None


def _initialize(arguments: Mapping[str, Any], *, timeout_seconds: float) -> tuple[int, int, Store]:
    import jax
    from jax._src import distributed

    # The service would handle SIGTERM from here on, even before there is anything to save; see `train.stopping`.
    jax.config.update("jax_enable_preemption_service", False)
    _report_lost_processes()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=round(timeout_seconds),
            heartbeat_timeout_seconds=processes.HEARTBEAT_SECONDS,
        )
    except RuntimeError as error:  # Such as a port that is in use.
        reason = str(error).splitlines()[0]
        raise UserError(
            f"The processes could not connect ({', '.join(map(str, arguments.values()))}): {reason}. Check that the "
            "address is that of process 0 and its port is free, and start all of them again."
        ) from error
    state = distributed.global_state
    assert state.client is not None and state.num_processes is not None
    return state.process_id, state.num_processes, state.client


def _report_lost_processes() -> None:
    """Ends this process with one message when another one is killed; JAX would abort with a C++ stack trace."""
    # JAX's function for such errors cannot be replaced: the binding throws before it calls one that is written in
    # Python. So what native code writes to standard error passes through a thread, which ends the process at the first
    # of these lines.
    own = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = open(own, "w", buffering=1, errors="backslashreplace", closefd=False)
    threading.Thread(target=_forward, args=(reading, own), daemon=True, name="standard error").start()
    # The aborting thread sleeps 6 seconds (the signal's number is the argument), so that the message comes first.
    libc = ctypes.CDLL(None)
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _forward(reading: int, own: int) -> None:
    """Copies standard error until the coordination service reports a lost process."""
    with open(reading, "rb", buffering=0) as lines:
        while chunk := lines.read(2**16):
            if _LOSS.search(chunk) is None:
                os.write(own, chunk)
                continue
            os.set_blocking(reading, False)
            time.sleep(0.5)  # The name of the lost process is in one of the next lines.
            processes.end_as_lost(chunk + (lines.read(2**16) or b""))


@contextlib.contextmanager
def _time_limit(what: str, *, seconds: float) -> Iterator[None]:
    """Exits with a message when the inside takes too long; JAX would abort with a C++ stack trace."""

    def give_up() -> None:
        print(
            f"flan-jax: {what} within {seconds:.0f} s. Check that each was started, with its own index and the same "
            "address, and that all machines can reach this address.",
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
