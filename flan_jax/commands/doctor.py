"""`flan-jax doctor`: what is installed, which devices JAX sees, what would go wrong, and the mend."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys

from rich.console import Console
from rich.table import Table

from flan_jax import backend

CORE = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "array-record", "sentencepiece", "gin-config", "numpy")
EXPORT = ("seqio", "tensorflow", "tensorflow-text", "tensorflow-datasets", "pyarrow")


def doctor(*, expect: str | None = None) -> int:
    """Prints the state of this installation; ends with 2 when something needed is missing.

    Args:
      expect: the platform that should be there: "cpu", "gpu" or "tpu".
    """
    findings = [_python(), *(_package(name, needed=True) for name in CORE)]
    findings += [_package(name, needed=False) for name in EXPORT]
    flags = _flags()
    # With flags that jaxlib does not take, asking it for a device would abort this very process.
    findings += [flags, *([_devices(expect)] if flags[2] else []), _disk()]
    table = Table("what", "found", "state", "mend", title="flan-jax doctor", title_justify="left")
    for what, found, fine, mend in findings:
        table.add_row(what, found, "ok" if fine else "[red]look[/red]", "" if fine else mend)
    Console().print(table)
    return 2 if any(not fine and "optional" not in mend for _, _, fine, mend in findings) else 0


def _python() -> tuple[str, str, bool, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    return "Python", version, sys.version_info >= (3, 11), "install Python 3.11 or later"


def _package(name: str, *, needed: bool) -> tuple[str, str, bool, str]:
    try:
        return name, importlib.metadata.version(name), True, ""
    except importlib.metadata.PackageNotFoundError:
        mend = (
            "pip install flan_jax" if needed else "optional: pip install 'flan_jax[tasks]' to define and export tasks"
        )
        return name, "absent", False, mend


def _flags() -> tuple[str, str, bool, str]:
    given = os.environ.get("XLA_FLAGS", "")
    trouble = backend.flags_trouble(given)
    return "XLA_FLAGS", given or "not set", not trouble, trouble


def _devices(expect: str | None) -> tuple[str, str, bool, str]:
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        return "devices", "none", False, f"JAX found no device: {error}"
    platform = devices[0].platform
    found = f"{len(devices)} {platform} ({devices[0].device_kind})"
    wanted = expect or ("gpu" if shutil.which("nvidia-smi") else platform)
    extra = {"gpu": "cuda", "tpu": "tpu"}.get(wanted, wanted)
    return (
        "devices",
        found,
        platform == wanted,
        f"JAX sees no {wanted}: pip install 'flan_jax[{extra}]', and unset JAX_PLATFORMS",
    )


def _disk() -> tuple[str, str, bool, str]:
    free_gib = shutil.disk_usage(".").free / 2**30
    return "disk here", f"{free_gib:,.0f} GiB free", free_gib > 2, "free some space: exports and checkpoints need room"
