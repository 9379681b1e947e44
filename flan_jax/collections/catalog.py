"""The published collections by name. Each is imported when it is registered: together they take a second."""

import functools
import importlib
from pathlib import Path

from flan_jax.tasks import registry

MODULES = {
    "embedded": "embedded.collection",
    "cot": "flan2022.cot",
    "dialog": "flan2022.dialog",
    "flan2021": "flan2021.collection",
    "flan2022": "flan2022.collection",
    "natural_instructions": "natural_instructions.collection",
    "natural_instructions_v1": "natural_instructions.version1",
    "t0": "t0.collection",
}
"""Modules of this package with the functions `register` and `register_declared`."""


def install() -> None:
    """Makes the collections known to the registry, for `registry.register_all` and for YAML files."""
    registry.add_catalog(
        {
            name: functools.partial(importlib.import_module, f"{__package__}.{module}")
            for name, module in MODULES.items()
        },
        files=("flan_jax/collections/**/*.py",),
    )


def register_yaml(path: Path | str) -> tuple[str, ...]:
    """Registers the tasks and mixtures of a YAML file, which may name collections; see `registry.register_yaml`."""
    install()
    return registry.register_yaml(path)
