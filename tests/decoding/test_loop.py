"""Cached greedy decoding: transformers' tokens, the uncached argmax, endings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.decoding.loop import generate
from flan_jax.decoding.sampling import Greedy
from flan_jax.models.position_bias import RelativePositionBias
from flan_jax.models.t5 import model as t5
from tests import made_up_t5 as made_up

BATCH = made_up.goldens.made_up_batch()
STEPS = made_up.goldens.GREEDY_TOKENS


@functools.cache
def greedy(family: str, steps: int, **changes) -> np.ndarray:
    config = made_up.config(family, **changes)
    run = jax.jit(functools.partial(generate, config=config, max_decode_length=steps))
    return np.asarray(run(made_up.params(config), BATCH))


@pytest.mark.parametrize("family", made_up.goldens.FAMILIES)
def test_greedy_tokens_equal_transformers(family):
    np.testing.assert_array_equal(greedy(family, STEPS), made_up.golden(family)["greedy"])


def test_cached_steps_equal_the_argmax_of_uncached_rows():
    """140 steps: beyond the widest bucket of the decoder's bias."""
    config = made_up.config("t5_1_1")
    tokens = greedy("t5_1_1", 140)
    given = {
        **BATCH,
        "decoder_input_tokens": np.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
        "decoder_segment_ids": np.ones_like(tokens),
    }
    logits = jax.jit(functools.partial(t5.forward, config=config))(made_up.params(config), given)
    real = tokens != 0
    assert real[0].sum() > 130
    np.testing.assert_array_equal(np.argmax(logits, -1)[real], tokens[real])


def test_a_row_that_ended_is_padded_while_others_continue():
    tokens = greedy("t5_1_1", STEPS)
    assert (tokens[1] == 1).sum() == 1 and (tokens[1, 9:] == 0).all() and (tokens[0] != 0).all()


def test_a_padding_row_stays_empty_and_changes_no_other():
    config = made_up.config("t5_1_1")
    padded = {key: np.concatenate([value, np.zeros_like(value[:1])]) for key, value in BATCH.items()}
    run = jax.jit(functools.partial(generate, config=config, max_decode_length=STEPS))
    tokens = np.asarray(run(made_up.params(config), padded))
    np.testing.assert_array_equal(tokens, np.pad(greedy("t5_1_1", STEPS), ((0, 1), (0, 0))))


def test_the_loop_stops_when_every_row_has_ended():
    steps_taken = []

    class CountingGreedy(Greedy):
        def choose(self, logits_BV, *, rng):
            jax.debug.callback(lambda: steps_taken.append(1))
            return super().choose(logits_BV, rng=rng)

    config = made_up.config("t5_1_1")
    run = functools.partial(generate, config=config, max_decode_length=STEPS, strategy=CountingGreedy())
    tokens = jax.jit(run)(made_up.params(config), made_up.rows(BATCH, 1))
    jax.block_until_ready(tokens)
    jax.effects_barrier()
    np.testing.assert_array_equal(tokens, greedy("t5_1_1", STEPS)[1:])
    assert len(steps_taken) == np.count_nonzero(tokens) == 9


def test_a_strategy_that_samples_gets_a_new_key_at_each_step():
    class Drawn:
        def choose(self, logits_BV, *, rng):
            return jax.random.randint(rng, logits_BV.shape[:1], 2, 1000)

    config = made_up.config("t5_1_1")
    run = jax.jit(functools.partial(generate, config=config, max_decode_length=4, strategy=Drawn()))
    tokens = np.asarray(run(made_up.params(config), BATCH, rng=jax.random.key(0)))
    assert len(set(tokens.ravel().tolist())) == 8
    np.testing.assert_array_equal(tokens, run(made_up.params(config), BATCH, rng=jax.random.key(0)))


def test_bfloat16_decodes():
    tokens = greedy("t5_1_1", 4, dtype="bfloat16")
    assert tokens.dtype == np.int32 and tokens.shape == (2, 4) and tokens[0, 0] == 19


def test_a_length_below_one_is_refused():
    config = made_up.config("t5_1_1")
    with pytest.raises(ValueError, match="max_decode_length is 0; it must be at least 1"):
        generate(made_up.params(config), BATCH, config=config, max_decode_length=0)


def test_a_row_of_the_bias_is_that_of_the_square_bias():
    bias = RelativePositionBias(num_heads=2, bidirectional=False)
    params = {"params": {"rel_embedding": jnp.arange(64.0).reshape(2, 32)}}
    square = bias.apply(params, 200, 200)
    for index in (0, 1, 37, 199):
        row = bias.apply(params, jnp.int32(index), 200, method="row")
        np.testing.assert_array_equal(row[:, :, 0], square[:, :, index])
