"""The index of a T5X checkpoint: what Flax writes is read, what is written Flax reads, what is broken is named."""

import flax.serialization
import ml_dtypes
import msgpack
import numpy as np
import pytest

from flan_jax.checkpoint.t5x.index_file import ZarrArray, decode, encode
from tests.checkpoint.t5x_files import ext, index_bytes

SPEC = {
    "driver": "zarr",
    "dtype": "float32",
    "kvstore": {"driver": "gcs", "bucket": "t5x-dummy-bucket", "path": "target.a.kernel/"},
    "metadata": {"chunks": [2, 2], "compressor": {"id": "gzip", "level": 1}, "shape": [4, 2]},
}


def assert_same(got, wanted):
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(got.astype(np.float64), wanted.astype(np.float64))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=ml_dtypes.bfloat16).reshape(3, 2),
        np.asarray(7, np.int32),
        np.int32(7),
        np.zeros((0, 2), np.float16),
    ],
    ids=["float32", "bfloat16", "no dimensions", "scalar", "empty"],
)
def test_arrays_that_flax_writes_are_read(array):
    data = flax.serialization.to_bytes({"version": 3, "optimizer": {"target": {"a": array}}})
    assert_same(decode(data, where="x")["target/a"], np.asarray(array))


def test_arrays_that_flax_split_are_joined(monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 8)
    array = np.arange(10, dtype=np.float32).reshape(5, 2)
    data = flax.serialization.to_bytes({"version": 3, "optimizer": {"target": {"a": array}}})
    assert b"__msgpack_chunked_array__" in data
    assert_same(decode(data, where="x")["target/a"], array)


def test_old_names_of_types_and_numbers_without_array_are_read():
    old = msgpack.ExtType(1, msgpack.packb(((2,), b"float32", np.ones(2, np.float32).tobytes())))
    complex_ = msgpack.ExtType(2, msgpack.packb((1.0, 2.0)))
    entries = decode(index_bytes({"target/a": old, "target/c": complex_, "state/step": 4}), where="x")
    assert_same(entries["target/a"], np.ones(2, np.float32))
    assert entries["target/c"] == 1 + 2j
    assert entries["state/step"] == 4


def test_version_2_is_read():
    array = np.ones((2, 3), np.float32)
    assert_same(decode(index_bytes({"target/a": ext(array)}, version=2), where="x")["target/a"], array)


def test_empty_states_and_untouched_parameters_are_no_leaves():
    assert decode(index_bytes({"target/a": ext(np.ones(1)), "state/0": {}, "state/1": None}), where="x").keys() == {
        "target/a"
    }


@pytest.mark.parametrize("driver", ["file", "gfile", "gcs"])
def test_a_stored_array_is_found_from_the_spec_of_any_store(driver):
    spec = {**SPEC, "kvstore": {**SPEC["kvstore"], "driver": driver}}
    wanted = ZarrArray(path="target.a.kernel", shape=(4, 2), dtype="float32", chunk=(2, 2))
    assert decode(index_bytes({"target/a/kernel": spec}), where="x") == {"target/a/kernel": wanted}


def test_an_old_spec_has_the_path_outside_the_store():
    spec = {**SPEC, "kvstore": {"driver": "gfile"}, "path": "target.a.kernel"}
    spec["metadata"] = {**SPEC["metadata"], "dtype": "<f4"}
    del spec["dtype"]
    wanted = ZarrArray(path="target.a.kernel", shape=(4, 2), dtype="float32", chunk=(2, 2))
    assert decode(index_bytes({"target/a/kernel": spec}), where="x") == {"target/a/kernel": wanted}


def test_what_is_encoded_flax_reads_and_decodes_to_itself():
    separate = ZarrArray(path="target.a.kernel", shape=(4, 2), dtype="bfloat16", chunk=(2, 2))
    entries = {
        "target/a/kernel": separate,
        "target/a/scale": np.arange(3, dtype=ml_dtypes.bfloat16),
        "state/step": np.asarray(9, np.int32),
    }
    tree = flax.serialization.msgpack_restore(encode(entries))
    assert tree["version"] == 3
    assert tree["optimizer"]["target"]["a"]["kernel"] == {
        "driver": "zarr",
        "dtype": "bfloat16",
        "kvstore": {"driver": "file", "path": "target.a.kernel/"},
        "metadata": {"chunks": [2, 2], "compressor": {"id": "gzip", "level": 1}, "shape": [4, 2]},
    }
    assert_same(np.asarray(tree["optimizer"]["target"]["a"]["scale"]), entries["target/a/scale"])
    assert_same(np.asarray(tree["optimizer"]["state"]["step"]), entries["state/step"])
    again = decode(encode(entries), where="x")
    assert again["target/a/kernel"] == separate
    assert_same(again["target/a/scale"], entries["target/a/scale"])


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_truncated_index_is_refused_with_its_path_and_size(kept):
    data = index_bytes({"target/a": ext(np.ones(4, np.float32))})[:kept]
    with pytest.raises(
        ValueError, match=rf"some/checkpoint \({len(data)} bytes\) is not readable as msgpack.*truncated"
    ):
        decode(data, where="some/checkpoint")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b'model_checkpoint_path: "model.ckpt-9"',
            "TensorFlow checkpoint of Mesh TensorFlow's T5. Convert it with T5X",
        ),
        (msgpack.packb({"params": 1}), "is not an index of T5X: it holds 'params'"),
        (msgpack.packb([1]), "is not an index of T5X: it holds list"),
        (index_bytes({}, version=1), "has version 1 of T5X's format; supported are 2 and 3"),
    ],
    ids=["TensorFlow", "other tree", "no tree", "version 1"],
)
def test_a_file_that_is_no_index_of_this_version_is_refused_with_the_reason(data, message):
    with pytest.raises(ValueError, match=message):
        decode(data, where="x")


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (msgpack.ExtType(1, msgpack.packb(((3,), "float32", b"1234"))), r"got 4 bytes for float32\[3\]"),
        (msgpack.ExtType(1, msgpack.packb(((1,), "nonsense", b"1234"))), "nonsense"),
        (msgpack.ExtType(5, b""), "extension type 5 of msgpack"),
        ("PLACEHOLDER://target.a", "placeholder of Orbax's format before OCDBT"),
        ("text", "got str, expected an array"),
        ({**SPEC, "driver": "n5"}, "driver 'n5'; supported is 'zarr'"),
        ({**SPEC, "kvstore": {"driver": "file"}}, "its spec has no path"),
        ({**SPEC, "metadata": {}}, "'shape'"),
    ],
    ids=["bytes", "type", "extension", "placeholder", "text", "driver", "path", "shape"],
)
def test_a_leaf_that_cannot_be_read_is_named(leaf, message):
    with pytest.raises(ValueError, match=f"some/checkpoint: the leaf target/a/kernel cannot be read: .*{message}"):
        decode(index_bytes({"target/a/kernel": leaf}), where="some/checkpoint")
