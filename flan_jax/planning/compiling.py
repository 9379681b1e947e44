"""Compiling a step ahead of time: a program with its memory, or the compiler's refusal."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from flan_jax.errors import UserError
from flan_jax.planning import gpus
from flan_jax.planning.topologies import captured_stderr

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device, according to the compiler.

    Attributes:
      arguments: The state and the batch.
      outputs: The next state and the metrics.
      aliased: Outputs that reuse the memory of donated arguments.
      temporaries: Everything in between. A TPU's compiler counts fragmentation too, so this can exceed the peak.
      code: The program.
      host_temporaries: Temporaries in the host's memory.
      live: The most of arguments, outputs and temporaries that is alive at once; None if the compiler does not report
        it, and on a GPU, which allocates all temporaries as one block.
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
        """The memory that the step needs, including the program."""
        return (self.live or self.arguments + self.outputs - self.aliased + self.temporaries) + self.code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """A compiled step.

    Attributes:
      text: The scheduled program.
      warnings: The compiler's warnings of shardings that it had to replicate.
    """

    memory: Memory
    text: str
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TooLarge:
    """A step that a TPU's compiler refused.

    Attributes:
      needed: Bytes on one device; None if the message does not contain them.
      message: The compiler's message, which also lists the largest arrays.
    """

    needed: int | None
    message: str


def compile_step(lower: Callable[[], jax.stages.Lowered], *, options: Mapping[str, Any]) -> Compiled | TooLarge:
    """Compiles what `lower` returns.

    Args:
      lower: Traces and lowers the step.
      options: Compiler options, in addition to those of the lowered step.

    Raises:
      UserError: XLA's compiler for GPUs does not find the parts of a CUDA toolkit that it needs.
    """
    with captured_stderr() as printed, gpus.cudnn_as_described():
        lowered = lower()
        try:
            compiled = lowered.compile(compiler_options=dict(options))
        except jax.errors.JaxRuntimeError as error:
            if "libdevice" in str(error) or "ptxas" in str(error):
                raise UserError(f"XLA finds no CUDA toolkit ({str(error).splitlines()[0]}): {gpus.INSTALL}.") from error
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return TooLarge(needed=needed_bytes(str(error)), message=str(error))
        analysis, text = compiled.memory_analysis(), compiled.as_text()
        assert analysis is not None and text is not None, "XLA's compilers analyze memory and print programs"
        device = next(iter(jax.tree.leaves(compiled.output_shardings)[0].device_set))
    memory = Memory(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
        host_temporaries=analysis.host_temp_size_in_bytes,
        live=None if device.platform == "gpu" else getattr(analysis, "peak_memory_in_bytes", 0) or None,
    )
    # XLA's partitioner: "Involuntary full rematerialization". C++ prints it, so that only standard error has it.
    return Compiled(memory=memory, text=text, warnings=tuple(line for line in printed if "ematerializ" in line))


def needed_bytes(message: str) -> int | None:
    """Reads the memory that a step needs from the refusal of a TPU's compiler.

    >>> needed_bytes("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.")
    22011707392
    """
    # The second form reports temporaries only, which then exceed the memory by themselves.
    match = re.search(r"Used ([\d.]+)([BKMGT]?) of|HLO temporaries \(([\d.]+)([BKMGT]?)\) exceeds", message)
    if match is None:
        return None
    number, unit = (part for part in match.groups() if part is not None)
    return int(float(number) * _UNITS[unit])


def state_bytes(abstract: Any) -> int:
    """Returns the bytes of a tree on one device, according to the shapes and shardings of its leaves."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract)
    )
