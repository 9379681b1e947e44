"""Scores are sums of log-probabilities over weighted targets, whatever the padding."""

import functools

import jax
import numpy as np

from flan_jax.decoding.scoring import score
from tests import made_up_t5 as made_up

BATCH = made_up.goldens.made_up_batch()
CONFIG = made_up.config("t5_1_1")


def scores(batch, **changes):
    config = made_up.config("t5_1_1", **changes)
    return np.asarray(jax.jit(functools.partial(score, config=config))(made_up.params(config), batch))


def reference():
    logits = made_up.golden("t5_1_1")["logits"].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.take_along_axis(log_p, BATCH["decoder_target_tokens"][..., None], axis=-1)[..., 0]


def test_scores_are_sums_of_transformers_log_probabilities():
    found = scores(BATCH)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (reference() * BATCH["decoder_loss_weights"]).sum(1), rtol=1e-5)


def test_only_weighted_targets_count():
    weights = np.zeros_like(BATCH["decoder_loss_weights"])
    weights[:, 3], weights[:, 5] = 1.0, 2.0
    expected = reference()[:, 3] + 2 * reference()[:, 5]
    np.testing.assert_allclose(scores({**BATCH, "decoder_loss_weights": weights}), expected, rtol=1e-4)


def test_a_padding_row_scores_zero():
    padded = {key: np.concatenate([value[1:, :60], np.zeros_like(value[:1, :60])]) for key, value in BATCH.items()}
    found = scores(padded)
    np.testing.assert_allclose(found, [scores(BATCH)[1], 0.0], rtol=1e-5)


def test_scoring_never_drops():
    np.testing.assert_array_equal(scores(BATCH, dropout_rate=0.9), scores(BATCH, dropout_rate=0.0))
