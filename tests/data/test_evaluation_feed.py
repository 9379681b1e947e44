import doctest

import numpy as np
import pytest

from flan_jax.data import evaluation_feed, features
from flan_jax.data.evaluation_feed import eval_batches, score_batches

LENGTHS = {"inputs": 64, "targets": 40}


class Task:
    def __init__(self, input_lengths):
        self.lengths = np.array([[n, 3] for n in input_lengths], np.int32)

    def __len__(self):
        return len(self.lengths)

    def read(self, indices):
        return [(np.full(self.lengths[i, 0], i + 1), np.array([i + 1, i + 1, 1])) for i in indices]


TASK = Task([5, 64, 16, 17, 33, 2, 9])


def test_examples_in_docstrings():
    assert doctest.testmod(evaluation_feed).failed == 0


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 10])
def test_every_row_comes_exactly_once_with_its_number(batch_size):
    seen = []
    for batch, rows in eval_batches(TASK, batch_size=batch_size, lengths=LENGTHS):
        assert len(rows) == len(batch["encoder_input_tokens"]) == batch_size
        for i, row in enumerate(rows.tolist()):
            if row >= 0:
                tokens = batch["encoder_input_tokens"][i]
                assert tokens[tokens > 0].tolist() == [row + 1] * TASK.lengths[row, 0]
                seen.append(row)
    assert sorted(seen) == list(range(7))


def test_rows_share_the_shortest_bucket_that_holds_them():
    shapes = [
        (batch["encoder_input_tokens"].shape, rows.tolist())
        for batch, rows in eval_batches(TASK, batch_size=2, lengths=LENGTHS)
    ]
    assert shapes == [((2, 64), [1, 4]), ((2, 32), [3, 2]), ((2, 16), [6, 0]), ((2, 16), [5, -1])]


def test_decoder_rows_keep_their_full_length():
    batch, _ = next(eval_batches(TASK, batch_size=2, lengths=LENGTHS))
    assert batch["decoder_target_tokens"].shape == (2, 40)


def test_padding_rows_copy_a_real_row_and_weigh_nothing():
    *_, (batch, rows) = eval_batches(TASK, batch_size=4, lengths=LENGTHS)
    assert rows.tolist() == [6, 0, 5, -1]
    assert batch["encoder_input_tokens"][3].tolist() == batch["encoder_input_tokens"][2].tolist()
    assert batch["decoder_loss_weights"].sum(axis=1).tolist() == [3, 3, 3, 0]


def test_some_rows_only_when_asked():
    got = [rows.tolist() for _, rows in eval_batches(TASK, batch_size=2, lengths=LENGTHS, indices=[5, 1, 3])]
    assert got == [[1, 3], [5, -1]]
    assert list(eval_batches(TASK, batch_size=2, lengths=LENGTHS, indices=[])) == []


def test_buckets_of_ones_own_are_used_and_the_whole_length_stays():
    buckets = [
        batch["encoder_positions"].shape[1]
        for batch, _ in eval_batches(TASK, batch_size=2, lengths=LENGTHS, bucket_lengths=[10])
    ]
    assert buckets == [64, 64, 10, 10]


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_each_batch(process_count):
    whole = list(eval_batches(TASK, batch_size=4, lengths=LENGTHS))
    parts = [
        list(eval_batches(TASK, batch_size=4, lengths=LENGTHS, process_index=i, process_count=process_count))
        for i in range(process_count)
    ]
    for step, (batch, rows) in enumerate(whole):
        assert np.concatenate([part[step][1] for part in parts]).tolist() == rows.tolist()
        for name, array in batch.items():
            assert np.concatenate([part[step][0][name] for part in parts]).tolist() == array.tolist()


def test_pairs_to_score_come_once_each_with_their_options_in_the_loss():
    pairs = [([5] * 20, [7, 1]), ([6] * 3, [8, 8, 8, 1]), ([5] * 20, [9, 1])]
    seen = {}
    for batch, places in score_batches(pairs, batch_size=2, lengths=LENGTHS):
        assert batch["decoder_target_tokens"].shape == (2, 16)  # a quarter of 40, rounded up to 16
        for i, place in enumerate(places.tolist()):
            if place >= 0:
                seen[place] = batch["decoder_target_tokens"][i][batch["decoder_loss_weights"][i] > 0].tolist()
    assert seen == {i: targets for i, (_, targets) in enumerate(pairs)}


def test_all_batches_of_scored_pairs_have_one_decoder_length():
    pairs: list[features.Example] = [([5] * 60, [7, 1]), ([6] * 3, [8] * 17), ([5] * 20, [9, 1])]
    got = [b["decoder_positions"].shape for b, _ in score_batches(pairs, batch_size=1, lengths=LENGTHS)]
    assert got == [(1, 32)] * 3
    assert list(score_batches([], batch_size=1, lengths=LENGTHS)) == []


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="An example has 64 input tokens; a row holds 32"):
        next(eval_batches(TASK, batch_size=2, lengths={"inputs": 32, "targets": 8}))
    with pytest.raises(ValueError, match="An example has 41 target tokens; a row holds 40"):
        next(score_batches([([5], [7] * 41)], batch_size=2, lengths=LENGTHS))
    with pytest.raises(ValueError, match="An evaluation batch of 3 rows does not divide over 2 processes"):
        next(eval_batches(TASK, batch_size=3, lengths=LENGTHS, process_count=2))
    with pytest.raises(ValueError, match=r"bucket_lengths must be between 1 and the input length 64; got \[65\]"):
        next(eval_batches(TASK, batch_size=2, lengths=LENGTHS, bucket_lengths=[65]))
