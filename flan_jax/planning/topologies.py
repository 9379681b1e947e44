"""Machines by name: a TPU slice, this machine's CPU as several devices, or GPUs.

    v5e:16x16   v5p:4x4x4   v6e:8x8*2 (two slices)   cpu:8   gpu:h200x8

The devices of a slice come from libtpu, a TPU's compiler and runtime in one library; those of GPUs from JAX's CUDA
plugin. Neither needs the hardware.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from flan_jax.errors import UserError
from flan_jax.names import nearest
from flan_jax.planning import gpus
from flan_jax.planning.chips import CHIPS, GPUS, Chip

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBIC = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
SLICES = {"v4": _CUBIC, "v5e": _FLAT, "v5p": _CUBIC, "v6e": _FLAT}
_ENVIRONMENT = {  # Without these, libtpu asks the cloud's metadata server, and prints that there is none.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # No TPU is opened, so plans may run at the same time as each other or a run.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """A machine to compile for.

    Attributes:
      name: The requested name.
      chip: The capabilities of its devices; None for this machine's CPU, of which nothing is known.
      devices: Described devices, or this machine's CPU devices.
      options: Compiler options.
    """

    name: str
    chip: Chip | None
    devices: tuple[jax.Device, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def topology_named(name: str) -> Topology:
    """Returns a machine by its name.

    Raises:
      UserError: The machine is unknown, its compiler is missing or refuses, or this process has too few CPU devices.
    """
    kind, _, shape = name.strip().lower().partition(":")
    if kind == "cpu" and re.fullmatch(r"|[1-9]\d*", shape):
        return Topology(name=name, chip=None, devices=_cpu_devices(int(shape or 1), name=name))
    match = re.fullmatch(r"(\w+?)(?:x(\d+))?", shape)
    if kind == "gpu" and match and match.group(1) in {chip.name for chip in GPUS}:
        return _gpus(match.group(1), int(match.group(2) or 1), name=name)
    match = re.fullmatch(r"(\d+(?:x\d+)*)(?:\*(\d+))?", shape)
    sides = tuple(map(int, match.group(1).split("x"))) if match else ()
    if match and kind in SLICES and len(sides) == len(SLICES[kind][0].split("x")):
        devices = _slice_devices(kind, sides, slices=int(match.group(2) or 1), name=name)
        return Topology(name=name, chip=CHIPS[kind], devices=devices)
    kinds = "; ".join(f"{kind}: {', '.join(shapes)}" for kind, shapes in SLICES.items())
    names = [f"{kind}:{shape}" for kind, shapes in SLICES.items() for shape in shapes]
    names += [f"gpu:{chip.name}" for chip in GPUS]
    raise UserError(
        f"No topology {name!r}.{nearest(name, names)} Allowed are TPU slices such as v5e:16x16, or v5e:16x16*2 for two "
        f"slices ({kinds}), CPU devices of this machine (cpu, cpu:8), and GPUs such as gpu:h200 or gpu:h200x8 (of "
        f"{', '.join(chip.name for chip in GPUS)})."
    )


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Captures what C++ libraries print on standard error; afterwards the list contains the lines."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as captured:
        # The file descriptor itself, since C++ libraries do not write through `sys.stderr`.
        before = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            captured.seek(0)
            lines += captured.read().decode(errors="replace").splitlines()


def _slice_devices(kind: str, sides: Sequence[int], *, slices: int, name: str) -> tuple[jax.Device, ...]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"Compiling for the TPU slice {name!r} needs libtpu, which is not installed. pip install 'flan_jax[plan]' "
            "installs it; no TPU is needed for it."
        )
    from jax.experimental import topologies

    more: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if math.prod(sides) == 1:  # By default a host has four chips.
        more["chips_per_host_bounds"] = (1, 1, 1)
    if kind == "v4":  # By default each of the chip's two cores is a device, unlike in a run.
        more["chip_config_name"] = "megacore"
    for variable, value in _ENVIRONMENT.items():
        # What the user set stays.
        os.environ.setdefault(variable, value)
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{kind}-{math.prod(sides)}")
    shape = "x".join(map(str, sides))
    try:
        with captured_stderr():
            described = topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:{shape}", **more)
            return tuple(described.devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"libtpu refuses the topology {name!r}: {reason}. Known slices of {kind}: {', '.join(SLICES[kind])}."
        ) from error


def _gpus(kind: str, count: int, *, name: str) -> Topology:
    node = CHIPS[kind].host_chips
    if count < 1 or (count > node and count % node):
        raise UserError(f"{name!r} has {count} GPUs; allowed are 1 to {node}, or multiples of {node} (complete nodes).")
    with captured_stderr():  # The plugin prints that it finds no GPU.
        devices = gpus.described(kind, count)
    return Topology(name=name, chip=CHIPS[kind], devices=devices, options=gpus.OPTIONS)


def _cpu_devices(count: int, *, name: str) -> tuple[jax.Device, ...]:
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX is initialized already; its number of devices is fixed.
            jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"{name!r} needs {count} CPU devices, and this process has {len(devices)}. Unset XLA_FLAGS, or set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}."
        )
    return tuple(devices[:count])
