"""What a run writes down about itself: versions, devices, what it trains on, and what makes two starts the same run."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jax

from flan_jax import __version__
from flan_jax.data.manifest import MixtureManifest
from flan_jax.models import t5
from flan_jax.models.config import T5Config
from flan_jax.optim.schedules import Schedule
from flan_jax.optim.selection import Selection

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "array-record", "sentencepiece", "numpy")
_COMPARED_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000)


def versions() -> dict[str, str]:
    """Returns the versions that a run's numbers may depend on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"flan_jax": __version__, "python": platform.python_version(), **found}


def devices(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Returns what a mesh is made of."""
    first = mesh.devices.flat[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": mesh.size,
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
    }


def mixture(manifest: MixtureManifest) -> dict[str, Any]:
    """Returns what a run is trained on: the mixture's members with their rates, and what was left out."""
    return {
        "name": manifest.request.name,
        "split": manifest.request.split,
        "fingerprint": manifest.fingerprint(),
        "request": dataclasses.asdict(manifest.request),
        "members": [dataclasses.asdict(member) for member in manifest.members],
        "skipped": dict(manifest.skipped),
        "hold_out": dict(manifest.hold_out),
    }


def what_learns(model: T5Config, objective: Any, selection: Selection, *, learning_rate: Schedule) -> dict[str, Any]:
    """Returns the network, the objective, which rule takes which parameters, and the learning rate at some steps.

    Two schedules that agree there count as one: what a resumed run has to keep is the curve, not its name.
    """
    rules = selection.report(t5.abstract_params(model))
    rates = {str(step): float(f"{float(learning_rate(step)):.6g}") for step in _COMPARED_STEPS}
    return {
        "model": dataclasses.asdict(model),
        "objective": {"kind": type(objective).__name__, **dataclasses.asdict(objective)},
        "optimizer": {"rules": [dataclasses.asdict(taken) for taken in rules], "learning_rate": rates},
    }


def what_is_read(
    manifest: MixtureManifest, *, batch_size: int, packing: Callable[..., Any], seed: int
) -> dict[str, Any]:
    """Returns what decides the batches: the mixture's examples and rates, its vocabulary, and how the feed puts rows up."""
    request = manifest.request
    return {
        "mixture": {"name": request.name, "fingerprint": manifest.fingerprint(), "lengths": dict(request.lengths)},
        "vocabulary": manifest.vocabulary.digest,
        "feed": {"batch_size": batch_size, "packing": packing.__name__, "seed": seed},
    }


def asked(arguments: Mapping[str, Any], *, selection: Selection, learning_rate: Schedule) -> dict[str, Any]:
    """Returns what a run was asked for, as JSON in which equal commands are equal, and with what it would be done.

    Not the folder of the exports, which may be a local one of each machine; their content is compared by fingerprint.
    """
    left_out = ("optimizer", "learning_rate", "export_dir", "resolved_config", "group")
    learns = what_learns(arguments["model"], arguments["objective"], selection, learning_rate=learning_rate)
    told = {name: _described(value) for name, value in arguments.items() if name not in left_out}
    return {**told, **learns, "versions": versions()}


def _described(value: Any) -> Any:
    """JSON; of a function its name alone, for its address is another one in every process."""
    if dataclasses.is_dataclass(value):
        return {field.name: _described(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    return getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value


def checkpoint_metadata(model: T5Config, manifest: MixtureManifest) -> dict[str, Any]:
    """Returns what every checkpoint says about itself, so that it can be read away from its run."""
    return {
        "model": dataclasses.asdict(model),
        "vocabulary_digest": manifest.vocabulary.digest,
        "mixture": {"name": manifest.request.name, "fingerprint": manifest.fingerprint()},
        "lengths": dict(manifest.request.lengths),
        "versions": versions(),
    }
