"""Weights of any format, opened: everything under this project's names, nothing read yet.

One record for this project's own checkpoints, T5X's and Hugging Face's, so that conversion, restoring onto a mesh and
`show checkpoint` are written once. How each format lies on disk is left to `own`, `t5x` and `huggingface`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

from flan_jax.checkpoint.leaves import Leaf
from flan_jax.models.t5.config import T5Config

Format = Literal["flan_jax", "t5x", "hf"]
FORMATS: tuple[Format, ...] = ("flan_jax", "t5x", "hf")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """What a checkpoint holds, whoever wrote it.

    Attributes:
      format: whose.
      layout: how it lies there, for people: "msgpack index and zarr arrays, layers stacked".
      path: where.
      step: how many updates had been made; None where the format does not say.
      config: the network; its `dropout_rate` and `dtype` say nothing, since no checkpoint holds them. None where the
        tree is not a whole T5's (the notes say why): such weights serve partial starts only.
      config_is_stated: whether the checkpoint says so itself; else its shapes do, which leave the activations open.
      params: parameters, under our names.
      slots: Adafactor's second moments, "v_row/<parameter>", "v_col/<parameter>", "v/<parameter>"; empty where there are none.
      vocabulary_file: a SentencePiece model that lies with it.
      is_byte_vocabulary: it reads bytes, as ByT5.
      metadata: what else it says about itself.
      notes: what was seen and not used, and why; a sentence each.
    """

    format: Format
    layout: str
    path: str
    step: int | None
    config: T5Config | None
    config_is_stated: bool
    params: Mapping[str, Leaf]
    slots: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
    vocabulary_file: Path | None = None
    is_byte_vocabulary: bool = False
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
