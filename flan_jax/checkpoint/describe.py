"""What one checkpoint holds, as JSON values: names, shapes and bytes of its arrays, and its small items."""

from typing import Any

from flan_jax.checkpoint import reading
from flan_jax.checkpoint.digest import params_digest
from flan_jax.checkpoint.trees import named_leaves, nbytes


def describe(path: Any, *, step: int | None = None) -> dict[str, Any]:
    """Describes a checkpoint. Reads all parameters once, for their digest; needs no model.

    Args:
      path: a run's directory, its `checkpoints` directory, or one checkpoint's.
      step: which one; None takes the latest.

    Raises:
      FileNotFoundError: there is no checkpoint there, or not of that step.
    """
    place = reading.find(path, step=step)
    params = named_leaves(reading.stored_params(place))
    arrays = [
        {"name": name, "shape": list(leaf.shape), "dtype": str(leaf.dtype), "bytes": int(leaf.nbytes)}
        for name, leaf in sorted(params.items())
    ]
    return {
        "checkpoint": str(place),
        "step": reading.read_json(place, "step"),
        "params_digest": params_digest(params),
        "parameters": sum(int(leaf.size) for leaf in params.values()),
        "bytes": nbytes(params),
        "arrays": arrays,
        "metrics": reading.read_json(place, "metrics"),
        "metadata": reading.read_json(place, "metadata"),
    }


def digest_of(path: Any, *, step: int | None = None) -> str:
    """Returns the digest of a checkpoint's parameters; `path` and `step` as in `describe`."""
    return params_digest(reading.stored_params(path, step=step))
