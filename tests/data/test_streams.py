import numpy as np

from flan_jax.data.blocks import BlockPlan
from flan_jax.data.streams import Streams


class Planner:
    """Block b has b % 3 rows (none for some), each of one example: task b, numbers 0, 1."""

    def __init__(self):
        self.planned = []

    def plan(self, number):
        self.planned.append(number)
        rows = np.arange(number % 3)
        return BlockPlan(np.full(len(rows), number), rows, np.arange(len(rows) + 1))


def read(streams, num_rows):
    return [(int(task_ids[0]), int(rows[0])) for task_ids, rows in streams.take(num_rows)]


def test_each_stream_reads_every_so_manieth_block_row_by_row():
    streams = Streams(Planner(), num_streams=4, owned=range(4))
    assert read(streams, 1) == [(4, 0), (1, 0), (2, 0), (7, 0)]
    assert read(streams, 2) == [(8, 0), (8, 1), (5, 0), (5, 1), (2, 1), (10, 0), (11, 0), (11, 1)]
    assert streams.positions == {0: (8, 2), 1: (5, 2), 2: (10, 1), 3: (11, 2)}


def test_a_position_just_past_a_block_goes_on_with_the_streams_next_block():
    streams = Streams(Planner(), num_streams=4, owned=[1])
    streams.positions = {1: (5, 2)}
    assert read(streams, 1) == [(13, 0)]


class LongPlanner(Planner):
    def plan(self, number):
        self.planned.append(number)
        return BlockPlan(np.zeros(9, int), np.arange(9), np.arange(10))


def test_one_block_a_stream_is_planned_for_the_first_rows_and_the_next_from_the_half_on():
    planner = LongPlanner()
    streams = Streams(planner, num_streams=4, owned=range(4))
    streams.take(2)
    assert planner.planned == [0, 1, 2, 3]
    streams.take(3)
    assert [streams._plans[number].num_rows for number in (4, 5, 6, 7)] == [9, 9, 9, 9]
    streams.take(5)  # Into the next blocks: the first are forgotten, nothing is planned twice.
    assert planner.planned == [0, 1, 2, 3, 4, 5, 6, 7] and sorted(streams._plans) == [4, 5, 6, 7]


def test_the_next_blocks_are_planned_evenly_over_the_second_half():
    planner = LongPlanner()
    streams = Streams(planner, num_streams=4, owned=range(4))
    planned = []
    for _ in range(9):
        before = len(planner.planned)
        streams.take(1)
        planned.append(len(planner.planned) - before)
    assert planned == [4, 0, 0, 0, 1, 1, 1, 1, 0]
