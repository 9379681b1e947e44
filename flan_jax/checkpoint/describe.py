"""Describes a checkpoint of any format as JSON values: origin, network, names, shapes and sizes."""

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from flan_jax.checkpoint import formats, reading
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.checkpoint.leaves import same_dtypes
from flan_jax.models.t5.families import recognize
from flan_jax.paths import Location, location
from flan_jax.vocab import SentencePieceVocabulary, Vocabulary


def describe(path: Location, *, step: int | None = None, strict: bool = False) -> dict[str, Any]:
    """Describes a checkpoint without building its model. Reads all parameters once, for their digest.

    Args:
      path: A run's directory, its `checkpoints` directory or one checkpoint's; a T5X or a Hugging Face checkpoint.
      step: Which checkpoint; None selects the latest.
      strict: Whether a damaged latest checkpoint of a run is an error.

    Raises:
      MissingFileError: The path has no checkpoint, or none of that step.
      UserError: The format is unknown, or the checkpoint is incomplete.
    """
    weights = formats.open_weights(path, step=step, strict=strict)
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
        "dtypes": {str(dtype): len(names) for dtype, names in same_dtypes(weights.params).items()},
        "bytes": sum(leaf.nbytes for leaf in weights.params.values()),
        "optimizer_arrays": len(weights.slots),
        "vocabulary": _vocabulary(weights.vocabulary, weights.metadata),
        "arrays": arrays,
        "metrics": reading.read_json(location(weights.path), "metrics") if is_own else {},
        "metadata": dict(weights.metadata),
        "notes": [*weights.warnings, *weights.notes],
    }


def _vocabulary(vocabulary: Vocabulary | None, metadata: Mapping[str, Any]) -> str | None:
    """Returns "bytes", the name of the SentencePiece model's file, or the digest of the run's vocabulary."""
    if vocabulary is None and "vocabulary_digest" in metadata:
        return f"in the exports of its run, digest {metadata['vocabulary_digest'][:12]}"
    if isinstance(vocabulary, SentencePieceVocabulary):
        added = "" if vocabulary.added is None else f" with {len(vocabulary.added.tokens)} added tokens"
        return PurePath(vocabulary.path).name + added
    return None if vocabulary is None else vocabulary.kind
