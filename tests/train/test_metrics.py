import json
import os
import time

import numpy as np
import pytest

from flan_jax.train import metrics
from flan_jax.train.state import StepMetrics


def _step(*, loss=4.0, weight=2.0, skipped=False, **values):
    return StepMetrics(
        sums={"loss": np.float32(loss), "accuracy": np.float32(1.0)},
        weight=np.float32(weight),
        values={name.replace("__", "/"): np.float32(value) for name, value in values.items()},
        skipped=np.bool_(skipped),
        bad_tensors=np.int32(0),
        first_bad_tensor=np.int32(-1),
    )


class _Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


STATS = {"rows": 2, "examples": 3, "input_tokens": 6, "target_tokens": 2}


def test_a_line_divides_sums_by_the_weight_of_all_its_steps():
    meter = metrics.Meter()
    meter.add(_step(loss=4.0, weight=1.0), stats=STATS, slots=16, wait_seconds=0.0)
    meter.add(_step(loss=2.0, weight=3.0), stats=STATS, slots=16, wait_seconds=0.0)
    line = meter.line()
    assert (line["loss"], line["accuracy"]) == (1.5, 0.5)


def test_a_line_has_time_tokens_wait_and_padding():
    clock = _Clock()
    meter = metrics.Meter(now=clock)
    for _ in range(2):
        meter.add(_step(), stats=STATS, slots=16, wait_seconds=0.5)
    clock.seconds = 10.0
    meter.exclude(6.0)  # an evaluation
    line = meter.line()
    assert line["seconds_per_step"] == 2.0
    assert line["tokens_per_second"] == 4.0
    assert line["data_wait_share"] == 0.25
    assert line["padding_share"] == 0.5
    assert (line["examples"], line["tokens"], line["skipped_steps"]) == (6, 16, 0)


def test_every_line_starts_at_zero_but_totals_accumulate():
    clock = _Clock()
    meter = metrics.Meter(now=clock, state={"totals": {"examples": 100}})
    for _ in range(2):
        meter.add(_step(), stats=STATS, slots=16, wait_seconds=0.0)
        clock.seconds += 1.0
        line = meter.line()
    assert (line["loss"], line["seconds_per_step"], line["examples"]) == (2.0, 1.0, 106)


def test_a_line_started_before_a_resume_is_completed_as_without_it():
    uninterrupted, first = metrics.Meter(), metrics.Meter()
    for meter in (uninterrupted, first):
        meter.add(_step(loss=4.0, weight=1.0), stats=STATS, slots=16, wait_seconds=0.0)
    second = metrics.Meter(state=json.loads(json.dumps(first.state())))
    for meter in (uninterrupted, second):
        meter.add(_step(loss=2.0, weight=3.0), stats=STATS, slots=64, wait_seconds=0.0)
    lines = uninterrupted.line(), second.line()
    for name in ("loss", "accuracy", "examples", "tokens", "padding_share"):
        assert lines[0][name] == lines[1][name]


def test_a_skipped_step_changes_no_mean_and_is_counted():
    meter = metrics.Meter()
    meter.add(_step(loss=4.0), stats=STATS, slots=16, wait_seconds=0.0)
    meter.add(_step(loss=float("nan"), skipped=True), stats=STATS, slots=16, wait_seconds=0.0)
    line = meter.line()
    assert (line["loss"], line["skipped_steps"]) == (2.0, 1)


def test_an_undefined_number_is_none():
    meter = metrics.Meter(now=lambda: 0.0)
    meter.add(_step(loss=float("nan"), skipped=True, grad_norm=float("inf")), stats={}, slots=0, wait_seconds=0.0)
    line = meter.line()
    names = ("loss", "grad_norm", "seconds_per_step", "tokens_per_second", "data_wait_share", "padding_share")
    assert [line[name] for name in names] == [None] * 6


def test_statistics_of_tensors_come_last():
    meter = metrics.Meter()
    meter.add(_step(weight_rms__a=1.0, grad_norm=2.0), stats=STATS, slots=16, wait_seconds=0.0)
    line = meter.line()
    assert list(line)[-1] == "weight_rms/a"
    assert list(line)[:3] == ["loss", "accuracy", "grad_norm"]


def test_counts_are_those_of_all_processes():
    meter = metrics.Meter(total=lambda counts: {name: 4 * count for name, count in counts.items()})
    meter.add(_step(), stats=STATS, slots=16, wait_seconds=0.0)
    assert meter.state()["totals"] == {"examples": 12, "tokens": 32, "skipped_steps": 0}
    line = meter.line()
    assert (line["examples"], line["tokens"], line["padding_share"]) == (12, 32, 0.5)


def test_slots_are_the_token_positions_of_encoder_and_decoder():
    batch = {
        "encoder_input_tokens": np.zeros((2, 5)),
        "decoder_target_tokens": np.zeros((2, 3)),
        "decoder_positions": np.zeros((2, 3)),
    }
    assert metrics.token_slots(batch) == 16
    assert metrics.token_slots({"scores": np.zeros(3)}) == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the system does not tell")
def test_a_process_knows_its_age():
    first = metrics.process_seconds()
    time.sleep(0.05)
    assert 0.0 < first < metrics.process_seconds() < 24 * 3600


def test_an_unknown_age_is_none(monkeypatch):
    def absent(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(metrics.Path, "read_text", absent)
    assert metrics.process_seconds() is None
