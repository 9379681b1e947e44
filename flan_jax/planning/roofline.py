"""The least time of a step: the longest of the times of its FLOPs, HBM traffic and exchanges at their peaks."""

import dataclasses

import jax

from flan_jax.planning.chips import Chip
from flan_jax.planning.collectives import Collective, axes_of, collectives
from flan_jax.planning.hlo import Computation, Instruction, Program
from flan_jax.sharding import count_slices

# Opcodes that move nothing themselves; what a loop moves is counted in its body.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id opt-barrier while call "
    "conditional domain iota".split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange:
    """All collectives of one kind over the same axes, on one device.

    Attributes:
      number: How many a step runs.
      bytes: The sum of the complete arrays.
      seconds: Time of sending at the speed of the links; 0 without a chip.
    """

    kind: str
    axis: str
    number: int
    bytes: int
    seconds: float


def exchanges(program: Program, *, mesh: jax.sharding.Mesh, chip: Chip | None) -> list[Exchange]:
    """Returns what a step exchanges, the most bytes first."""
    islands = [_island(position, device, chip) for position, device in enumerate(mesh.devices.flat)]
    sums: dict[tuple[str, str], Exchange] = {}
    for one in collectives(program, devices=len(islands), slices=count_slices(list(mesh.devices.flat))):
        axis = axes_of(one.groups, axes=mesh.shape)
        row = sums.get((one.kind, axis), Exchange(kind=one.kind, axis=axis, number=0, bytes=0, seconds=0.0))
        sums[one.kind, axis] = dataclasses.replace(
            row,
            number=row.number + one.number,
            bytes=row.bytes + one.number * one.bytes,
            seconds=row.seconds + one.number * _seconds(one, islands=islands, chip=chip),
        )
    return sorted(sums.values(), key=lambda row: (-row.bytes, row.kind, row.axis))


def hbm_bytes(program: Program) -> int:
    """Returns the bytes that the instructions of a step read from and write to HBM, on one device."""
    return sum(
        times * _instruction_bytes(program, instruction, body)
        for body, times, _ in program.bodies()
        for instruction in body.values()
    )


def _island(position: int, device: jax.Device, chip: Chip | None) -> int:
    """The slice or node of a device; described GPUs fill one node after the other."""
    if device.platform == "gpu" and chip is not None:
        return position // chip.host_chips
    return int(getattr(device, "slice_index", 0) or 0)


def _seconds(one: Collective, *, islands: list[int], chip: Chip | None) -> float:
    if chip is None:
        return 0.0
    group = max(one.groups, key=lambda group: len({islands[position] for position in group}))
    count = len({islands[position] for position in group})
    if count == 1:
        return one.sent_bytes / chip.link_bytes_per_second
    # The members in one island first reduce, or last gather, among themselves; each sends its share over the network.
    return one.sent_bytes / (chip.network_bytes_per_second * len(group) / count)


def _instruction_bytes(program: Program, instruction: Instruction, within: Computation) -> int:
    opcode, arrays = instruction.opcode, instruction.arrays
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    if opcode in ("copy-start", "slice-start"):  # The result repeats the operand.
        return min(array.bytes for array in arrays[:2]) * sum(array.space == 0 for array in arrays[:2])
    # Reads and writes the slice only, not the array that it is taken from.
    if opcode == "dynamic-slice":
        return 2 * _in_hbm(instruction)
    # In place: reads and writes the update.
    if opcode == "dynamic-update-slice":
        return 2 * _in_hbm(within[instruction.operands[1]])
    fused = program.computations.get(instruction.called[0], {}) if opcode == "fusion" else {}
    parameters = {int(inner.operands[0]): inner for inner in fused.values() if inner.opcode == "parameter"}
    read = sum(
        _read_bytes(_in_hbm(within[name]), parameters.get(position), fused)
        for position, name in enumerate(instruction.operands)
        if name in within
    )
    root = next((inner for inner in fused.values() if inner.is_root), instruction)
    while root.opcode == "bitcast":
        root = fused[root.operands[0]]
    # A fusion that ends in an update writes it into its operand in place.
    if root.opcode == "dynamic-update-slice" and _in_hbm(instruction):
        return read + sum(array.bytes for array in fused[root.operands[1]].arrays)
    return read + _in_hbm(instruction)


def _read_bytes(size: int, parameter: Instruction | None, fused: Computation) -> int:
    """The bytes that a fusion reads of an operand: only the slices, if it slices or partly overwrites it."""
    names = {parameter.name} if parameter else set()
    read = 0
    for inner in fused.values():
        if not names.intersection(inner.operands):
            continue
        if inner.opcode == "bitcast":
            names.add(inner.name)
        elif inner.opcode in ("dynamic-slice", "dynamic-update-slice") and inner.operands[0] in names:
            read += sum(array.bytes for array in inner.arrays) if inner.opcode == "dynamic-slice" else 0
        else:
            return size
    return min(read, size) if names else size


def _in_hbm(instruction: Instruction) -> int:
    return sum(array.bytes for array in instruction.arrays if array.space == 0)
