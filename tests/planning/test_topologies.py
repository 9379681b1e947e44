"""Machines by name, and the figures of their chips."""

import importlib.util
import os

import pytest

from flan_jax.planning import gpus
from flan_jax.planning.chips import CHIPS
from flan_jax.planning.topologies import captured_stderr, topology_named


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_a_chips_figures_have_a_source_and_a_plausible_size(chip):
    assert chip.source.startswith("https://")
    assert 1e14 < chip.flops_per_second < 1e15 and 5e11 < chip.hbm_bytes_per_second < 5e12
    assert chip.network_bytes_per_second < chip.link_bytes_per_second < chip.hbm_bytes_per_second
    assert 0.9 < chip.usable_bytes / chip.hbm_bytes < 1.01


def test_cpu_devices_are_a_topology_without_a_known_chip():
    topology = topology_named("cpu:4")
    assert (len(topology.devices), topology.chip) == (4, None)
    assert len(topology_named("cpu").devices) == 1


def test_gpus_are_described_devices(monkeypatch):
    monkeypatch.setattr(gpus, "described", lambda name, count: (name,) * count)
    topology = topology_named("gpu:h100x16")
    assert (topology.devices, topology.chip, topology.options) == (("h100",) * 16, CHIPS["h100"], gpus.OPTIONS)


@pytest.mark.parametrize(
    "name, message",
    [
        ("v5f:4x4", "Did you mean 'v5e:4x4'"),
        ("v5e:4x4x4", "Did you mean 'v5p:4x4x4'"),
        ("v5e", "Allowed are TPU slices such as v5e:16x16"),
        ("v5e:4", "v5e: 1x1, 2x2"),
        ("gpu:b200", r"Did you mean 'gpu:h200'.*of a100, h100, h200\)"),
        ("gpu:h200x12", "allowed are 1 to 8, or multiples of 8"),
        ("gpu:h200x0", "has 0 GPUs"),
        ("cpu:many", r"\(cpu, cpu:8\)"),
        ("cpu:0", "CPU devices of this machine"),
        ("", "No topology ''"),
    ],
)
def test_an_unknown_machine_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(ValueError, match=message):
        topology_named(name)


def test_too_many_cpu_devices_are_refused_with_the_fix():
    with pytest.raises(ValueError, match="needs 99 CPU devices, and this process has 8.*device_count=99"):
        topology_named("cpu:99")


def test_without_libtpu_the_install_command_is_reported(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "libtpu" else find_spec(name, *rest)
    )
    with pytest.raises(ValueError, match=r"pip install 'flan_jax\[plan\]'"):
        topology_named("v5e:2x2")


def test_what_libraries_print_on_standard_error_is_captured(capfd):
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
    topology = topology_named(name)
    assert len(topology.devices) == size and topology.devices[0].platform == "tpu"
    assert len({getattr(device, "slice_index", 0) for device in topology.devices}) == (2 if "*2" in name else 1)


@pytest.mark.libtpu
def test_a_slice_that_libtpu_refuses_is_reported_with_its_reason(capfd):
    with pytest.raises(ValueError, match="libtpu refuses the topology 'v5e:3x3'.*Known slices of v5e"):
        topology_named("v5e:3x3")
    assert capfd.readouterr().err == ""
