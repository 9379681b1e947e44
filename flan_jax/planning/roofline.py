"""From a compiled program and a chip to the least time of a step, told part by part.

The schedule is gone through in its order. A matrix product or a fusion takes the longer of its FLOPs at the chip's peak
and its bytes at the memory's speed; a collective that everything waits for takes its time on the links; one that is
begun and ended apart goes on meanwhile, and is waited for where it ends. A TPU's compiler writes down its own estimate
of cycles as well; with those in place of the first rule the same walk gives a second, soberer time.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flan_jax.planning import costs
from flan_jax.planning.chips import Chip
from flan_jax.planning.collectives import NOWHERE, Moment, axes_of, moment_of
from flan_jax.planning.hlo import Computation, Instruction, Program
from flan_jax.planning.links import HOP_SECONDS, LINK_EFFICIENCY, Network

NAMED_EXCHANGES = 12
ASSUMPTIONS = (
    "Matrix products run at the chip's bfloat16 peak, whatever their type, and memory at its nominal speed; "
    "of two that can go on at once the longer counts.",
    f"Links give {LINK_EFFICIENCY:.0%} of their nominal speed, {HOP_SECONDS * 1e6:.0f} microsecond a hop; exchanges do not meet on "
    "a link, and use every dimension of the network that their group extends in.",
    "A collective begun and ended apart, or carried on within other fusions, is hidden by what is computed meanwhile.",
    "Arithmetic outside matrix products costs what it reads and writes in HBM; the compiler's cycles count it in full.",
    "The feed keeps up, and nothing is saved or evaluated; transfers to the host's memory take no time.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange:
    """All collectives of one kind over one axis in a step, on one device.

    Attributes:
      number: how many are run.
      asynchronous: how many of them are begun and ended apart.
      bytes: what they exchange together: gathered, or before it is reduced.
      seconds: on the links.
      exposed_seconds: of them, while nothing is computed.
    """

    kind: str
    axis: str
    number: int
    asynchronous: int
    bytes: int
    seconds: float
    exposed_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Single:
    """One shape that is exchanged.

    Attributes:
      shape: of what a group exchanges.
      bytes: of one exchange.
      number: how many there are in a step.
      op_name: where in the model one of them comes from.
    """

    kind: str
    axis: str
    shape: str
    bytes: int
    number: int
    op_name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What one device runs in a step.

    Attributes:
      flops: of matrix products.
      hbm_bytes: read from and written to HBM.
      host_bytes: moved to and from the host's memory.
      exchanges: its collectives, the longest first.
      largest: the largest of them one by one.
      compute_seconds: of everything but collectives, at the roofline.
      step_seconds: the whole step at the roofline; 0 where no chip is known.
      cycles_seconds: the same by the compiler's cycle estimates; None where there are none.
      unknown_loops: loops whose length the text does not say; they count once.
    """

    flops: int
    hbm_bytes: int
    host_bytes: int
    exchanges: tuple[Exchange, ...]
    largest: tuple[Single, ...]
    compute_seconds: float
    step_seconds: float
    cycles_seconds: float | None
    unknown_loops: int


@dataclasses.dataclass
class _Tally:
    number: int = 0
    asynchronous: int = 0
    bytes: int = 0
    seconds: float = 0.0
    exposed: float = 0.0


class _Walk:
    """One passage through a program's schedule."""

    def __init__(
        self,
        program: Program,
        *,
        axes: Mapping[str, int],
        devices: int,
        network: Network | None,
        compute: Callable[[Instruction, Computation], float],
        copy: Callable[[Instruction, Computation], float],
    ):
        self.program, self.axes, self.devices, self.network = program, axes, devices, network
        self.compute, self.copy = compute, copy
        self.tallies: dict[tuple[str, str], _Tally] = {}
        self.largest: dict[tuple[str, str, str], list] = {}
        self.compute_seconds = 0.0

    def seconds(self, name: str, times: int) -> float:
        """How long one run of a computation takes that runs `times` times in all."""
        now = memory_free = 0.0
        link_free: dict[str, float] = {}
        under_way: dict[str, float] = {}
        within = self.program.computations[name]
        for instruction in within.values():
            if instruction.opcode == "while":
                trips = self.program.trip_count(instruction, within=within) or 1
                now += trips * self.seconds(str(instruction.attribute(r"body=%?([\w.\-]+)")), times * trips)
                continue
            if instruction.opcode in ("call", "conditional"):
                now += sum(self.seconds(called, times) for called in instruction.called)
                continue
            moment = moment_of(self.program, instruction, within=within, devices=self.devices)
            if instruction.opcode in ("copy-start", "slice-start"):
                memory_free = max(now, memory_free) + self.copy(instruction, within)
                under_way[instruction.name] = memory_free
            elif instruction.opcode in ("copy-done", "slice-done"):
                now = max(now, under_way.pop(instruction.operands[0], now))
            elif moment is None or moment.phase == "middle":
                took = self.compute(instruction, within)
                self.compute_seconds += times * took
                now += took
            else:
                now = self._exchange(moment, times, now=now, link_free=link_free, under_way=under_way)
        return now

    def _exchange(
        self, moment: Moment, times: int, *, now: float, link_free: dict[str, float], under_way: dict[str, float]
    ) -> float:
        """The time after a collective, from the time before; each axis has links of its own."""
        collective = moment.collective
        axis = axes_of(collective.groups, axes=self.axes, kind=collective.kind)
        tally = self.tallies.setdefault((collective.kind, axis), _Tally())
        if moment.phase == "done":
            end = under_way.pop(moment.key, now)
            tally.exposed += times * max(0.0, end - now)
            return max(now, end)
        took = self.network.seconds(collective) if self.network and axis != NOWHERE else 0.0
        # Links go both ways: permutations in two directions do not wait for each other.
        lane = f"{axis} {collective.groups[:1]}" if collective.kind == "collective-permute" else axis
        end = link_free[lane] = max(now, link_free.get(lane, 0.0)) + took
        tally.number += times
        tally.bytes += times * collective.bytes
        tally.seconds += times * took
        named = [f"{array.dtype}{list(array.sizes)}" for array in collective.arrays[:3]]
        shapes = " ".join(named + (["..."] if len(collective.arrays) > 3 else []))
        largest = self.largest.setdefault((collective.kind, axis, shapes), [collective.bytes, 0, collective.op_name])
        largest[1] += times
        if moment.phase == "start":
            tally.asynchronous += times
            under_way[moment.key] = end
            return now
        tally.exposed += times * (end - now)
        return end


def read_program(
    program: Program, *, axes: Mapping[str, int], devices: int, chip: Chip | None, network: Network | None
) -> Reading:
    """Returns what a program costs on a chip.

    Args:
      axes: of the mesh, with their sizes, as `collectives.mesh_axes` returns them.
      devices: how many run it.
      chip: None: nothing is known, and no time is estimated.
      network: where the devices stand; None with no chip.
    """
    flops = hbm = host = unknown = 0
    has_cycles = False
    for body, times, _ in program.bodies():
        for instruction in body.values():
            flops += times * costs.flops(program, instruction, within=body)
            hbm += times * costs.hbm_bytes(program, instruction, within=body)
            host += times * costs.host_bytes(instruction, within=body)
            has_cycles = has_cycles or '"estimated_cycles"' in instruction.attributes
            unknown += instruction.opcode == "while" and program.trip_count(instruction, within=body) is None
    shared: dict[str, Any] = {"axes": axes, "devices": devices, "network": network}

    def copy(instruction: Instruction, within: Computation) -> float:
        return costs.hbm_bytes(program, instruction, within=within) / chip.hbm_bytes_per_second if chip else 0.0

    def ideal(instruction: Instruction, within: Computation) -> float:
        if chip is None:
            return 0.0
        arithmetic = costs.flops(program, instruction, within=within) / chip.flops_per_second
        return max(arithmetic, copy(instruction, within))

    def by_cycles(instruction: Instruction, within: Computation) -> float:
        cycles = instruction.attribute(r'"estimated_cycles":"(\d+)"')
        if cycles is None or chip is None or chip.clock_hertz is None:
            return ideal(instruction, within)
        return int(cycles) / chip.clock_hertz

    walk = _Walk(program, compute=ideal, copy=copy, **shared)
    seconds = walk.seconds(program.entry, 1)
    sober = None
    if has_cycles and chip is not None and chip.clock_hertz is not None:
        sober = _Walk(program, compute=by_cycles, copy=copy, **shared).seconds(program.entry, 1)
    return Reading(
        flops=flops,
        hbm_bytes=hbm,
        host_bytes=host,
        exchanges=_exchanges(walk.tallies),
        largest=_largest(walk.largest),
        compute_seconds=walk.compute_seconds,
        step_seconds=max(seconds, hbm / chip.hbm_bytes_per_second) if chip else 0.0,
        cycles_seconds=sober,
        unknown_loops=unknown,
    )


def _exchanges(tallies: Mapping[tuple[str, str], _Tally]) -> tuple[Exchange, ...]:
    found = [
        Exchange(
            kind=kind,
            axis=axis,
            number=tally.number,
            asynchronous=tally.asynchronous,
            bytes=tally.bytes,
            seconds=tally.seconds,
            exposed_seconds=tally.exposed,
        )
        for (kind, axis), tally in tallies.items()
    ]
    return tuple(sorted(found, key=lambda row: (-row.seconds, -row.bytes, row.kind, row.axis)))


def _largest(found: Mapping[tuple[str, str, str], list]) -> tuple[Single, ...]:
    rows = [
        Single(kind=kind, axis=axis, shape=shape, bytes=size, number=number, op_name=op_name)
        for (kind, axis, shape), (size, number, op_name) in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.kind, row.shape))[:NAMED_EXCHANGES])
