"""`config.json` of Hugging Face's T5, mT5 and umT5, read and written so that transformers 4 and 5 compute our logits.

Two choices of a network lie in that file under one name that changed its meaning. `tie_word_embeddings` said until
version 4 that logits are read from the embedding table and, for that reason, scaled. Version 5 has it always true: it
finds out from the weights whether the output layer is the table, and scales T5's logits as `scale_decoder_outputs`
says, and mT5's never. umT5's logits were always scaled before 5.24, and are scaled like T5's since. What each version
makes of a folder is a function here; where one of them would compute other logits than we do, a note says so.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flan_jax.errors import MissingFileError, UserError
from flan_jax.models.relative_position import RELPOS_BUCKETS, RELPOS_MAX_DISTANCE
from flan_jax.models.t5.config import T5Config
from flan_jax.names import nearest

NAME = "config.json"
GENERATION_NAME = "generation_config.json"
MODEL_TYPES = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}

Head = Literal["own", "copy", "absent"]
"""The output layer among the tensors: `lm_head.weight` with values of its own, with the table's, or not there."""

_SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "emb_dim",
    "num_heads": "num_heads",
    "d_kv": "head_dim",
    "d_ff": "mlp_dim",
    "num_layers": "num_encoder_layers",
    "num_decoder_layers": "num_decoder_layers",
}
_FIXED = {
    "is_encoder_decoder": True,
    "relative_attention_num_buckets": RELPOS_BUCKETS,
    "relative_attention_max_distance": RELPOS_MAX_DISTANCE,
    "layer_norm_epsilon": 1e-6,
}
EOS_ID = 1
_IDS = {"pad_token_id": 0, "eos_token_id": EOS_ID, "decoder_start_token_id": 0}
# Ours is the tanh approximation, which they call "gelu_new"; their "gelu" is another function.
_ACTIVATIONS = {"gelu_new": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh", "linear": "linear"}
_DROPOUT_RATE = 0.1  # What every published config.json has. Weights do not say how they will be trained further.
_MT5_ROWS = 250112
_UMT5_FOLLOWS_T5 = (5, 24)  # The first version whose umT5 reads `scale_decoder_outputs`.
# Those before ask this flag when they scale. Versions before 5.3 take the flag from the file and then miss the table.
_FIX_OF_UMT5 = " Use 5.24 or later, or set model.config.tie_word_embeddings = False there, after loading."


def read(directory: Path) -> dict[str, Any]:
    """Returns `config.json` of a folder.

    Raises:
      MissingFileError: there is none.
      UserError: it is not a JSON object, or says that this is no T5.
    """
    path = directory / NAME
    if not path.is_file():
        raise MissingFileError(f"{path} is missing, which says what network the weights beside it are. Fetch it too.")
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). Fetch or write it again.") from error
    model_type = stated.get("model_type") if isinstance(stated, dict) else None
    if str(model_type) not in MODEL_TYPES:
        raise UserError(
            f"{path} has model_type {model_type!r}; read are {', '.join(MODEL_TYPES)}."
            f"{nearest(str(model_type), MODEL_TYPES)}"
        )
    return stated


def network(stated: Mapping[str, Any], *, head: Head, place: str) -> T5Config:
    """Returns the network that a `config.json` describes; `dropout_rate` is 0 and `dtype` float32.

    Args:
      stated: the file's content.
      head: what the tensors say about the output layer.
      place: the file, for messages.

    Raises:
      UserError: a number or an activation that this project's T5 does not have, or an output layer that is missing or
        contradicts the file.
    """
    for name, wanted in _FIXED.items():
        if stated.get(name, wanted) != wanted:
            raise UserError(
                f"{place} has {name} {stated[name]!r}; supported is {wanted!r}, which every released T5 has."
            )
    _require_head(stated, head, place=place)
    tied = head != "own"
    scaled = _is_scaled(stated)
    return T5Config(
        **_sizes(stated, place=place),
        mlp_activations=_activations(stated, place=place),
        dropout_rate=0.0,
        logits_via_embedding=tied,
        scale_decoder_outputs=None if scaled == tied else scaled,
        relpos_bias_per_layer=stated["model_type"] == "umt5",
    )


def notes(stated: Mapping[str, Any], config: T5Config, *, head: Head) -> list[str]:
    """Returns where other programs differ: ids that are not this project's, and versions that compute other logits."""
    said = [
        f"{NAME} has {name} {stated[name]!r}; here it is {ours}."
        for name, ours in _IDS.items()
        if stated.get(name) not in (None, ours)
    ]
    tied_in_4 = _is_tied_in_4(stated)
    readings = {"4": (tied_in_4, tied_in_4), "5": (head != "own", _is_scaled_in_5(stated))}
    if stated["model_type"] == "umt5":
        readings = {"4": readings["4"], "5.3 to 5.23": (head != "own", True), "5.24": readings["5"]}
    for version, (takes_table, scales) in readings.items():
        differences = []
        if takes_table and head == "own":
            differences.append("reads shared.weight in place of lm_head.weight")
        if scales != config.decoder_outputs_are_scaled:
            verb = "multiplies" if scales else "does not multiply"
            differences.append(f"{verb} the decoder's output by d_model**-0.5")
        if differences:
            fix = _FIX_OF_UMT5 if version == "5.3 to 5.23" else ""
            said.append(
                f"transformers {version} computes other logits from this folder: it {' and '.join(differences)}.{fix}"
            )
    return said


def written(
    config: T5Config, *, dtype: np.dtype, model_type: str | None = None, eos_id: int = EOS_ID
) -> dict[str, Any]:
    """Returns the `config.json` of a network, complete.

    Args:
      config: the network.
      dtype: of the weights.
      eos_id: the vocabulary's end of sequence.
      model_type: of `MODEL_TYPES`; None: umT5's for a bias table in each layer, mT5's for its vocabulary, else T5's.

    Raises:
      UserError: Hugging Face has no such network, or not under this model_type.
    """
    usual = usual_model_type(config)
    chosen = model_type or usual
    if chosen not in MODEL_TYPES:
        allowed = ", ".join(MODEL_TYPES)
        raise UserError(f"model_type is {chosen!r}; allowed are {allowed}.{nearest(chosen, MODEL_TYPES)}")
    if (chosen == "umt5") != config.relpos_bias_per_layer:
        owner = "layer" if config.relpos_bias_per_layer else "stack"
        raise UserError(
            f"model_type is {chosen!r}, and the network has a bias table in each {owner}; write it as {usual!r}."
        )
    if chosen == "mt5" and config.decoder_outputs_are_scaled:
        raise UserError(
            "model_type is 'mt5', under which transformers 5 never scales the logits, as this network does; write it "
            "as 't5'."
        )
    feed_forward = _feed_forward(config)
    sizes = {theirs: getattr(config, ours) for theirs, ours in _SIZES.items()}
    return {
        "architectures": [f"{MODEL_TYPES[chosen]}ForConditionalGeneration"],
        "classifier_dropout": 0.0,
        "dropout_rate": _DROPOUT_RATE,
        "initializer_factor": 1.0,
        "model_type": chosen,
        "scale_decoder_outputs": config.decoder_outputs_are_scaled,
        "tie_word_embeddings": config.logits_via_embedding and config.decoder_outputs_are_scaled,
        "torch_dtype": dtype.name,
        "use_cache": True,
        **sizes,
        **feed_forward,
        **_FIXED,
        **generation(eos_id=eos_id),
    }


def usual_model_type(config: T5Config) -> str:
    """Returns the `model_type` of a network: umT5's, mT5's by the rows of its table, or T5's."""
    if config.relpos_bias_per_layer:
        return "umt5"
    return "mt5" if config.vocab_size == _MT5_ROWS and not config.decoder_outputs_are_scaled else "t5"


def generation(*, eos_id: int = EOS_ID) -> dict[str, Any]:
    """Returns `generation_config.json`: version 5 looks for the ids there alone."""
    return {**_IDS, "eos_token_id": eos_id}


def stores_copy(config: T5Config) -> bool:
    """Whether the table is written as `lm_head.weight` too: version 4 scales the logits that it is told are tied."""
    return config.logits_via_embedding and not config.decoder_outputs_are_scaled


def _sizes(stated: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    sizes = {}
    for theirs, ours in _SIZES.items():
        value = stated.get(theirs)
        if value is None and theirs == "num_decoder_layers":
            value = stated["num_layers"]
        if type(value) is not int or value < 1:
            raise UserError(f"{place} has {theirs} {value!r}; it must be a positive integer.")
        sizes[ours] = value
    return sizes


def _activations(stated: Mapping[str, Any], *, place: str) -> tuple[str, ...]:
    projection = stated.get("feed_forward_proj", "relu" if stated["model_type"] == "t5" else "gated-gelu")
    gate, _, name = str(projection).rpartition("-")
    if gate not in ("", "gated"):
        raise UserError(f"{place} has feed_forward_proj {projection!r}; it must be an activation or 'gated-' and one.")
    usual = "gelu_new" if projection == "gated-gelu" else name
    activation = str(stated.get("dense_act_fn", usual))
    if activation not in _ACTIVATIONS:
        stater = "dense_act_fn" if "dense_act_fn" in stated else "feed_forward_proj"
        other = " Their 'gelu' is another function than gelu_new." if activation == "gelu" else ""
        raise UserError(
            f"{place} has {stater} {stated.get(stater)!r}; the activations that are supported are "
            f"{', '.join(_ACTIVATIONS)}.{other}"
        )
    is_gated = stated.get("is_gated_act", gate == "gated")
    return (_ACTIVATIONS[activation], "linear") if is_gated else (_ACTIVATIONS[activation],)


def _feed_forward(config: T5Config) -> dict[str, Any]:
    spelled = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())} | {"swish": "silu"}
    first, *others = config.mlp_activations
    if others not in ([], ["linear"]):
        raise UserError(
            f"mlp_activations are {', '.join(config.mlp_activations)}; Hugging Face's T5 has one activation, alone or "
            "times one linear branch that comes second."
        )
    name = spelled[first]
    gated = "gelu" if first == "gelu" else name  # "gated-gelu" is their name for the approximation
    return {
        "dense_act_fn": name,
        "feed_forward_proj": f"gated-{gated}" if others else name,
        "is_gated_act": bool(others),
    }


def _version(stated: Mapping[str, Any]) -> tuple[int, int] | None:
    """The version of transformers that wrote the file, major and minor; None when it was another program."""
    match = re.match(r"(\d+)\.(\d+)", str(stated.get("transformers_version", "")))
    return (int(match[1]), int(match[2])) if match else None


def _is_tied_in_4(stated: Mapping[str, Any]) -> bool:
    return stated.get("tie_word_embeddings", stated["model_type"] != "mt5") is not False


def _is_scaled_in_5(stated: Mapping[str, Any]) -> bool:
    """As 5.24 and later compute."""
    if stated["model_type"] == "mt5":
        return False
    return bool(stated.get("scale_decoder_outputs", stated.get("tie_word_embeddings") is not False))


def _is_scaled(stated: Mapping[str, Any]) -> bool:
    """As the version that wrote the file computes; a file of no version may say it."""
    version = _version(stated)
    if version is None and "scale_decoder_outputs" in stated:
        return bool(stated["scale_decoder_outputs"])
    if version is None or version < (5, 0):
        return _is_tied_in_4(stated)
    if stated["model_type"] == "umt5" and version < _UMT5_FOLLOWS_T5:
        # The flag is false in a file of these versions only if it was set after loading, which stops the scaling.
        return stated.get("tie_word_embeddings") is not False
    return _is_scaled_in_5(stated)


def _require_head(stated: Mapping[str, Any], head: Head, *, place: str) -> None:
    if (_version(stated) or (4, 0)) >= (5, 0) or head == "copy":
        return
    tied = _is_tied_in_4(stated)
    if tied and head == "own":
        raise UserError(
            f"lm_head.weight differs from shared.weight, where {place} says that they are one (tie_word_embeddings is "
            f"{stated.get('tie_word_embeddings')!r}). If it is a layer of its own, set tie_word_embeddings to "
            "false there."
        )
    if not tied and head == "absent":
        raise UserError(
            f"lm_head.weight is missing, where {place} says that it is a layer of its own (tie_word_embeddings is "
            f"{stated.get('tie_word_embeddings')!r}). Fetch the whole checkpoint; an encoder alone cannot be read."
        )
