"""The training feed: a mixture of tasks as an endless, resumable sequence of packed batches.

The sequence is a function of the seed and the position alone. A global batch is the rows of the virtual streams, one
stream behind another; a process owns a contiguous share of the streams, so any number of processes reads the same
global batches. The position is a few numbers of JSON. Evaluation reads through `evaluation_feed`.
"""

import collections
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from flan_jax.data import features, feed_state, packing
from flan_jax.data.blocks import BlockPlanner, default_block_examples
from flan_jax.data.mixture import Mixture
from flan_jax.data.streams import Position, Streams
from flan_jax.errors import UserError
from flan_jax.prefetch import Prefetcher

MAX_DEFAULT_STREAMS = 16
WINDOW_EXAMPLES = 16_384  # Read together, and held: some 20 MB.


class ExampleSource(Protocol):
    """A task's tokenised examples, read by number from any thread."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int [n, 2]: inputs, targets."""
        ...

    def read(self, indices: Sequence[int] | np.ndarray, /) -> Sequence[features.Example]:
        """Returns the examples of these numbers, in this order."""
        ...


Batch = dict[str, np.ndarray]
Stats = dict[str, int]
_Made = tuple[Batch, Stats, np.ndarray, dict[int, Position]]
_Filled = tuple[list[list[features.Example]], np.ndarray, dict[int, Position]]


def default_num_streams(batch_size: int) -> int:
    """Returns the largest power of two, at most 16, that divides the batch.

    >>> [default_num_streams(b) for b in (1, 12, 64)]
    [1, 4, 16]
    """
    return min(MAX_DEFAULT_STREAMS, batch_size & -batch_size)


class TrainFeed:
    """Iterates over (batch, statistics) for ever; a context manager, or call `close`.

    The batch holds this process's rows: the eight arrays of `shapes.BATCH_KEYS`. The statistics are integers over
    the same rows: rows, examples, input_tokens, target_tokens.

    Args:
      tasks: the examples of each task.
      rates: relative rates of the same tasks.
      seed: chooses the order.
      batch_size: rows in a global batch.
      lengths: tokens of a row, {"inputs": S, "targets": T}.
      strategy: which examples share a row; see `packing`.
      num_streams: virtual streams; divides `batch_size` and is divided by `process_count`. None: the largest power of
        two, at most 16, that divides `batch_size`.
      block_examples: examples packed together. None: 1,024, fewer for small mixtures; see `blocks`.
      process_index: which share of the streams to read.
      process_count: processes that share the streams.
      prefetch_batches: batches made ahead, in a thread.

    Raises:
      UserError: numbers that do not divide, an example longer than a row, a task without examples.
      UnknownNameError: tasks and rates that do not match.
    """

    def __init__(
        self,
        tasks: Mapping[str, ExampleSource],
        rates: Mapping[str, float],
        *,
        seed: int,
        batch_size: int,
        lengths: Mapping[str, int],
        strategy: packing.Strategy = packing.bin_centred,
        num_streams: int | None = None,
        block_examples: int | None = None,
        process_index: int = 0,
        process_count: int = 1,
        prefetch_batches: int = 2,
    ):
        self._num_streams = default_num_streams(batch_size) if num_streams is None else num_streams
        _check_division(batch_size, self._num_streams, process_index, process_count)
        if prefetch_batches < 1:
            raise UserError(f"prefetch_batches must be at least 1; got {prefetch_batches}.")
        sizes = {name: len(task) for name, task in tasks.items()}
        if block_examples is None:
            block_examples = default_block_examples(sum(sizes.values()), self._num_streams)
        self._tasks = tasks
        self._lengths = {"inputs": int(lengths["inputs"]), "targets": int(lengths["targets"])}
        self._planner = BlockPlanner(
            mixture=Mixture(sizes=sizes, rates=rates, seed=seed, block_examples=block_examples),
            lengths={name: task.lengths for name, task in tasks.items()},
            limits=(self._lengths["inputs"], self._lengths["targets"]),
            strategy=strategy,
        )
        share = self._num_streams // process_count
        self._owned = range(process_index * share, (process_index + 1) * share)
        self._rows_per_stream = batch_size // self._num_streams
        self._identity = {
            "seed": seed,
            "batch_size": batch_size,
            "num_streams": self._num_streams,
            "block_examples": block_examples,
            "lengths": list(self._planner.limits),
            "packing": strategy.__name__,
            "mixture": self._planner.fingerprint,
        }
        self._prefetch_batches = prefetch_batches
        self._drawn = np.zeros(len(self._planner.mixture.names), np.int64)
        self._closed = False
        self._start({stream: (stream, 0) for stream in self._owned})

    @property
    def planner(self) -> BlockPlanner:
        """What draws and packs; knows how full rows get (`sample_fill`)."""
        return self._planner

    @property
    def examples_drawn(self) -> dict[str, int]:
        """Examples of each task in the batches that this object has returned: the realised shares of this process."""
        return dict(zip(self._planner.mixture.names, self._drawn.tolist(), strict=True))

    def __iter__(self) -> "TrainFeed":
        return self

    def __next__(self) -> tuple[Batch, Stats]:
        assert not self._closed, "This feed is closed."
        batch, stats, drawn, positions = self._batches.get()
        self._positions = positions
        self._drawn += drawn
        return batch, stats

    def state(self) -> dict[str, Any]:
        """Returns the position behind the last batch returned, as JSON; batches made ahead do not count.

        Streams that other processes own are None; `feed_state.merge` puts the processes' states together.
        """
        streams = [self._positions.get(stream) for stream in range(self._num_streams)]
        shown = [None if position is None else list(position) for position in streams]
        return {"version": feed_state.VERSION, "streams": shown, "feed": dict(self._identity)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a saved position, forwards or back, whatever the number of processes that saved it.

        Raises:
          UserError: the state is of another version or of another feed, or lacks a stream of this process.
        """
        feed_state.check(state, identity=self._identity, owned=self._owned)
        self._stop()
        self._drawn[:] = 0
        self._start({s: (int(state["streams"][s][0]), int(state["streams"][s][1])) for s in self._owned})

    def close(self) -> None:
        """Ends the feed's thread; closing twice does no harm."""
        self._closed = True
        self._stop()

    def __enter__(self) -> "TrainFeed":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self, positions: dict[int, Position]) -> None:
        streams = Streams(self._planner, num_streams=self._num_streams, owned=self._owned)
        streams.positions, self._positions = dict(positions), positions
        maker = _BatchMaker(self._tasks, self._planner, streams, self._rows_per_stream, self._lengths)
        self._batches: Prefetcher[_Made] = Prefetcher(maker.next_batch, size=self._prefetch_batches)
        # A feed that is forgotten, or alive when the interpreter ends, still ends its thread.
        self._stop = weakref.finalize(self, self._batches.close)


class _BatchMaker:
    """Reads the tokens of the next rows; runs in the prefetching thread, and so knows nothing of the feed itself."""

    def __init__(
        self,
        tasks: Mapping[str, ExampleSource],
        planner: BlockPlanner,
        streams: Streams,
        rows_per_stream: int,
        lengths: features.Lengths,
    ):
        self._tasks = [tasks[name] for name in planner.mixture.names]
        self._streams = streams
        self._rows_per_stream = rows_per_stream
        self._lengths = lengths
        # Without packing the arrays are SeqIO's unpacked ones, to the last padding.
        self._packed = planner.strategy is not packing.one_per_row
        self._ready: collections.deque[_Filled] = collections.deque()
        self._window = 1  # Examples to read together: few at first, so that the first batch comes soon.

    def next_batch(self) -> _Made:
        """Returns a batch, its statistics, its examples per task and the position behind it."""
        if not self._ready:
            self._ready.extend(self._read_window())
            self._window = min(2 * self._window + self._rows_per_stream, WINDOW_EXAMPLES)
        filled, task_ids, positions = self._ready.popleft()
        if self._packed:
            batch = features.packed_batch(filled, lengths=self._lengths)
        else:
            batch = features.unpacked_batch([example for row in filled for example in row], lengths=self._lengths)
        stats = {
            "rows": len(filled),
            "examples": len(task_ids),
            "input_tokens": int(np.count_nonzero(batch["encoder_segment_ids"])),
            "target_tokens": int(np.count_nonzero(batch["decoder_segment_ids"])),
        }
        drawn = np.bincount(task_ids, minlength=len(self._tasks))
        return batch, stats, drawn, positions

    def _read_window(self) -> list[_Filled]:
        """Reads the next batches' examples, so many that a task is read from several times in a row.

        A batch of some hundred examples of thousands of tasks touches as many files, and each one's memory anew, which
        takes as long as reading. A window of thousands costs the same for ten tasks and for two thousand.
        """
        taken, num_examples = [], 0
        while num_examples < self._window:
            rows = self._streams.take(self._rows_per_stream)
            taken.append((rows, dict(self._streams.positions)))
            num_examples += sum(len(numbers) for _, numbers in rows)
        every = [row for rows, _ in taken for row in rows]
        task_ids = np.concatenate([task_ids for task_ids, _ in every])
        examples = iter(self._read(task_ids, np.concatenate([numbers for _, numbers in every])))
        return [
            (
                [[next(examples) for _ in numbers] for _, numbers in rows],
                np.concatenate([task_ids for task_ids, _ in rows]),
                positions,
            )
            for rows, positions in taken
        ]

    def _read(self, task_ids: np.ndarray, numbers: np.ndarray) -> list[features.Example]:
        """Reads the examples with one call a task, and returns them in the order asked for."""
        order = np.argsort(task_ids, kind="stable")
        ids = task_ids[order]
        bounds = [0, *(np.flatnonzero(np.diff(ids, append=-1)) + 1).tolist()]
        tasks, wanted = ids[bounds[:-1]].tolist(), numbers[order].tolist()
        read: list[features.Example] = []
        for task, start, end in zip(tasks, bounds, bounds[1:], strict=False):
            read += self._tasks[task].read(wanted[start:end])
        examples: list[features.Example] = [((), ())] * len(read)
        for place, example in zip(order.tolist(), read, strict=True):
            examples[place] = example
        return examples


def packed_and_unpacked(
    examples: Sequence[features.Example],
    *,
    lengths: features.Lengths,
    strategy: packing.Strategy = packing.bin_centred,
) -> tuple[Batch, Batch]:
    """Returns one batch that packs the examples and one that gives each a row of its own, for comparing the two."""
    sizes = np.array([[len(inputs), len(targets)] for inputs, targets in examples])
    rows = strategy(sizes, (lengths["inputs"], lengths["targets"]))
    packed = features.packed_batch([[examples[i] for i in row] for row in rows], lengths=lengths)
    return packed, features.unpacked_batch(examples, lengths=lengths)


def _check_division(batch_size: int, num_streams: int, process_index: int, process_count: int) -> None:
    if batch_size < 1 or num_streams < 1 or batch_size % num_streams:
        raise UserError(
            f"A batch of {batch_size} rows does not divide over {num_streams} streams; choose num_streams so that it "
            f"divides the batch (the default is {default_num_streams(max(1, batch_size))})."
        )
    if process_count < 1 or num_streams % process_count:
        raise UserError(
            f"{num_streams} streams do not divide over {process_count} processes; set num_streams, and with it the "
            f"batch of {batch_size} rows, to a multiple of {process_count}."
        )
    assert 0 <= process_index < process_count, (process_index, process_count)
