"""Compiled programs (scheduled HLO text): which instruction runs how often, and which arrays it returns."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_ARRAY = re.compile(r"(pred|[a-z]+[0-9]+\w*)\[([0-9,<=]*)\](?:\{([^}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{\s*$")
# A shape never contains " word(", so the first match of that is the opcode.
_INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")


class Array(NamedTuple):
    """One array of a result: bytes without padding, and the memory: 0 is HBM, 1 a TPU's vector memory, 5 the host's."""

    bytes: int
    space: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: Without the percent sign.
      opcode: For example "fusion" or "all-gather-start".
      arrays: The result; several for a tuple.
      operands: Names of instructions; for a parameter or a constant its number.
      attributes: The rest of the line.
      is_root: Whether the computation returns it.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls."""
        pairs = _CALLED.findall(self.attributes)
        return tuple(name for one, several in pairs for name in ([one] if one else _NAME.findall(several)))

    def attribute(self, pattern: str) -> str | None:
        """Returns the first group of a regular expression in the attributes; None without a match."""
        match = re.search(pattern, self.attributes)
        return match.group(1) if match else None


Computation = Mapping[str, Instruction]
"""The instructions of a computation by name, in the order in which they run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled program: what one device runs."""

    computations: Mapping[str, Computation]
    entry: str

    def inside(self, instruction: Instruction) -> Iterator[tuple[Instruction, Computation]]:
        """Yields what a fusion or an asynchronous call contains, at any depth: instructions, and their computations."""
        for name in instruction.called:
            computation = self.computations.get(name, {})
            for inner in computation.values():
                yield inner, computation
                yield from self.inside(inner)

    def bodies(self) -> Iterator[tuple[Computation, int, bool]]:
        """Yields each scheduled computation, how often a step runs it, and whether the lengths of its loops are known.

        All branches of a conditional count.
        """
        yield from self._bodies(self.entry, 1, True)

    def _bodies(self, name: str, times: int, is_known: bool) -> Iterator[tuple[Computation, int, bool]]:
        computation = self.computations[name]
        yield computation, times, is_known
        for instruction in computation.values():
            if instruction.opcode == "while":
                trips = self._trip_count(instruction)
                body = str(instruction.attribute(r"body=%?([\w.\-]+)"))
                yield from self._bodies(body, times * (trips or 1), is_known and trips is not None)
            # Not fusions: they run as one instruction, and what they contain never reaches memory.
            elif instruction.opcode in ("call", "conditional"):
                for called in instruction.called:
                    yield from self._bodies(called, times, is_known)

    def _trip_count(self, loop: Instruction) -> int | None:
        """How often the body of a `while` runs; None if the text does not contain it."""
        annotated = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"\}')
        if annotated:
            return int(annotated)
        # A TPU's compiler drops the annotation. JAX's scans count from 0 in steps of 1 while `counter < length`.
        condition = self.computations.get(str(loop.attribute(r"condition=%?([\w.\-]+)")), {})
        root = next((one for one in condition.values() if one.is_root), None)
        if root is None or root.opcode != "compare" or root.attribute(r"direction=(\w+)") != "LT":
            return None
        length = condition.get(root.operands[-1])
        return int(length.operands[0]) if length is not None and length.opcode == "constant" else None


def read(text: str) -> Program:
    """Reads the text that `jax.stages.Compiled.as_text` returns."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            head = _COMPUTATION.match(line)
            if head:
                current = computations.setdefault(head.group(2), {})
                entry = head.group(2) if head.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif match := _INSTRUCTION.match(line):
            root, name, shape, opcode, rest = match.groups()
            operands, _, attributes = rest.partition(")")
            current[name] = Instruction(
                name=name,
                opcode=opcode,
                arrays=arrays_of(shape),
                operands=tuple(_NAME.findall(operands)) or (operands,),
                attributes=attributes,
                is_root=root is not None,
            )
    assert entry, "a compiled program has an entry computation"
    return Program(computations=computations, entry=entry)


def arrays_of(shape: str) -> tuple[Array, ...]:
    """Reads a shape.

    >>> arrays_of("(bf16[16,512]{1,0:T(8,128)(2,1)S(1)}, s32[])")[0]
    Array(bytes=16384, space=1)
    """
    return tuple(_array(*parts) for parts in _ARRAY.findall(shape))


@functools.lru_cache(maxsize=1 << 14)
def _array(dtype: str, sizes: str, layout: str) -> Array:
    digits = re.search(r"\d+", dtype)  # bf16, s4, f8e4m3fn: the first number is the width in bits.
    bits = math.prod(int(size.strip("<=")) for size in sizes.split(",") if size) * (
        int(digits.group()) if digits else 8
    )
    space = _SPACE.search(layout)
    return Array(bytes=math.ceil(bits / 8), space=int(space.group(1)) if space else 0)
