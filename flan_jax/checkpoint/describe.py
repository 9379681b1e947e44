"""What one checkpoint of any format holds, as JSON values: where it is from, what network, names, shapes and bytes."""

import dataclasses
from typing import Any

from flan_jax.checkpoint import formats, reading
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.checkpoint.leaves import same_dtypes
from flan_jax.models.t5.families import recognize


def describe(path: Any, *, step: int | None = None) -> dict[str, Any]:
    """Describes a checkpoint. Reads all parameters once, for their digest; needs no model.

    Args:
      path: a run's directory, its `checkpoints` directory or one checkpoint's; a T5X or a Hugging Face checkpoint.
      step: which one; None takes the latest.

    Raises:
      FileNotFoundError: there is no checkpoint there, or not of that step.
      ValueError: it is of no known format, or incomplete.
    """
    weights = formats.open_weights(path, step=step)
    arrays = [
        {"name": name, "shape": list(leaf.shape), "dtype": str(leaf.dtype), "bytes": leaf.nbytes}
        for name, leaf in sorted(weights.params.items())
    ]
    config = weights.config
    is_own = weights.format == "flan_jax"
    return {
        "checkpoint": weights.path,
        "format": weights.format,
        "layout": weights.layout,
        "step": weights.step,
        "family": None if config is None else recognize(config).title,
        "config": None if config is None else dataclasses.asdict(config),
        "config_is_stated": weights.config_is_stated,
        "params_digest": leaves_digest(weights.params),
        "parameters": sum(leaf.size for leaf in weights.params.values()),
        "dtypes": {str(dtype): len(names) for dtype, names in same_dtypes(dict(weights.params)).items()},
        "bytes": sum(leaf.nbytes for leaf in weights.params.values()),
        "optimizer_arrays": len(weights.slots),
        "vocabulary": "bytes"
        if weights.is_byte_vocabulary
        else weights.vocabulary_file and weights.vocabulary_file.name,
        "arrays": arrays,
        "metrics": reading.read_json(weights.path, "metrics") if is_own else {},
        "metadata": dict(weights.metadata),
        "notes": list(weights.notes),
    }


def digest_of(path: Any, *, step: int | None = None) -> str:
    """Returns the digest of a checkpoint's parameters; `path` and `step` as in `describe`."""
    return leaves_digest(formats.open_weights(path, step=step).params)
