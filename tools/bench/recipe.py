"""The recipe of benchmarks of complete runs: T5 1.1 on the embedded mixture, with Adafactor."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_RECIPE = """
from __gin__ import dynamic_registration
from flan_jax.checkpoint import manager
from flan_jax.train import loop
include '{root}/gin_configs/models/t5_1_1/{size}.gin'
include '{root}/gin_configs/optimizers/adafactor.gin'
include '{root}/gin_configs/runs/train.gin'
MIXTURE_OR_TASK_NAME = "embedded_train"
VOCABULARY = "embedded"
TASK_FEATURE_LENGTHS = {{"inputs": {inputs}, "targets": {targets}}}
BATCH_SIZE = {batch_size}
EXPORT_DIR = "{place}/exports"
"""


def write_recipe(place: Path, *bindings: str, size: str, batch_size: int, lengths: tuple[int, int]) -> None:
    """Writes `<place>/recipe.gin`, which exports to `<place>/exports`.

    Args:
      place: a folder.
      bindings: further lines of gin; modules `manager` and `loop` are imported.
      size: of T5 1.1, as in gin_configs/models/t5_1_1.
      batch_size: rows of a step.
      lengths: tokens of inputs and targets.
    """
    inputs, targets = lengths
    text = _RECIPE.format(root=ROOT, place=place, size=size, inputs=inputs, targets=targets, batch_size=batch_size)
    (place / "recipe.gin").write_text("\n".join((text, *bindings, "")))
