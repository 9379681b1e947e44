"""Requests to end a run early: SIGTERM before a machine is preempted, or Ctrl-C at a terminal."""

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_EVERY_CALLS = 4


@final
class StopRequest:
    """A flag that SIGTERM or SIGINT sets and the loop reads at every step boundary.

    A context manager: it installs the signal handlers and restores the previous ones. A second Ctrl-C interrupts
    immediately. Outside the main thread no handler can be installed.

    Attributes:
      signal: The signal that requested the stop; None while none did.
    """

    def __init__(self, *, acknowledge: Callable[[str], None] = lambda text: None) -> None:
        """Installs nothing yet.

        Args:
          acknowledge: Prints a line; called in a thread as soon as the first signal arrives, while the main thread
            may be inside a step.
        """
        self.signal: int | None = None
        self._acknowledge = acknowledge
        self._previous: dict[int, Any] = {}
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._previous_wakeup = -1

    def __call__(self) -> bool:
        """Returns whether the run should end."""
        return self.signal is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
            # A handler in Python runs only between two instructions of the main thread, which a step can keep waiting
            # for many seconds. The file descriptor is written by the interpreter's own handler, at once.
            self._wakeup = socket.socketpair()
            self._wakeup[1].setblocking(False)
            # A full buffer loses nothing: the first signal is the one that is acknowledged.
            self._previous_wakeup = signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._report, args=(self._wakeup[0],), daemon=True, name="stop request").start()
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._wakeup is not None:
            signal.set_wakeup_fd(self._previous_wakeup)
            self._wakeup[1].close()  # Ends the thread.
            self._wakeup = None

    def _report(self, arrived: socket.socket) -> None:
        """Acknowledges the first signal."""
        with arrived:
            names = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
            while numbers := arrived.recv(1):
                if name := names.pop(signal.Signals(numbers[0]), None):
                    again = " Ctrl-C again stops at once, without saving." if name == "Ctrl-C" else ""
                    self._acknowledge(f"{name}: the run stops after this step and is saved.{again}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Only Ctrl-C: a second SIGTERM must not interrupt the save that the first one asked for.
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


@final
class SharedStop:
    """A stop request to any process of a run, reported to all of them at the same step.

    Signals reach processes one by one. A process that ended immediately would leave the others waiting for it in the
    next step forever, so the flags are all-reduced on the devices, one number per device, between two steps. Every
    fourth call starts the reduction without waiting, and the next call reads it, when the devices have finished it: no
    process waits longer than it would in the step. A stop is at most six calls late.

    Every process must call this equally often; the loop calls it at the same steps everywhere.
    """

    def __init__(self, requested: Callable[[], bool], *, mesh: Mesh):
        """Prepares the reduction.

        Args:
          requested: Returns whether this process received a stop request.
          mesh: The devices of all processes.
        """
        self._requested = requested
        self._shape = (mesh.size,)
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._add = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._sum: jax.Array | None = None
        self._calls = 0
        self._decided = False

    def __call__(self) -> bool:
        """Returns whether the run should end."""
        if self._sum is not None:
            self._decided |= bool(np.asarray(self._sum))
            self._sum = None
        # By the count of calls, which is equal in all processes: a process that skipped a reduction would hang the
        # others.
        if self._calls % _EVERY_CALLS == 0 and not self._decided:
            flag = np.int32(self._requested())
            flags = jax.make_array_from_callback(self._shape, self._sharding, lambda _: np.full((1,), flag))
            self._sum = self._add(flags)
        self._calls += 1
        return self._decided
