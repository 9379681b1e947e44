"""Tiny weights of every family, and batches, for the tests of Hugging Face's format."""

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.checkpoint.leaves import from_array
from flan_jax.checkpoint.trees import nested
from flan_jax.checkpoint.weights import Weights
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import parameter_shapes
from flan_jax.shapes import Params

GOLDEN_DIR = Path(__file__).resolve().parents[1] / "golden" / "huggingface"
GOLDENS = sorted(path.name for path in GOLDEN_DIR.iterdir())

_forward = jax.jit(t5.forward, static_argnames="config")
_GATED = {"mlp_activations": ("gelu", "linear")}
FAMILIES: dict[str, dict[str, Any]] = {
    "t5_1_0": {"mlp_activations": ("relu",), "logits_via_embedding": True},
    "t5_1_1": _GATED,
    "mt5": _GATED,  # differs from T5 1.1 in its vocabulary alone; see `write`
    "umt5": {**_GATED, "relpos_bias_per_layer": True},
    "byt5": {**_GATED, "vocab_size": 384, "num_encoder_layers": 4, "num_decoder_layers": 1},
    "ul2": {"mlp_activations": ("silu", "linear"), "logits_via_embedding": True},
    # No published family has these, and each version of transformers says something else of them.
    "t5_tied_unscaled": {**_GATED, "logits_via_embedding": True, "scale_decoder_outputs": False},
    "t5_untied_scaled": {**_GATED, "scale_decoder_outputs": True},
    "umt5_tied": {**_GATED, "logits_via_embedding": True, "relpos_bias_per_layer": True},
}


def config(family: str, **changes: Any) -> T5Config:
    sizes = {"vocab_size": 40, "emb_dim": 12, "num_heads": 3, "head_dim": 5, "mlp_dim": 20}
    layers = {"num_encoder_layers": 3, "num_decoder_layers": 2}  # generation there needs no fewer in the encoder
    return T5Config(dropout_rate=0.0, **{**sizes, **layers, **FAMILIES[family], **changes})


def write(family: str, directory: Path, *, dtype: Any = np.float32, **arguments: Any) -> Weights:
    """Writes weights of a family, and returns them."""
    directory.mkdir(exist_ok=True)
    written = weights(config(family), dtype=dtype)
    huggingface.write(written, directory, **arguments)
    if family == "mt5":  # Recognized by the rows of its table, which has 250,112 of them.
        edit(directory / "config.json", model_type="mt5", architectures=["MT5ForConditionalGeneration"])
    return written


def weights(model: T5Config, *, dtype: Any = np.float32) -> Weights:
    """Returns weights whose values depend on names alone."""
    params = {name: from_array(_values(name, shape).astype(dtype)) for name, shape in parameter_shapes(model).items()}
    return Weights(
        format="t5x", layout="synthetic", path="a/path", step=3, config=model, config_is_stated=True, params=params
    )


def _values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("scale"):
        return 1 + 0.2 * values
    return values * (1.2 / np.sqrt(shape[0]) if name.endswith("kernel") else 0.3)


def batch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns this project's batch for the arguments of a transformers model."""
    inputs, targets = arrays["input_ids"], arrays["decoder_input_ids"]
    made = {
        "encoder_input_tokens": inputs,
        "encoder_segment_ids": arrays["attention_mask"],
        "encoder_positions": np.broadcast_to(np.arange(inputs.shape[1]), inputs.shape),
        "decoder_input_tokens": targets,
        "decoder_target_tokens": targets,
        "decoder_segment_ids": np.ones_like(targets),
        "decoder_positions": np.broadcast_to(np.arange(targets.shape[1]), targets.shape),
    }
    made = {name: np.asarray(value, np.int32) for name, value in made.items()}
    return {**made, "decoder_loss_weights": np.ones(targets.shape, np.float32)}


def params(opened: Weights) -> Params:
    """Returns the parameters as the network takes them: nested, float32."""
    return jax.tree.map(lambda leaf: leaf.whole().astype(np.float32), nested(opened.params), is_leaf=_is_leaf)


def logits(opened: Weights, arrays: dict[str, np.ndarray]) -> np.ndarray:
    assert opened.config is not None
    return np.asarray(_forward(params(opened), batch(arrays), config=opened.config))


def edit(path: Path, **changes: Any) -> None:
    """Sets fields of a JSON file; ... removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


def _is_leaf(value: Any) -> bool:
    return hasattr(value, "whole")
