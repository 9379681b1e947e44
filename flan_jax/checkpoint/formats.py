"""Detects the format of a checkpoint and opens it."""

from pathlib import PurePath

from flan_jax.checkpoint import native
from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.checkpoint.t5x import reading as t5x
from flan_jax.checkpoint.verification import require_intact
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing
from flan_jax.paths import Location, location

_SUPPORTED = (
    "a run of `flan-jax train` or one of its checkpoints; a T5X checkpoint (checkpoint_N, or a single file); a Hugging "
    "Face folder (config.json and .safetensors)"
)


def open_weights(path: Location, *, step: int | None = None, strict: bool = False) -> Weights:
    """Opens a checkpoint of any format. Reads names, shapes and types; files that this program wrote are verified.

    Args:
      path: Local or in a bucket.
      step: Which checkpoint, where the path holds several; None selects the latest (of a run: that is intact).
      strict: Whether a damaged latest checkpoint of a run is an error.

    Raises:
      MissingFileError: The path does not exist, or has no checkpoint of that step.
      DamagedFileError: A file is not as it was written.
      UserError: The format is unknown, or the checkpoint is incomplete.
    """
    with accessing(str(path), setting="The checkpoint", action="read"):
        if not path.exists():
            raise MissingFileError(f"There is no checkpoint at {path}: no such file or directory.")
    # First, since its reader verifies before it opens; the others are verified only where this program wrote them.
    if native.looks_like(path):
        return native.open_weights(path, step=step, strict=strict)
    for module in (huggingface, t5x):
        if module.looks_like(path):
            weights = module.open_weights(path, step=step)
            require_intact(location(weights.path))
            return weights
    raise UserError(
        f"{path} is not a checkpoint of a supported format: it holds {_content(path)}. Supported are {_SUPPORTED}."
    )


def _content(path: Location) -> str:
    if not path.is_dir():
        return f"one file, {PurePath(path.name).suffix or 'without a suffix'}"
    names = sorted(child.name for child in path.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"
