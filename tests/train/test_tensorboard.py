"""The event file is read by an independent reader, and by TensorFlow's where it is installed."""

import math
import struct

import pytest

from flan_jax.train.tensorboard import TensorBoardWriter, crc32c


def _unmasked(stored):
    turned = (struct.unpack("<I", stored)[0] - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF


def _records(path):
    data, offset, records = path.read_bytes(), 0, []
    while offset < len(data):
        length = data[offset : offset + 8]
        end = offset + 12 + struct.unpack("<Q", length)[0]
        event = data[offset + 12 : end]
        assert _unmasked(data[offset + 8 : offset + 12]) == crc32c(length)
        assert _unmasked(data[end : end + 4]) == crc32c(event)
        records.append(_fields(event))
        offset = end + 4
    return records


def _fields(message):
    """Field number -> values, of a protocol buffer's wire format."""
    fields, offset = {}, 0

    def varint():
        nonlocal offset
        number = shift = 0
        while True:
            byte = message[offset]
            offset += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while offset < len(message):
        key = varint()
        if key & 7 == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            value = message[offset : offset + size]
            offset += size
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _write(directory, **arguments):
    with TensorBoardWriter(directory, **arguments) as writer:
        writer.write(300, kind="train", values={"loss": 2.5, "absent": None, "rate": 1e-3})
        writer.write(400, kind="evaluation", values={"f1": float("nan")})
    return next(directory.iterdir())


def test_the_file_has_the_scalars_in_records_with_correct_checksums(tmp_path):
    path = _write(tmp_path / "events", resumed_step=200)
    version, session, train, evaluation = _records(path)
    assert version[3] == [b"brain.Event:2"]
    assert session[2] == [201] and _fields(session[7][0]) == {1: [1]}
    assert train[2] == [300] and evaluation[2] == [400]
    values = [_fields(value) for value in _fields(train[5][0])[1]]
    scalars = {value[1][0].decode(): struct.unpack("<f", value[2][0])[0] for value in values}
    assert scalars == {"train/loss": 2.5, "train/rate": pytest.approx(1e-3)}
    assert struct.unpack("<d", train[1][0])[0] > 1.7e9
    assert path.name.startswith("events.out.tfevents.")


@pytest.mark.tensorflow
def test_tensorflow_reads_it(tmp_path):
    path = _write(tmp_path / "events")
    from tensorflow.python.summary.summary_iterator import summary_iterator

    events = list(summary_iterator(str(path)))
    assert events[0].file_version == "brain.Event:2"
    assert events[1].session_log.status == 1
    read = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
    assert read[300, "train/loss"] == 2.5
    assert math.isnan(read[400, "evaluation/f1"])
