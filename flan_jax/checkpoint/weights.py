"""An opened checkpoint of any format: every tensor under this project's names, with no values read yet.

Conversion, restoring onto a mesh and `show checkpoint` are written once, for this record. The formats themselves are in
`native`, `t5x` and `huggingface`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, final

from flan_jax.checkpoint.leaves import Leaf
from flan_jax.models.t5.config import T5Config
from flan_jax.vocab import Vocabulary

Format = Literal["flan_jax", "t5x", "hf"]
FORMATS: tuple[Format, ...] = ("flan_jax", "t5x", "hf")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """The contents of a checkpoint.

    Attributes:
      format: "flan_jax", "t5x" or "hf".
      layout: Description for display: "msgpack index and Zarr arrays; layers stacked".
      path: Where it was opened.
      step: Number of updates; None where the format does not record it.
      config: The network. Its `dropout_rate` and `dtype` are defaults, since no checkpoint records them. None where the
        tree is not a complete T5 (`notes` has the reason); such weights serve partial starts only.
      config_is_stated: Whether the checkpoint records its network. Otherwise it follows from the shapes, which leave
        the activations open.
      params: Parameters by this project's names.
      slots: Adafactor's second moments, "v_row/<parameter>", "v_col/<parameter>", "v/<parameter>"; may be empty.
      vocabulary: The one stored with the weights, if any.
      metadata: Whatever else the checkpoint records about itself, JSON.
      notes: One sentence for each thing that was ignored, with the reason.
      warnings: One sentence for each newer checkpoint that is damaged and was not opened.
    """

    format: Format
    layout: str
    path: str
    step: int | None
    config: T5Config | None
    config_is_stated: bool
    params: Mapping[str, Leaf]
    slots: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
