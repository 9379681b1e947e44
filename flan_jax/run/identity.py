"""The run identity, which decides whether a command resumes an existing run.

Defined here only; stored in `run.json` and in each checkpoint.

Everything that decides the sequence of states is part of it, and nothing else: the network, the objective, the
optimizer, the batches and the initial checkpoint, but not the number of steps, the mesh or what is reported.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.checkpoint.starts import Start
from flan_jax.data.manifest import MixtureManifest
from flan_jax.errors import UserError
from flan_jax.files import differing_fields
from flan_jax.models.t5 import model as t5
from flan_jax.run import provenance
from flan_jax.run.run_config import RunConfig

METADATA_KEY = "run_identity"  # In the metadata of a checkpoint.
_COMPARED_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000)
# Compared by what they compute, or different on each machine of one run.
_NOT_COMPARED = ("model", "objective", "optimizer", "learning_rate", "export_dir")


def run_identity(config: RunConfig, mixture: MixtureManifest) -> dict[str, Any]:
    """Returns the identity of a run as JSON.

    Args:
      config: The run's configuration.
      mixture: The manifest of the exported training mixture.
    """
    return {
        **_learner(config),
        "mixture": {
            "name": mixture.request.name,
            "fingerprint": mixture.fingerprint(),
            "lengths": dict(mixture.request.lengths),
        },
        "vocabulary": mixture.vocabulary.digest,
        "feed": {
            "batch_size": config.batch_size,
            "packing": config.packing_strategy.__name__,
            "seed": config.seed,
        },
        "initial_checkpoint_path": config.initial_checkpoint_path,
        "start": None if config.start == Start() else dataclasses.asdict(config.start),
    }


def refuse_other_run(stored: Mapping[str, Any], expected: Mapping[str, Any], *, where: object) -> None:
    """Compares two run identities field by field, down to the leaves.

    Args:
      stored: The identity in `run.json` or in a checkpoint.
      expected: The identity of the run that is about to start.
      where: The directory that holds the stored identity.

    Raises:
      UserError: A field differs. The message names each such field with both values.
    """
    as_json = json.loads(json.dumps(expected))  # In which a tuple is a list.
    differing = list(differing_fields(stored, as_json))
    if differing:
        lines = "\n".join(f"  {name}: stored {old!r}, now {new!r}" for name, old, new in differing)
        raise UserError(
            f"{where} belongs to a run with a different recipe:\n{lines}\n"
            "Choose another MODEL_DIR, or restore the values of that run (its config.gin has them)."
        )


def shared_settings(config: RunConfig) -> dict[str, Any]:
    """Returns what all processes of a run must agree on, as JSON in which equal configurations are equal.

    The export directory is excluded: it may be local to each machine, and its content is compared by fingerprint.
    """
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in _NOT_COMPARED}
    return {
        **{name: _as_json(value) for name, value in fields.items()},
        **_learner(config),
        "versions": provenance.versions(),
    }


def _learner(config: RunConfig) -> dict[str, Any]:
    """The network, the objective, which optimizer trains which parameters, and the learning rate at some steps.

    Two schedules that agree at those steps count as one: a resumed run must retain the curve; the schedule may be
    written differently.
    """
    rules = config.optimizer.report(t5.abstract_params(config.model))
    rates = {str(step): float(f"{float(config.learning_rate(step)):.6g}") for step in _COMPARED_STEPS}
    return {
        "model": dataclasses.asdict(config.model),
        "objective": {"kind": type(config.objective).__name__, **dataclasses.asdict(config.objective)},
        "optimizer": {"rules": [dataclasses.asdict(rule) for rule in rules], "learning_rate": rates},
    }


def _as_json(value: Any) -> Any:
    """Describes a function by its name: its address differs between processes."""
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value
