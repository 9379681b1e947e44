"""Changes of the scores before a token is chosen, in the order and with the results of transformers' processors."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from flan_jax.decoding import vocabulary_axis
from flan_jax.decoding.strategies import Sampling, Strategy
from flan_jax.shapes import DECODER_START_ID

FORBIDDEN = -jnp.inf


def process(
    score_BNV: Float32[Array, "B N V"],
    *,
    strategy: Strategy,
    history_BNT: Int32[Array, "B N T"],
    age_B: Int32[Array, " B"],
    eos_id: int,
) -> Float32[Array, "B N V"]:
    """Returns the scores after the repetition penalty, n-gram blocking and the smallest length.

    Args:
      score_BNV: Logits, or log-probabilities in beam search.
      strategy: The settings.
      history_BNT: The tokens of each candidate so far, of which the first `age_B` count.
      age_B: The number of tokens of each row's candidates.
      eos_id: The end of sequence.
    """
    # As in transformers, the start token belongs to the history.
    start_BN1 = jnp.full_like(history_BNT[..., :1], DECODER_START_ID)
    seen_BNT = jnp.concatenate([start_BN1, history_BNT], axis=-1)
    length_B = age_B + 1
    if strategy.repetition_penalty != 1.0:
        score_BNV = _penalize(score_BNV, seen_BNT, length_B, penalty=strategy.repetition_penalty)
    if 0 < strategy.no_repeat_ngram_size <= seen_BNT.shape[-1]:
        score_BNV = _block_ngrams(score_BNV, seen_BNT, length_B, size=strategy.no_repeat_ngram_size)
    if strategy.min_new_tokens:
        is_short_B11 = (age_B < strategy.min_new_tokens)[:, None, None]
        is_end_11V = (jnp.arange(score_BNV.shape[-1]) == eos_id)[None, None]
        score_BNV = jnp.where(is_short_B11 & is_end_11V, FORBIDDEN, score_BNV)
    return score_BNV


def warp(logits_BNV: Float32[Array, "B N V"], strategy: Sampling) -> Float32[Array, "B N V"]:
    """Returns unnormalized probabilities: the softmax after temperature, top_k, top_p and min_p."""
    logits_BNV = logits_BNV / jnp.float32(strategy.temperature)
    if 0 < strategy.top_k < logits_BNV.shape[-1]:
        least_BN1 = vocabulary_axis.top_k(logits_BNV, strategy.top_k)[0][..., -1:]
        logits_BNV = jnp.where(logits_BNV < least_BN1, FORBIDDEN, logits_BNV)
    weight_BNV = jnp.exp(logits_BNV - jnp.max(logits_BNV, axis=-1, keepdims=True))
    if strategy.top_p < 1.0:
        probability_BNV = weight_BNV / jnp.sum(weight_BNV, axis=-1, keepdims=True)
        least_BN1 = vocabulary_axis.kept_by_mass(probability_BNV, strategy.top_p)
        weight_BNV = jnp.where(probability_BNV < least_BN1, 0.0, weight_BNV)
    if strategy.min_p > 0.0:  # The largest weight is 1.
        weight_BNV = jnp.where(weight_BNV < strategy.min_p, 0.0, weight_BNV)
    return weight_BNV


def _penalize(
    score_BNV: Float32[Array, "B N V"], seen_BNT: Int32[Array, "B N T"], length_B: Int32[Array, " B"], *, penalty: float
) -> Float32[Array, "B N V"]:
    is_seen_BNV = _marked(
        seen_BNT, jnp.arange(seen_BNT.shape[-1])[None, None] < length_B[:, None, None], score_BNV.shape
    )
    penalized_BNV = jnp.where(score_BNV < 0, score_BNV * penalty, score_BNV / penalty)
    return jnp.where(is_seen_BNV, penalized_BNV, score_BNV)


def _block_ngrams(
    score_BNV: Float32[Array, "B N V"], seen_BNT: Int32[Array, "B N T"], length_B: Int32[Array, " B"], *, size: int
) -> Float32[Array, "B N V"]:
    """Forbids each token that followed an earlier occurrence of the last size - 1 tokens."""
    T = seen_BNT.shape[-1]
    # Window w is the n-gram that starts at w; the prefix is the last size - 1 tokens.
    windows = T - size + 1
    prefix_at_B1P = length_B[:, None, None] - (size - 1) + jnp.arange(size - 1)[None, None]
    prefix_BNP = jnp.take_along_axis(seen_BNT, jnp.clip(prefix_at_B1P, 0, T - 1), axis=-1)
    matches_BNW = jnp.arange(windows)[None, None] + size <= length_B[:, None, None]
    for offset in range(size - 1):
        matches_BNW = matches_BNW & (seen_BNT[..., offset : offset + windows] == prefix_BNP[..., offset : offset + 1])
    matches_BNW = jnp.broadcast_to(matches_BNW, (*seen_BNT.shape[:2], windows))
    return jnp.where(_marked(seen_BNT[..., size - 1 :], matches_BNW, score_BNV.shape), FORBIDDEN, score_BNV)


def _marked(
    tokens_BNT: Int32[Array, "B N _"], counts_BNT: Bool[Array, "B _ _"], shape: tuple[int, ...]
) -> Bool[Array, "B N V"]:
    """Returns the ids that are among the tokens that count, as a mask of the vocabulary."""
    B, N, V = shape
    ids = jnp.where(counts_BNT, tokens_BNT, V)  # Outside of the mask, and so dropped.
    rows, candidates = jnp.arange(B)[:, None, None], jnp.arange(N)[None, :, None]
    return jnp.zeros(shape, bool).at[rows, candidates, ids].set(True, mode="drop")
