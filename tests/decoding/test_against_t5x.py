"""Search on given logits against the vectors of T5X's `decoding_test.py`, the ones without a decoder prompt."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.decoding.beams import search_of
from flan_jax.decoding.decoder import Decoder
from flan_jax.decoding.programs import Programs
from flan_jax.decoding.strategies import BeamSearch, Greedy, Sampling
from flan_jax.models.incremental import IncrementalNetwork
from flan_jax.sharding import MeshPlan, make_mesh

NEVER = -1e7  # T5X's NEG_INF.


def decode(logits_of, strategy, *, rows: int, steps: int, eos_id: int = 1):
    """Returns the hypotheses of rows whose logits are `logits_of(row [B, 1], tokens [B, N], time)`."""

    def step(params, tokens_BN, *, cache, cross, mask_B1NC, cross_mask_B11S, position):
        logits_BNV = logits_of(cross[:, :1] - 10, tokens_BN, position)
        return jnp.broadcast_to(logits_BNV, (*tokens_BN.shape, logits_BNV.shape[-1])).astype(jnp.float32), cache

    network = IncrementalNetwork(
        vocab_size=5,
        encode=lambda params, tokens_BS, is_input_BS: tokens_BS,
        cross_shapes=lambda B, S: jax.ShapeDtypeStruct((B, S), jnp.int32),
        cache_shapes=lambda B, C: {},
        step=step,
    )
    search = search_of(strategy, length=steps, eos_id=eos_id, vocab_size=5)
    mesh = make_mesh(MeshPlan(), devices=jax.devices()[:1])
    # All rows start at the first step, so that the ring's position is the time.
    programs = Programs(network, search, num_slots=8 * rows, mesh=mesh, within=contextlib.nullcontext)
    decoded = dict(Decoder(programs, {})((row, [10 + row]) for row in range(rows)))
    return [decoded[row] for row in range(rows)]


def tokens_of(decoded) -> list:
    return [[hypothesis.tokens.tolist() for hypothesis in row] for row in decoded]


def constant(*rows):
    return lambda row_B1, tokens_BN, time: jnp.asarray(rows)[row_B1]


TWO_OR_THREE = constant([NEVER, -1e10, -0.1, -0.9], [NEVER, -1e10, -0.9, -0.1])
ONE_ID = constant([NEVER, NEVER, 0, NEVER], [NEVER, NEVER, NEVER, 0])
THREE_SIXTHS = constant([-1.2, NEVER, -2.3, -0.51])  # Of probabilities 0.3, 0, 0.1 and 0.6.
t5x_beams = functools.partial(BeamSearch, rule="t5x", num_beams=2, num_return_sequences=2)


def test_beam_search_without_an_ended_hypothesis_returns_the_running_ones():
    """`test_beam_search_force_decode_no_prefix`; T5X returns the best last."""
    decoded = decode(TWO_OR_THREE, t5x_beams(length_penalty=0.6), rows=2, steps=5)
    assert tokens_of(decoded) == [[[2, 2, 2, 2, 2], [3, 2, 2, 2, 2]], [[3, 3, 3, 3, 3], [2, 3, 3, 3, 3]]]
    log_p = np.asarray(jax.nn.log_softmax(jnp.asarray([-0.1, -0.9])))
    for row in decoded:
        np.testing.assert_allclose([one.score for one in row], [5 * log_p[0], 4 * log_p[0] + log_p[1]], rtol=1e-5)
        assert not any(one.ended for one in row)


def test_beam_search_stops_at_the_largest_number_of_steps():
    """`test_beam_search_max_decode_step`."""
    decoded = decode(TWO_OR_THREE, t5x_beams(length_penalty=0.6), rows=2, steps=2)
    assert tokens_of(decoded) == [[[2, 2], [3, 2]], [[3, 3], [2, 3]]]


def test_beam_search_finds_both_best_paths_of_a_markov_model():
    """`test_beam_search`: states PAD, A, B, START and END; the two best paths are equally likely."""
    edges = np.full([7, 5, 5], NEVER)
    for time, same in enumerate([1, -1, 1, -1]):
        edges[time + 2, 1:3, 1:3] = [[same, -same], [-same, same]]
    edges[0, :, 3] = 0.0
    edges[1, 3, 1:3] = 0.0
    edges[6, 1:3, 4] = 0.0
    edges[1:, 0, :] = 0.0

    def logits_of(row_B1, tokens_BN, time):
        return jnp.asarray(edges)[time][tokens_BN]

    decoded = decode(logits_of, t5x_beams(length_penalty=0.0), rows=2, steps=7, eos_id=4)
    for row in decoded:
        assert sorted(one.tokens.tolist() for one in row) == [[3, 1, 1, 2, 2, 1, 4], [3, 2, 2, 1, 1, 2, 4]]
        assert all(one.ended for one in row)


@pytest.mark.parametrize(
    "strategy", [Greedy(), Sampling(), Sampling(temperature=0.0, top_k=4), Sampling(num_samples=3)]
)
def test_the_only_likely_token_is_chosen(strategy):
    """`test_temperature_sample_no_prefix`."""
    decoded = decode(ONE_ID, strategy, rows=2, steps=3)
    assert [row[0].tokens.tolist() for row in decoded] == [[2, 2, 2], [3, 3, 3]]
    assert len(decoded[0]) == strategy.num_hypotheses


def test_a_temperature_of_0_chooses_between_large_logits_that_are_close():
    """`test_temperature_sample_with_zero_temperature`."""
    logits = constant([1700.47, 1700.48, 1700.51, 1700.45], [3.2, 4.8, -5.3, 5.6])
    decoded = decode(logits, Sampling(temperature=0.0, top_k=4), rows=2, steps=3)
    assert tokens_of(decoded) == [[[2, 2, 2]], [[3, 3, 3]]]


def test_the_score_of_a_filtered_sample_is_that_of_the_network():
    """`test_greedy_decoding_topk_sample_log_probs`, with rescale_log_probs=False."""
    logits = constant([NEVER, NEVER, -0.510825624, -0.916290732])
    ((sample,),) = decode(logits, Sampling(top_k=1), rows=1, steps=2)
    assert sample.tokens.tolist() == [2, 2]
    np.testing.assert_allclose(sample.score, -1.02165125, rtol=1e-6)


@pytest.mark.parametrize("options", [{"top_p": 0.55}, {"temperature": 0.8, "top_p": 0.63}])
def test_a_top_p_below_the_most_likely_token_is_greedy_after_the_temperature(options):
    """`test_temperature_sample_topp`."""
    decoded = decode(THREE_SIXTHS, Sampling(num_samples=4, **options), rows=1, steps=20)
    assert tokens_of(decoded) == [[[3] * 20] * 4]


def test_a_top_p_of_two_tokens_draws_both_and_no_third():
    """`test_topp_log_probs`: at temperature 1.4, 0.7 keeps tokens 0 and 3."""
    ((sample,),) = decode(THREE_SIXTHS, Sampling(temperature=1.4, top_p=0.7), rows=1, steps=200)
    assert set(sample.tokens.tolist()) == {0, 3}


def test_t5x_divides_by_its_own_length_and_lets_every_candidate_end():
    """Ended after n tokens: the sum of log-probabilities times (6 / (5 + n)) ** alpha, as its `brevity_penalty`."""
    logits = constant([NEVER, -1.5, -0.3, -2.0])
    ((first, second),) = decode(logits, t5x_beams(length_penalty=0.8), rows=1, steps=6)
    for one in (first, second):
        assert one.ended
        np.testing.assert_allclose(one.beam_score, one.score * (6 / (5 + len(one.tokens))) ** 0.8, rtol=1e-5)
    ((theirs, *_),) = decode(logits, BeamSearch(num_beams=2, length_penalty=0.8), rows=1, steps=6)
    np.testing.assert_allclose(theirs.beam_score, theirs.score / len(theirs.tokens) ** 0.8, rtol=1e-5)
