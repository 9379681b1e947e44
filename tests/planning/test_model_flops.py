"""The formula of model FLOPs, against figures worked out elsewhere and against compiled programs."""

import dataclasses

import pytest

from flan_jax.models.families import FAMILIES
from flan_jax.planning.model_flops import forward_flops_per_row, training_flops_per_row

T5_1_1 = next(family for family in FAMILIES if family.name == "t5_1_1")
PER_ROW = {"small": 1.10e11, "base": 4.38e11, "large": 1.50e12, "xl": 5.47e12, "xxl": 2.14e13}


@pytest.mark.parametrize("size", PER_ROW)
def test_a_row_of_512_and_128_tokens_takes_what_is_published(size):
    found = training_flops_per_row(T5_1_1.config(size), encoder_length=512, decoder_length=128)
    assert found == pytest.approx(PER_ROW[size], rel=5e-3)


def test_small_by_hand():
    small = T5_1_1.config("small")  # D 512, heads 6 of 64, F 1024, 8 layers each, V 32128
    encoder = 2 * 512 * 8 * (4 * 512 * 384 + 3 * 512 * 1024) + 4 * 512 * 512 * 384 * 8
    decoder = 2 * 128 * 8 * (6 * 512 * 384 + 3 * 512 * 1024) + 4 * 128 * 128 * 384 * 8
    cross = 2 * 512 * 8 * (2 * 512 * 384) + 4 * 512 * 128 * 384 * 8
    head = 2 * 128 * 512 * 32128
    found = forward_flops_per_row(small, encoder_length=512, decoder_length=128)
    assert found == encoder + decoder + cross + head


def test_a_feed_forward_without_a_gate_has_two_matrices():
    gated = T5_1_1.config("small")
    plain = dataclasses.replace(gated, mlp_activations=("relu",))
    less = forward_flops_per_row(gated, encoder_length=8, decoder_length=4) - forward_flops_per_row(
        plain, encoder_length=8, decoder_length=4
    )
    assert less == 2 * (8 + 4) * 8 * 512 * 1024
