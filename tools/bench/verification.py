"""Measures what verifying costs: of a save, of a restore, and of opening the exports of many tasks.

    python tools/bench/verification.py
    python tools/bench/verification.py --mebibytes=1024 --tasks=1800 --examples=200

Arrays are random, so that compression does not shorten the save. The files are in the page cache, as they are after a
save; when they are read from a disk, its speed decides.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flan_jax.checkpoint import manager, reading, verification
from flan_jax.checkpoint.manager import CheckpointPolicy, Checkpoints
from flan_jax.data import source
from flan_jax.data.manifest import Lengths, TaskManifest, TaskMetadata, VocabularyRef
from flan_jax.data.record import encode_record
from flan_jax.files import sha256_of_bytes
from flan_jax.tasks.exporting import shards
from flan_jax.tasks.interface import Encoded

LENGTHS: Lengths = {"inputs": 128, "targets": 32}


@struct.dataclass
class State:
    step: jax.Array
    params: dict[str, jax.Array]
    opt_state: Any


def best(function: Callable[[], object], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure_save(directory: Path, mebibytes: int, repeats: int) -> None:
    """Asynchronous saves with and without checksums, in turns: what the training loop waits for, and the whole save."""
    keys = jax.random.split(jax.random.key(0), max(1, mebibytes // 32))
    params = {f"kernel_{i}": jax.random.normal(key, (2048, 4096)) for i, key in enumerate(keys)}
    write_digests = manager.write_digests
    waits: dict[bool, list[float]] = {True: [], False: []}
    wholes: dict[bool, list[float]] = {True: [], False: []}
    digests: list[float] = []

    def timed(*arguments: Any, **more: Any) -> None:
        start = time.perf_counter()
        write_digests(*arguments, **more)
        digests.append(time.perf_counter() - start)

    with Checkpoints(directory, policy=CheckpointPolicy(keep=1), metadata={}) as checkpoints:
        for step in range(1, 2 * repeats + 3):
            with_digests = step % 2 == 0
            manager.write_digests = timed if with_digests else lambda *arguments, **more: None
            start = time.perf_counter()
            checkpoints.save(State(jnp.int32(step), params, {}), data_state={})
            waited = time.perf_counter() - start
            checkpoints.wait()
            if step > 2:  # The first save compiles and creates threads.
                waits[with_digests].append(waited)
                wholes[with_digests].append(time.perf_counter() - start)
    manager.write_digests = write_digests
    print(f"save of {mebibytes:,} MiB, {repeats} with and without checksums in turns, medians:")
    for name, seconds in (("the training loop waits", waits), ("until it is on disk", wholes)):
        without, with_them = statistics.median(seconds[False]), statistics.median(seconds[True])
        print(f"  {name}: {without:.3f} s without, {with_them:.3f} s with ({with_them / without - 1:+.1%})")
    share = statistics.median(digests) / statistics.median(wholes[False])
    print(f"  checksums alone: {statistics.median(digests):.3f} s in the writer's thread ({share:.1%} of the save)")
    checkpoint = reading.find(directory)
    write_digests(checkpoint)
    print(f"verifying it before a restore: {best(lambda: verification.damage(checkpoint)):.3f} s")


def measure_exports(directory: Path, tasks: int, examples: int) -> None:
    vocabulary = VocabularyRef(kind="bytes", digest="d" * 64, size=259, eos_id=1)
    lengths = np.full((examples, 2), 8, np.int32)
    pair = encode_record([[5] * 7 + [1]] * 2)

    def encode(chunk: Any) -> Encoded:
        return Encoded(records=[pair] * len(chunk), lengths=lengths[: len(chunk)], truncated={}, dropped={})

    metadata = TaskMetadata(cluster="c", metrics=(), postprocessor=None, evaluation="generate", license="")
    paths = [directory / "tasks" / f"task_{number}" / "train" for number in range(tasks)]
    for number, path in enumerate(paths):
        totals = shards.build(path, range(examples), encode=encode)
        manifest = TaskManifest(
            task=f"task_{number}", split="train", metadata=metadata, fingerprint="f", identity={"text": "x" * 2000},
            lengths=LENGTHS, vocabulary=vocabulary, num_examples=examples, num_shards=len(totals.shards),
            shard_examples=tuple(s.examples for s in totals.shards), shard_bytes=tuple(s.bytes for s in totals.shards),
            tokens={"inputs": 8 * examples, "targets": 8 * examples}, rows_read=examples, dropped={}, truncated={},
        )  # fmt: skip
        shards.publish(path, manifest, lengths=totals.lengths)

    def opened() -> None:
        for path in paths:
            assert source.ExportedTask(path).lengths.shape == (examples, 2)

    contents = [(path / name).read_bytes() for path in paths for name in ("manifest.json", "lengths.npy")]
    verifying = best(lambda: [sha256_of_bytes(content) for content in contents])
    print(f"opening {tasks:,} tasks of {examples:,} examples: {best(opened):.2f} s, of which digests {verifying:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tasks", type=int, default=1800)
    parser.add_argument("--examples", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measure_save(Path(directory) / "checkpoints", given.mebibytes, given.repeats)
        measure_exports(Path(directory), given.tasks, given.examples)


if __name__ == "__main__":
    main()
