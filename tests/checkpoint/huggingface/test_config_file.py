"""`config.json`: what versions 4 and 5 of transformers mean by it, and what no T5 of this project has."""

import json

import numpy as np
import pytest

from flan_jax.checkpoint.huggingface import config_file
from flan_jax.errors import UserError
from tests.checkpoint import synthetic_huggingface as synthetic

PLACE = "/some/config.json"


def stated(family: str = "t5_1_1", **changes):
    """A file of no version, as `written` has it; ... removes a field."""
    content = config_file.written(synthetic.config(family), dtype=np.dtype(np.float32)) | changes
    return {name: value for name, value in content.items() if value is not ...}


def read(family: str = "t5_1_1", *, head="own", **changes):
    return config_file.network(stated(family, **changes), head=head, where=PLACE)


def refused(family: str = "t5_1_1", *, head="own", **changes) -> str:
    with pytest.raises(ValueError) as error:
        read(family, head=head, **changes)
    return str(error.value)


# tie_word_embeddings, scale_decoder_outputs, head -> (tied, scaled), as the code of each version computes.
@pytest.mark.parametrize(
    ("version", "model_type", "ties", "scales", "head", "meaning"),
    [
        ("4.57.6", "t5", False, ..., "own", (False, False)),
        ("4.57.6", "t5", ..., ..., "absent", (True, True)),
        ("4.57.6", "t5", True, ..., "copy", (True, True)),
        ("4.57.6", "t5", False, True, "own", (False, False)),  # version 4 keeps what it does not know
        ("4.57.6", "mt5", ..., ..., "own", (False, False)),
        ("4.57.6", "mt5", True, ..., "absent", (True, True)),
        ("5.23.0", "t5", True, False, "own", (False, False)),
        ("5.23.0", "t5", True, True, "own", (False, True)),
        ("5.23.0", "t5", True, False, "absent", (True, False)),
        ("5.23.0", "t5", False, ..., "own", (False, False)),
        ("5.23.0", "mt5", True, ..., "own", (False, False)),
        ("5.23.0", "mt5", True, ..., "absent", (True, False)),
        ("5.23.0", "umt5", True, ..., "own", (False, True)),
        ("5.23.0", "umt5", True, ..., "absent", (True, True)),
        ("5.23.0", "umt5", False, ..., "own", (False, False)),  # set after loading, to stop the scaling
        ("5.23.0", "umt5", True, False, "own", (False, True)),  # carried along from the file that was loaded, not read
        ("5.24.0", "umt5", True, False, "own", (False, False)),
        ("5.24.0", "umt5", True, True, "own", (False, True)),
        (..., "t5", False, False, "own", (False, False)),
        (..., "t5", False, True, "own", (False, True)),
        (..., "umt5", False, False, "copy", (True, False)),
        (..., "umt5", False, ..., "own", (False, False)),
    ],
)
def test_ties_and_scales_mean_what_the_writing_version_means(version, model_type, ties, scales, head, meaning):
    config = read(
        head=head,
        transformers_version=version,
        model_type=model_type,
        tie_word_embeddings=ties,
        scale_decoder_outputs=scales,
    )
    assert (config.logits_via_embedding, config.decoder_outputs_are_scaled) == meaning
    assert config.relpos_bias_per_layer == (model_type == "umt5")


def test_a_head_that_the_file_denies_is_refused():
    message = refused("t5_1_0", head="own")
    assert "lm_head.weight differs from shared.weight, but /some/config.json declares them tied" in message
    assert "tie_word_embeddings is True" in message and "set tie_word_embeddings to false there" in message


def test_a_head_that_the_file_promises_is_missed():
    message = refused("t5_1_1", head="absent")
    assert "lm_head.weight is missing, but /some/config.json declares a separate output layer" in message


@pytest.mark.parametrize("family", synthetic.FAMILIES)
def test_what_is_written_reads_back_the_same(family):
    config = synthetic.config(family)
    head = "own" if not config.logits_via_embedding else "copy" if config_file.stores_copy(config) else "absent"
    assert read(family, head=head) == config


@pytest.mark.parametrize(
    ("activations", "projection", "function"),
    [
        (("relu",), "relu", "relu"),
        (("gelu",), "gelu_new", "gelu_new"),
        (("relu", "linear"), "gated-relu", "relu"),
        (("gelu", "linear"), "gated-gelu", "gelu_new"),
        (("silu", "linear"), "gated-silu", "silu"),
        (("tanh", "linear"), "gated-tanh", "tanh"),
    ],
)
def test_activations_are_spelled_as_theirs_and_read_back(activations, projection, function):
    config = synthetic.config("t5_1_1", mlp_activations=activations)
    content = config_file.written(config, dtype=np.dtype(np.float32))
    assert (content["feed_forward_proj"], content["dense_act_fn"]) == (projection, function)
    assert config_file.network(content, head="own", where=PLACE) == config
    # Older files leave these two out; they follow from feed_forward_proj.
    del content["dense_act_fn"], content["is_gated_act"]
    assert config_file.network(content, head="own", where=PLACE) == config


def test_swish_is_their_silu():
    config = synthetic.config("t5_1_1", mlp_activations=("swish", "linear"))
    assert config_file.written(config, dtype=np.dtype(np.float32))["feed_forward_proj"] == "gated-silu"


def test_fields_that_old_files_lack_have_their_defaults():
    config = read(
        "t5_1_0",
        head="absent",
        feed_forward_proj=...,
        dense_act_fn=...,
        is_gated_act=...,
        num_decoder_layers=...,
        relative_attention_max_distance=...,
        tie_word_embeddings=...,
        scale_decoder_outputs=...,
    )
    assert config == synthetic.config("t5_1_0", num_decoder_layers=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative_attention_num_buckets": "32"}, "has relative_attention_num_buckets '32'; it must be a positive"),
        ({"relative_attention_num_buckets": 2}, "T5Config.relpos_buckets is 2; it must be at least 4"),
        ({"relative_attention_max_distance": 16}, "relpos_max_distance is 16; with 32 buckets, half of which"),
        ({"relative_attention_max_distance": 1e9}, "has relative_attention_max_distance 1000000000.0; it must be"),
        ({"layer_norm_epsilon": 0}, "has layer_norm_epsilon 0; it must be a number above 0 and below 1"),
        ({"layer_norm_epsilon": float("nan")}, "has layer_norm_epsilon nan; it must be a number above 0"),
        ({"tie_word_embeddings": "false"}, "has tie_word_embeddings 'false'; it must be true or false"),
        ({"scale_decoder_outputs": 0}, "has scale_decoder_outputs 0; it must be true or false"),
        ({"feed_forward_proj": None}, "has feed_forward_proj None; it must be the name of an activation"),
        ({"num_layers": -3}, "has num_layers -3; it must be a positive integer"),
        ({"d_ff": 20.0}, "has d_ff 20.0; it must be a positive integer"),
        ({"is_encoder_decoder": False}, "has is_encoder_decoder False; supported is True"),
        ({"d_model": ...}, "has d_model None; it must be a positive integer"),
        ({"num_heads": 0}, "has num_heads 0; it must be a positive integer"),
        ({"num_decoder_layers": "2"}, "has num_decoder_layers '2'; it must be a positive integer"),
        (
            {"feed_forward_proj": "gelu-gated"},
            "has feed_forward_proj 'gelu-gated'; it must be an activation, optionally after 'gated-'",
        ),
        ({"dense_act_fn": "gelu"}, "has dense_act_fn 'gelu'; supported activations are gelu_new, relu"),
        ({"dense_act_fn": "gelu"}, "'gelu' is a different function from gelu_new."),
        ({"dense_act_fn": ..., "feed_forward_proj": "mish"}, "has feed_forward_proj 'mish'; supported activations"),
    ],
)
def test_what_this_projects_t5_is_not_is_refused_by_name(changes, message):
    assert message in refused(**changes) and PLACE in refused(**changes)


def test_buckets_distance_and_epsilon_are_the_files_and_written_back():
    numbers = {
        "relative_attention_num_buckets": 16,
        "relative_attention_max_distance": 40,
        "layer_norm_epsilon": 1e-5,
    }
    config = read(**numbers)
    assert (config.relpos_buckets, config.relpos_max_distance, config.layer_norm_epsilon) == (16, 40, 1e-5)
    written = config_file.written(config, dtype=np.dtype(np.float32))
    assert numbers.items() <= written.items()
    assert read(**dict.fromkeys(numbers, ...)).relpos_buckets == 32


def test_other_ids_are_noted():
    content = stated(eos_token_id=[1, 2], pad_token_id=5, decoder_start_token_id=None)
    config = config_file.network(content, head="own", where=PLACE)
    assert config_file.notes(content, config, head="own") == [
        "config.json has pad_token_id 5; this project uses 0.",
        "config.json has eos_token_id [1, 2]; this project uses 1.",
    ]


@pytest.mark.parametrize(("family", "model_type"), [("t5_1_0", "t5"), ("byt5", "t5"), ("mt5", "mt5"), ("umt5", "umt5")])
def test_the_model_type_follows_from_the_network(family, model_type):
    config = synthetic.config(family, **({"vocab_size": 250112} if family == "mt5" else {}))
    content = config_file.written(config, dtype=np.dtype(np.float32))
    assert content["model_type"] == model_type
    assert content["architectures"] == [
        {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}[model_type] + "ForConditionalGeneration"
    ]


def test_mt5s_vocabulary_with_scaled_logits_is_a_t5():
    config = synthetic.config("mt5", vocab_size=250112, logits_via_embedding=True)
    assert config_file.written(config, dtype=np.dtype(np.float32))["model_type"] == "t5"


@pytest.mark.parametrize("activations", [("linear", "gelu"), ("gelu", "linear", "linear")])
def test_a_feed_forward_that_hugging_face_lacks_is_refused(activations):
    config = synthetic.config("t5_1_1", mlp_activations=activations)
    with pytest.raises(ValueError, match="mlp_activations are .*; Hugging Face's T5 has one activation"):
        config_file.written(config, dtype=np.dtype(np.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not JSON"),
        ("{}", "has model_type None; supported are t5, mt5, umt5."),
        ('{"model_type": "longt5"}', "has model_type 'longt5'; supported are t5, mt5, umt5. Did you mean"),
        ('{"model_type": ["t5"]}', "has model_type ['t5']"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json") as error:
        config_file.read(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "config.json is not JSON (nested too deep)"),
        (b'{"a": ' * 100_000, "config.json is not JSON (nested too deep)"),
        ('{"model_type": "t5", "name": "é"}'.encode("latin-1"), "config.json is not JSON ('utf-8' codec"),
        (b'{"model_type": "t5", "d_ff": 3, "d_ff": 4}', "config.json has 'd_ff' twice in one object"),
        (b"[1]", "config.json is a JSON list, expected an object"),
        (b"null", "config.json is a JSON NoneType, expected an object"),
        (b"\0\0", "config.json is not JSON"),
    ],
)
def test_json_that_cannot_be_read_is_refused_with_the_file(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        config_file.read(tmp_path)
    assert message in str(error.value) and str(error.value).endswith("Fetch or write it again.")


def test_the_ids_are_where_version_5_looks_for_them():
    assert config_file.generation() == {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    json.dumps(stated())
