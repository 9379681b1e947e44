"""The training feed: a mixture of tasks as an endless, resumable sequence of packed batches.

The sequence is a function of the seed and the position alone: the rows of block 0, of block 1, and so on, of which each
batch is the next `batch_size`. Every process plans all blocks, which takes no tokens, and reads the tokens of its share
of each batch, so any number of processes reads the same global batches. The position is two numbers, the block and
the row in it that comes next; a row just past the block's last means the next block. Nothing here runs ahead:
`train.placed_feed` does, in a thread.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from flan_jax.data import features, packing
from flan_jax.data.blocks import BlockPlan, BlockPlanner
from flan_jax.data.mixture import Mixture
from flan_jax.errors import UserError

# Increased when a position comes to mean other rows, also because of another packing or order.
STATE_VERSION = 2
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
Position = tuple[int, int]


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
      process_index: Which share of each batch's rows to read.
      process_count: The number of processes that share each batch; divides `batch_size`.

    Raises:
      UserError: A batch that does not divide, an example that is longer than a row, or a task without examples.
    """

    def __init__(
        self,
        tasks: Mapping[str, ExampleSource],
        rates: Mapping[str, float],
        *,
        seed: int,
        batch_size: int,
        lengths: Mapping[str, int],
        strategy: packing.Strategy = packing.bin_centered,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if batch_size < 1 or batch_size % process_count:
            raise UserError(
                f"A batch of {batch_size} rows does not divide over {process_count} processes; set BATCH_SIZE to a "
                f"multiple of {process_count}."
            )
        assert 0 <= process_index < process_count, (process_index, process_count)
        self._batch_size = batch_size
        share = batch_size // process_count
        # Contiguous, as are the rows of a global batch on the devices of one process.
        self._owned = slice(process_index * share, (process_index + 1) * share)
        sizes = {name: len(task) for name, task in tasks.items()}
        self._lengths = {"inputs": int(lengths["inputs"]), "targets": int(lengths["targets"])}
        self._planner = BlockPlanner(
            mixture=Mixture(sizes=sizes, rates=rates, seed=seed),
            lengths={name: task.lengths for name, task in tasks.items()},
            limits=(self._lengths["inputs"], self._lengths["targets"]),
            strategy=strategy,
        )
        self._tasks = [tasks[name] for name in self._planner.mixture.names]
        # Everything that positions depend on: restoring into a feed that differs in any of it is an error.
        self._identity = {
            "seed": seed,
            "lengths": list(self._planner.limits),
            "packing": strategy.__name__,  # Not the batch size: a position is a row, whatever batches it is read in.
            "mixture": self._planner.fingerprint,
        }
        # Without packing the arrays are SeqIO's unpacked ones, down to the padding.
        self._is_packed = strategy is not packing.one_per_row
        self._go_to((0, 0))

    _window: int

    def __iter__(self) -> "TrainFeed":
        return self

    def __next__(self) -> tuple[Batch, Stats]:
        if not self._ready:
            self._ready.extend(self._read_window())
            self._window = min(2 * self._window + self._batch_size, WINDOW_EXAMPLES)
        # The position moves with the batch that is returned, not with the window that was read.
        rows, self._position = self._ready.popleft()
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

    def epoch_lines(self, *, steps: int) -> list[str]:
        """Describes for a person the epochs of each task in so many steps; see `Mixture.epoch_lines`."""
        return self._planner.mixture.epoch_lines(
            steps=steps, examples_per_row=self._planner.examples_per_row, batch_size=self._batch_size
        )

    def state(self) -> dict[str, Any]:
        """Returns the position after the last batch, as JSON; it is the same in every process."""
        block, row = self._position
        return {"version": STATE_VERSION, "block": block, "row": row, "feed": dict(self._identity)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Moves to a saved position, whatever the number of processes that saved it.

        Raises:
          UserError: The state is of another version or of another feed.
        """
        if state.get("version") != STATE_VERSION:
            raise UserError(
                f"The saved data position has version {state.get('version')!r}; this program reads version "
                f"{STATE_VERSION}. Start a new run directory."
            )
        saved = state["feed"]
        differing = [name for name, value in self._identity.items() if saved.get(name) != value]
        if differing:
            shown = "; ".join(f"{name} was {saved.get(name)!r} and is {self._identity[name]!r}" for name in differing)
            raise UserError(
                f"The saved data position belongs to another feed: {shown}. Restore the values of the run that saved "
                "it, or start a new run directory."
            )
        self._go_to((int(state["block"]), int(state["row"])))

    def _go_to(self, position: Position) -> None:
        self._position, self._planned_position = position, position
        self._plan: tuple[int, BlockPlan] | None = None  # The block of `_planned_position`, once it is needed.
        self._ready: collections.deque[tuple[list[list[features.Example]], Position]] = collections.deque()
        self._window = 1  # Examples per read: few at first, so that the first batch is ready early.

    def _take_rows(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns this process's rows of the next batch to read: (task ids, example numbers)."""
        block, row = self._planned_position
        batch: list[tuple[BlockPlan, int]] = []
        while True:
            if self._plan is None or self._plan[0] != block:
                self._plan = block, self._planner.plan(block)
            plan = self._plan[1]
            until = min(row + self._batch_size - len(batch), plan.num_rows)
            batch += [(plan, i) for i in range(row, until)]
            if len(batch) == self._batch_size:
                self._planned_position = (block, until)
                return [plan.row(i) for plan, i in batch[self._owned]]
            block, row = block + 1, 0

    def _read_window(self) -> list[tuple[list[list[features.Example]], Position]]:
        """Reads the examples of the next batches, enough that each task is read from several times in a row.

        A batch of a few hundred examples from thousands of tasks touches as many files, and the page cache of each,
        which takes as long as the reading. A window of thousands costs the same for ten tasks and for two thousand.
        """
        taken, num_examples = [], 0
        while num_examples < self._window:
            rows = self._take_rows()
            taken.append((rows, self._planned_position))
            num_examples += sum(len(numbers) for _, numbers in rows)
        every = [row for rows, _ in taken for row in rows]
        task_ids = np.concatenate([task_ids for task_ids, _ in every])
        examples = iter(self._read(task_ids, np.concatenate([numbers for _, numbers in every])))
        return [([[next(examples) for _ in numbers] for _, numbers in rows], position) for rows, position in taken]

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
