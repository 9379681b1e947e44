"""Compiling a step ahead of time, and what becomes of it: a program with its memory, or the word that it does not fit."""

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax

from flan_jax.errors import UserError
from flan_jax.planning import gpus
from flan_jax.planning.topologies import captured_stderr

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = r"([\d.]+)([BKMGT]?)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device, as the compiler counts them.

    Attributes:
      arguments: the state and the batch.
      outputs: the next state and what the step tells.
      aliased: outputs that lie where arguments lay, for the state is given away.
      temporaries: everything between.
      code: the program.
      host_temporaries: in the host's memory.
      live: the most of arguments, outputs and temporaries that is alive at once; None where the compiler does not say,
        and on a GPU, which asks for all temporaries in one piece.
        `temporaries` is what a TPU's compiler lays out, gaps and all, and may exceed it, and even the memory.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    host_temporaries: int = 0
    live: int | None = None

    @property
    def peak(self) -> int:
        """What has to be there at once, the program included."""
        if self.live:
            return self.live + self.code
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """A step that was compiled.

    Attributes:
      text: the scheduled program.
      compiler_flops: the compiler's own count, in which a loop's body counts once; None where it makes none (GPU).
      compiler_bytes: likewise, of memory accesses.
      seconds: that tracing and compiling took.
      complaints: what the compiler printed of shardings that it could not keep.
    """

    memory: Memory
    text: str
    compiler_flops: float | None
    compiler_bytes: float | None
    seconds: float
    complaints: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TooLarge:
    """A step that the compiler refused.

    Attributes:
      needed: bytes on one device, as far as it said; None where it did not.
      available: bytes.
      largest: its largest arrays in its words, the largest first.
      message: all that it said.
    """

    needed: int | None
    available: int | None
    largest: tuple[str, ...]
    message: str


def compile_step(lower: Any, *, options: Mapping[str, Any] = MappingProxyType({})) -> Compiled | TooLarge:
    """Compiles what a function lowers.

    Args:
      lower: without arguments, returns `jax.stages.Lowered`.
      options: for the compiler, besides those lowered with.

    Raises:
      UserError: XLA's compiler for GPUs lacks what it takes from a CUDA toolkit.
    """
    start = time.monotonic()
    with captured_stderr() as printed:
        with gpus.cudnn_as_described():
            lowered = lower()
        try:
            compiled = lowered.compile(compiler_options=dict(options))
        except jax.errors.JaxRuntimeError as error:
            if "libdevice" in str(error) or "ptxas" in str(error):
                raise UserError(f"XLA finds no CUDA toolkit ({str(error).splitlines()[0]}): {gpus.INSTALL}.") from error
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return too_large(str(error))
        found = compiled.memory_analysis()
        cost = compiled.cost_analysis() or {}
        cost = cost[0] if isinstance(cost, list) else cost
        text = compiled.as_text()
        platform = next(iter(jax.tree.leaves(compiled.output_shardings)[0].device_set)).platform
    memory = Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        aliased=found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        code=found.generated_code_size_in_bytes,
        host_temporaries=found.host_temp_size_in_bytes,
        live=None if platform == "gpu" else getattr(found, "peak_memory_in_bytes", 0) or None,
    )
    return Compiled(
        memory=memory,
        text=text,
        compiler_flops=cost.get("flops"),
        compiler_bytes=cost.get("bytes accessed"),
        seconds=time.monotonic() - start,
        complaints=tuple(line for line in printed if "ematerializ" in line),
    )


def too_large(message: str) -> TooLarge:
    """Reads the refusal of a TPU's compiler.

    >>> too_large("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.").needed
    22011707392
    """
    used = re.search(rf"Used {_SIZE} of {_SIZE} hbm", message)
    # The other refusal names temporaries alone, which then exceed the memory by themselves.
    temporaries = re.search(rf"HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)", message)
    found = used or temporaries
    needed, available = (_bytes(*found.groups()[:2]), _bytes(*found.groups()[2:])) if found else (None, None)
    return TooLarge(needed=needed, available=available, largest=_allocations(message), message=message)


def state_bytes(abstract: Any) -> int:
    """Returns the bytes of a tree on one device, by the shapes and shardings of its leaves."""
    return sum(_shard_bytes(leaf) for leaf in jax.tree.leaves(abstract))


def whole_leaves(abstract: Any, *, at_least: int = 1 << 20) -> list[tuple[str, int]]:
    """Returns the leaves, with their bytes, that lie whole on every one of several devices though they are large."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        if leaf.sharding.num_devices > 1 and leaf.sharding.is_fully_replicated and size >= at_least:
            found.append((jax.tree_util.keystr(path, simple=True, separator="/"), size))
    return sorted(found, key=lambda row: -row[1])


def _shard_bytes(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def _allocations(message: str) -> tuple[str, ...]:
    """The list of the largest allocations, each as "3.00G f32[...] where from"."""
    found = []
    for block in re.split(r"\n\s*\d+\. Size: ", message)[1:]:
        size = block.split("\n", 1)[0].strip()
        shape = re.search(r"Shape: ([a-z0-9]+\[[\d,]*\])", block)
        name = re.search(r'op_name="([^"]*)"', block)
        found.append(" ".join(part for part in (size, shape and shape.group(1), name and name.group(1)) if part))
    return tuple(found)
