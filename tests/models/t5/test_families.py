"""Recognizing a family by its numbers, and describing a network."""

import dataclasses

import pytest

from flan_jax.models.t5.families import FAMILIES, describe, recognize
from tests import made_up_t5 as made_up

PUBLISHED = {family.name: family for family in FAMILIES}
TITLES = {
    "t5_1_0": "T5 1.0",
    "t5_1_1": "T5 1.1, LM-adapted or Flan-T5",
    "lm_adapted": "T5 1.1, LM-adapted or Flan-T5",
    "flan_t5": "T5 1.1, LM-adapted or Flan-T5",
    "mt5": "mT5",
    "umt5": "umT5",
    "byt5": "ByT5",
    "ul2": "UL2 or Flan-UL2",
    "flan_ul2": "UL2 or Flan-UL2",
}


def test_every_family_is_tested():
    assert list(PUBLISHED) == list(TITLES)


@pytest.mark.parametrize("name", TITLES)
def test_every_published_size_is_recognized(name):
    for size in PUBLISHED[name].sizes:
        found = recognize(PUBLISHED[name].config(size))
        assert found.title == TITLES[name]
        assert PUBLISHED[name] in found.families
        assert found.gin_file == f"gin_configs/models/{found.families[0].name}/{size}.gin"


def test_an_unpublished_size_has_a_family_but_no_file():
    found = recognize(dataclasses.replace(PUBLISHED["mt5"].config("small"), mlp_dim=1025))
    assert (found.title, found.gin_file) == ("mT5", None)


def test_another_vocabulary_size_is_named_with_the_network():
    per_layer = recognize(dataclasses.replace(PUBLISHED["umt5"].config("base"), vocab_size=32128))
    assert per_layer.title == "the network of umT5 with a table of 32128 rows"
    assert (per_layer.families, per_layer.gin_file) == ((), None)


def test_an_unknown_network_has_no_family():
    assert recognize(made_up.config("t5_1_0", logits_via_embedding=False)).title == "a T5 of no published family"


def test_silu_and_swish_are_the_same_family():
    config = dataclasses.replace(PUBLISHED["ul2"].config("20b"), mlp_activations=("swish", "linear"))
    assert recognize(config).title == "UL2 or Flan-UL2"


@pytest.mark.parametrize(("family", "scale", "text"), [("umt5", True, "scaled"), ("ul2", False, "not scaled")])
def test_a_scaling_unlike_the_familys_is_named(family, scale, text):
    config = PUBLISHED[family].config(min(PUBLISHED[family].sizes))
    assert recognize(dataclasses.replace(config, scale_decoder_outputs=scale)).title == (
        f"{TITLES[family]}, decoder outputs {text}"
    )
    same = dataclasses.replace(config, scale_decoder_outputs=not scale)
    assert recognize(same) == recognize(config)


def test_a_network_is_described_in_one_line():
    assert describe(PUBLISHED["umt5"].config("small")) == (
        "umT5 (gated gelu, untied logits, a bias table in each layer): emb_dim 512, 6 heads of 64, mlp_dim 1024, "
        "8+8 layers, vocab_size 256384"
    )
    assert describe(PUBLISHED["t5_1_0"].config("11b")).startswith(
        "T5 1.0 (plain relu, tied logits): emb_dim 1024, 128 heads"
    )
    assert "36+12 layers" in describe(PUBLISHED["byt5"].config("xl"))
