"""Virtual streams of packed rows: stream s of R reads blocks s, s + R, s + 2R, ... of the mixture, row by row.

The number of streams is fixed for a run, whatever number of processes shares them, and each stream's position is
two numbers: the block, and the row in it that comes next.
"""

from collections.abc import Iterable

import numpy as np

from flan_jax.data.blocks import BlockPlan, BlockPlanner

Position = tuple[int, int]
"""(block, row): the next row to read; a row just past the block's last means the stream's next block."""


class Streams:
    """The positions of some of a feed's streams, and the plans of their open blocks.

    Streams come to the ends of their blocks at about the same time. So from the half of a block on the next one may be
    planned, and each call of `take` plans as many as makes the work even until the first is needed. A thread for it
    would only take turns with the one that reads: planning is Python for the most part.
    """

    def __init__(self, planner: BlockPlanner, *, num_streams: int, owned: Iterable[int]):
        self._planner = planner
        self._num_streams = num_streams
        self.positions: dict[int, Position] = {stream: (stream, 0) for stream in owned}
        self._plans: dict[int, BlockPlan] = {}

    def take(self, num_rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the next `num_rows` rows of every owned stream, stream by stream: (task ids, example numbers)."""
        # In the order of streams, which is the order of rows in the global batch.
        rows = [row for stream in sorted(self.positions) for row in self._take(stream, num_rows)]
        self._plan_ahead(num_rows)
        return rows

    def _plan_ahead(self, num_rows: int) -> None:
        due, rows_left = [], []
        for stream, (block, row) in self.positions.items():
            plan = self._plan(block)
            if 2 * row >= plan.num_rows and block + self._num_streams not in self._plans:
                due.append(block + self._num_streams)
                rows_left.append(plan.num_rows - row)
            assert stream == block % self._num_streams
        if due:
            takes_left = max(1, min(rows_left) // num_rows)
            for block in due[: -(-len(due) // takes_left)]:
                self._plan(block)

    def _take(self, stream: int, num_rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
        block, row = self.positions[stream]
        taken: list[tuple[np.ndarray, np.ndarray]] = []
        while True:
            plan = self._plan(block)
            until = min(row + num_rows - len(taken), plan.num_rows)
            for i in range(row, until):
                examples = slice(plan.starts[i], plan.starts[i + 1])
                taken.append((plan.task_ids[examples], plan.rows[examples]))
            if len(taken) == num_rows:
                self.positions[stream] = (block, until)
                return taken
            del self._plans[block]
            block, row = block + self._num_streams, 0

    def _plan(self, block: int) -> BlockPlan:
        if block not in self._plans:
            self._plans[block] = self._planner.plan(block)
        return self._plans[block]
