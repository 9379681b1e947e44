import itertools
import json

import numpy as np
import pytest

from flan_jax.data import features, loader, packing
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
    defaults = {"seed": 0, "batch_size": 8, "lengths": LENGTHS}
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
    examples = []
    for row in range(len(batch["encoder_positions"])):
        for segment in range(1, batch["encoder_segment_ids"][row].max() + 1):
            inputs = batch["encoder_input_tokens"][row][batch["encoder_segment_ids"][row] == segment]
            targets = batch["decoder_target_tokens"][row][batch["decoder_segment_ids"][row] == segment]
            task, number = int(inputs[0]) - 100, int(inputs[1]) - 10
            whole = list(TASKS.values())[task].example(number)
            assert inputs.tolist() == whole[0].tolist() and targets.tolist() == whole[1].tolist()
            examples.append((task, number))
    return examples


@pytest.mark.parametrize("process_count", [1, 2, 4, 8])
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
def test_a_feed_restored_anywhere_continues_with_the_same_batches(saving_processes, restoring_processes):
    total = 9
    feed = make()
    whole = take(feed, total)
    savers = [make(process_index=i, process_count=saving_processes) for i in range(saving_processes)]
    for step in range(total):
        saved = json.loads(json.dumps(savers[-1].state()))
        assert all(saver.state() == saved for saver in savers)
        parts = []
        for index in range(restoring_processes):
            feed = make(process_index=index, process_count=restoring_processes)
            feed.restore(saved)
            assert feed.state() == saved
            parts.append(take(feed, total - step))
        assert same(joined(parts), whole[step:])
        for saver in savers:
            next(saver)


class Numbered:
    """Rows whose first input token is their number in the mixture."""

    def __init__(self, first, lengths):
        self.first, self.lengths = first, lengths

    def __len__(self):
        return len(self.lengths)

    def read(self, indices):
        return [(np.full(self.lengths[i, 0], self.first + i), np.ones(self.lengths[i, 1])) for i in indices]


def numbers_of(batch):
    """The numbers of a batch's examples, in the order of rows and in each row of segments."""
    starts = (batch["encoder_segment_ids"] > 0) & (batch["encoder_positions"] == 0)
    return batch["encoder_input_tokens"][starts]


@pytest.mark.parametrize("seed", range(12))
def test_any_mixture_in_any_batches_is_read_in_full_epochs_by_any_processes_from_any_position(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(10 ** rng.uniform(0, 4)) for _ in range(rng.integers(1, 7))]
    firsts = (1 + np.cumsum([0, *sizes])).tolist()
    lengths = [rng.integers(1, (9, 5), (size, 2)).astype(np.int32) for size in sizes]
    tasks = {f"t{i}": Numbered(*task) for i, task in enumerate(zip(firsts, lengths, strict=False))}
    rates = {name: len(task) if seed % 3 == 0 else 10 ** rng.uniform(-1, 1) for name, task in tasks.items()}
    batch_size, processes = int(rng.choice([1, 3, 8, 60, 128])), (1, 2, 3, 4, 5, 8, 64)
    counts = [count for count in processes if batch_size % count == 0]
    strategy = [packing.bin_centered, packing.fewest_rows, packing.one_per_row][seed % 3]

    def feeds(count):
        shares = [{"process_index": i, "process_count": count} for i in range(count)]
        return [make(tasks, rates, seed=seed, batch_size=batch_size, strategy=strategy, **share) for share in shares]

    (feed,), drawn, saved = feeds(1), [], []
    for batch, _ in feed:
        drawn.extend(numbers_of(batch).tolist())
        saved.append((batch, feed.state()))
        if len(drawn) > 4_000:
            break
    for first, size in zip(firsts, sizes, strict=False):
        rows = np.array([number - first for number in drawn if first <= number < first + size])
        # Full permutations one after the other: after n epochs each row has been seen n times.
        for epoch in (rows[start : start + size] for start in range(0, len(rows), size)):
            assert len(set(epoch.tolist())) == len(epoch)
    step = int(rng.integers(len(saved)))
    again = feeds(int(rng.choice(counts)))
    for part in again:
        part.restore(json.loads(json.dumps(saved[step][1])))
    later = [batch for batch, _ in saved[step + 1 :][:5]]
    assert same(joined([take(part, len(later)) for part in again]), later)


def test_a_batch_at_any_position_plans_its_own_blocks_and_no_others():
    planned = []

    def recording(lengths, limits):
        planned.append(len(lengths))
        return packing.bin_centered(lengths, limits)

    feed = make(strategy=recording)
    next(feed)
    at_start = len(planned)
    feed.restore(feed.state() | {"block": 10**9, "row": 3})
    next(feed)
    assert len(planned) - at_start <= at_start + 1 and feed.state()["block"] - 10**9 <= at_start


def test_a_feed_can_be_moved_back():
    feed = make()
    start = feed.state()
    first = take(feed, 5)
    feed.restore(start)
    assert same(take(feed, 5), first)


def test_the_position_is_a_block_and_a_row():
    feed = make()
    assert (feed.state()["block"], feed.state()["row"]) == (0, 0)
    take(feed, 20)
    state = feed.state()
    assert state["block"] > 3 and json.loads(json.dumps(state)) == state and len(json.dumps(state)) < 200


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
        ({"batch_size": 0}, "A batch of 0 rows"),
        ({"process_count": 3}, "A batch of 8 rows does not divide over 3 processes; set BATCH_SIZE to a multiple of 3"),
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
        ({"lengths": {"inputs": 17, "targets": 8}}, r"lengths was \[16, 8\] and is \[17, 8\]"),
        ({"strategy": packing.fewest_rows}, "packing was 'bin_centered' and is 'fewest_rows'"),
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
    with pytest.raises(ValueError, match="has version 1; this program reads version 2"):
        feed.restore({"version": 1})
    assert same(take(feed, 2), take(other, 2))


def test_the_epochs_of_a_run_count_the_examples_that_share_a_row():
    lines = {
        name: make(strategy=getattr(packing, name)).epoch_lines(steps=10) for name in ("bin_centered", "one_per_row")
    }
    assert lines["one_per_row"] == [
        "epochs in 10 steps: 0.22 (c) to 2.9 (a), median 1 of 3 tasks; each has every row of its task once"
    ]
    assert lines["bin_centered"][0].startswith("epochs in 10 steps: 0.5")  # About 2.4 examples share a row.
    assert lines["bin_centered"][1].startswith("packed in blocks of 28 examples, one epoch of a")


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
