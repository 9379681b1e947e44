"""How long a collective takes at best on a network: a torus of links between neighbours (TPU), or nodes in a fabric (GPU)."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import numpy as np

from flan_jax.planning.chips import Chip
from flan_jax.planning.collectives import Collective

LINK_EFFICIENCY = 0.9
"""What is taken of a link's nominal speed: headers, and the start and end of every exchange."""
HOP_SECONDS = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Where the devices of a mesh stand.

    Attributes:
      chip: their kind.
      places: of each device, in the mesh's order: its slice or node, and its coordinates in it.
      sides: lengths of a slice; () where all chips of a node reach each other.
    """

    chip: Chip
    places: tuple[tuple[int, ...], ...]
    sides: tuple[int, ...] = ()

    def seconds(self, collective: Collective) -> float:
        """Returns the least time of a collective on an otherwise idle network."""
        groups = [group for group in collective.groups if len(set(group)) > 1]
        if not groups:
            return 0.0
        if collective.kind == "collective-permute":
            return max(self._pair(collective.bytes, group) for group in groups[:64])
        return self._group(collective, groups[0])

    def _group(self, collective: Collective, group: Sequence[int]) -> float:
        places = np.asarray([self.places[one] for one in group])
        islands = len(set(places[:, 0].tolist()))
        within = len(group) // islands
        size = collective.bytes
        factor = {"all-reduce": 2.0}.get(collective.kind, 1.0)
        seconds = 0.0
        if islands > 1:  # Each chip sends its share of what its island has, so that all of them send at once.
            speed = self.chip.network_bytes_per_second * within * LINK_EFFICIENCY
            seconds += factor * size * (islands - 1) / islands / speed
        if within > 1:
            inner = places[places[:, 0] == places[0, 0]][:, 1:]
            speed, length = self._speed(inner) if self.sides else (self.chip.link_bytes_per_second, 1)
            if collective.kind == "all-to-all" and self.sides:
                seconds += size * length / 4 / speed
            else:
                seconds += factor * size * (within - 1) / within / speed
            seconds /= LINK_EFFICIENCY if islands == 1 else 1.0
            seconds += HOP_SECONDS * (length - 1 if self.sides else 1)
        return seconds

    def _speed(self, coordinates: np.ndarray) -> tuple[float, int]:
        """Bytes a second into one device over all links that its group uses, and the group's longest side."""
        speed, longest = 0.0, 1
        for dimension, side in enumerate(self.sides):
            values = sorted(set(coordinates[:, dimension].tolist()))
            if len(values) < 2:
                continue
            longest = max(longest, len(values))
            stride = min(after - before for before, after in itertools.pairwise(values))
            is_ring = side % self.chip.wraps_at == 0 and stride * len(values) == side and side > 2
            # Groups that stand between one another share the links.
            speed += self.chip.link_bytes_per_second * (2 if is_ring else 1) / stride
        return speed or self.chip.link_bytes_per_second, longest

    def _pair(self, size: int, pair: Sequence[int]) -> float:
        start, end = (self.places[one] for one in pair)
        if start[0] != end[0]:
            return size / (self.chip.network_bytes_per_second * LINK_EFFICIENCY)
        hops = 1
        if self.sides:
            hops = sum(self._hops(a, b, side) for a, b, side in zip(start[1:], end[1:], self.sides, strict=True))
        return size * max(1, hops) / (self.chip.link_bytes_per_second * LINK_EFFICIENCY) + hops * HOP_SECONDS

    def _hops(self, start: int, end: int, side: int) -> int:
        there = abs(end - start)
        return min(there, side - there) if side % self.chip.wraps_at == 0 else there


def network_of(devices: Sequence[jax.Device], *, chip: Chip, sides: tuple[int, ...]) -> Network:
    """Returns where devices stand, in the order given; described GPUs stand in nodes one after the other."""
    if not sides:
        places = tuple((number // chip.node_chips, number % chip.node_chips) for number in range(len(devices)))
        return Network(chip=chip, places=places)
    found = []
    for device in devices:
        coordinates = tuple(getattr(device, "coords", ()))[: len(sides)]
        found.append((int(getattr(device, "slice_index", 0) or 0), *coordinates))
    assert all(len(place) == len(sides) + 1 for place in found), "a device of a slice has a coordinate for each side"
    return Network(chip=chip, places=tuple(found), sides=sides)


def ring_sides(chip: Chip, sides: tuple[int, ...]) -> list[int]:
    """Returns those lengths of a slice that are closed to rings."""
    return [side for side in sides if side % chip.wraps_at == 0 and side > 2 and math.prod(sides) > 1]
