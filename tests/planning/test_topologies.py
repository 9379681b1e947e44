"""Machines by name, and what is known of their chips."""

import importlib.util
import os

import pytest

from flan_jax.planning import gpus, topologies
from flan_jax.planning.chips import CHIPS, GPUS, TPUS
from flan_jax.planning.topologies import SLICES, captured_stderr, examples, topology_named


def test_a_tpus_clock_follows_from_its_peak():
    gigahertz = {chip.name: round(chip.clock_hertz / 1e9, 2) for chip in TPUS if chip.clock_hertz}
    assert gigahertz == {"v4": 1.05, "v5e": 1.5, "v5p": 1.75}


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_a_chips_figures_have_a_source_and_the_right_order(chip):
    assert chip.source.startswith("https://")
    assert 1e14 < chip.flops_per_second < 1e15 and 5e11 < chip.hbm_bytes_per_second < 5e12
    assert chip.network_bytes_per_second < chip.link_bytes_per_second < chip.hbm_bytes_per_second
    assert 0.9 < chip.usable_bytes / chip.hbm_bytes < 1.01
    assert bool(chip.links) == (chip.platform == "tpu")


def test_every_kind_of_tpu_has_slices_with_a_side_for_each_dimension():
    for chip in TPUS:
        assert {len(shape.split("x")) for shape in SLICES[chip.name]} == {chip.links}


def test_this_machines_processor_is_a_topology():
    found = topology_named("cpu:4")
    assert (found.size, found.chip, found.compiled_for) == (4, None, None)
    assert topology_named("cpu").size == 1


def test_without_the_plugin_as_many_cpu_devices_stand_in_for_gpus(monkeypatch):
    monkeypatch.setattr(gpus, "is_installed", lambda: False)
    found = topology_named("gpu:h200x8")
    assert (found.size, found.chip, found.compiled_for) == (8, CHIPS["h200"], "8 CPU devices")
    assert "flan_jax[plan-gpu]" in found.install and not found.options
    assert topology_named("gpu:a100").compiled_for == "1 CPU device"
    assert found.holds(1 << 60)  # What a CPU's program takes says nothing.


def test_with_the_plugin_gpus_are_compiled_for_themselves(monkeypatch):
    monkeypatch.setattr(gpus, "is_installed", lambda: True)
    monkeypatch.setattr(gpus, "described", lambda name, count: (name,) * count)
    found = topology_named("gpu:h100x16")
    assert (found.devices, found.chip, found.compiled_for) == (("h100",) * 16, CHIPS["h100"], None)
    assert found.options == gpus.OPTIONS and found.assumptions == gpus.ASSUMPTIONS
    assert found.holds(78 << 30) and not found.holds((78 << 30) + 1)  # XLA itself refuses nothing.


@pytest.mark.parametrize(
    "name, message",
    [
        ("v5f:4x4", "Did you mean 'v5e:4x4'"),
        ("v5e:4x4x4", "Did you mean 'v5p:4x4x4'"),
        ("v5e", "TPU slices are written v5e:16x16"),
        ("v5e:4", "v5e: 1x1, 2x2"),
        ("gpu:b200", r"Did you mean 'gpu:h200'.*of a100, h100, h200\)"),
        ("gpu:h200x12", "more than 8 are whole nodes of 8"),
        ("gpu:h200x0", "has 0 GPUs"),
        ("cpu:many", "cpu or cpu:8"),
        ("cpu:0", "cpu or cpu:8"),
        ("", "No topology ''"),
    ],
)
def test_an_unknown_machine_is_refused_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        topology_named(name)


def test_more_cpu_devices_than_there_are_is_refused_with_the_mend():
    with pytest.raises(ValueError, match="needs 99 CPU devices, and this process has 8.*device_count=99"):
        topology_named("cpu:99")


def test_without_libtpu_a_slice_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "libtpu" else found(name, *rest)
    )
    with pytest.raises(ValueError, match=r"pip install 'flan_jax\[plan\]'"):
        topology_named("v5e:2x2")


def test_every_example_is_a_name_that_is_understood(monkeypatch):
    monkeypatch.setattr(topologies, "_slice", lambda *_, **__: (1,))
    monkeypatch.setattr(topologies, "_cpu_devices", lambda count, **_: (1,) * count)
    monkeypatch.setattr(gpus, "described", lambda _, count: (1,) * count)
    assert len(examples()) > 40
    for name in examples():
        assert topology_named(name).devices


def test_what_libraries_print_on_standard_error_is_kept(capfd):
    with captured_stderr() as lines:
        os.write(2, b"noise of a library\n")
    os.write(2, b"heard\n")
    assert lines == ["noise of a library"]
    assert capfd.readouterr().err == "heard\n"


@pytest.mark.libtpu
@pytest.mark.parametrize(
    "name, size", [("v5e:1x1", 1), ("v5e:16x16", 256), ("v5p:4x4x4", 64), ("v6e:4x4*2", 32), ("v4:2x2x1", 4)]
)
def test_a_slice_has_its_devices(name, size):
    found = topology_named(name)
    assert found.size == size and found.devices[0].platform == "tpu"
    assert len({getattr(device, "slice_index", 0) for device in found.devices}) == (2 if "*2" in name else 1)


@pytest.mark.libtpu
def test_a_slice_that_libtpu_refuses_says_why(capfd):
    with pytest.raises(ValueError, match="libtpu refuses the topology 'v5e:3x3'.*Known slices of v5e"):
        topology_named("v5e:3x3")
    assert capfd.readouterr().err == ""


def test_gpus_are_known_by_name():
    assert [chip.name for chip in GPUS] == ["a100", "h100", "h200"]
