"""The weights and the batch of tools/make_transformers_goldens.py, for tests that compare with its numbers."""

import importlib.util
from pathlib import Path

import jax
import numpy as np

from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.shapes import Params

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("make_transformers_goldens", ROOT / "tools/make_transformers_goldens.py")
goldens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(goldens)


def config(family: str, **changes) -> T5Config:
    return T5Config(**{**goldens.SIZES, **goldens.FAMILIES[family], **changes})


def params(model_config: T5Config) -> Params:
    def draw(path, leaf):
        name = "/".join(key.key for key in path)
        return goldens.made_up_weight(name, leaf.shape, tied=model_config.logits_via_embedding)

    return jax.tree_util.tree_map_with_path(draw, t5.abstract_params(model_config))


def golden(family: str) -> dict[str, np.ndarray]:
    with np.load(goldens.GOLDEN_DIR / f"transformers_{family}.npz") as arrays:
        return dict(arrays)


def rows(batch, *indices) -> dict[str, np.ndarray]:
    return {key: value[list(indices)] for key, value in batch.items()}
