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
    "dtype": ({"dtype": "bfloat61"}, "T5Config.dtype must be one of float32, bfloat16; got 'bfloat61'. Did you mean"),
    "size": ({"num_heads": 0}, "T5Config.num_heads: expected a whole number of at least 1, got 0."),
    "fraction": ({"mlp_dim": 16.0}, "T5Config.mlp_dim: expected a whole number of at least 1, got 16.0."),
    "activation": ({"mlp_activations": ("rellu",)}, "T5Config.mlp_activations must be one of relu, gelu"),
    "no activation": ({"mlp_activations": ()}, "T5Config.mlp_activations is empty"),
    "choice": ({"relpos_bias_per_layer": 1}, "T5Config.relpos_bias_per_layer: expected true or false, got 1."),
    "unset choice": (
        {"logits_via_embedding": None},
        "T5Config.logits_via_embedding: expected true or false, got None.",
    ),
    "scale": (
        {"scale_decoder_outputs": 0.5},
        "T5Config.scale_decoder_outputs: expected true or false, got 0.5.",
    ),
    "dropout": ({"dropout_rate": 1.0}, "T5Config.dropout_rate: expected a number of at least 0 and below 1, got 1.0."),
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
