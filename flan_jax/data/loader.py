"""The training feed: a mixture of tasks as an endless, resumable sequence of packed batches.

The sequence is a function of the seed and the position alone. A global batch is the rows of the virtual streams, one
stream after another; a process owns a contiguous share of the streams, so any number of processes reads the same
global batches. The position is a few numbers of JSON. Nothing here runs ahead: `train.placed_feed` does, in a thread.
Evaluation reads through `evaluation_feed`.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from flan_jax.data import features, feed_state, packing
from flan_jax.data.blocks import BlockPlanner, default_block_examples
from flan_jax.data.mixture import Mixture
from flan_jax.data.streams import Position, Streams
from flan_jax.errors import UserError

MAX_DEFAULT_STREAMS = 16
WINDOW_EXAMPLES = 16_384  # Per read, and held in memory: about 20 MB.


class ExampleSource(Protocol):
    """A task's tokenized examples, read by index from any thread."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray:
        """The tokens of each example, int [n, 2]: inputs, targets."""
        ...

    def read(self, indices: Sequence[int] | np.ndarray, /) -> Sequence[features.Example]:
        """Returns the examples with these indices, in this order."""
        ...


Batch = dict[str, np.ndarray]
Stats = dict[str, int]
_Filled = tuple[list[list[features.Example]], dict[int, Position]]


def default_num_streams(batch_size: int) -> int:
    """Returns the largest power of two, at most 16, that divides the batch.

    >>> [default_num_streams(b) for b in (1, 12, 64)]
    [1, 4, 16]
    """
    return min(MAX_DEFAULT_STREAMS, batch_size & -batch_size)


class TrainFeed:
    """An endless iterator over (batch, statistics) with a position.

    The batch holds this process's rows: the eight arrays of `shapes.BATCH_KEYS`. The statistics are integers over
    the same rows: rows, examples, input_tokens, target_tokens.

    Args:
      tasks: The examples of each task.
      rates: The relative rates of the same tasks.
      seed: The seed of the order.
      batch_size: Rows in a global batch.
      lengths: Tokens per row, {"inputs": S, "targets": T}.
      strategy: Which examples share a row; see `packing`.
      num_streams: Virtual streams; divides `batch_size` and is a multiple of `process_count`. None: the largest power
        of two, at most 16, that divides `batch_size`.
      block_examples: Examples that are packed together. None: 1,024, fewer for small mixtures; see `blocks`.
      process_index: Which share of the streams to read.
      process_count: The number of processes that share the streams.

    Raises:
      UserError: Numbers that do not divide, an example that is longer than a row, or a task without examples.
      UnknownNameError: The names of tasks and rates differ.
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
    ):
        self._num_streams = default_num_streams(batch_size) if num_streams is None else num_streams
        _check_division(batch_size, self._num_streams, process_index, process_count)
        sizes = {name: len(task) for name, task in tasks.items()}
        if block_examples is None:
            block_examples = default_block_examples(sum(sizes.values()), self._num_streams)
        self._lengths = {"inputs": int(lengths["inputs"]), "targets": int(lengths["targets"])}
        self._planner = BlockPlanner(
            mixture=Mixture(sizes=sizes, rates=rates, seed=seed, block_examples=block_examples),
            lengths={name: task.lengths for name, task in tasks.items()},
            limits=(self._lengths["inputs"], self._lengths["targets"]),
            strategy=strategy,
        )
        self._tasks = [tasks[name] for name in self._planner.mixture.names]
        share = self._num_streams // process_count
        self._owned = range(process_index * share, (process_index + 1) * share)
        self._rows_per_stream = batch_size // self._num_streams
        # Everything that positions depend on: restoring into a feed that differs in any of it is an error.
        self._identity = {
            "seed": seed,
            "batch_size": batch_size,
            "num_streams": self._num_streams,
            "block_examples": block_examples,
            "lengths": list(self._planner.limits),
            "packing": strategy.__name__,
            "mixture": self._planner.fingerprint,
        }
        # Without packing the arrays are SeqIO's unpacked ones, down to the padding.
        self._is_packed = strategy is not packing.one_per_row
        self._window = 1
        self._go_to({stream: (stream, 0) for stream in self._owned})

    def __iter__(self) -> "TrainFeed":
        return self

    def __next__(self) -> tuple[Batch, Stats]:
        if not self._ready:
            self._ready.extend(self._read_window())
            self._window = min(2 * self._window + self._rows_per_stream, WINDOW_EXAMPLES)
        rows, self._positions = self._ready.popleft()
        examples = [example for row in rows for example in row]
        if self._is_packed:
            batch = features.packed_batch(rows, lengths=self._lengths)
        else:
            batch = features.unpacked_batch(examples, lengths=self._lengths)
        return batch, {
            "rows": len(rows),
            "examples": len(examples),
            "input_tokens": int(np.count_nonzero(batch["encoder_segment_ids"])),
            "target_tokens": int(np.count_nonzero(batch["decoder_segment_ids"])),
        }

    def state(self) -> dict[str, Any]:
        """Returns the position after the last batch, as JSON.

        Streams that other processes own are None; `feed_state.merge` combines the states of all processes.
        """
        positions = [self._positions.get(stream) for stream in range(self._num_streams)]
        streams = [None if position is None else list(position) for position in positions]
        return {"version": feed_state.VERSION, "streams": streams, "feed": dict(self._identity)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Moves to a saved position, whatever the number of processes that saved it.

        Raises:
          UserError: The state is of another version or of another feed, or lacks a stream of this process.
        """
        feed_state.check(state, identity=self._identity, owned=self._owned)
        self._go_to({s: (int(state["streams"][s][0]), int(state["streams"][s][1])) for s in self._owned})

    def _go_to(self, positions: dict[int, Position]) -> None:
        self._streams = Streams(self._planner, num_streams=self._num_streams, owned=self._owned)
        self._streams.positions, self._positions = dict(positions), positions
        self._ready: collections.deque[_Filled] = collections.deque()
        self._window = 1  # Examples per read: few at first, so that the first batch is ready early.

    def _read_window(self) -> list[_Filled]:
        """Reads the examples of the next batches, enough that each task is read from several times in a row.

        A batch of a few hundred examples from thousands of tasks touches as many files, and the page cache of each,
        which takes as long as the reading. A window of thousands costs the same for ten tasks and for two thousand.
        """
        taken, num_examples = [], 0
        while num_examples < self._window:
            rows = self._streams.take(self._rows_per_stream)
            taken.append((rows, dict(self._streams.positions)))
            num_examples += sum(len(numbers) for _, numbers in rows)
        every = [row for rows, _ in taken for row in rows]
        task_ids = np.concatenate([task_ids for task_ids, _ in every])
        examples = iter(self._read(task_ids, np.concatenate([numbers for _, numbers in every])))
        return [([[next(examples) for _ in numbers] for _, numbers in rows], positions) for rows, positions in taken]

    def _read(self, task_ids: np.ndarray, numbers: np.ndarray) -> list[features.Example]:
        """Reads the examples with one call per task, and returns them in the requested order."""
        order = np.argsort(task_ids, kind="stable")
        ids = task_ids[order]
        bounds = [0, *(np.flatnonzero(np.diff(ids, append=-1)) + 1).tolist()]
        tasks, requested = ids[bounds[:-1]].tolist(), numbers[order].tolist()
        read: list[features.Example] = []
        for task, start, end in zip(tasks, bounds, bounds[1:], strict=False):
            read += self._tasks[task].read(requested[start:end])
        examples: list[features.Example] = [((), ())] * len(read)
        for index, example in zip(order.tolist(), read, strict=True):
            examples[index] = example
        return examples


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
