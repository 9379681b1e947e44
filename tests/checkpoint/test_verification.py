"""Checksums of files: what they detect."""

import numpy as np
import pytest

from flan_jax.checkpoint.verification import DIGESTS_NAME, damage, require_intact, write_digests
from flan_jax.paths import BucketPath


@pytest.fixture
def directory(tmp_path):
    """A folder of three files, one of them longer than a buffer and no multiple of a block."""
    folder = tmp_path / "checkpoint"
    (folder / "params").mkdir(parents=True)
    (folder / "params" / "large").write_bytes(np.random.default_rng(0).bytes(2**21 + 4099))
    (folder / "params" / "small").write_bytes(b"abc")
    (folder / "empty").write_bytes(b"")
    write_digests(folder)
    return folder


def test_unchanged_files_are_intact_and_others_may_be_added(directory):
    (directory / "notes.txt").write_text("mine")
    assert damage(directory) == ""


@pytest.mark.parametrize("position", [0, 4095, 4096, 2**20 - 1, 2**20, 2**21 + 4098])
@pytest.mark.parametrize("bit", [1, 128])
def test_a_flipped_bit_anywhere_is_found(directory, position, bit):
    file = directory / "params" / "large"
    content = bytearray(file.read_bytes())
    content[position] ^= bit
    file.write_bytes(content)
    assert damage(directory) == "params/large was changed"


def swapped(content):
    return content[4096:8192] + content[:4096] + content[8192:]


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: b"", swapped, lambda c: c[8:] + c[:8]]
)
def test_other_changes_are_found(directory, change):
    file = directory / "params" / "large"
    file.write_bytes(change(file.read_bytes()))
    assert damage(directory).startswith("params/large ")


@pytest.mark.parametrize("name", ["empty", "params/small"])
def test_a_missing_or_longer_file_is_named(directory, name):
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content + b"x")
    assert damage(directory) == f"{name} has {len(content) + 1} bytes, {len(content)} were written"
    (directory / name).unlink()
    assert damage(directory) == f"{name} is missing"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda file: None, ""),
        (lambda file: file.write_bytes(file.read_bytes() + b"\0"), "params/small has 4 bytes, 3 were written"),
        (lambda file: file.write_bytes(b"abd"), "params/small was changed"),
        (lambda file: file.unlink(), "params/small is missing"),
    ],
)
def test_objects_of_a_bucket_are_compared_as_files_are(directory, change, fault):
    change(directory / "params" / "small")
    assert damage(BucketPath(root={"driver": "file", "path": f"{directory.parent}/"}, path=directory.name)) == fault


@pytest.mark.parametrize(
    "change", [lambda text: text.replace('"bytes": 3', '"bytes": 4'), lambda text: "", lambda text: "{"]
)
def test_changed_digests_are_found(directory, change):
    file = directory / DIGESTS_NAME
    file.write_text(change(file.read_text()))
    assert damage(directory) == f"{DIGESTS_NAME} was changed"
    with pytest.raises(
        ValueError, match="is damaged: digests.json was changed. Copy it again. .* delete .*digests.json"
    ):
        require_intact(directory)
    file.unlink()
    require_intact(directory)  # Written by another program.
