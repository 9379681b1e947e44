import signal
import subprocess
import sys
import threading

import jax
import pytest

from flan_jax.train.stopping import SharedStop, StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_flag_and_nothing_else(number):
    with StopRequest() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop() and stop.signal == number


@pytest.mark.parametrize("number, name", [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_is_acknowledged_while_the_main_thread_is_busy(number, name):
    """In another process, whose main thread computes in C, where no handler in Python runs."""
    code = f"""
import hashlib, os, threading
from flan_jax.train.stopping import StopRequest
def acknowledge(text):
    print(text, flush=True)
    os._exit(7)
with StopRequest(acknowledge=acknowledge):
    threading.Timer(0.2, os.kill, args=(os.getpid(), {int(number)})).start()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 7 and done.stdout.startswith(f"{name}: the run stops after this step and is saved.")


def test_the_second_interrupt_is_immediate():
    with StopRequest(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_in_another_thread_no_handler_is_installed():
    before, during = signal.getsignal(signal.SIGTERM), []

    def work():
        with StopRequest() as stop:
            during.append((signal.getsignal(signal.SIGTERM), stop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [(before, False)]


@pytest.mark.parametrize("requested_before_call", [0, 1, 3, 4, 5])
def test_a_shared_stop_is_reported_a_few_calls_later(requested_before_call):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    requested = []
    stop = SharedStop(lambda: bool(requested), mesh=mesh)
    answers = []
    for call in range(12):
        if call == requested_before_call:
            requested.append(True)
        answers.append(stop())
    first = answers.index(True)
    assert requested_before_call < first <= requested_before_call + 5
    assert all(answers[first:])


def test_without_a_request_there_is_no_shared_stop():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    stop = SharedStop(lambda: False, mesh=mesh)
    assert not any(stop() for _ in range(12))
