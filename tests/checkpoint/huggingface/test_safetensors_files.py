"""The safetensors format: files read back, in parts, and damage is reported with the file."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from flan_jax.checkpoint.huggingface import safetensors_files
from flan_jax.checkpoint.leaves import BFLOAT16, Leaf, from_array, same_values, transposed
from flan_jax.errors import UserError

FILE = safetensors_files.WHOLE


def tensors() -> dict[str, Leaf]:
    arrays = {
        "b.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).astype(BFLOAT16),
        "scalar": np.float16(3.5),
        "empty": np.zeros((0, 3), np.float32),
        "cube": -np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    }
    return {name: from_array(np.asarray(array)) for name, array in arrays.items()}


def damaged(folder, change) -> str:
    """Writes the tensors, lets `change` edit header and data, and returns the error of opening the file."""
    safetensors_files.write(tensors(), folder)
    raw = (folder / FILE).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = change(json.loads(raw[8 : 8 + length]), raw[8 + length :])
    spelled = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / FILE).write_bytes(len(spelled).to_bytes(8, "little") + spelled + data)
    with pytest.raises(ValueError) as error:
        safetensors_files.open_file(folder / FILE)
    assert str(folder / FILE) in str(error.value)
    return str(error.value)


def entry(name: str, **changes):
    return lambda header, data: ({**header, name: {**header[name], **changes}}, data)


def test_what_is_written_reads_back_bit_for_bit(tmp_path):
    safetensors_files.write(tensors(), tmp_path)
    opened = safetensors_files.open_file(tmp_path / FILE)
    assert set(opened) == set(tensors())
    for name, leaf in tensors().items():
        assert same_values(opened[name], leaf), name


def test_the_data_starts_aligned_and_wide_types_come_first(tmp_path):
    safetensors_files.write(tensors(), tmp_path)
    raw = (tmp_path / FILE).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0 and raw[8:9] == b"{"
    header = json.loads(raw[8 : 8 + length])
    assert list(header) == ["__metadata__", "b.weight", "cube", "empty", "a.weight", "scalar"]
    assert header["__metadata__"] == {"format": "pt"}


@pytest.mark.reference
def test_the_file_is_the_one_that_the_formats_own_library_writes(tmp_path):
    import torch
    from safetensors.torch import save

    safetensors_files.write(tensors(), tmp_path)
    theirs = {name: torch.tensor(leaf.whole().astype(np.float32)) for name, leaf in tensors().items()}
    theirs["a.weight"] = theirs["a.weight"].to(torch.bfloat16)
    theirs["scalar"] = theirs["scalar"].to(torch.float16)
    assert (tmp_path / FILE).read_bytes() == save(theirs, {"format": "pt"})


def test_a_part_is_read_without_the_rest(tmp_path, monkeypatch):
    safetensors_files.write(tensors(), tmp_path)
    opened = safetensors_files.open_file(tmp_path / FILE)
    indices = {"cube": (slice(0, 2), slice(1, 3), slice(2, 3)), "b.weight": (slice(1, 3), slice(0, 2))}
    for piece_bytes in (1, 2**26):
        monkeypatch.setattr(safetensors_files, "_PART_BYTES", piece_bytes)
        for name, index in indices.items():
            leaf, whole = opened[name], tensors()[name].whole()
            np.testing.assert_array_equal(leaf.read(index), whole[index])
            np.testing.assert_array_equal(transposed(leaf).read(index[::-1]), whole.T[index[::-1]])


def test_a_leaf_is_copied_in_parts_and_no_chunk_is_read_twice(tmp_path, monkeypatch):
    """Eight columns a stored piece: a transposed leaf goes by eight of its rows, though four would fill a part."""
    monkeypatch.setattr(safetensors_files, "_PART_BYTES", 4 * 16 * 4)
    values, read = np.arange(16 * 24, dtype=np.float32).reshape(16, 24), []

    def part(index):
        read.append(index[1])
        return values[index]

    stored = Leaf(shape=values.shape, dtype=values.dtype, read=part, chunk=(16, 8))
    safetensors_files.write({"kernel": transposed(stored)}, tmp_path)
    assert [(columns.start, columns.stop) for columns in read] == [(0, 8), (8, 16), (16, 24)]
    written = safetensors_files.open_file(tmp_path / FILE)["kernel"]
    np.testing.assert_array_equal(written.whole(), values.T)


def test_a_chunk_that_is_too_large_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_files, "_PART_BYTES", 4 * 16 * 4)
    monkeypatch.setattr(safetensors_files, "_MAX_PART_BYTES", 4 * 16 * 6)
    values, sizes = np.arange(16 * 24, dtype=np.float32).reshape(16, 24), []

    def part(index):
        sizes.append(values[index].nbytes)
        return values[index]

    stored = Leaf(shape=values.shape, dtype=values.dtype, read=part, chunk=(16, 24))
    safetensors_files.write({"kernel": transposed(stored)}, tmp_path)
    assert sizes == [4 * 16 * 4] * 6


def test_shards_are_named_and_filled_in_order(tmp_path):
    given = {name: from_array(np.full(2, i, np.float32)) for i, name in enumerate(("z", "y", "x", "w"))}
    given["v"] = from_array(np.zeros(9, np.float32))  # larger than a shard
    safetensors_files.write(given, tmp_path, max_shard_bytes=16)
    index = json.loads((tmp_path / safetensors_files.INDEX).read_text())
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert index["metadata"] == {"total_size": 68}
    assert index["weight_map"] == {"z": names[0], "y": names[0], "x": names[1], "w": names[1], "v": names[2]}
    assert sorted(p.name for p in tmp_path.iterdir()) == [*names, safetensors_files.INDEX]
    opened = safetensors_files.open_sharded(tmp_path / safetensors_files.INDEX)
    assert all(same_values(opened[name], leaf) for name, leaf in given.items())


def test_one_shard_has_no_index_though_its_tensor_is_larger(tmp_path):
    safetensors_files.write({"a": from_array(np.zeros(2, np.float32))}, tmp_path, max_shard_bytes=7)
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_shard_bytes is 0; it must be at least 1"):
        safetensors_files.write(tensors(), tmp_path, max_shard_bytes=0)
    with pytest.raises(
        ValueError, match="Tensor steps is int32; model.safetensors can have float32, bfloat16, float16"
    ):
        safetensors_files.write({"steps": from_array(np.zeros(2, np.int32))}, tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    safetensors_files.write(tensors(), tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for size in (4, 40, len(whole) - 1):
        (tmp_path / FILE).write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{FILE} is not an intact safetensors file: .* Fetch or write it again"):
            safetensors_files.open_file(tmp_path / FILE)


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        (b"", "Fetch or write it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        (b"\x80\x02}q\x00(X\x0b" * 9, "Fetch or write it again"),
        (b"\x04\0\0\0\0\0\0\0{,,}", "Fetch or write it again"),
        (b"\x04\0\0\0\0\0\0\0[{}]", "Fetch or write it again"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, fix):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=f"is not an intact safetensors file: .*{fix}"):
        safetensors_files.open_file(tmp_path / FILE)


def test_a_type_that_is_not_supported_is_named(tmp_path):
    def change(header, data):
        header["cube"] |= {"dtype": "F8_E4M3", "shape": [2, 3, 16]}
        return header, data

    assert re.search("Tensor cube of .* is F8_E4M3; supported are F32, BF16, F16", damaged(tmp_path, change))


@pytest.mark.parametrize(
    "change",
    [
        entry("cube", shape=[2, 3, 5]),
        entry("cube", shape=[2, -3, -4]),
        entry("cube", data_offsets=[48]),
        lambda header, data: ({**header, "cube": 7}, data),
        entry("cube", data_offsets=[44, 140]),
        entry("cube", data_offsets=[52, 148]),
        lambda header, data: (header, data + b"123"),
        lambda header, data: (b'{"a": {}, "b": {}, "b": {}}', data),
    ],
    ids=["shape", "negative shape", "offsets", "entry", "shared bytes", "gap", "longer", "twice"],
)
def test_a_damaged_header_is_refused(tmp_path, change):
    assert "is not an intact safetensors file: " in damaged(tmp_path, change)


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path):
    safetensors_files.write(tensors(), tmp_path)
    opened = safetensors_files.open_file(tmp_path / FILE)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-2])
    with pytest.raises(UserError, match="is not an intact safetensors file"):
        opened["cube"].whole()


def test_reading_a_large_tensor_in_parts_holds_a_part_of_the_file_in_memory(tmp_path):
    """Files are mapped, and mapped pages count as memory: here 400 MB are read, also by columns, within 200 MB."""
    rows, columns = 100_000, 1000
    shape = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, 4 * rows * columns]}
    header = json.dumps({"kernel": shape}).encode()
    with open(tmp_path / FILE, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * rows * columns)
    code = f"""
import re
from pathlib import Path
from flan_jax.checkpoint.huggingface.safetensors_files import open_file
from flan_jax.checkpoint.leaves import transposed
leaf = open_file(Path({str(tmp_path / FILE)!r}))["kernel"]
def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak_kib()
for kernel in (leaf, transposed(leaf)):
    for index in kernel.blocks(max_bytes=2**26):
        kernel.read(index)
print((peak_kib() - before) / 1024)
"""
    added = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert 64 < float(added) < 200


@pytest.fixture
def sharded(tmp_path):
    """Three files of two tensors, and a function that edits the index and returns the error of opening it."""
    given = {name: from_array(np.full(2, i, np.float32)) for i, name in enumerate("abcdef")}
    safetensors_files.write(given, tmp_path, max_shard_bytes=16)
    path = tmp_path / safetensors_files.INDEX

    def refused(change=lambda index: index, error_type=ValueError) -> str:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        with pytest.raises(error_type) as error:
            safetensors_files.open_sharded(path)
        return str(error.value)

    refused.folder = tmp_path
    return refused


def test_a_missing_shard_is_named_with_its_first_tensor(sharded):
    (sharded.folder / "model-00002-of-00003.safetensors").unlink()
    message = sharded(error_type=FileNotFoundError)
    assert "model-00002-of-00003.safetensors is missing" in message and "for 2 tensors, the first of them c." in message
    (sharded.folder / "model-00003-of-00003.safetensors").unlink()
    assert "1 more of its files are missing" in sharded(error_type=FileNotFoundError)


def test_a_tensor_that_its_shard_lacks_is_named(sharded):
    def change(index):
        index["weight_map"]["aa"] = "model-00001-of-00003.safetensors"
        return index

    assert "Tensor aa is not in" in sharded(change)


def test_a_tensor_that_the_index_does_not_name_is_named(sharded):
    def change(index):
        del index["weight_map"]["d"]
        return index

    assert "Tensor d is in" in sharded(change) and "does not list it there" in sharded(lambda index: index)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": ["a"]}'])
def test_an_index_without_a_table_is_refused(sharded, content):
    assert "is not an index of safetensors files: it has no table 'weight_map'" in sharded(
        lambda index: json.loads(content)
    )


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, '{"weight_map": {}, "weight_map": {"a": "b"}}'])
def test_an_index_that_is_not_a_json_object_is_refused(sharded, content):
    (sharded.folder / safetensors_files.INDEX).write_text(content)
    with pytest.raises(UserError, match=r"index\.json (is not JSON|is a JSON list|has 'weight_map' twice)"):
        safetensors_files.open_sharded(sharded.folder / safetensors_files.INDEX)


def test_an_index_may_name_only_files_in_its_folder(sharded):
    message = sharded(lambda index: {"weight_map": {"a": "../model.safetensors"}})
    assert "has '../model.safetensors' for a; allowed are names of files in the same folder" in message
