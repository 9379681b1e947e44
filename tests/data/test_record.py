import json
import struct

import numpy as np
import pytest

from flan_jax.data.record import decode_features, decode_pair, decode_record, encode_record


@pytest.mark.parametrize("features", [[[5, 6, 1], [9, 1]], [[], [1]], [[2**31 - 1, -(2**31)], []], [[1], [2], [3]]])
def test_features_come_back_as_they_were(features):
    decoded, meta = decode_record(encode_record(features))
    assert [d.tolist() for d in decoded] == features
    assert all(d.dtype == np.int32 for d in decoded)
    assert meta is None


def test_arrays_and_lists_are_the_same_bytes():
    assert encode_record([np.array([5, 1], np.int64), [7]]) == encode_record([[5, 1], np.array([7], np.int32)])


def test_layout_is_counts_then_ids_then_json():
    record = encode_record([[5, 1], [9]], {"gold": 0})
    assert record[:24] == struct.pack("<IIIiii", 2, 2, 1, 5, 1, 9)
    assert json.loads(record[24:]) == {"gold": 0}


def test_meta_keeps_text_of_any_script_and_an_empty_one_is_none():
    meta = {"inputs": "Größe 東京 \u2028", "options": ["a", "b"], "gold": -1}
    assert decode_record(encode_record([[1]], meta))[1] == meta
    assert "東京".encode() in encode_record([[1]], meta)
    assert encode_record([[1]], {}) == encode_record([[1]], None)


def test_training_reads_features_without_their_meta():
    features = decode_features(encode_record([[5, 1], [9]]) + b"not even JSON")
    assert [f.tolist() for f in features] == [[5, 1], [9]]


@pytest.mark.parametrize("record", [b"", b"\x01", struct.pack("<II", 1, 100), struct.pack("<I", 2**31)])
def test_damaged_bytes_are_refused(record):
    with pytest.raises(ValueError, match=r"Not a record \(\d+ bytes: .*delete its folder and export again"):
        decode_record(record)


def test_fractions_are_no_ids():
    with pytest.raises(TypeError, match="Cannot cast"):
        encode_record([np.array([1.5])])


def test_an_id_beyond_int32_is_refused():
    with pytest.raises(struct.error):
        encode_record([[2**31]])


def test_an_example_is_a_pair():
    inputs, targets = decode_pair(encode_record([[5, 6, 1], [9, 1]], {"row": 3}))
    assert (inputs.tolist(), targets.tolist(), inputs.dtype) == ([5, 6, 1], [9, 1], np.int32)
    assert [feature.tolist() for feature in decode_pair(encode_record([[], []]))] == [[], []]


@pytest.mark.parametrize("features", [[[1]], [[1], [2], [3]], [], [[1] * 5]])
def test_a_record_of_more_or_fewer_features_is_no_example(features):
    with pytest.raises(ValueError, match=f"A record of {len(features)} features is not an example"):
        decode_pair(encode_record(features))


@pytest.mark.parametrize("record", [b"", b"\x01", struct.pack("<III", 2, 100, 1), struct.pack("<I", 2)])
def test_damaged_bytes_are_no_example(record):
    with pytest.raises(ValueError, match=r"Not a record \(\d+ bytes"):
        decode_pair(record)
