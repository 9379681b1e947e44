"""Reads and writes `config.json` of Hugging Face's T5, mT5 and umT5, for equal logits in transformers 4 and 5.

One field of that file, whose meaning changed, sets two properties of a network. Up to version 4, `tie_word_embeddings`
means that logits are read from the embedding table and therefore scaled. In version 5 it is always true: the weights
show whether the output layer is the table. Logits are scaled according to `scale_decoder_outputs` in T5, and never in
mT5; in umT5 always before 5.24, and as in T5 since. Functions here give each version's interpretation; a note reports a
version that computes other logits.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flan_jax.checkpoint.leaves import Leaf
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import read_json_object
from flan_jax.models.t5.config import T5Config
from flan_jax.names import nearest

NAME = "config.json"
GENERATION_NAME = "generation_config.json"
MODEL_TYPES = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}

Head = Literal["own", "copy", "absent"]
"""The output layer among the tensors: `lm_head.weight` with its own values, with the table's, or absent."""

_SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "emb_dim",
    "num_heads": "num_heads",
    "d_kv": "head_dim",
    "d_ff": "mlp_dim",
    "num_layers": "num_encoder_layers",
    "num_decoder_layers": "num_decoder_layers",
}
_SWITCHES = ("tie_word_embeddings", "scale_decoder_outputs", "is_gated_act")
_NUMERICS = {
    "relative_attention_num_buckets": "relpos_buckets",
    "relative_attention_max_distance": "relpos_max_distance",
    "layer_norm_epsilon": "layer_norm_epsilon",
}
EOS_ID = 1
_IDS = {"pad_token_id": 0, "eos_token_id": EOS_ID, "decoder_start_token_id": 0}
# This project's gelu is the tanh approximation, which Hugging Face calls "gelu_new"; its "gelu" is another function.
_ACTIVATIONS = {"gelu_new": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh", "linear": "linear"}
_DROPOUT_RATE = 0.1  # As in every published config.json; weights do not determine it.
_MT5_ROWS = 250112  # Its 250,100 ids, padded to a multiple of 128.
_UMT5_FOLLOWS_T5 = (5, 24)  # The first version whose umT5 reads `scale_decoder_outputs`.
# Earlier ones check this flag when they scale. Versions before 5.3 take it from the file and then miss the table.
_FIX_OF_UMT5 = " Use 5.24 or later, or set model.config.tie_word_embeddings = False there, after loading."


def read(directory: Path) -> dict[str, Any]:
    """Returns the content of a folder's `config.json`.

    Raises:
      MissingFileError: The folder has none.
      UserError: It is not a JSON object, or not of a T5.
    """
    path = directory / NAME
    if not path.is_file():
        raise MissingFileError(f"{path} is missing, which describes the network of the weights. Fetch it too.")
    stated = read_json_object(path, fix="Fetch or write it again.")
    model_type = stated.get("model_type")
    if str(model_type) not in MODEL_TYPES:
        raise UserError(
            f"{path} has model_type {model_type!r}; supported are {', '.join(MODEL_TYPES)}."
            f"{nearest(str(model_type), MODEL_TYPES)}"
        )
    return stated


def network(stated: Mapping[str, Any], *, head: Head, where: str) -> T5Config:
    """Returns the network that a `config.json` describes; `dropout_rate` is 0 and `dtype` float32.

    Args:
      stated: The file's content.
      head: The output layer among the tensors.
      where: The file, for messages.

    Raises:
      UserError: A value that this project's T5 does not support, or an output layer that is missing or contradicts the
        file.
    """
    if stated.get("is_encoder_decoder", True) is not True:
        raise UserError(
            f"{where} has is_encoder_decoder {stated['is_encoder_decoder']!r}; supported is True, as in every released "
            "T5: an encoder or a decoder alone cannot be read."
        )
    for name in _SWITCHES:
        if not isinstance(stated.get(name), bool | None):
            raise UserError(f"{where} has {name} {stated[name]!r}; it must be true or false.")
    _require_head(stated, head, where=where)
    tied = head != "own"
    scaled = _is_scaled(stated)
    fields = {**_sizes(stated, where=where), **_numerics(stated, where=where)}
    activations = _activations(stated, where=where)
    try:
        return T5Config(
            **fields,
            mlp_activations=activations,
            dropout_rate=0.0,
            logits_via_embedding=tied,
            scale_decoder_outputs=None if scaled == tied else scaled,
            relpos_bias_per_layer=stated["model_type"] == "umt5",
        )
    except UserError as error:
        raise UserError(f"{where} describes no T5: {error}") from error


def require_sizes(config: T5Config, tensors: Mapping[str, Leaf], *, where: str) -> None:
    """Compares a file's sizes with the tensors of the weights, before anything of these sizes is made.

    Args:
      config: The network that the file describes.
      tensors: By Hugging Face's names. A size whose tensor is missing is not compared.
      where: The file, for messages.

    Raises:
      UserError: A size differs; the text names its key and the tensor.
    """
    first = "encoder.block.0.layer"
    bias = f"{first}.0.SelfAttention.relative_attention_bias.weight"
    wide = "wi" if len(config.mlp_activations) == 1 else "wi_0"
    sizes = {
        "vocab_size": (config.vocab_size, "shared.weight", 0),
        "d_model": (config.emb_dim, "shared.weight", 1),
        "num_heads": (config.num_heads, bias, 1),
        "relative_attention_num_buckets": (config.relpos_buckets, bias, 0),
        "num_heads times d_kv": (config.num_heads * config.head_dim, f"{first}.0.SelfAttention.q.weight", 0),
        "d_ff": (config.mlp_dim, f"{first}.1.DenseReluDense.{wide}.weight", 0),
    }
    for key, (stated, name, axis) in sizes.items():
        leaf = tensors.get(name)
        if leaf is not None and len(leaf.shape) == 2 and leaf.shape[axis] != stated:
            raise UserError(
                f"{where} has {key} {stated}, but {name} of the weights is {list(leaf.shape)}: expected "
                f"{leaf.shape[axis]}. The file belongs to other weights, or was edited."
            )
    for key, stated, stack in (
        ("num_layers", config.num_encoder_layers, "encoder"),
        ("num_decoder_layers", config.num_decoder_layers, "decoder"),
    ):
        numbers = {int(match[1]) for name in tensors if (match := re.match(rf"{stack}\.block\.(\d+)\.", name))}
        if numbers and max(numbers) + 1 != stated:
            raise UserError(
                f"{where} has {key} {stated}, but the weights have {max(numbers) + 1} layers in the {stack}. The file "
                "belongs to other weights, or was edited."
            )


def notes(stated: Mapping[str, Any], config: T5Config, *, head: Head) -> list[str]:
    """Returns notes on differences: ids that differ from this project's, and versions that compute other logits."""
    found = [
        f"{NAME} has {name} {stated[name]!r}; this project uses {ours}."
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
            differences.append("reads shared.weight instead of lm_head.weight")
        if scales != config.decoder_outputs_are_scaled:
            verb = "multiplies" if scales else "does not multiply"
            differences.append(f"{verb} the decoder's output by d_model**-0.5")
        if differences:
            fix = _FIX_OF_UMT5 if version == "5.3 to 5.23" else ""
            found.append(
                f"transformers {version} computes other logits from this folder: it {' and '.join(differences)}.{fix}"
            )
    return found


def written(config: T5Config, *, dtype: np.dtype, eos_id: int = EOS_ID) -> dict[str, Any]:
    """Returns the complete content of `config.json` for a network.

    Args:
      config: The network.
      dtype: Of the weights.
      eos_id: The vocabulary's end of sequence.

    Raises:
      UserError: Hugging Face has no such network.
    """
    model_type = usual_model_type(config)
    feed_forward = _feed_forward(config)
    sizes = {theirs: getattr(config, ours) for theirs, ours in _SIZES.items()}
    return {
        "architectures": [f"{MODEL_TYPES[model_type]}ForConditionalGeneration"],
        "classifier_dropout": 0.0,
        "dropout_rate": _DROPOUT_RATE,
        "initializer_factor": 1.0,
        "model_type": model_type,
        "scale_decoder_outputs": config.decoder_outputs_are_scaled,
        # Declared tied only with scaled logits, since version 4 scales whatever is tied; see `stores_copy`.
        "tie_word_embeddings": config.logits_via_embedding and config.decoder_outputs_are_scaled,
        "torch_dtype": dtype.name,
        "use_cache": True,
        **sizes,
        **feed_forward,
        "is_encoder_decoder": True,
        **{theirs: getattr(config, ours) for theirs, ours in _NUMERICS.items()},
        **generation(eos_id=eos_id),
    }


def usual_model_type(config: T5Config) -> str:
    """Returns the `model_type` of a network: umT5 has a bias in each layer, mT5 the published number of table rows."""
    if config.relpos_bias_per_layer:
        return "umt5"
    return "mt5" if config.vocab_size == _MT5_ROWS and not config.decoder_outputs_are_scaled else "t5"


def generation(*, eos_id: int = EOS_ID) -> dict[str, Any]:
    """Returns the content of `generation_config.json`, the only file where version 5 looks for the ids."""
    return {**_IDS, "eos_token_id": eos_id}


def stores_copy(config: T5Config) -> bool:
    """Whether the table is also written as `lm_head.weight`: version 4 scales logits if they are declared tied."""
    return config.logits_via_embedding and not config.decoder_outputs_are_scaled


def _sizes(stated: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    sizes = {}
    for theirs, ours in _SIZES.items():
        value = stated.get(theirs)
        if value is None and theirs == "num_decoder_layers":
            value = stated["num_layers"]
        # The exact type, since JSON's true is an integer in Python.
        if type(value) is not int or value < 1:
            raise UserError(f"{where} has {theirs} {value!r}; it must be a positive integer.")
        sizes[ours] = value
    return sizes


def _numerics(stated: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Returns the fields of T5Config for buckets, distance and epsilon that a file states; others have its defaults."""
    numerics = {ours: stated[theirs] for theirs, ours in _NUMERICS.items() if stated.get(theirs) is not None}
    for theirs, ours in _NUMERICS.items():
        value = numerics.get(ours)
        is_epsilon = ours == "layer_norm_epsilon"
        allowed = float if is_epsilon else int
        if value is not None and (type(value) is not allowed or not 0 < value < (1 if is_epsilon else 2**31)):
            kind = "a number above 0 and below 1" if is_epsilon else "a positive integer"
            raise UserError(f"{where} has {theirs} {value!r}; it must be {kind}.")
    return numerics


def _activations(stated: Mapping[str, Any], *, where: str) -> tuple[str, ...]:
    # Defaults of the configuration classes, which apply to files that omit the field.
    projection = stated.get("feed_forward_proj", "relu" if stated["model_type"] == "t5" else "gated-gelu")
    for name, value in {"feed_forward_proj": projection, "dense_act_fn": stated.get("dense_act_fn", "")}.items():
        if not isinstance(value, str):
            raise UserError(f"{where} has {name} {value!r}; it must be the name of an activation.")
    gate, _, name = str(projection).rpartition("-")
    if gate not in ("", "gated"):
        raise UserError(
            f"{where} has feed_forward_proj {projection!r}; it must be an activation, optionally after 'gated-'."
        )
    # As transformers, for files from before `dense_act_fn`: T5 1.1 was trained with the approximation.
    usual = "gelu_new" if projection == "gated-gelu" else name
    activation = str(stated.get("dense_act_fn", usual))
    if activation not in _ACTIVATIONS:
        stater = "dense_act_fn" if "dense_act_fn" in stated else "feed_forward_proj"
        other = " 'gelu' is a different function from gelu_new." if activation == "gelu" else ""
        raise UserError(
            f"{where} has {stater} {stated.get(stater)!r}; supported activations are {', '.join(_ACTIVATIONS)}.{other}"
        )
    is_gated = stated.get("is_gated_act", gate == "gated")
    return (_ACTIVATIONS[activation], "linear") if is_gated else (_ACTIVATIONS[activation],)


def _feed_forward(config: T5Config) -> dict[str, Any]:
    spelled = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())} | {"swish": "silu"}
    first, *others = config.mlp_activations
    if others not in ([], ["linear"]):
        raise UserError(
            f"mlp_activations are {', '.join(config.mlp_activations)}; Hugging Face's T5 has one activation, alone or "
            "multiplied by a linear branch that comes second."
        )
    name = spelled[first]
    gated = "gelu" if first == "gelu" else name  # "gated-gelu" is Hugging Face's name for the approximation.
    return {
        "dense_act_fn": name,
        "feed_forward_proj": f"gated-{gated}" if others else name,
        "is_gated_act": bool(others),
    }


def _version(stated: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns the major and minor version of transformers that wrote the file, None for another program."""
    match = re.match(r"(\d+)\.(\d+)", str(stated.get("transformers_version", "")))
    return (int(match[1]), int(match[2])) if match else None


def _is_tied_in_4(stated: Mapping[str, Any]) -> bool:
    # The default of version 4's configuration classes.
    return stated.get("tie_word_embeddings", stated["model_type"] != "mt5") is not False


def _is_scaled_in_5(stated: Mapping[str, Any]) -> bool:
    """Whether 5.24 and later scale."""
    if stated["model_type"] == "mt5":
        return False
    return bool(stated.get("scale_decoder_outputs", stated.get("tie_word_embeddings") is not False))


def _is_scaled(stated: Mapping[str, Any]) -> bool:
    """Whether the version that wrote the file scales; a file without a version may state it."""
    version = _version(stated)
    if version is None and "scale_decoder_outputs" in stated:
        return bool(stated["scale_decoder_outputs"])
    # Without a version the file is read with version 4's meaning, as `_require_head` does.
    if version is None or version < (5, 0):
        return _is_tied_in_4(stated)
    if stated["model_type"] == "umt5" and version < _UMT5_FOLLOWS_T5:
        # In a file of these versions the flag is false only if it was set after loading, which stops the scaling.
        return stated.get("tie_word_embeddings") is not False
    return _is_scaled_in_5(stated)


def _require_head(stated: Mapping[str, Any], head: Head, *, where: str) -> None:
    # Version 5 decides by the weights; and a copy is consistent with either statement.
    if (_version(stated) or (4, 0)) >= (5, 0) or head == "copy":
        return
    tied = _is_tied_in_4(stated)
    if tied and head == "own":
        raise UserError(
            f"lm_head.weight differs from shared.weight, but {where} declares them tied (tie_word_embeddings is "
            f"{stated.get('tie_word_embeddings')!r}). If the output layer is separate, set tie_word_embeddings to "
            "false there."
        )
    if not tied and head == "absent":
        raise UserError(
            f"lm_head.weight is missing, but {where} declares a separate output layer (tie_word_embeddings is "
            f"{stated.get('tie_word_embeddings')!r}). Fetch the complete checkpoint; an encoder alone cannot be read."
        )
