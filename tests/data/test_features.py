import doctest

import numpy as np
import pytest

from flan_jax import shapes
from flan_jax.data import features

FIRST, SECOND = ([7, 8, 5, 1], [3, 9, 1]), ([8, 4, 9, 3, 1], [4, 1])


def as_lists(batch, row=0):
    return {name: array[row].tolist() for name, array in batch.items()}


def test_examples_in_docstrings():
    assert doctest.testmod(features).failed == 0


def test_the_packing_vector():
    got = as_lists(features.packed_batch([[FIRST, SECOND]], lengths={"inputs": 10, "targets": 7}))
    assert got == {
        "encoder_input_tokens": [7, 8, 5, 1, 8, 4, 9, 3, 1, 0],
        "encoder_segment_ids": [1, 1, 1, 1, 2, 2, 2, 2, 2, 0],
        "encoder_positions": [0, 1, 2, 3, 0, 1, 2, 3, 4, 0],
        "decoder_input_tokens": [0, 3, 9, 0, 4, 0, 0],
        "decoder_target_tokens": [3, 9, 1, 4, 1, 0, 0],
        "decoder_loss_weights": [1, 1, 1, 1, 1, 0, 0],
        "decoder_segment_ids": [1, 1, 1, 2, 2, 0, 0],
        "decoder_positions": [0, 1, 2, 0, 1, 0, 0],
    }


def test_the_unpacked_vector():
    got = as_lists(features.unpacked_batch([([9, 4, 3, 8, 1], [3, 9, 4, 1])], lengths={"inputs": 7, "targets": 5}))
    assert got["decoder_input_tokens"] == [0, 3, 9, 4, 1]
    assert got["decoder_target_tokens"] == [3, 9, 4, 1, 0]
    assert got["decoder_loss_weights"] == [1, 1, 1, 1, 0]
    assert got["encoder_segment_ids"] == [1, 1, 1, 1, 1, 0, 0]


def test_keys_shapes_and_types():
    for batch in (
        features.packed_batch([[FIRST, SECOND], [SECOND]], lengths={"inputs": 10, "targets": 7}),
        features.unpacked_batch([FIRST, SECOND], lengths={"inputs": 10, "targets": 7}),
    ):
        assert set(batch) == set(shapes.BATCH_KEYS)
        for name in shapes.ENCODER_KEYS:
            assert batch[name].shape == (2, 10)
        for name in shapes.DECODER_KEYS:
            assert batch[name].shape == (2, 7)
        types = {name: array.dtype for name, array in batch.items()}
        assert types.pop("decoder_loss_weights") == np.float32
        assert set(types.values()) == {np.dtype(np.int32)}


def test_rows_are_laid_out_independently():
    both = features.packed_batch([[FIRST], [SECOND, FIRST]], lengths={"inputs": 10, "targets": 7})
    assert as_lists(both, 0) == as_lists(features.packed_batch([[FIRST]], lengths={"inputs": 10, "targets": 7}))
    assert as_lists(both, 1) == as_lists(features.packed_batch([[SECOND, FIRST]], lengths={"inputs": 10, "targets": 7}))


def test_a_full_row_and_an_empty_one():
    batch = features.packed_batch([[FIRST, SECOND], []], lengths={"inputs": 9, "targets": 5})
    assert batch["encoder_segment_ids"].tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 2], [0] * 9]
    assert not any(array[1].any() for array in batch.values())


def test_a_target_token_that_looks_like_padding_still_counts():
    batch = features.packed_batch([[([5, 1], [0, 3, 1])]], lengths={"inputs": 2, "targets": 4})
    assert batch["decoder_loss_weights"].tolist() == [[1, 1, 1, 0]]


def test_an_empty_side_leaves_its_segment_out():
    batch = features.packed_batch([[([], [4, 1]), ([6, 1], [5, 1])]], lengths={"inputs": 3, "targets": 4})
    assert batch["encoder_segment_ids"].tolist() == [[2, 2, 0]]
    assert batch["decoder_segment_ids"].tolist() == [[1, 1, 2, 2]]


def test_rows_too_small_for_their_examples_are_refused_not_truncated():
    with pytest.raises(ValueError, match="Row 1 has 9 input tokens; a row holds 8"):
        features.packed_batch([[FIRST], [FIRST, SECOND]], lengths={"inputs": 8, "targets": 7})
    with pytest.raises(ValueError, match="Row 0 has 3 target tokens; a row holds 2"):
        features.unpacked_batch([FIRST], lengths={"inputs": 8, "targets": 2})


@pytest.mark.tensorflow
def test_both_layouts_are_seqios():
    import seqio
    import tensorflow as tf

    lengths = {"inputs": 10, "targets": 7}
    rows = [{"inputs": np.array(i, np.int32), "targets": np.array(t, np.int32)} for i, t in (FIRST, SECOND)]
    types = {"inputs": tf.int32, "targets": tf.int32}
    for pack, ours in (
        (True, features.packed_batch([[FIRST, SECOND]], lengths=lengths)),
        (False, features.unpacked_batch([FIRST, SECOND], lengths=lengths)),
    ):
        dataset = tf.data.Dataset.from_generator(lambda: rows, types, {"inputs": [None], "targets": [None]})
        theirs = list(seqio.EncDecFeatureConverter(pack=pack)(dataset, lengths).as_numpy_iterator())
        assert len(theirs) == len(ours["encoder_positions"])
        for i, row in enumerate(theirs):
            for name, array in row.items():
                assert ours[name][i].tolist() == array.tolist(), name
