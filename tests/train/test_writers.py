import json
import math
import struct

import pytest

from flan_jax.train.writers import JsonlWriter, TensorBoardWriter


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path, steps, **arguments):
    with JsonlWriter(path, **arguments) as writer:
        for step in steps:
            writer.write(step, kind="train", values={"loss": float(step)})


def test_one_object_per_line(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with JsonlWriter(path) as writer:
        writer.write(5, kind="train", values={"loss": 2.5, "skipped_steps": 0})
        assert _lines(path) == [{"step": 5, "kind": "train", "loss": 2.5, "skipped_steps": 0}]  # flushed already
        writer.write(5, kind="evaluation", values={"f1": 50.0})
    assert _lines(path)[1] == {"step": 5, "kind": "evaluation", "f1": 50.0}


def test_numbers_that_json_lacks_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with JsonlWriter(path) as writer:
        writer.write(1, kind="train", values={"loss": float("nan"), "grad_norm": float("inf"), "rate": None})
    assert _lines(path) == [{"step": 1, "kind": "train", "loss": None, "grad_norm": None, "rate": None}]


def test_a_resumed_run_removes_the_lines_that_it_will_repeat(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, [10, 20, 30])
    _write(path, [25], resumed_step=20)
    assert [line["step"] for line in _lines(path)] == [10, 20, 25]


def test_a_truncated_last_line_is_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, [10])
    path.write_text(path.read_text() + '{"step": 11, "lo\n{"step": 12}')
    _write(path, [13], resumed_step=12)
    assert [line["step"] for line in _lines(path)] == [10, 13]


def test_a_new_run_starts_with_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, [0, 10])
    _write(path, [5])
    assert [line["step"] for line in _lines(path)] == [5]


def test_a_resumed_run_without_a_file_starts_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, [5], resumed_step=4)
    assert [line["step"] for line in _lines(path)] == [5]


def _events(directory):
    """The events of the one file in a directory: each record is its length, a checksum, the event, and a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, start, events = next(directory.iterdir()).read_bytes(), 0, []
    while start < len(data):
        end = start + 12 + struct.unpack("<Q", data[start : start + 8])[0]
        events.append(Event.FromString(data[start + 12 : end]))
        start = end + 4
    return events


def test_tensorboard_gets_every_defined_number_under_its_kind(tmp_path):
    with TensorBoardWriter(tmp_path / "events") as writer:
        writer.write(300, kind="train", values={"loss": 2.5, "absent": None, "rate": 1e-3})
        writer.write(400, kind="evaluation", values={"f1": float("nan")})
    read = {(e.step, v.tag): v.simple_value for e in _events(tmp_path / "events") for v in e.summary.value}
    assert math.isnan(read.pop((400, "evaluation/f1")))
    assert read == {(300, "train/loss"): 2.5, (300, "train/rate"): pytest.approx(1e-3)}


def test_tensorboard_hides_the_steps_that_a_resumed_run_repeats(tmp_path):
    with TensorBoardWriter(tmp_path / "events", resumed_step=200):
        pass
    assert [e.step for e in _events(tmp_path / "events") if e.session_log.status == 1] == [201]
