import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flan_jax.data.record import encode_record
from flan_jax.tasks.exporting import shards
from flan_jax.tasks.exporting.shards import DiskFull, build, partial_of, publish
from flan_jax.tasks.interface import Encoded


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "CHUNK_EXAMPLES", 2)
    monkeypatch.setattr(shards, "SHARD_EXAMPLES", 4)


class Encode:
    """Numbers to records; 7 is left out; records its input, and stops on request."""

    def __init__(self, *, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def __call__(self, chunk):
        if self.stop_at in chunk:
            raise KeyboardInterrupt
        self.seen += chunk
        kept = [number for number in chunk if number != 7]
        return Encoded(
            records=[encode_record([[number], [1]]) for number in kept],
            lengths=np.array([[number, 1] for number in kept], np.int32).reshape(-1, 2),
            truncated=Counter(inputs=len(kept)),
            dropped=Counter(seven=len(chunk) - len(kept)),
        )


def run(directory, numbers=range(11), *, encode=None, **arguments):
    return build(directory, numbers, encode=encode or Encode(), **arguments)


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def records(directory):
    return {name: content for name, content in files(directory).items() if name.endswith(".array_record")}


def test_totals_count_what_was_kept_cut_and_left_out(tmp_path):
    totals = run(tmp_path / "train")
    assert [counts.examples for counts in totals.shards] == [4, 3, 3]
    assert totals.lengths.tolist() == [[n, 1] for n in range(11) if n != 7]
    assert totals.dropped == {"seven": 1}
    assert totals.truncated == {"inputs": 10}


def test_bytes_do_not_depend_on_the_run(tmp_path):
    for name in ("one", "again"):
        run(tmp_path / name)
    assert files(partial_of(tmp_path / "one")) == files(partial_of(tmp_path / "again"))


@pytest.mark.parametrize("stop_at", [0, 5, 6, 10])
def test_a_killed_build_goes_on_with_the_shards_it_lacks(tmp_path, stop_at):
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", encode=Encode(stop_at=stop_at))
    assert not (tmp_path / "killed").exists()
    resumed = Encode()
    run(tmp_path / "killed", encode=resumed)
    assert resumed.seen == list(range(stop_at // 4 * 4, 11))
    left = {n: c for n, c in files(partial_of(tmp_path / "killed")).items() if not n.endswith(".writing")}
    assert left == files(partial_of(tmp_path / "whole"))


def test_a_build_killed_outright_goes_on_to_the_same_bytes(tmp_path):
    """SIGKILL in the middle of a shard, in a process of its own; then again, one shard further."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from tests.tasks.exporting import test_shards
test_shards.shards.CHUNK_EXAMPLES, test_shards.shards.SHARD_EXAMPLES = 2, 4
class Kill(test_shards.Encode):
    def __call__(self, chunk):
        if int(sys.argv[1]) in chunk:
            os.kill(os.getpid(), 9)
        return super().__call__(chunk)
test_shards.run(Path({str(tmp_path)!r}) / "killed", encode=Kill())
"""
    for number in ("5", "9"):
        assert subprocess.run([sys.executable, "-c", code, number]).returncode == -9
    resumed = Encode()
    run(tmp_path / "killed", encode=resumed)
    run(tmp_path / "whole")
    assert resumed.seen[-3:] == [8, 9, 10]
    assert set(resumed.seen) <= set(range(4, 11))
    left = {n: c for n, c in files(partial_of(tmp_path / "killed")).items() if not n.endswith(".writing")}
    assert left == files(partial_of(tmp_path / "whole"))


@pytest.mark.parametrize("suffix", ["array_record", "json", "npy"])
def test_a_shard_that_lacks_a_part_is_written_again_and_no_other(tmp_path, suffix):
    run(tmp_path / "train")
    before = files(partial_of(tmp_path / "train"))
    (partial_of(tmp_path / "train") / f"examples-00001.{suffix}").unlink()
    again = Encode()
    run(tmp_path / "train", encode=again)
    assert again.seen == [4, 5, 6, 7]
    assert files(partial_of(tmp_path / "train")) == before


def test_an_incomplete_shard_is_written_again(tmp_path):
    run(tmp_path / "train")
    path = partial_of(tmp_path / "train") / "examples-00002.array_record"
    path.write_bytes(path.read_bytes()[:-1])
    again = Encode()
    run(tmp_path / "train", encode=again)
    assert again.seen == [8, 9, 10]


def test_all_examples_are_reported_whether_encoded_or_found(tmp_path):
    for _ in range(2):
        counted = []
        run(tmp_path / "train", on_chunk=counted.append)
        assert counted == [2, 2, 2, 2, 2, 1]


def test_no_examples_make_no_shard(tmp_path):
    totals = run(tmp_path / "train", numbers=[])
    assert totals.shards == ()
    assert totals.lengths.shape == (0, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """A task's manifest with the fields that publishing needs."""

    num_shards: int = 3
    lengths_digest: str = ""

    def shard_name(self, shard):
        return shards.shard_name(shard, self.num_shards)


@pytest.fixture
def manifest(monkeypatch):
    monkeypatch.setattr(shards, "to_json", lambda m: "{}")
    return Manifest()


def test_publication_leaves_shards_lengths_and_manifest_under_their_names(tmp_path, manifest):
    totals = run(tmp_path / "train")
    built = list(records(partial_of(tmp_path / "train")).values())
    publish(tmp_path / "train", manifest, lengths=totals.lengths)
    assert sorted(files(tmp_path / "train")) == [
        "examples-00000-of-00003.array_record",
        "examples-00001-of-00003.array_record",
        "examples-00002-of-00003.array_record",
        "lengths.npy",
        "manifest.json",
    ]
    assert sorted(records(tmp_path / "train").values()) == sorted(built)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_publication_is_repeated(tmp_path, manifest, monkeypatch, after):
    totals = run(tmp_path / "train")
    publish(tmp_path / "train", manifest, lengths=totals.lengths)
    wanted = files(tmp_path / "train")
    (tmp_path / "other").mkdir()
    totals = run(tmp_path / "other" / "train")
    real, done = shards.os.replace, []

    def replace(source, target):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(target)
        real(source, target)

    monkeypatch.setattr(shards.os, "replace", replace)
    if after < 3:
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path / "other" / "train", manifest, lengths=totals.lengths)
        assert not (tmp_path / "other" / "train").exists()
    monkeypatch.setattr(shards.os, "replace", real)
    again = Encode()
    totals = run(tmp_path / "other" / "train", encode=again)
    assert again.seen == []
    publish(tmp_path / "other" / "train", manifest, lengths=totals.lengths)
    assert files(tmp_path / "other" / "train") == wanted


def test_publication_replaces_a_damaged_one(tmp_path, manifest):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "rubbish").write_text("")
    totals = run(tmp_path / "train")
    publish(tmp_path / "train", manifest, lengths=totals.lengths)
    assert "rubbish" not in files(tmp_path / "train")


def test_a_full_disk_is_reported_and_publishes_nothing(tmp_path):
    partial = partial_of(tmp_path / "train")
    partial.mkdir()
    (partial / "examples-00001.writing").symlink_to("/dev/full")  # Every write to it says: no space left on device.
    with pytest.raises(
        DiskFull, match=r"The disk is full: .*train\.partial could not be written .*Nothing was published"
    ):
        run(tmp_path / "train")
    assert not (tmp_path / "train").exists()
    assert (partial / "examples-00000.json").exists()
    (partial / "examples-00001.writing").unlink()
    again = Encode()
    run(tmp_path / "train", encode=again)
    assert again.seen == [4, 5, 6, 7, 8, 9, 10]


def test_a_disk_full_at_the_manifest_publishes_nothing(tmp_path, manifest):
    totals = run(tmp_path / "train")
    (partial_of(tmp_path / "train") / "manifest.json").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=r"The disk is full"):
        publish(tmp_path / "train", manifest, lengths=totals.lengths)
    assert not (tmp_path / "train").exists()


def test_other_errors_of_the_writer_are_not_changed(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(shards, "ArrayRecordWriter", fail)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        run(tmp_path / "train")
