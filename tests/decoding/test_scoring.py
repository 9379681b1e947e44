"""Options are scored alike in packed rows, alone, and by transformers."""

import functools

import jax
import numpy as np
import pytest

from flan_jax.data import features
from flan_jax.decoding.scoring import OptionScorer, score_tokens
from flan_jax.run.network import Network
from flan_jax.sharding import MeshPlan
from tests import made_up_t5 as made_up

BATCH = made_up.goldens.made_up_batch()
CONFIG = made_up.config("t5_1_1")
RANDOM = np.random.default_rng(0)


def tokens(count):
    return RANDOM.integers(2, CONFIG.vocab_size, count).tolist()


# Mixed lengths, 1 to 9 options of 1 to 12 tokens; the last row repeats an option of the first.
REQUESTS = [
    (100 + number, tokens(RANDOM.integers(1, 60)), [tokens(RANDOM.integers(1, 13)) for _ in range(number % 9 + 1)])
    for number in range(24)
]


@functools.cache
def compiled(**changes):
    config = made_up.config("t5_1_1", **changes)
    return functools.partial(jax.jit(functools.partial(score_tokens, config=config)), made_up.params(config))


@functools.cache
def one_per_option():
    """Each option in a row of its own: the definition."""
    found = {}
    for number, inputs, options in REQUESTS:
        for option, ids in enumerate(options):
            batch = features.unpacked_batch([(inputs, ids)], lengths={"inputs": 64, "targets": 16})
            log_probs, is_greedy = compiled()(batch)
            found[number, option] = (
                np.asarray(log_probs)[0, : len(ids)],
                bool(np.asarray(is_greedy)[0, : len(ids)].all()),
            )
    return found


def require_same(scored):
    assert sorted(scored) == [number for number, _, _ in REQUESTS]
    for (number, option), (log_probs, is_greedy) in one_per_option().items():
        np.testing.assert_allclose(scored[number][option].log_probs, log_probs, atol=1e-5)
        assert scored[number][option].is_greedy == is_greedy
        assert scored[number][option].total == pytest.approx(log_probs.sum(dtype=np.float64), rel=1e-6, abs=1e-5)


def scorer(function, *, batch_rows=2, input_length=64):
    return OptionScorer(function, batch_rows=batch_rows, input_length=input_length)


def test_token_scores_are_transformers_log_probabilities():
    logits = made_up.golden("t5_1_1")["logits"].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.take_along_axis(log_p, BATCH["decoder_target_tokens"][..., None], axis=-1)[..., 0]
    real = BATCH["decoder_loss_weights"] > 0
    log_probs, is_greedy = compiled()(BATCH)
    np.testing.assert_allclose(np.asarray(log_probs)[real], expected[real], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(is_greedy)[real], (logits.argmax(-1) == BATCH["decoder_target_tokens"])[real]
    )


@pytest.mark.parametrize("batch_rows", [1, 3, 8])
def test_packed_options_score_as_one_pass_per_option(batch_rows):
    require_same(dict(scorer(compiled(), batch_rows=batch_rows)(REQUESTS)))


def test_requests_that_come_in_several_calls_score_alike():
    score = scorer(compiled())
    calls = [dict(score(chunk)) for chunk in (REQUESTS[:5], REQUESTS[5:17], REQUESTS[17:])]
    require_same({number: scores for call in calls for number, scores in call.items()})


@pytest.mark.parametrize("axes", [{}, {"tensor": 2, "fsdp": 4}])
def test_eight_devices_score_as_one(axes):
    network = Network(CONFIG, plan=MeshPlan(**axes))
    with network.within():
        score = network.scorer(made_up.params(CONFIG), batch_size=16, input_length=64)
        require_same(dict(score(REQUESTS)))


def test_the_greedy_option_is_recognized():
    inputs, option = tokens(7), []
    for _ in range(4):
        batch = features.unpacked_batch([(inputs, [*option, 0])], lengths={"inputs": 64, "targets": 16})
        best = max(range(CONFIG.vocab_size), key=lambda token: float(log_prob(batch, len(option), token)))
        option.append(best)
    other = [*option[:3], (option[3] + 1) % CONFIG.vocab_size]
    ((_, scores),) = scorer(compiled())([(0, inputs, [other, option, option[:2]])])
    assert [score.is_greedy for score in scores] == [False, True, True]


@functools.cache
def _forward():
    from flan_jax.models.t5 import model as t5

    return jax.jit(functools.partial(t5.forward, config=CONFIG))


def log_prob(batch, position, token):
    return np.asarray(_forward()(made_up.params(CONFIG), batch))[0, position, token]


def test_options_longer_than_any_row_so_far_are_scored_whole():
    long = [(7, tokens(64), [tokens(300), tokens(2), tokens(290)])]
    ((number, scores),) = scorer(compiled())(long)
    assert number == 7 and [len(score.log_probs) for score in scores] == [300, 2, 290]
    batch = features.unpacked_batch([(long[0][1], long[0][2][2])], lengths={"inputs": 64, "targets": 290})
    np.testing.assert_allclose(scores[2].log_probs, np.asarray(compiled()(batch)[0])[0], atol=2e-5)


def test_many_options_are_split_over_rows():
    options = [tokens(9) for _ in range(150)]
    ((_, scores),) = scorer(compiled())([(0, REQUESTS[0][1], options)])
    ((_, few),) = scorer(compiled())([(0, REQUESTS[0][1], options[140:])])
    for one, other in zip(scores[140:], few, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)


def test_tasks_of_similar_lengths_share_a_program_and_others_add_few():
    def zeros(batch):
        shapes.append({key: value.shape for key, value in batch.items()})
        return np.zeros(batch["decoder_target_tokens"].shape), np.ones(batch["decoder_target_tokens"].shape, bool)

    shapes, score = [], scorer(zeros, batch_rows=4, input_length=512)
    random = np.random.default_rng(1)
    for options, longest in ((2, 3), (2, 4), (4, 12), (4, 30), (3, 2), (5, 80), (2, 1), (20, 6)):
        requests = [
            (n, [5] * int(random.integers(10, 400)), [[7] * int(random.integers(1, longest + 1))] * options)
            for n in range(60)
        ]
        assert len(list(score(requests))) == 60
    assert score.programs == len({str(shape) for shape in shapes}) <= 4


def test_rows_are_full():
    filled = []

    def zeros(batch):
        filled.append(((batch["encoder_segment_ids"] > 0).mean(), (batch["decoder_segment_ids"] > 0).mean()))
        return np.zeros(batch["decoder_target_tokens"].shape), np.ones(batch["decoder_target_tokens"].shape, bool)

    random = np.random.default_rng(2)
    requests = [(n, [5] * int(random.integers(20, 200)), [[7] * 4] * 4) for n in range(2000)]
    assert len(list(scorer(zeros, batch_rows=8, input_length=512)(requests))) == 2000
    assert np.mean(filled, axis=0).min() > 0.7 and np.mean(filled, axis=0).max() > 0.9


def test_scoring_never_drops():
    np.testing.assert_array_equal(compiled(dropout_rate=0.9)(BATCH)[0], compiled(dropout_rate=0.0)(BATCH)[0])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ((3, [], [[5]]), "Row 3 has 0 input tokens; allowed are 1 to 64"),
        ((3, [5] * 65, [[5]]), "Row 3 has 65 input tokens; allowed are 1 to 64"),
        ((3, [5], []), r"Row 3 has options of \[\] tokens"),
        ((3, [5], [[5], []]), r"Row 3 has options of \[1, 0\] tokens"),
    ],
)
def test_requests_that_cannot_be_scored_are_refused_before_any_is(request_, message):
    def never(batch):
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        list(scorer(never)([REQUESTS[0], request_]))


def test_nothing_to_score_is_nothing():
    assert list(scorer(compiled())([])) == []
