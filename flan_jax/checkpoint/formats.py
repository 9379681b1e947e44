"""Which format lies at a path, and opening it."""

from pathlib import Path
from typing import Any

from flan_jax.checkpoint import own
from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.checkpoint.places import BucketPath, Place, place_at
from flan_jax.checkpoint.t5x import reading as t5x
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing

_ON_DISK = (own, huggingface, t5x)
_IN_BUCKETS = (t5x, own)  # In this order: TensorStore alone serves T5X's, without a client library.
_KNOWN = (
    "a run of `flan-jax train` or one of its checkpoints; a T5X checkpoint (checkpoint_N, or its single file); a Hugging "
    "Face folder (config.json and .safetensors)"
)


def open_weights(path: Any, *, step: int | None = None) -> Weights:
    """Opens a checkpoint of any format; reads names, shapes and types, and no values.

    Args:
      path: local or gs://.
      step: which one, where the path holds several; None takes the latest.

    Raises:
      MissingFileError: there is nothing, or no checkpoint of that step.
      UserError: it is of no known format, or incomplete.
    """
    place = place_at(path)
    with accessing(str(path), setting="The checkpoint", action="read"):
        if not place.exists():
            raise MissingFileError(f"There is no checkpoint at {path}: no such file or directory.")
    for module in _IN_BUCKETS if isinstance(place, BucketPath) else _ON_DISK:
        if module.looks_like(str(place)):
            return module.open_weights(str(place), step=step)
    raise UserError(f"{path} is no checkpoint that is known here: it holds {_content(place)}. Known are {_KNOWN}.")


def _content(place: Place) -> str:
    if not place.is_dir():
        return f"one file, {Path(place.name).suffix or 'without a suffix'}"
    names = sorted(child.name for child in place.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"
