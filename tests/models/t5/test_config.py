"""Invalid configs are refused at construction."""

import re

import pytest

from flan_jax.models.t5.config import T5Config

SIZES = {"emb_dim": 8, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "head_dim": 4, "mlp_dim": 16}
REFUSALS = {
    "float16": (
        {"dtype": "float16"},
        "exceed float16's largest number, 65,504, and the run ends in NaN. Use 'bfloat16'",
    ),
    "dtype": ({"dtype": "bfloat61"}, "T5Config.dtype is 'bfloat61'; allowed are 'float32', 'bfloat16'. Did you mean"),
    "size": ({"num_heads": 0}, "T5Config.num_heads is 0; it must be a positive integer."),
    "fraction": ({"mlp_dim": 16.0}, "T5Config.mlp_dim is 16.0; it must be a positive integer."),
    "activation": ({"mlp_activations": ("rellu",)}, "has 'rellu'; allowed are relu, gelu"),
    "no activation": ({"mlp_activations": ()}, "T5Config.mlp_activations is empty"),
    "choice": ({"relpos_bias_per_layer": 1}, "T5Config.relpos_bias_per_layer is 1; it must be True or False."),
    "unset choice": (
        {"logits_via_embedding": None},
        "T5Config.logits_via_embedding is None; it must be True or False.",
    ),
    "scale": (
        {"scale_decoder_outputs": 0.5},
        "T5Config.scale_decoder_outputs is 0.5; it must be True, False or None (as logits_via_embedding).",
    ),
    "dropout": ({"dropout_rate": 1.0}, "T5Config.dropout_rate is 1.0; it must be at least 0 and below 1."),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_config_that_cannot_work_is_refused(case):
    changes, text = REFUSALS[case]
    with pytest.raises(ValueError, match=re.escape(text)):
        T5Config(**{**SIZES, **changes})


def test_a_list_of_activations_makes_an_equal_config():
    assert T5Config(**SIZES, mlp_activations=["relu"]) == T5Config(**SIZES, mlp_activations=("relu",))


@pytest.mark.parametrize("tied", [True, False])
def test_decoder_outputs_are_scaled_if_logits_are_tied_unless_set(tied):
    scaled = [
        T5Config(**SIZES, logits_via_embedding=tied, scale_decoder_outputs=setting).decoder_outputs_are_scaled
        for setting in (None, True, False)
    ]
    assert scaled == [tied, True, False]
