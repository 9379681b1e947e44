import pytest

from flan_jax.train.start_up import StartUp


class _Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return _Clock()


def test_each_second_belongs_to_the_innermost_phase(clock):
    start_up = StartUp(now=clock, alive=lambda: 2.0)
    clock.time += 0.5  # nobody's
    with start_up.phase("step"):
        clock.time += 1.0
        with start_up.phase("compile"):
            clock.time += 4.0
        clock.time += 2.0
    with start_up.phase("step"):
        clock.time += 0.25
    values = start_up.values()
    assert values == {
        "imports_seconds": 2.0,
        "step_seconds": 3.25,
        "compile_seconds": 4.0,
        "rest_seconds": 0.5,
        "first_step_seconds": 9.75,
    }
    assert sum(seconds for name, seconds in values.items() if name != "first_step_seconds") == 9.75


def test_background_work_is_reported_next_to_the_phase_and_not_added(clock):
    start_up = StartUp(now=clock, alive=lambda: 2.0)
    with start_up.in_background("compile"):
        clock.time += 7.0
    with start_up.phase("compile"):
        clock.time += 1.0
    assert start_up.values()["compile_thread_seconds"] == 7.0
    assert start_up.sentence() == (
        "first step finished 10.0 s after the process started: imports 2.0, compile 7.0 (6.0 alongside the others), rest 7.0"
    )


def test_short_phases_are_not_printed(clock):
    start_up = StartUp(now=clock, alive=lambda: 2.0)
    with start_up.phase("batch"):
        clock.time += 0.01
    assert "batch" not in start_up.sentence()
    assert start_up.values()["batch_seconds"] == pytest.approx(0.01)


def test_without_the_start_of_the_process_the_phases_are_reported(clock):
    start_up = StartUp(now=clock, alive=lambda: None)
    with start_up.phase("step"):
        clock.time += 1.0
    assert start_up.sentence() == "first step finished: step 1.0"
    assert start_up.values()["first_step_seconds"] is None
