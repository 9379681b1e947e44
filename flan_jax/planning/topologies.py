"""Machines by name: a TPU slice, this machine's CPU as several devices, or GPUs.

    v5e:16x16   v5p:4x4x4   v6e:8x8*2 (two slices)   cpu:8   gpu:h200x8

A slice's devices come from libtpu, the TPU's compiler and runtime in one library, which needs no TPU to be asked; GPUs
likewise from JAX's CUDA plugin. Where that is not installed, as many CPU devices stand in for them.
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
from flan_jax.planning.chips import CHIPS, GPUS, TPUS, Chip

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBIC = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
SLICES = {chip.name: _FLAT if chip.links == 2 else _CUBIC for chip in TPUS}
_INSTALL = "pip install 'flan_jax[plan]' brings libtpu, the TPU's compiler; no TPU is needed for it"
_SURROUNDINGS = {  # What libtpu would otherwise ask a cloud's metadata for, and complain that there is none.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # No TPU is opened: plans may be made side by side, and beside a run.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """A machine that is planned for.

    Attributes:
      name: as it was asked for.
      chip: what its devices can do; None where nothing is known of them (this machine's CPU).
      devices: what a program is compiled for.
      sides: lengths of a slice, () elsewhere.
      compiled_for: what the devices are, where they are not those of the name.
      install: what brings those of the name.
      options: for their compiler.
      assumptions: what a program for them is compiled without, in words.
    """

    name: str
    chip: Chip | None
    devices: tuple[jax.Device, ...]
    sides: tuple[int, ...] = ()
    compiled_for: str | None = None
    install: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many devices."""
        return len(self.devices)

    def holds(self, peak: int) -> bool:
        """Whether a device has so many bytes for a program, as far as is known.

        What a TPU's compiler takes, fits. A GPU's takes everything. Of the memory that a CPU's program would take on
        another machine nothing is known.
        """
        is_known = self.chip is not None and self.chip.platform == "gpu" and self.compiled_for is None
        return not is_known or self.chip is None or peak <= self.chip.usable_bytes


def topology_named(name: str) -> Topology:
    """Returns a machine by its name.

    Raises:
      UserError: no such machine, its compiler is not installed or refuses, or this process has too few CPU devices.
    """
    kind, _, shape = name.strip().lower().partition(":")
    if kind == "cpu":
        return _cpu(name, shape)
    if kind == "gpu":
        return _gpu(name, shape)
    if kind not in SLICES:
        raise _unknown(name)
    found = re.fullmatch(r"(\d+(?:x\d+)*)(?:\*(\d+))?", shape)
    sides = tuple(map(int, found.group(1).split("x"))) if found else ()
    if found is None or len(sides) != len(SLICES[kind][0].split("x")):
        raise _unknown(name)
    devices = _slice(kind, sides, slices=int(found.group(2) or 1), name=name)
    return Topology(name=name, chip=CHIPS[kind], devices=devices, sides=sides)


def examples() -> list[str]:
    """Returns names that are known."""
    slices = [f"{kind}:{shape}" for kind, shapes in SLICES.items() for shape in shapes]
    return [*slices, "cpu", "cpu:8", *(f"gpu:{chip.name}{count}" for chip in GPUS for count in ("", "x8", "x64"))]


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Keeps what C++ libraries print on standard error; its lines are in the list afterwards."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            lines += kept.read().decode(errors="replace").splitlines()


def _unknown(name: str) -> UserError:
    kinds = "; ".join(f"{kind}: {', '.join(shapes)}" for kind, shapes in SLICES.items())
    return UserError(
        f"No topology {name!r}.{nearest(name, examples())} TPU slices are written v5e:16x16 ({kinds}; *2 behind one for two "
        f"slices), this machine's processor cpu or cpu:8, GPUs gpu:{GPUS[-1].name} or gpu:{GPUS[-1].name}x8 (of "
        f"{', '.join(chip.name for chip in GPUS)})."
    )


def _slice(kind: str, sides: Sequence[int], *, slices: int, name: str) -> tuple[jax.Device, ...]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"{name!r} is a TPU slice, which libtpu compiles for, and it is not installed: {_INSTALL}.")
    from jax.experimental import topologies

    more: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if math.prod(sides) == 1:  # Else a host has four chips, and one chip is no host.
        more["chips_per_host_bounds"] = (1, 1, 1)
    if kind == "v4":  # Else each of a chip's two cores is a device, as it is to no run, and none makes up a mesh.
        more["chip_config_name"] = "megacore"
    for variable, value in _SURROUNDINGS.items():
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


def _cpu(name: str, shape: str) -> Topology:
    if shape and not shape.isdigit():
        raise _unknown(name)
    devices = _cpu_devices(int(shape or 1), name=name)
    return Topology(name=name, chip=None, devices=devices)


def _gpu(name: str, shape: str) -> Topology:
    found = re.fullmatch(r"(\w+?)(?:x(\d+))?", shape)
    if found is None or found.group(1) not in {chip.name for chip in GPUS}:
        raise _unknown(name)
    kind, count = found.group(1), int(found.group(2) or 1)
    chip = CHIPS[kind]
    if count < 1 or (count > chip.node_chips and count % chip.node_chips):
        raise UserError(f"{name!r} has {count} GPUs; more than {chip.node_chips} are whole nodes of {chip.node_chips}.")
    if gpus.is_installed():
        with captured_stderr():  # That there is no GPU is known.
            devices = gpus.described(kind, count)
        return Topology(name=name, chip=chip, devices=devices, options=gpus.OPTIONS, assumptions=gpus.ASSUMPTIONS)
    return Topology(
        name=name,
        chip=chip,
        devices=_cpu_devices(count, name=name),
        compiled_for=f"{count} CPU device{'s' if count > 1 else ''}",
        install=gpus.INSTALL,
    )


def _cpu_devices(count: int, *, name: str) -> tuple[jax.Device, ...]:
    if count < 1:
        raise _unknown(name)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX runs already: what it has must do.
            jax.config.update("jax_num_cpu_devices", max(count, jax.config.read("jax_num_cpu_devices")))
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"{name!r} needs {count} CPU devices, and this process has {len(devices)}. Unset XLA_FLAGS, or have "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count} set."
        )
    return tuple(devices[:count])
