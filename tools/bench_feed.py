"""Measures the training feed: time to the first batch, rows and examples a second, and how full the rows are.

    python tools/bench_feed.py  # 10, 100 and 1,500 tasks
    python tools/bench_feed.py --tasks 100 --batch-size 256 --store memory
    python tools/bench_feed.py --tasks 10 1800 --store array_record --examples 1400000  # The same data in other cuts

Tasks are made up: lengths are log-normal (inputs: median 60 tokens, at most 512; targets: median 12, at most 128),
sizes log-uniform between 200 and 2,000 examples, rates proportional to sizes under a cap of 1,000. "array_record" reads
shards as an export writes them, from a temporary directory; "memory" reads slices of an array, which leaves the feed's
own work. The first batch is counted from the first look at a manifest. "ms/batch" is the processor's time, of all
threads. Fill is the share of real tokens; "of bound" compares the rows with the fewest any packing could need; next-fit
is what SeqIO does.

A mixture of few tasks is also one of little data, which stays in the processor's caches; --examples gives every mixture
the same amount, so that what is compared is the number of tasks.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from rich.console import Console
from rich.table import Table

from flan_jax.data import manifest, packing, record
from flan_jax.data.loader import TrainFeed
from flan_jax.data.rates import proportional_rate
from flan_jax.data.source import ExportedTask
from flan_jax.tasks import shards

LIMITS = (512, 128)
MEDIANS = (60, 12)


class MemoryTask:
    """Examples that are slices of one long array of tokens."""

    def __init__(self, lengths: np.ndarray):
        self.lengths = lengths
        self._tokens = np.random.default_rng(0).integers(2, 32_000, 10_000 + sum(LIMITS)).astype(np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, indices):
        return [self._example(int(i)) for i in indices]

    def _example(self, i: int):
        start, (inputs, targets) = i * 7919 % 10_000, self.lengths[i]
        return self._tokens[start : start + inputs], self._tokens[start + 1 : start + 1 + targets]


def made_up_lengths(num_tasks: int, spread: float, *, examples: int | None = None) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    counts = np.exp(rng.uniform(np.log(200), np.log(2_000), num_tasks)).astype(int)
    if examples is not None:
        counts = np.maximum(1, counts * (examples / counts.sum())).astype(int)
    drawn = (np.array(MEDIANS) * np.exp(spread * rng.standard_normal((count, 2))) for count in counts)
    return [np.clip(np.round(lengths), 1, LIMITS).astype(np.int32) for lengths in drawn]


def exported(task: MemoryTask, directory: Path) -> ExportedTask:
    """Writes a task as the export does, with a manifest that says no more than reading needs."""
    directory.mkdir(parents=True)
    starts = range(0, len(task), shards.SHARD_EXAMPLES)
    paths = [directory / manifest.shard_name(shard, len(starts)) for shard in range(len(starts))]
    sizes = [min(shards.SHARD_EXAMPLES, len(task) - start) for start in starts]
    for path, start, size in zip(paths, starts, sizes, strict=True):
        writer = ArrayRecordWriter(str(path), shards.WRITER_OPTIONS)
        for example in task.read(range(start, start + size)):
            writer.write(record.encode_record(example))
        writer.close()
    np.save(directory / manifest.LENGTHS_NAME, task.lengths)
    about = manifest.TaskManifest(
        task=directory.name,
        split="train",
        cluster="made up",
        fingerprint="",
        identity={},
        lengths=dict(zip(("inputs", "targets"), LIMITS, strict=True)),
        vocabulary=manifest.VocabularyRef(kind="foreign", digest="", size=32_000, eos_id=1),
        num_examples=len(task),
        num_shards=len(paths),
        shard_examples=tuple(sizes),
        shard_bytes=tuple(path.stat().st_size for path in paths),
        tokens={},
        rows_read=len(task),
        dropped={},
        truncated={},
        metrics=(),
        postprocessor=None,
        evaluation="foreign",
        licence="",
    )
    manifest.write(directory / manifest.MANIFEST_NAME, about)
    return ExportedTask(directory)


def next_fit(lengths: np.ndarray, limits: tuple[int, int]) -> packing.Rows:
    """SeqIO's packing: into the open row if there is room, else into a new one."""
    rows: packing.Rows = []
    row: list[int] = []
    room = np.array(limits)
    for i, pair in enumerate(lengths):
        if np.any(pair > room):
            rows.append(np.array(row))
            row, room = [], np.array(limits)
        row.append(i)
        room = room - pair
    return [*rows, np.array(row)]


def measure(tasks, *, batch_size: int, seconds: float) -> dict[str, float]:
    lengths = {"inputs": LIMITS[0], "targets": LIMITS[1]}
    start = time.perf_counter()
    rates = {name: proportional_rate(len(task), maximum=1_000) for name, task in tasks.items()}
    with TrainFeed(tasks, rates, seed=0, batch_size=batch_size, lengths=lengths) as feed:
        next(feed)
        first = time.perf_counter() - start
        warm = time.perf_counter()
        while time.perf_counter() - warm < seconds / 2:  # Files are opened when they are first read from.
            next(feed)
        start, processor, batches, rows, examples = time.perf_counter(), time.process_time(), 0, 0, 0
        while time.perf_counter() - start < seconds:
            batches += 1
            _, stats = next(feed)
            rows, examples = rows + stats["rows"], examples + stats["examples"]
        elapsed, processor = time.perf_counter() - start, time.process_time() - processor
        planner = feed.planner
    ours = planner.sample_fill(num_blocks=16)
    drawn = [planner.mixture.block(number) for number in range(16)]
    drawn_lengths = [planner._lengths_of(block.task_ids, block.rows) for block in drawn]
    start = time.perf_counter()
    for block_lengths in drawn_lengths:
        planner.strategy(block_lengths, LIMITS)
    packer = sum(map(len, drawn_lengths)) / (time.perf_counter() - start)
    together = np.concatenate(drawn_lengths)
    theirs = packing.fill(together, num_rows=len(next_fit(together, LIMITS)), limits=LIMITS)
    return {
        "first": first,
        "batch": processor / batches * 1e3,
        "rows": rows / elapsed,
        "examples": examples / elapsed,
        "packer": packer,
        "inputs": ours.inputs,
        "targets": ours.targets,
        "bound": ours.bound_rows / ours.rows,
        "next_fit": theirs.inputs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 100, 1500])
    parser.add_argument("--store", choices=["memory", "array_record"], nargs="+", default=["memory", "array_record"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--spread", type=float, default=1.0, help="standard deviation of the logarithm of the lengths")
    parser.add_argument("--examples", type=int, help="of all tasks together; unset: as many as the tasks come to")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to read after the first batch")
    given = parser.parse_args()
    table = Table(title=f"{LIMITS[0]}/{LIMITS[1]}, batch {given.batch_size}, spread {given.spread}")
    heads = ("tasks", "store", "first batch s", "ms/batch", "rows/s", "examples/s", "packer examples/s")
    for head in (*heads, "fill inputs", "fill targets", "of bound", "next-fit inputs"):
        table.add_column(head, justify="right")
    for num_tasks in given.tasks:
        drawn = made_up_lengths(num_tasks, given.spread, examples=given.examples)
        memory = {f"task{i:04}": MemoryTask(n) for i, n in enumerate(drawn)}
        for store in given.store:
            with tempfile.TemporaryDirectory() as directory:
                tasks = memory
                if store == "array_record":
                    tasks = {name: exported(task, Path(directory, name)) for name, task in memory.items()}
                got = measure(tasks, batch_size=given.batch_size, seconds=given.seconds)
            speeds = [f"{got[name]:,.0f}" for name in ("rows", "examples", "packer")]
            fills = [f"{got[name]:.3f}" for name in ("inputs", "targets", "bound", "next_fit")]
            table.add_row(str(num_tasks), store, f"{got['first']:.2f}", f"{got['batch']:.2f}", *speeds, *fills)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
