"""`flan-jax doctor`: what is installed, which devices JAX finds, and how to fix what is wrong."""

import dataclasses
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from flan_jax import backend

CORE = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "array-record", "sentencepiece", "gin-config", "numpy")
EXPORT = ("seqio", "tensorflow", "tensorflow-text", "tensorflow-datasets", "pyarrow")


class Finding(NamedTuple):
    """One line of a diagnosis: what was checked, its state, whether that is fine, and else how to fix it."""

    what: str
    state: str
    is_fine: bool
    fix: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The state of an installation."""

    findings: Sequence[Finding]

    @property
    def exit_status(self) -> int:
        """Returns 2 when something required is missing or broken."""
        return 2 if any(not f.is_fine and "optional" not in f.fix for f in self.findings) else 0

    def __rich__(self) -> Table:
        """Shows a line per finding."""
        table = Table("what", "found", "state", "fix", title="flan-jax doctor", title_justify="left")
        for what, state, is_fine, fix in self.findings:
            table.add_row(what, state, "ok" if is_fine else Text("look", style="red"), "" if is_fine else fix)
        return table


def doctor(*, expect: str | None = None) -> Diagnosis:
    """Checks this installation; the exit status is 2 when something required is missing.

    Args:
      expect: The platform that should be available: "cpu", "gpu" or "tpu".
    """
    findings = [_python(), *(_package(name, required=True) for name in CORE)]
    findings += [_package(name, required=False) for name in EXPORT]
    flags = _flags()
    # With flags that jaxlib does not know, asking it for a device would abort this process.
    findings += [flags, *([_devices(expect)] if flags.is_fine else []), _disk()]
    return Diagnosis(findings=findings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", version, sys.version_info >= (3, 11), "install Python 3.11 or later")


def _package(name: str, *, required: bool) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name), True, "")
    except importlib.metadata.PackageNotFoundError:
        optional = "optional: pip install 'flan_jax[tasks]' to define and export tasks"
        return Finding(name, "absent", False, "pip install flan_jax" if required else optional)


def _flags() -> Finding:
    given = os.environ.get("XLA_FLAGS", "")
    trouble = backend.flags_problem(given)
    return Finding("XLA_FLAGS", given or "not set", not trouble, trouble)


def _devices(expect: str | None) -> Finding:
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        return Finding("devices", "none", False, f"JAX found no device: {error}")
    platform = devices[0].platform
    state = f"{len(devices)} {platform} ({devices[0].device_kind})"
    expected = expect or ("gpu" if shutil.which("nvidia-smi") else platform)
    extra = {"gpu": "cuda", "tpu": "tpu"}.get(expected, expected)
    fix = f"JAX finds no {expected}: pip install 'flan_jax[{extra}]', and unset JAX_PLATFORMS"
    return Finding("devices", state, platform == expected, fix)


def _disk() -> Finding:
    free_gib = shutil.disk_usage(".").free / 2**30
    state = f"{free_gib:,.0f} GiB free"
    return Finding("disk here", state, free_gib > 2, "free some space: exports and checkpoints need room")
