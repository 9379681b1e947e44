"""The collectives of a compiled program: which exchange, how often, how many bytes, over which axes of the mesh.

XLA writes one exchange in several ways: as one instruction; as a pair of `-start` and `-done`; inside a fusion or an
`async-start`; on TPUs as a chain of fusions that all repeat the instruction with one channel id; and between slices of
TPUs as a `send` to the host ("megascale"). Each counts once.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flan_jax.planning.hlo import Computation, Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
Groups = tuple[tuple[int, ...], ...]
_IOTA = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One exchange between devices.

    Attributes:
      kind: One of `KINDS`.
      bytes: Size of the complete array in a group: after a gather, before a reduction.
      groups: Positions in the mesh of the devices that exchange with each other; (source, target) for a permutation.
      number: How often a step runs it.
    """

    kind: str
    bytes: int
    groups: Groups
    number: int

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends in one run of the usual ring algorithm."""
        size = max(map(len, self.groups))
        # An all-reduce is a reduce-scatter and an all-gather. The factor of a permutation cancels the one below: each
        # device sends all of its array.
        rounds = {"all-reduce": 2.0, "collective-permute": size / max(1, size - 1)}.get(self.kind, 1.0)
        return rounds * self.bytes * (size - 1) / size


def collectives(program: Program, *, devices: int, slices: int = 1) -> Iterator[Collective]:
    """Yields the collectives of a program.

    Args:
      devices: How many devices run the program, in the order of the mesh.
      slices: How many slices of TPUs they form, slice after slice.
    """
    for body, times, _ in program.bodies():
        seen: set[tuple[str, str]] = set()
        for instruction in body.values():
            contained = program.inside(instruction) if instruction.opcode in ("fusion", "async-start") else ()
            for one, within in ((instruction, body), *contained):
                collective = _collective(one, within, devices=devices, slices=slices, times=times)
                key = (one.opcode, one.attribute(r"channel_id=(\d+)") or one.name)  # Kinds number channels separately.
                if collective is None or key in seen:
                    continue
                seen.add(key)
                is_scattered = collective.kind == "all-reduce" and within is not body and _is_sliced(one, within)
                yield dataclasses.replace(collective, kind="reduce-scatter") if is_scattered else collective


def axes_of(groups: Groups, *, axes: Mapping[str, int]) -> str:
    """Returns the axes of a mesh over which groups of positions exchange, for example "data+fsdp"; "none" if alone.

    Args:
      groups: Positions in a mesh.
      axes: Its axes with their sizes, the slowest first.

    >>> axes_of(((0, 1), (2, 3)), axes={"data": 2, "tensor": 2})
    'tensor'
    """
    crossed: set[int] = set()
    for group in groups:
        coordinates = np.unravel_index(np.asarray(group), tuple(axes.values()))
        crossed |= {axis for axis, values in enumerate(coordinates) if len(set(values.tolist())) > 1}
    return "+".join(name for axis, name in enumerate(axes) if axis in crossed) or "none"


def groups_of(attributes: str, *, devices: int) -> Groups:
    """Reads the groups of a collective in any of XLA's notations.

    >>> groups_of("replica_groups=[2,2]<=[2,2]T(1,0)", devices=4)
    ((0, 2), (1, 3))
    """
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)+)\}", attributes)
    if listed:
        return tuple(_numbers(group) for group in re.findall(r"\{([\d,]+)\}", listed.group(1)))
    iota = re.search(rf"replica_groups=\[(\d+),\d+\]<={_IOTA}", attributes)
    if iota:
        return _tuples(_ordered(iota.group(2), iota.group(3)).reshape(int(iota.group(1)), -1))
    mesh = re.search(
        r"replica_groups=@?\w*\[([^\]]*)\](?:, device_ids=\(([^()]*(?:\([^)]*\))?)\))? ?\{([^}]*)\}", attributes
    )
    return _mesh_groups(*mesh.groups()) if mesh else (tuple(range(devices)),)


def _collective(one: Instruction, within: Computation, *, devices: int, slices: int, times: int) -> Collective | None:
    transfer = one.attribute(r'_xla_megascale_transfer_type="(\w+)"') if one.opcode == "send" else None
    kind = transfer.lower().replace("_", "-") if transfer else one.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    if transfer:  # Each device exchanges with its counterparts in the other slices.
        groups = _tuples(np.arange(devices).reshape(slices, -1).T)
    else:
        groups = groups_of(one.attributes, devices=devices)
    size = sum(array.bytes for name in one.operands if name in within for array in within[name].arrays)
    # The operand is one device's part; `bytes` means the complete array.
    if kind == "all-gather":
        size *= max(map(len, groups))
    return Collective(kind=kind, bytes=size, groups=groups, number=times)


def _is_sliced(one: Instruction, within: Computation) -> bool:
    """Whether a fusion uses a slice of a sum: so a TPU's compiler writes a reduce-scatter."""
    return any(user.opcode == "dynamic-slice" and user.operands[0] == one.name for user in within.values())


@functools.lru_cache(maxsize=1024)
def _mesh_groups(mesh: str, ids: str | None, names: str) -> Groups:
    """Groups along axes of a mesh that the compiler names: `'a'=2,'b'=4`, and `'b'` or a part of it, `'b':(2)2`."""
    chosen = {name: part for name, *part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", names)}
    sizes: list[int] = []
    taken: list[int] = []
    for name, length in re.findall(r"'([^']+)'=(\d+)", mesh):
        before, part = chosen.get(name, ("1", "1"))
        before, part = int(before or 1), int(part or length)
        taken += [len(sizes) + 1] if name in chosen else []
        # `'b':(2)2` is the middle of three factors of axis b, so every axis is split into three; most factors are 1.
        sizes += [before, part, int(length) // (before * part)]
    others = [axis for axis in range(len(sizes)) if axis not in taken]
    iota = re.fullmatch(_IOTA, ids or f"[{np.prod(sizes)}]")
    ids_in_order = _ordered(*iota.groups()) if iota else np.asarray(_numbers(str(ids)))
    group = int(np.prod([sizes[axis] for axis in taken]))
    return _tuples(ids_in_order.reshape(sizes).transpose(others + taken).reshape(-1, group))


def _ordered(sizes: str, order: str | None) -> np.ndarray:
    """Device ids in the order of `[4,2]T(1,0)`."""
    ids_in_order = np.arange(np.prod(_numbers(sizes))).reshape(_numbers(sizes))
    return (ids_in_order.transpose(_numbers(order)) if order else ids_in_order).reshape(-1)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _tuples(rows: Any) -> Groups:
    return tuple(map(tuple, np.asarray(rows).tolist()))
