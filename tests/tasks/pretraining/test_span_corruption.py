import numpy as np
import pytest

from flan_jax.tasks.pretraining.span_corruption import (
    Noise,
    corrupted,
    one_sentinel,
    prefix_mask,
    unique_sentinels,
    without,
)


# T5's own helper gives these.
@pytest.mark.parametrize(
    ("max_input_tokens", "density", "mean_span", "raw", "targets"),
    [
        (128, 0.15, 3.0, 141, 29),
        (256, 0.15, 3.0, 284, 58),
        (512, 0.15, 3.0, 568, 114),
        (1024, 0.15, 3.0, 1137, 229),
        (2048, 0.15, 3.0, 2274, 456),
        (64, 0.20, 2.0, 70, 22),
        (64, 0.20, 1.0, 63, 27),
    ],
)
def test_lengths_are_t5s(max_input_tokens, density, mean_span, raw, targets):
    noise = Noise(density=density, mean_span=mean_span)
    assert noise.raw_length(max_input_tokens) == raw
    inputs, got = noise.lengths(raw)
    assert got == targets
    assert inputs <= max_input_tokens < noise.lengths(raw + 1)[0]


def test_examples_have_the_predicted_lengths_and_all_tokens(subtests):
    for num_tokens in [2, 3, 7, 70, 141, 568]:
        for noise in [Noise(), Noise(density=0.2, mean_span=1), Noise(density=0.8, mean_span=1.5)]:
            for replacement in ["sentinels", "one sentinel", "nothing"]:
                with subtests.test(num_tokens=num_tokens, noise=noise, replacement=replacement):
                    tokens = np.arange(100, 100 + num_tokens)
                    mask = noise.mask(num_tokens, np.random.default_rng(num_tokens))
                    inputs, targets = corrupted(tokens, mask, last_id=9999, replacement=replacement)
                    assert (len(inputs) + 1, len(targets) + 1) == noise.lengths(num_tokens, replacement=replacement)
                    assert sorted([*inputs[inputs < 9000], *targets[targets < 9000]]) == tokens.tolist()


def test_the_number_of_hidden_tokens_and_spans_is_exact_and_their_positions_vary():
    noise, rng = Noise(), np.random.default_rng(0)
    masks = [noise.mask(568, rng) for _ in range(200)]
    for mask in masks:
        assert mask.sum() == 85
        assert np.count_nonzero(np.diff(mask.astype(int)) == 1) == 28
        assert not mask[0] and mask[-1]
    often = np.mean(masks, axis=0)
    assert np.ptp(often[100:500]) < 0.25 and abs(often[100:500].mean() - 0.15) < 0.01


def test_all_partitions_are_equally_likely():
    rng = np.random.default_rng(0)
    noise = Noise(density=0.5, mean_span=2.0)  # 8 tokens: 4 hidden in 2 spans, 3 ways each.
    seen, counts = np.unique([noise.mask(8, rng) for _ in range(9000)], axis=0, return_counts=True)
    assert len(seen) == 9
    assert counts.min() > 850 and counts.max() < 1150


TOKENS, MASK = np.arange(10, 16), np.array([1, 1, 0, 0, 1, 0], bool)


@pytest.mark.parametrize(
    ("replaced", "mask", "wanted"),
    [
        (one_sentinel, MASK, [999, 12, 13, 999, 15]),
        (unique_sentinels, MASK, [999, 12, 13, 998, 15]),
        (without, MASK, [12, 13, 15]),
        (without, ~MASK, [10, 11, 14]),
        (unique_sentinels, np.zeros(6, bool), [10, 11, 12, 13, 14, 15]),
        (unique_sentinels, np.ones(6, bool), [999]),
    ],
)
def test_t5_sentinel_vectors(replaced, mask, wanted):
    assert replaced(TOKENS, mask, last_id=999).tolist() == wanted


def test_no_density_hides_nothing():
    noise = Noise(density=0)
    assert not noise.mask(10, np.random.default_rng(0)).any()
    assert noise.lengths(10) == (11, 1)
    assert noise.raw_length(64) == 63


def test_half_the_tokens_never_make_targets_longer_than_inputs():
    # 9 tokens: round(4.5) = 4 hidden; 11: round(5.5) = 6 hidden, which is one more than stay.
    noise = Noise(density=0.5, mean_span=3.0)
    for limit in range(6, 200):
        raw = noise.raw_length(limit)
        inputs, targets = noise.lengths(raw)
        assert targets <= inputs <= limit
    assert noise.lengths(11) == (8, 9)
    assert noise.raw_length(8) == 10


def test_a_prefix_is_never_empty_and_never_all():
    rng = np.random.default_rng(0)
    masks = np.array([prefix_mask(5, rng) for _ in range(4000)])
    prefixes = (~masks).sum(axis=1)
    assert all((np.diff(mask.astype(int)) >= 0).all() for mask in masks)
    assert np.bincount(prefixes).tolist()[0] == 0 and set(prefixes) == {1, 2, 3, 4}
    assert np.bincount(prefixes)[1:].min() > 900


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 1.0}, "Noise.density: expected a number of at least 0 and below 1, got 1.0"),
        ({"density": -0.1}, "Noise.density: expected"),
        ({"mean_span": 0.5}, "Noise.mean_span: expected a number of at least 1, got 0.5"),
        ({"mean_span": float("nan")}, "Noise.mean_span: expected"),
    ],
)
def test_invalid_noise_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Noise(**settings)


def test_a_limit_that_no_text_is_within_is_refused():
    with pytest.raises(ValueError, match="need inputs of at least 3 tokens; got 2"):
        Noise().raw_length(2)
