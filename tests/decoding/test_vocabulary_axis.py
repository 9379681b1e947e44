"""Operations over the vocabulary against NumPy, ties included, and the distribution of what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.decoding import vocabulary_axis
from flan_jax.decoding.processors import process, warp
from flan_jax.decoding.strategies import Greedy, Sampling

RNG = np.random.default_rng(0)
# Few values, so that many are equal; sizes with and without a rest of a block.
LOGITS = {size: np.round(RNG.normal(0, 2, (2, 3, size)), 1).astype(np.float32) for size in (5, 130, 2048)}


@pytest.mark.parametrize("size", LOGITS)
def test_the_largest_values_and_the_first_of_equals_are_returned(size):
    logits = LOGITS[size]
    np.testing.assert_array_equal(vocabulary_axis.argmax(jnp.asarray(logits)), np.argmax(logits, axis=-1))
    for k in (1, 4):
        values, ids = vocabulary_axis.top_k(jnp.asarray(logits), k)
        order = np.argsort(-logits, axis=-1, kind="stable")[..., :k]
        np.testing.assert_array_equal(ids, order)
        np.testing.assert_array_equal(values, np.take_along_axis(logits, order, axis=-1))


def test_a_forbidden_token_is_never_the_largest():
    logits = jnp.full((1, 1, 300), -jnp.inf).at[0, 0, 257].set(-1e30)
    assert vocabulary_axis.argmax(logits).item() == 257
    assert vocabulary_axis.top_k(logits, 1)[1].item() == 257


def warped(options, logits):
    """The distribution after the filters, by sorting, as transformers' warpers compute it."""
    scaled = logits.astype(np.float64) / options.get("temperature", 1.0)
    if k := options.get("top_k"):
        scaled = np.where(scaled < np.sort(scaled)[-min(k, len(scaled))], -np.inf, scaled)
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    if "top_p" in options:
        order = np.argsort(p, kind="stable")
        is_removed = np.cumsum(p[order]) <= 1 - options["top_p"]
        is_removed[-1] = False
        p[order[is_removed]] = 0.0
        p /= p.sum()
    p[p < options.get("min_p", 0.0) * p.max()] = 0.0
    return p / p.sum()


FILTERS = [
    {},
    {"temperature": 0.6},
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.2},
    {"temperature": 1.5, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
    {"top_p": 0.0},
    {"top_p": 0.999},
]


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_filters_keep_the_tokens_that_transformers_keeps(options):
    for size in (5, 2048):
        logits = RNG.normal(0, 2, (2, 3, size)).astype(np.float32)
        weights = np.asarray(warp(jnp.asarray(logits), Sampling(**options)), np.float64)
        for row, expected in zip(weights.reshape(-1, size), logits.reshape(-1, size), strict=True):
            expected = warped(options, expected)
            np.testing.assert_array_equal(row > 0, expected > 0)
            np.testing.assert_allclose(row / row.sum(), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_drawn_tokens_have_the_distribution(options):
    """Chi-square with 200,000 draws; the limit is passed by chance once in 100,000 times."""
    size, draws = 200, 200_000
    logits = np.random.default_rng(1).normal(0, 1.5, size).astype(np.float32)
    weights = warp(jnp.asarray(logits)[None, None], Sampling(**options))
    uniform = jax.random.uniform(jax.random.key(2), (1, draws))
    draw = jax.jit(lambda w, u: vocabulary_axis.invert_cdf(jnp.broadcast_to(w, (*u.shape, size)), u))
    counts = sum(np.bincount(draw(weights, part).ravel(), minlength=size) for part in np.split(uniform, 20, axis=1))
    expected = warped(options, logits) * draws
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    chi_square = np.sum((counts[kept] - expected[kept]) ** 2 / expected[kept])
    freedom = kept.sum() - 1
    assert chi_square <= freedom + 4.3 * np.sqrt(2 * freedom) + 20


def test_the_ends_of_the_unit_interval_draw_tokens_with_a_weight():
    weights = np.zeros((1, 2, 400), np.float32)
    weights[0, :, [130, 131, 399]] = [[0.1], [1e-30], [0.2]]
    weights[0, 1, 399] = 0.0
    below_one = np.float32(1 - 2**-24)
    drawn = [
        vocabulary_axis.invert_cdf(jnp.asarray(weights), jnp.full((1, 2), u, jnp.float32)) for u in (0.0, below_one)
    ]
    np.testing.assert_array_equal(drawn[0], [[130, 130]])
    assert drawn[1][0, 0] == 399 and drawn[1][0, 1] in (130, 131)


def test_processors_read_only_the_tokens_of_the_row():
    """What a slot's last row left behind its own tokens does not count, and neither do other candidates' tokens."""
    score = jnp.asarray(np.random.default_rng(3).normal(size=(2, 2, 9)).astype(np.float32))
    history = np.array([[[3, 4, 3, 7, 7], [3, 4, 3, 8, 8]], [[5, 5, 5, 5, 5], [6, 6, 6, 6, 6]]], np.int32)
    age = jnp.asarray([3, 0], jnp.int32)

    def processed(**options):
        strategy = Greedy(**options)
        return np.asarray(process(score, strategy=strategy, history_BNT=jnp.asarray(history), age_B=age, eos_id=1))

    blocked = processed(no_repeat_ngram_size=2)  # 3 was followed by 4.
    assert np.argwhere(np.isinf(blocked)).tolist() == [[0, 0, 4], [0, 1, 4]]
    short = processed(min_new_tokens=3)
    assert np.argwhere(np.isinf(short)).tolist() == [[1, 0, 1], [1, 1, 1]]
    changed = np.argwhere(processed(repetition_penalty=2.0) != score)
    seen = [[0, n, token] for n in (0, 1) for token in (0, 3, 4)] + [[1, n, 0] for n in (0, 1)]
    assert changed.tolist() == seen  # The start token counts, as in transformers.
