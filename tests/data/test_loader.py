import doctest
import itertools
import json

import numpy as np
import pytest

from flan_jax.data import features, feed_state, loader, packing
from flan_jax.data.loader import TrainFeed
from tests.data.packings import packed_and_unpacked

LENGTHS = {"inputs": 16, "targets": 8}


class Task:
    """Tokens tell the task and the row: inputs [100 + task, row + 10, 7...], targets [row + 10, 8..., 1]."""

    def __init__(self, number, count):
        rng = np.random.default_rng(number)
        self.lengths = np.stack([rng.integers(2, 9, count), rng.integers(2, 5, count)], 1).astype(np.int32)
        self.number = number

    def __len__(self):
        return len(self.lengths)

    def example(self, row):
        inputs, targets = self.lengths[row]
        return (
            np.array([100 + self.number, row + 10, *[7] * (inputs - 2)], np.int32),
            np.array([row + 10, *[8] * (targets - 2), 1], np.int32),
        )

    def read(self, indices):
        return [self.example(int(row)) for row in indices]


TASKS = {"a": Task(0, 7), "b": Task(1, 40), "c": Task(2, 90)}
RATES = {"a": 1.0, "b": 2.0, "c": 1.0}


def make(tasks=TASKS, rates=RATES, **settings):
    defaults = {"seed": 0, "batch_size": 8, "lengths": LENGTHS, "num_streams": 4, "block_examples": 12}
    return TrainFeed(tasks, rates, **(defaults | settings))


def take(feed, count):
    return [batch for batch, _ in itertools.islice(feed, count)]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
    return True


def joined(parts):
    """Returns the global batches of processes that each read a share."""
    steps = zip(*parts, strict=True)
    return [{name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in steps]


def examples_of(batch):
    """The (task number, row) of every example in a batch, checked to be whole on both sides."""
    found = []
    for row in range(len(batch["encoder_positions"])):
        for segment in range(1, batch["encoder_segment_ids"][row].max() + 1):
            inputs = batch["encoder_input_tokens"][row][batch["encoder_segment_ids"][row] == segment]
            targets = batch["decoder_target_tokens"][row][batch["decoder_segment_ids"][row] == segment]
            task, number = int(inputs[0]) - 100, int(inputs[1]) - 10
            whole = list(TASKS.values())[task].example(number)
            assert inputs.tolist() == whole[0].tolist() and targets.tolist() == whole[1].tolist()
            found.append((task, number))
    return found


def test_examples_in_docstrings():
    assert doctest.testmod(loader).failed == 0


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_any_number_of_processes_reads_the_same_global_batches(process_count):
    feed = make()
    whole = take(feed, 12)
    parts = []
    for index in range(process_count):
        feed = make(process_index=index, process_count=process_count)
        parts.append(take(feed, 12))
    assert same(joined(parts), whole)


@pytest.mark.parametrize("saving_processes", [1, 2])
@pytest.mark.parametrize("restoring_processes", [1, 4])
def test_a_feed_restored_anywhere_goes_on_with_the_same_batches(saving_processes, restoring_processes):
    total = 9
    feed = make()
    whole = take(feed, total)
    savers = [make(process_index=i, process_count=saving_processes) for i in range(saving_processes)]
    for step in range(total):
        saved = json.loads(json.dumps(feed_state.merge([saver.state() for saver in savers])))
        parts = []
        for index in range(restoring_processes):
            feed = make(process_index=index, process_count=restoring_processes)
            feed.restore(saved)
            assert feed_state.merge([feed.state(), saved]) == saved
            parts.append(take(feed, total - step))
        assert same(joined(parts), whole[step:])
        for saver in savers:
            next(saver)


def test_a_feed_can_be_taken_back():
    feed = make()
    start = feed.state()
    first = take(feed, 5)
    feed.restore(start)
    assert same(take(feed, 5), first)


def test_the_state_is_a_few_bytes_of_json():
    feed = make(batch_size=64, num_streams=None, block_examples=None)
    take(feed, 2)
    state = feed.state()
    assert len(state["streams"]) == 16
    assert json.loads(json.dumps(state)) == state and len(json.dumps(state)) < 500


def test_statistics_count_the_batch_and_its_examples_are_whole():
    for batch, stats in itertools.islice(make(), 10):
        assert stats == {
            "rows": 8,
            "examples": len(examples_of(batch)),
            "input_tokens": (batch["encoder_input_tokens"] > 0).sum(),
            "target_tokens": (batch["decoder_target_tokens"] > 0).sum(),
        }


def test_realized_shares_are_the_intended_ones():
    tasks = [task for batch in take(make(), 100) for task, _ in examples_of(batch)]
    for number, share in enumerate((0.25, 0.5, 0.25)):
        assert tasks.count(number) / len(tasks) == pytest.approx(share, abs=0.02)


def test_no_example_is_seen_again_before_its_task_is_nearly_through():
    """Streams read their blocks side by side, so epochs overlap by the open blocks and no more."""
    feed = make(tasks={"c": TASKS["c"]}, rates={"c": 1.0}, num_streams=1, batch_size=1, block_examples=30)
    rows = [row for batch in take(feed, 40) for _, row in examples_of(batch)]
    assert len(rows) > 90
    assert len(set(rows[:90])) == 90


def test_the_order_in_which_tasks_are_listed_does_not_matter():
    feed = make()
    other = make(dict(reversed(TASKS.items())), dict(reversed(RATES.items())))
    assert same(take(feed, 4), take(other, 4))


def test_seeds_give_other_orders():
    feed = make()
    other = make(seed=1)
    assert examples_of(next(feed)[0]) != examples_of(next(other)[0])


def test_without_packing_rows_are_seqios_unpacked_ones():
    feed = make(strategy=packing.one_per_row)
    batch, stats = next(feed)
    assert stats["examples"] == stats["rows"] == 8
    tasks = list(TASKS.values())
    again = features.unpacked_batch([tasks[t].example(n) for t, n in examples_of(batch)], lengths=LENGTHS)
    assert same([batch], [again])


class Broken(Task):
    """Fails from the second read on."""

    reads = 0

    def read(self, indices):
        self.reads += 1
        if self.reads > 1:
            raise FileNotFoundError("shard 3 is gone")
        return super().read(indices)


def test_a_failure_while_reading_is_raised():
    feed = make({"a": Broken(0, 90)}, {"a": 1.0})
    next(feed)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="shard 3 is gone"):
            next(feed)


def test_a_failure_while_packing_is_raised_too():
    def broken(lengths, limits):
        raise ValueError("cannot pack")

    feed = make(strategy=broken)
    with pytest.raises(ValueError, match="cannot pack"):
        next(feed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 6}, "A batch of 6 rows does not divide over 4 streams.*default is 2"),
        ({"batch_size": 0, "num_streams": None}, "A batch of 0 rows"),
        ({"process_count": 3}, "4 streams do not divide over 3 processes; set num_streams.*multiple of 3"),
        (
            {"lengths": {"inputs": 16, "targets": 3}},
            "Task 'a' has examples of up to 7 input and 4 target tokens; a row",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_refused(settings, message):
    with pytest.raises((ValueError, KeyError), match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"batch_size": 4}, "batch_size was 8 and is 4"),
        ({"num_streams": 2}, "num_streams was 4 and is 2"),
        ({"block_examples": 13}, "block_examples was 12 and is 13"),
        ({"lengths": {"inputs": 17, "targets": 8}}, r"lengths was \[16, 8\] and is \[17, 8\]"),
        ({"strategy": packing.fewest_rows}, "packing was 'bin_centred' and is 'fewest_rows'"),
        ({"rates": RATES | {"a": 2.0}}, "mixture was '[0-9a-f]+' and is"),
        ({"tasks": TASKS | {"b": Task(5, 40)}}, "mixture was '[0-9a-f]+' and is"),
    ],
)
def test_a_state_of_another_feed_is_refused_and_the_difference_named(settings, message):
    feed = make()
    state = json.loads(json.dumps(feed.state()))
    other = make(**settings)
    with pytest.raises(ValueError, match=f"belongs to another feed: .*{message}"):
        other.restore(state)


def test_a_refused_state_leaves_the_feed_where_it_was():
    feed = make()
    other = make()
    next(feed), next(other)
    with pytest.raises(ValueError, match="has version 2; this program reads version 1"):
        feed.restore({"version": 2})
    assert same(take(feed, 2), take(other, 2))


def test_a_process_state_alone_does_not_restore_the_whole():
    part = make(process_count=2)
    whole = make()
    assert part.state()["streams"][2:] == [None, None]
    with pytest.raises(ValueError, match=r"lacks streams \[2, 3\].*feed_state.merge"):
        whole.restore(part.state())


def test_packed_and_unpacked_hold_the_same_examples():
    examples = [TASKS["c"].example(row) for row in range(20)]
    packed, unpacked = packed_and_unpacked(examples, lengths=LENGTHS)
    assert sorted(examples_of(packed)) == sorted(examples_of(unpacked)) == [(2, row) for row in range(20)]
    assert len(packed["encoder_positions"]) < len(unpacked["encoder_positions"]) == 20
    assert packed["decoder_loss_weights"].sum() == unpacked["decoder_loss_weights"].sum()


def test_how_much_is_read_together_changes_neither_batches_nor_states(monkeypatch):
    def run(window):
        monkeypatch.setattr(loader, "WINDOW_EXAMPLES", window)
        feed = make()
        return [(batch, feed.state()) for batch, _ in itertools.islice(feed, 30)]

    one, many = run(1), run(500)
    assert same([batch for batch, _ in one], [batch for batch, _ in many])
    assert [state for _, state in one] == [state for _, state in many]


def test_a_task_is_read_from_several_times_in_a_row_once_the_first_batch_is_out(monkeypatch):
    reads = []

    class Recording(Task):
        def read(self, indices):
            reads.append((self.number, len(indices)))
            return super().read(indices)

    monkeypatch.setattr(loader, "WINDOW_EXAMPLES", 400)
    tasks = {name: Recording(task.number, len(task)) for name, task in TASKS.items()}
    feed = make(tasks)
    take(feed, 60)
    assert [number for number, _ in reads[:3]] == [0, 1, 2]  # The first batch alone, one call a task.
    assert sum(count for _, count in reads[:3]) < 60
    assert max(count for _, count in reads) > 100
