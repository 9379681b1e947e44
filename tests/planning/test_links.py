"""How long exchanges take on a network, against times worked out by hand."""

import dataclasses

import pytest

from flan_jax.planning.chips import CHIPS
from flan_jax.planning.collectives import Collective
from flan_jax.planning.hlo import Array
from flan_jax.planning.links import HOP_SECONDS, LINK_EFFICIENCY, Network

MILLION = Array(dtype="u8", sizes=(1_000_000,))
V5E = CHIPS["v5e"]  # 50e9 bytes a second a link and way, rings where a side is 16
LINK = 50e9 * LINK_EFFICIENCY


def collective(kind, *groups):
    return Collective(kind=kind, arrays=(MILLION,), groups=groups, op_name="")


def grid(rows, columns):
    places = tuple((0, x, y) for y in range(columns) for x in range(rows))
    return Network(chip=V5E, places=places, sides=(rows, columns))


def test_on_a_line_all_that_others_have_comes_over_one_link():
    found = grid(4, 4).seconds(collective("all-gather", (0, 1, 2, 3)))
    assert found == pytest.approx(0.75e6 / LINK + 3 * HOP_SECONDS)


def test_on_a_ring_it_comes_from_both_sides():
    found = grid(16, 16).seconds(collective("all-gather", tuple(range(16))))
    assert found == pytest.approx(15 / 16 * 1e6 / (2 * LINK) + 15 * HOP_SECONDS)


def test_over_two_dimensions_it_comes_over_both():
    found = grid(16, 16).seconds(collective("reduce-scatter", tuple(range(256))))
    assert found == pytest.approx(255 / 256 * 1e6 / (4 * LINK) + 15 * HOP_SECONDS)


def test_an_all_reduce_goes_there_and_back():
    gathered = grid(4, 4).seconds(collective("all-gather", (0, 1, 2, 3))) - 3 * HOP_SECONDS
    assert grid(4, 4).seconds(collective("all-reduce", (0, 1, 2, 3))) == pytest.approx(2 * gathered + 3 * HOP_SECONDS)


def test_groups_that_stand_between_one_another_share_links():
    near = grid(4, 4).seconds(collective("all-gather", (0, 1)))
    far = grid(4, 4).seconds(collective("all-gather", (0, 2)))
    assert far - HOP_SECONDS == pytest.approx(2 * (near - HOP_SECONDS))


def test_a_permutation_takes_its_longest_way():
    found = grid(16, 16).seconds(collective("collective-permute", (0, 1), (0, 15), (0, 3)))
    assert found == pytest.approx(3e6 / LINK + 3 * HOP_SECONDS)  # 0 and 15 are neighbours on the ring.


def test_an_exchange_of_all_with_all_takes_a_quarter_of_the_side():
    found = grid(16, 16).seconds(collective("all-to-all", tuple(range(16))))
    assert found == pytest.approx(1e6 * 16 / 4 / (2 * LINK) + 15 * HOP_SECONDS)


def test_between_slices_the_network_counts():
    places = tuple((part, x, y) for part in range(2) for y in range(4) for x in range(4))
    network = Network(chip=V5E, places=places, sides=(4, 4))
    slow = V5E.network_bytes_per_second * LINK_EFFICIENCY
    assert network.seconds(collective("all-reduce", (0, 16))) == pytest.approx(1e6 / slow)


def test_gpus_of_a_node_reach_each_other_and_of_two_nodes_over_the_network():
    chip = CHIPS["h100"]
    network = Network(chip=chip, places=tuple((number // 8, number % 8) for number in range(16)))
    within = network.seconds(collective("all-gather", tuple(range(8))))
    assert within == pytest.approx(7 / 8 * 1e6 / (450e9 * LINK_EFFICIENCY) + HOP_SECONDS)
    pair = network.seconds(collective("all-gather", (0, 8)))
    assert pair == pytest.approx(0.5e6 / (50e9 * LINK_EFFICIENCY))


def test_alone_nothing_is_exchanged():
    assert grid(4, 4).seconds(collective("all-reduce", (0,), (1,))) == 0.0
    assert grid(4, 4).seconds(dataclasses.replace(collective("all-reduce"), groups=())) == 0.0
