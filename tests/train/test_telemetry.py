import numpy as np
import pytest

from flan_jax.train.metrics import Meter
from flan_jax.train.start_up import StartUp
from flan_jax.train.state import StepMetrics
from flan_jax.train.telemetry import Telemetry
from flan_jax.train.writers import Writer


class _Lines(Writer):
    def __init__(self):
        self.lines, self.steps = [], []

    def write(self, step, *, kind, values):
        self.lines.append((step, kind, dict(values)))

    def advance(self, step):
        self.steps.append(step)


def _metrics(*, loss=2.0, first_bad_tensor=-1, skipped=False):
    return StepMetrics(
        sums={"loss": np.float32(loss)},
        weight=np.float32(1.0),
        values={},
        skipped=np.bool_(skipped),
        bad_tensors=np.int32(first_bad_tensor >= 0),
        first_bad_tensor=np.int32(first_bad_tensor),
    )


def _telemetry(*, every=1, max_skipped_steps=3, meter=None, start_up=None):
    lines, printed = _Lines(), []
    telemetry = Telemetry(
        writers=[lines],
        meter=meter or Meter(),
        tensor_names=["decoder/kernel", "encoder/kernel"],
        logs=lambda step: step % every == 0,
        max_skipped_steps=max_skipped_steps,
        start_up=start_up or StartUp(),
        print_line=printed.append,
    )
    return telemetry, lines, printed


def _follow(telemetry, step, metrics=None, **arguments):
    counts = {"stats": {"examples": 1}, "slots": 4, "wait_seconds": 0.0, "dispatch_seconds": 1.5, **arguments}
    telemetry.follow(step, metrics or _metrics(), **counts)


def test_a_step_is_reported_when_the_next_is_dispatched():
    telemetry, lines, _ = _telemetry()
    _follow(telemetry, 1)
    assert lines.steps == [1]  # the first is waited for
    _follow(telemetry, 2)
    assert lines.steps == [1]
    _follow(telemetry, 3)
    assert lines.steps == [1, 2]
    telemetry.flush()
    telemetry.flush()
    assert lines.steps == [1, 2, 3]


def test_the_first_step_is_reported_with_the_phases_before_it():
    clock = [10.0]
    start_up = StartUp(now=lambda: clock[0], alive=lambda: 2.0)
    telemetry, lines, printed = _telemetry(start_up=start_up)
    with start_up.phase("parameters"):
        clock[0] += 3.0
    _follow(telemetry, 1)
    _follow(telemetry, 2)
    assert printed == ["first step finished 5.0 s after the process started: imports 2.0, parameters 3.0"]
    step, kind, values = lines.lines[0]
    assert (step, kind, values["parameters_seconds"], values["first_step_seconds"]) == (1, "start", 3.0, 5.0)


def test_lines_are_written_when_due_and_advances_always():
    telemetry, lines, _ = _telemetry(every=2)
    for step in range(1, 6):
        _follow(telemetry, step)
    telemetry.flush()
    assert [step for step, kind, _ in lines.lines if kind == "train"] == [2, 4]
    assert lines.steps == [1, 2, 3, 4, 5]


def test_only_numbers_are_recorded():
    telemetry, lines, _ = _telemetry()
    telemetry.record(3, kind="evaluation", values={"f1": np.float32(1.0), "table": "text", "none": None})
    assert lines.lines == [(3, "evaluation", {"f1": 1.0, "none": None})]
    assert type(lines.lines[0][2]["f1"]) is float


def test_skipped_steps_are_printed_and_the_bad_tensor_named():
    telemetry, _, printed = _telemetry()
    _follow(telemetry, 1, _metrics(skipped=True, first_bad_tensor=1))
    assert printed[1] == (
        "step 1 skipped because its numbers are not finite: loss 2, gradients not finite in 1 of 2 tensors, "
        "the first 'encoder/kernel'"
    )


def test_too_many_consecutive_skipped_steps_end_the_run():
    telemetry, _, _ = _telemetry()
    bad = _metrics(loss=float("nan"), skipped=True)
    for step in (1, 2):
        _follow(telemetry, step, bad)
    _follow(telemetry, 3)
    for step in (4, 5, 6):
        _follow(telemetry, step, bad)
    with pytest.raises(
        ValueError, match=r"3 steps in a row, up to step 6, .* not finite: loss nan. The .*learning rate"
    ):
        telemetry.flush()


def test_a_pause_does_not_count_as_training_time(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("flan_jax.train.telemetry.time.perf_counter", lambda: clock[0])
    telemetry, lines, _ = _telemetry(meter=Meter(now=lambda: clock[0]))
    with telemetry.pause() as seconds:
        clock[0] += 7.0
        assert seconds() == 7.0
    clock[0] += 3.0
    _follow(telemetry, 1, dispatch_seconds=2.0)  # the rest of these seconds
    assert lines.lines[-1][2]["seconds_per_step"] == 1.0
