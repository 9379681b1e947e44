"""Beam search and processors against transformers' stored sequences and scores, for shared and per-layer biases."""

import json

import numpy as np
import pytest

from flan_jax.decoding.strategies import Greedy, strategy_of
from tests import made_up_t5 as made_up
from tests.decoding import tiny

GOLDENS = json.loads((made_up.goldens.GOLDEN_DIR / "transformers_decoding.json").read_text())
STEPS = made_up.goldens.GREEDY_TOKENS


@pytest.mark.parametrize("family", made_up.goldens.FAMILIES)
def test_greedy_tokens_are_equal(family):
    decoded = tiny.decode(family, Greedy(), rows=tiny.PROMPTS, steps=STEPS)
    for (hypothesis,), expected in zip(decoded, made_up.golden(family)["prompts_greedy"], strict=True):
        assert hypothesis.tokens.tolist() == expected[: len(hypothesis.tokens)].tolist()
        assert hypothesis.ended == (hypothesis.tokens[-1] == 1) and (expected[len(hypothesis.tokens) :] == 0).all()


@pytest.mark.parametrize("name", GOLDENS)
def test_sequences_and_scores_are_equal(name):
    family, setting = name.split("/")
    options = dict(made_up.goldens.DECODINGS[setting])
    eos_id = options.pop("eos")
    decoded = tiny.decode(family, strategy_of(**options), rows=tiny.PROMPTS, steps=STEPS, eos_id=eos_id)
    hypotheses = [hypothesis for row in decoded for hypothesis in row]
    assert [hypothesis.tokens.tolist() for hypothesis in hypotheses] == GOLDENS[name]["tokens"]
    assert [hypothesis.ended for hypothesis in hypotheses] == [
        tokens[-1] == eos_id for tokens in GOLDENS[name]["tokens"]
    ]
    if (scores := GOLDENS[name]["scores"]) is not None:
        np.testing.assert_allclose([hypothesis.beam_score for hypothesis in hypotheses], scores, rtol=1e-5, atol=1e-5)


def test_the_stored_sequences_have_several_lengths():
    for name, stored in GOLDENS.items():
        if name not in ("t5_1_1/beams_long", "t5_1_1/beams_early"):  # Where all reach the limit.
            assert len({len(tokens) for tokens in stored["tokens"]}) > 1, name
