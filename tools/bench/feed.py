"""Measures the training feed against SeqIO's: time to the first batch, rows and tokens per second, memory, and fill.

    python tools/bench/feed.py  # 10, 100 and 1,500 tasks
    python tools/bench/feed.py --tasks 10 --feeds array_record seqio
    python tools/bench/feed.py --tasks 10 1800 --feeds array_record --examples 1400000  # the same data in more tasks
    python tools/bench/feed.py --export EXPORT_DIR/tasks --limits 1024 128  # only how full rows of real tasks get

Tasks are synthetic: lengths are log-normal (inputs: median 60 tokens, at most 512; targets: median 12, at most 128),
sizes log-uniform between 200 and 2,000 examples, rates proportional to sizes under a cap of 1,000. "array_record" reads
shards as an export writes them, from a temporary directory. "memory" reads slices of an array, which isolates the
feed's own work. "seqio" is `seqio.get_dataset` with `EncDecFeatureConverter(pack=True)` over the same tokenized
examples in TFRecord files, at the same rates.

Each feed has its own process. They take turns: one delivers batches for some seconds while the others wait with full
buffers. The table shows medians and, in parentheses, the range. The time to the first batch starts when the example
files are known and excludes imports. "ms/batch" is processor time of all threads; memory is the peak of the process.
Fill is the share of non-padding tokens in the rows.

A mixture of few tasks is also a mixture of little data, which stays in the processor's caches. --examples gives every
mixture the same amount of data, so that only the number of tasks differs.

The second table measures packing alone, in blocks as in the feed: the fill of both sides, and the bounds given by
max(sum of inputs / S, sum of targets / T) rows and by `least_rows`. Next-fit is SeqIO's algorithm.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flan_jax.data import manifest, packing, record
from flan_jax.data.loader import TrainFeed
from flan_jax.data.rates import proportional_rate
from flan_jax.data.source import ExportedTask

LIMITS = (512, 128)
MEDIANS = (60, 12)
VOCABULARY_SIZE = 32_000
STRATEGIES = {
    strategy.__name__: strategy for strategy in (packing.bin_centered, packing.fewest_rows, packing.one_per_row)
}
LENGTHS = {"inputs": LIMITS[0], "targets": LIMITS[1]}


class MemoryTask:
    """Examples that are slices of one long array of tokens."""

    def __init__(self, lengths: np.ndarray):
        self.lengths = lengths
        tokens = np.random.default_rng(0).integers(2, VOCABULARY_SIZE, 10_000 + sum(LIMITS))
        self._tokens = tokens.astype(np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, indices):
        return [self._example(int(i)) for i in indices]

    def _example(self, i: int):
        start, (inputs, targets) = i * 7919 % 10_000, self.lengths[i]
        return self._tokens[start : start + inputs], self._tokens[start + 1 : start + 1 + targets]


def made_up_tasks(num_tasks: int, *, spread: float, examples: int | None) -> dict[str, MemoryTask]:
    rng = np.random.default_rng(0)
    counts = np.exp(rng.uniform(np.log(200), np.log(2_000), num_tasks)).astype(int)
    if examples is not None:
        counts = np.maximum(1, counts * (examples / counts.sum())).astype(int)
    return {f"task{i:04}": MemoryTask(log_normal(rng, count, spread=spread)) for i, count in enumerate(counts)}


def log_normal(rng: np.random.Generator, count: int, *, spread: float) -> np.ndarray:
    drawn = np.array(MEDIANS) * np.exp(spread * rng.standard_normal((count, 2)))
    return np.clip(np.round(drawn), 1, LIMITS).astype(np.int32)


def write_export(task: MemoryTask, directory: Path) -> None:
    """Writes a task as the export does, with a manifest that says no more than reading needs."""
    from array_record.python.array_record_module import ArrayRecordWriter

    from flan_jax.tasks.exporting import shards

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
        metadata=manifest.TaskMetadata(
            cluster="synthetic", metrics=(), postprocessor=None, evaluation="external", license=""
        ),
        fingerprint="",
        identity={},
        lengths=LENGTHS,
        vocabulary=manifest.VocabularyRef(kind="external", digest="", size=VOCABULARY_SIZE, eos_id=1),
        num_examples=len(task),
        num_shards=len(paths),
        shard_examples=tuple(sizes),
        shard_bytes=tuple(path.stat().st_size for path in paths),
        tokens={},
        rows_read=len(task),
        dropped={},
        truncated={},
    )
    manifest.write(directory / manifest.MANIFEST_NAME, about)


def write_tfrecords(tasks: Mapping[str, MemoryTask], directory: Path) -> None:
    """Writes what SeqIO calls a cached task: token ids in TFRecord files."""
    import tensorflow as tf

    def ids(values: np.ndarray) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values.tolist()))

    for name, task in tasks.items():
        with tf.io.TFRecordWriter(str(directory / f"{name}.tfrecord")) as writer:
            for inputs, targets in task.read(range(len(task))):
                features = tf.train.Features(feature={"inputs": ids(inputs), "targets": ids(targets)})
                writer.write(tf.train.Example(features=features).SerializeToString())


@contextlib.contextmanager
def our_batches(given: argparse.Namespace) -> Iterator[Iterator[Mapping[str, np.ndarray]]]:
    if given.feed == "memory":
        tasks: dict[str, Any] = dict(made_up_tasks(given.num_tasks, spread=given.spread, examples=given.examples))
    else:
        tasks = {place.name: ExportedTask(place) for place in sorted(given.directory.iterdir())}
    rates = {name: proportional_rate(len(task), maximum=1_000) for name, task in tasks.items()}
    feed = TrainFeed(
        tasks, rates, seed=0, batch_size=given.batch_size, lengths=LENGTHS, strategy=STRATEGIES[given.packing]
    )
    yield (batch for batch, _ in feed)


@contextlib.contextmanager
def seqio_batches(given: argparse.Namespace) -> Iterator[Iterator[Mapping[str, np.ndarray]]]:
    """SeqIO's own path from tokenized files to packed batches, as T5X calls it."""
    import seqio
    import tensorflow as tf

    vocabulary = seqio.PassThroughVocabulary(VOCABULARY_SIZE, eos_id=1)
    sequence = tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)
    rates = json.loads((given.directory / "rates.json").read_text())
    for name in rates:
        seqio.TaskRegistry.add(
            name,
            source=seqio.TFExampleDataSource(
                {"train": str(given.directory / f"{name}.tfrecord")}, {"inputs": sequence, "targets": sequence}
            ),
            preprocessors=[seqio.map_over_dataset(_as_int32)],
            output_features={side: seqio.Feature(vocabulary, add_eos=False) for side in LENGTHS},
        )
    seqio.MixtureRegistry.add("mixture", list(rates.items()))
    dataset = seqio.get_dataset(
        "mixture",
        LENGTHS,
        seqio.EncDecFeatureConverter(pack=True),
        shuffle=True,
        num_epochs=None,
        seed=0,
        batch_size=given.batch_size,
        verbose=False,
    )
    yield iter(dataset.as_numpy_iterator())


def _as_int32(example):
    import tensorflow as tf

    return {side: tf.cast(tokens, tf.int32) for side, tokens in example.items()}


FEEDS = {"memory": our_batches, "array_record": our_batches, "seqio": seqio_batches}


def contend(given: argparse.Namespace) -> None:
    """A feed's own process: a line of seconds comes in, a line of figures goes out."""
    answers, sys.stdout = sys.stdout, sys.stderr
    if given.feed == "seqio":
        import seqio  # noqa: F401  (not counted)
    start = time.perf_counter()
    with FEEDS[given.feed](given) as batches:
        next(batches)
        measured = {"first": time.perf_counter() - start}
        print(json.dumps(measured), file=answers, flush=True)
        for line in sys.stdin:
            measured = turn(batches, seconds=float(line))
            print(json.dumps(measured), file=answers, flush=True)
        os._exit(0)  # TensorFlow's threads take their time.


def turn(batches: Iterator[Mapping[str, np.ndarray]], *, seconds: float) -> dict[str, float]:
    start, processor = time.perf_counter(), time.process_time()
    count, rows, sums = 0, 0, dict.fromkeys(("inputs", "targets", "examples"), 0)
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        count, rows = count + 1, rows + len(batch["encoder_segment_ids"])
        sums["inputs"] += np.count_nonzero(batch["encoder_segment_ids"])
        sums["targets"] += np.count_nonzero(batch["decoder_segment_ids"])
        sums["examples"] += int(batch["decoder_segment_ids"].max(axis=1).sum())
    elapsed, processor = time.perf_counter() - start, time.process_time() - processor
    return {
        "rows": rows / elapsed,
        "examples": sums["examples"] / elapsed,
        "tokens": (sums["inputs"] + sums["targets"]) / elapsed,
        "batch": processor / count * 1e3,
        "fill_inputs": sums["inputs"] / rows / LIMITS[0],
        "fill_targets": sums["targets"] / rows / LIMITS[1],
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


class Contender:
    """A feed in a separate process that delivers batches on request."""

    def __init__(self, feed: str, num_tasks: int, directory: Path, given: argparse.Namespace):
        self.feed, self.num_tasks = feed, num_tasks
        command = [
            sys.executable,
            __file__,
            "--feed",
            feed,
            "--num_tasks",
            str(num_tasks),
            "--directory",
            str(directory),
        ]
        for option in ("batch_size", "spread", "examples", "packing"):
            if getattr(given, option) is not None:
                command += [f"--{option}", str(getattr(given, option))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self._answer()["first"]
        self.turns: list[dict[str, float]] = []

    def take_turn(self, seconds: float) -> dict[str, float]:
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The feed {self.feed} of {self.num_tasks} tasks has ended: {self._process.wait()}.")
        return json.loads(line)


def written(feed: str, num_tasks: int, place: Path, given: argparse.Namespace) -> Path:
    """Writes what a feed reads."""
    tasks = made_up_tasks(num_tasks, spread=given.spread, examples=given.examples)
    directory = place / f"{feed}_{num_tasks}"
    directory.mkdir()
    if feed == "array_record":
        for name, task in tasks.items():
            write_export(task, directory / name)
    elif feed == "seqio":
        write_tfrecords(tasks, directory)
        rates = {name: proportional_rate(len(task), maximum=1_000) for name, task in tasks.items()}
        (directory / "rates.json").write_text(json.dumps(rates))
    return directory


def measure(given: argparse.Namespace) -> Table:
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        places = [
            (feed, count, written(feed, count, Path(temporary), given)) for count in given.tasks for feed in given.feeds
        ]
        contenders = []
        for feed, count, directory in places:
            contenders.append(Contender(feed, count, directory, given))
            stack.callback(contenders[-1].close)
        for contender in contenders:
            contender.take_turn(given.seconds)  # Files are opened when they are first read from.
        for _ in range(given.repeats):
            for contender in contenders:
                contender.turns.append(contender.take_turn(given.seconds))
    title = f"{LIMITS[0]}/{LIMITS[1]}, batch {given.batch_size}, spread {given.spread}, packing {given.packing}"
    table = Table(title=title)
    heads = ("tasks", "feed", "first batch s", "rows/s", "examples/s", "tokens/s", "ms/batch", "peak GB")
    for head in (*heads, "fill inputs", "fill targets"):
        table.add_column(head, justify="right")
    for contender in contenders:
        rows = sorted(one["rows"] for one in contender.turns)
        got = {name: statistics.median(one[name] for one in contender.turns) for name in contender.turns[0]}
        table.add_row(
            str(contender.num_tasks),
            contender.feed,
            f"{contender.first:.2f}",
            f"{got['rows']:,.0f} ({rows[0]:,.0f}-{rows[-1]:,.0f})",
            *(f"{got[name]:,.0f}" for name in ("examples", "tokens")),
            f"{got['batch']:.2f}",
            f"{got['gigabytes']:.2f}",
            *(f"{got[name]:.3f}" for name in ("fill_inputs", "fill_targets")),
        )
    return table


def least_rows(lengths: np.ndarray, limits: tuple[int, int]) -> float:
    """Returns a number of rows that every packing needs at least.

    Pairs that leave less than e of one side's room share no row with each other, nor with one that takes e or more: each
    needs its own row, in addition to what the others need on either side. The largest such count over e is returned.
    """
    shares = lengths / np.array(limits)
    least = float(shares.sum(axis=0).max())
    for side, limit in enumerate(limits):
        order = np.argsort(lengths[:, side], kind="stable")
        sizes = lengths[order, side].astype(np.int64)
        thresholds = np.unique(sizes[(sizes > 0) & (2 * sizes <= limit)])
        middle = np.searchsorted(sizes, thresholds, side="left")
        large = np.searchsorted(sizes, limit - thresholds, side="right")
        for counted in (0, 1):
            before = np.concatenate([[0.0], np.cumsum(shares[order, counted])])
            rows = len(sizes) - large + before[large] - before[middle]
            least = max(least, float(rows.max(initial=0.0)))
    return least


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


def fills(given: argparse.Namespace) -> Table:
    """Every strategy in blocks of each size, on lengths drawn alike."""
    limits = tuple(given.limits)
    if given.export:
        found = [np.load(path) for path in sorted(given.export.glob(f"*/train/{manifest.LENGTHS_NAME}"))]
        drawn = np.minimum(np.concatenate([lengths[: given.cap] for lengths in found]), limits).astype(np.int64)
        what = f"{len(found):,} exported tasks"
    else:
        drawn = log_normal(np.random.default_rng(0), 65_536, spread=given.spread).astype(np.int64)
        what = f"log-normal lengths of spread {given.spread}"
    shuffled = drawn[np.random.default_rng(1).permutation(len(drawn))][:16_384]
    table = Table(title=f"{what} in {limits[0]}/{limits[1]}: {len(shuffled):,} examples")
    for head in ("packing", "block", "fill inputs", "fill targets", "most by sums", "most by least_rows", "examples/s"):
        table.add_column(head, justify="right")
    for block in given.blocks:
        blocks = [shuffled[start : start + block] for start in range(0, len(shuffled), block)]
        shares = shuffled.sum(axis=0) / np.array(limits)
        least = sum(least_rows(one, limits) for one in blocks)
        for name, strategy in {"next-fit": next_fit, **STRATEGIES}.items():
            start = time.process_time()
            num_rows = sum(len(strategy(one, limits)) for one in blocks)
            speed = len(shuffled) / (time.process_time() - start)
            most = (f"{shares.max() / rows:.3f}" for rows in (shares.max(), least))
            table.add_row(name, f"{block:,}", *(f"{share / num_rows:.3f}" for share in shares), *most, f"{speed:,.0f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 100, 1500])
    parser.add_argument("--feeds", choices=FEEDS, nargs="+", default=["memory", "array_record"])
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--packing", choices=STRATEGIES, default="bin_centered")
    parser.add_argument("--spread", type=float, default=1.0, help="standard deviation of the logarithm of the lengths")
    parser.add_argument("--examples", type=int, help="of all tasks together; unset: as many as the tasks come to")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument(
        "--repeats", type=int, default=5, help="turns that each feed takes, after one that is not counted"
    )
    parser.add_argument("--fill", action="store_true", help="the second table, of synthetic lengths")
    parser.add_argument("--export", type=Path, help="the folder tasks/ of an export: the second table, of its lengths")
    parser.add_argument("--limits", type=int, nargs=2, default=LIMITS, help="tokens of a row, for the second table")
    parser.add_argument("--blocks", type=int, nargs="+", default=[1024], help="examples packed together, for it")
    parser.add_argument("--cap", type=int, default=100, help="examples of a task, for it")
    for hidden, kind in {"feed": str, "num_tasks": int, "directory": Path}.items():
        parser.add_argument(f"--{hidden}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.feed:
        contend(given)
        return
    console = Console(width=150)
    console.print(fills(given) if given.fill or given.export else measure(given))
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "seqio", "tensorflow")]
    console.print(f"{', '.join(packages)}; {os.cpu_count()} processors; {' '.join(sys.argv)}", soft_wrap=True)


if __name__ == "__main__":
    main()
