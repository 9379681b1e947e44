"""The provenance that a run records: versions, devices, and the members of its mixture."""

import dataclasses
import importlib.metadata
import platform
from typing import Any

import jax

from flan_jax import __version__
from flan_jax.data.manifest import MixtureManifest

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "array-record", "sentencepiece", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of the packages that the results of a run may depend on."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"flan_jax": __version__, "python": platform.python_version(), **packages}


def devices(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Returns the kind and number of the devices of a mesh, and its axes."""
    first = mesh.devices.flat[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": mesh.size,
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
    }


def mixture(manifest: MixtureManifest) -> dict[str, Any]:
    """Returns the members of a mixture with their rates, and the tasks that were skipped or held out."""
    return {
        "name": manifest.request.name,
        "split": manifest.request.split,
        "fingerprint": manifest.fingerprint(),
        "request": dataclasses.asdict(manifest.request),
        "members": [dataclasses.asdict(member) for member in manifest.members],
        "skipped": dict(manifest.skipped),
        "hold_out": dict(manifest.hold_out),
    }
