"""The text of a compiled program (scheduled HLO), read into records: computations, instructions, shapes, loops.

Only what a plan asks is read: which instruction runs how often, on arrays of which size, in which memory. What the
instructions cost is for `costs`, `collectives` and `roofline`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

from flan_jax.errors import UserError

VMEM, HOST = 1, 5
"""Memory spaces in a layout, as `S(1)`: a TPU's vector memory, the host's memory. HBM is 0 and not written."""

_WIDTHS = {8: "pred s8 u8", 4: "s4 u4", 16: "s16 u16 bf16 f16", 32: "s32 u32 f32", 64: "s64 u64 f64 c64", 128: "c128"}
_BITS = {name: bits for bits, names in _WIDTHS.items() for name in names.split()}
_ARRAY = re.compile(r"([a-z]+[0-9]*(?:e[0-9]m[0-9][a-z]*)?)\[([0-9,<=]*)\](?:\{([^}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_HEAD = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_NAME = re.compile(r"%([\w.\-]+)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{\s*$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
    """One array of an instruction's result: its element type, its sizes, and the memory it lies in (0: HBM)."""

    dtype: str
    sizes: tuple[int, ...]
    space: int = 0

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """What it takes without padding."""
        return math.ceil(self.elements * _BITS.get(self.dtype, 8 if self.dtype.startswith("f8") else 0) / 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without the percent sign.
      opcode: as "fusion", "all-gather-start".
      arrays: its result, a tuple's parts one after the other.
      operands: names.
      attributes: the rest of the line, as text.
      is_root: whether it is what the computation returns.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations it calls."""
        found: list[str] = []
        for one, several in _CALLED.findall(self.attributes):
            found += [one] if one else _NAME.findall(several)
        return tuple(found)

    def attribute(self, pattern: str) -> str | None:
        """The first group of a regular expression in the attributes; None where it does not match."""
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else None

    @property
    def op_name(self) -> str:
        """Where in the model it comes from, as JAX says it."""
        return self.attribute(r'op_name="([^"]*)"') or ""


Computation = Mapping[str, Instruction]
"""The instructions of a computation by name, in the order in which they run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled program: what one device runs."""

    computations: Mapping[str, Computation]
    entry: str

    def reached(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yields the instructions within what an instruction calls, at any depth."""
        for name in instruction.called:
            for inner in self.computations.get(name, {}).values():
                yield inner
                yield from self.reached(inner)

    @functools.cached_property
    def loops(self) -> Mapping[int, tuple[Instruction, Computation]]:
        """The loop that runs a computation, and the computation that the loop stands in, by the former's identity."""
        found = {}
        for outside in self.computations.values():
            for instruction in outside.values():
                if instruction.opcode == "while":
                    for part in ("body", "condition"):
                        found[id(self.part(instruction, part))] = (instruction, outside)
        return found

    def part(self, instruction: Instruction, name: str) -> Computation:
        """Returns what an instruction calls as its "body", "condition" or "calls"; empty where it calls none."""
        return self.computations.get(str(instruction.attribute(name + r"=%?([\w.\-]+)")), {})

    def trip_count(self, loop: Instruction, *, within: Computation) -> int | None:
        """How often the body of a `while` runs; None where the text does not say."""
        said = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"\}')
        return int(said) if said else _counted(self, loop, within=within)

    def bodies(self) -> Iterator[tuple[Computation, int, bool]]:
        """Yields every computation that is scheduled, how often it runs in all, and whether that number is sure.

        Of a conditional all branches are counted.
        """
        yield from self._bodies(self.entry, 1, True)

    def _bodies(self, name: str, times: int, sure: bool) -> Iterator[tuple[Computation, int, bool]]:
        computation = self.computations[name]
        yield computation, times, sure
        for instruction in computation.values():
            if instruction.opcode == "while":
                trips = self.trip_count(instruction, within=computation)
                body = instruction.attribute(r"body=%?([\w.\-]+)")
                yield from self._bodies(str(body), times * (trips or 1), sure and trips is not None)
            elif instruction.opcode in ("call", "conditional"):
                for called in instruction.called:
                    yield from self._bodies(called, times, sure)


def read(text: str) -> Program:
    """Reads what `jax.stages.Compiled.as_text` returns.

    Raises:
      UserError: there is no entry computation in it.
    """
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
        else:
            instruction = _instruction(line)
            if instruction is not None:
                current[instruction.name] = instruction
    if not entry:
        raise UserError("This is no compiled program: it has no ENTRY computation.")
    return Program(computations=computations, entry=entry)


def arrays_of(shape: str) -> tuple[Array, ...]:
    """Reads a shape.

    >>> arrays_of("(bf16[16,512]{1,0:T(8,128)(2,1)S(1)}, s32[])")[0].bytes
    16384
    """
    return tuple(_array(*parts) for parts in _ARRAY.findall(shape))


@functools.lru_cache(maxsize=1 << 14)
def _array(dtype: str, sizes: str, layout: str) -> Array:
    space = _SPACE.search(layout)
    return Array(
        dtype=dtype,
        sizes=tuple(int(size.strip("<=")) for size in sizes.split(",") if size),
        space=int(space.group(1)) if space else 0,
    )


def _instruction(line: str) -> Instruction | None:
    head = _HEAD.match(line)
    if head is None:
        return None
    start = head.end()
    end = _closing(line, start) + 1 if line[start] == "(" else line.index(" ", start)
    opening = line.index("(", end)
    closing = _closing(line, opening)
    return Instruction(
        name=head.group(2),
        opcode=line[end:opening].strip(),
        arrays=arrays_of(line[start:end]),
        operands=tuple(_NAME.findall(line[opening:closing])) or (line[opening + 1 : closing],),
        attributes=line[closing + 1 :],
        is_root=head.group(1) is not None,
    )


def _closing(line: str, opening: int) -> int:
    """Where the bracket closes that opens at `opening`."""
    depth = 0
    for place in range(opening, len(line)):
        if line[place] == "(":
            depth += 1
        elif line[place] == ")":
            depth -= 1
            if depth == 0:
                return place
    return len(line) - 1


def _counted(program: Program, loop: Instruction, *, within: Computation) -> int | None:
    """The length of a loop that counts a number up to a bound in even steps, as JAX's scans do and the compiler's own loops."""
    condition, body = (program.part(loop, part) for part in ("condition", "body"))
    root, end, starts = _root(condition), _root(body), within.get(loop.operands[0])
    if root is None or end is None or starts is None:
        return None
    comparisons = [i for i in (root, *program.reached(root)) if i.opcode == "compare"]
    counter = _carried(root.operands[0], condition)
    if not comparisons or "direction=LT" not in comparisons[0].attributes or counter is None:
        return None
    bound = _number(program, root.operands[-1], condition)
    first = _number(program, starts.operands[counter], within)
    step = _step(program, end.operands[counter], body)
    if bound is None or first is None or not step or step < 0:
        return None
    return max(0, math.ceil((bound - first) / step))


def _step(program: Program, name: str, body: Computation) -> int | None:
    """What a body adds to its counter."""
    instruction = body.get(name)
    if instruction is None:
        return None
    if instruction.opcode == "copy":
        return _step(program, instruction.operands[0], body)
    if instruction.opcode == "fusion":
        fused = program.part(instruction, "calls")
        root = _root(fused)
        if root is None or root.opcode != "add":
            return None
        given = {i.name: instruction.operands[int(i.operands[0])] for i in fused.values() if i.opcode == "parameter"}
        found = [
            _number(program, given[operand], body) if operand in given else _number(program, operand, fused)
            for operand in root.operands
        ]
    elif instruction.opcode == "add":
        found = [_number(program, operand, body) for operand in instruction.operands]
    else:
        return None
    numbers = [number for number in found if number is not None]
    return numbers[0] if len(numbers) == 1 else None


def _root(computation: Computation) -> Instruction | None:
    return next((instruction for instruction in computation.values() if instruction.is_root), None)


def _carried(name: str, computation: Computation) -> int | None:
    """Which part of a computation's parameter a name is."""
    instruction = computation.get(name)
    while instruction is not None and instruction.opcode in ("copy", "bitcast"):
        instruction = computation.get(instruction.operands[0])
    if instruction is None or instruction.opcode != "get-tuple-element":
        return None
    source = computation.get(instruction.operands[0])
    is_parameter = source is not None and source.opcode == "parameter"
    return int(str(instruction.attribute(r"index=(\d+)"))) if is_parameter else None


def _number(program: Program, name: str, computation: Computation) -> int | None:
    """The integer that a name stands for: a constant, or one that the loops around carry unchanged."""
    instruction = computation.get(name)
    if instruction is None:
        return None
    if instruction.opcode == "constant":
        text = instruction.operands[0]
        return int(text) if re.fullmatch(r"-?\d+", text) else None
    if instruction.opcode in ("copy", "bitcast"):
        return _number(program, instruction.operands[0], computation)
    index = _carried(name, computation)
    around = program.loops.get(id(computation))
    if index is None or around is None:
        return None
    loop, outside = around
    starts, end = outside.get(loop.operands[0]), _root(program.part(loop, "body"))
    if starts is None or end is None or _carried(end.operands[index], program.part(loop, "body")) != index:
        return None
    return _number(program, starts.operands[index], outside)
