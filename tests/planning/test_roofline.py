"""HBM traffic and exchange times of programs, against arithmetic by hand."""

import dataclasses
import types

import numpy as np
import pytest

from flan_jax.planning import hlo, roofline
from flan_jax.planning.chips import CHIPS

CHIP = dataclasses.replace(CHIPS["v5e"], link_bytes_per_second=1e9, network_bytes_per_second=1e8)
LAYER = 8 * 128 * 4


def fusion(body, operands="%x", result="f32[8,128]{1,0}"):
    return hlo.read(
        "%fused (p0: f32[]) -> f32[] {\n" + "\n".join(f"  {line}" for line in body) + "\n}\n\n"
        "ENTRY %main (x: f32[]) -> f32[] {\n"
        "  %x = f32[24,8,128]{2,1,0} parameter(0)\n"
        "  %i = s32[] parameter(1)\n"
        "  %part = f32[1,8,128]{2,1,0} parameter(2)\n"
        "  %near = f32[24,8,128]{2,1,0:T(8,128)S(1)} parameter(3)\n"
        f"  ROOT %f = {result} fusion({operands}), kind=kLoop, calls=%fused\n"
        "}\n"
    )


def test_a_fusion_reads_its_operands_and_writes_its_result():
    body = ["%p0 = f32[24,8,128]{2,1,0} parameter(0)", "ROOT %r = f32[8,128]{1,0} custom(%p0)"]
    assert roofline.hbm_bytes(fusion(body)) == 24 * LAYER + LAYER


@pytest.mark.parametrize("via", ["%p0", "%b"])
def test_a_fusion_that_takes_a_slice_reads_the_slice(via):
    body = [
        "%p0 = f32[24,8,128]{2,1,0} parameter(0)",
        "%p1 = s32[] parameter(1)",
        "%b = f32[24,8,128]{2,1,0} bitcast(%p0)",
        f"%s = f32[1,8,128]{{2,1,0}} dynamic-slice({via}, %p1, %p1, %p1), dynamic_slice_sizes={{1,8,128}}",
        "ROOT %r = f32[8,128]{1,0} bitcast(%s)",
    ]
    assert roofline.hbm_bytes(fusion(body, operands="%x, %i")) == LAYER + 4 + LAYER


def test_a_fusion_that_overwrites_a_part_writes_the_part():
    body = [
        "%p0 = f32[24,8,128]{2,1,0} parameter(0)",
        "%p1 = f32[1,8,128]{2,1,0} parameter(1)",
        "%p2 = s32[] parameter(2)",
        "ROOT %u = f32[24,8,128]{2,1,0} dynamic-update-slice(%p0, %p1, %p2, %p2, %p2)",
    ]
    program = fusion(body, operands="%x, %part, %i", result="f32[24,8,128]{2,1,0}")
    assert roofline.hbm_bytes(program) == LAYER + 4 + LAYER


def test_arrays_in_vector_memory_cause_no_hbm_traffic():
    body = ["%p0 = f32[24,8,128]{2,1,0} parameter(0)", "ROOT %r = f32[8,128]{1,0} custom(%p0)"]
    assert roofline.hbm_bytes(fusion(body, operands="%near")) == LAYER


@pytest.mark.parametrize(
    "line, traffic",
    [
        ("(f32[1024]{0:S(1)}, f32[1024]{0}, u32[]{:S(2)}) copy-start(%x)", 4096),
        ("(f32[1024]{0:S(5)}, f32[1024]{0}, u32[]{:S(2)}) copy-start(%x)", 4096),
        ("((f32[1024]{0}), f32[256]{0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:256]}", 1024),
        ("f32[1024]{0:S(1)} copy-done(%x)", 0),
        ("f32[256]{0} dynamic-slice(%x, %i), dynamic_slice_sizes={256}", 2048),
        ("f32[1024]{0} dynamic-update-slice(%x, %part, %i)", 2048),
        ("f32[1024]{0} negate(%x)", 8192),
        ("(f32[1024]{0}, s32[]) tuple(%x, %i)", 0),
    ],
)
def test_an_instruction_moves_what_it_reads_and_writes(line, traffic):
    program = hlo.read(
        "ENTRY %main (x: f32[]) -> f32[] {\n  %x = f32[1024]{0} parameter(0)\n  %i = s32[] parameter(1)\n"
        f"  %part = f32[256]{{0}} parameter(2)\n  ROOT %r = {line}\n}}\n"
    )
    assert roofline.hbm_bytes(program) == traffic


def test_a_loop_moves_its_body_once_per_iteration():
    text = (
        "%body (p: f32[]) -> f32[] {\n  %p = f32[1024]{0} parameter(0)\n  ROOT %n = f32[1024]{0} negate(%p)\n}\n"
        "ENTRY %main (x: f32[]) -> f32[] {\n  %x = f32[1024]{0} parameter(0)\n"
        '  ROOT %w = f32[1024]{0} while(%x), body=%body, backend_config={"known_trip_count":{"n":"5"}}\n}\n'
    )
    assert roofline.hbm_bytes(hlo.read(text)) == 5 * 8192


def exchange(groups, *, islands, axes, platform="tpu"):
    """The time of an all-gather of two million bytes."""
    devices = [types.SimpleNamespace(platform=platform, slice_index=island) for island in islands]
    mesh = types.SimpleNamespace(devices=np.asarray(devices, object).reshape(tuple(axes.values())), shape=axes)
    text = (
        "ENTRY %main (g: f32[]) -> f32[] {\n  %g = f32[250000]{0} parameter(0)\n"
        f"  ROOT %q = f32[500000]{{0}} all-gather(%g), replica_groups={groups}, dimensions={{0}}\n}}\n"
    )
    (row,) = roofline.exchanges(hlo.read(text), mesh=mesh, chip=CHIP)
    assert (row.kind, row.number, row.bytes) == ("all-gather", 1, 2_000_000 * len(devices) // mesh_parts(groups) // 2)
    return row.axis, row.seconds


def mesh_parts(groups):
    return groups.count("{") - 1


def test_inside_a_slice_an_exchange_takes_its_bytes_at_link_speed():
    assert exchange("{{0,1}}", islands=[0, 0], axes={"fsdp": 2}) == ("fsdp", pytest.approx(1e-3))


def test_between_slices_an_exchange_takes_its_bytes_at_network_speed():
    assert exchange("{{0,1}}", islands=[0, 1], axes={"replica": 2}) == ("replica", pytest.approx(1e-2))


def test_members_of_a_slice_share_what_they_send_to_other_slices():
    row = exchange("{{0,1,2,3}}", islands=[0, 0, 1, 1], axes={"replica": 2, "fsdp": 2})
    assert row == ("replica+fsdp", pytest.approx(3e6 / 1e8 / 2))


def test_gpus_of_different_nodes_exchange_over_the_network():
    for count, seconds in ((8, 7e6 / 1e9), (16, 15e6 / 1e8 / 8)):
        groups = "{{" + ",".join(map(str, range(count))) + "}}"
        row = exchange(groups, islands=[0] * count, axes={"fsdp": count}, platform="gpu")
        assert row == ("fsdp", pytest.approx(seconds))


def test_without_a_chip_an_exchange_has_no_time():
    mesh = types.SimpleNamespace(
        devices=np.asarray([types.SimpleNamespace(platform="cpu")] * 2, object), shape={"a": 2}
    )
    text = (
        "ENTRY %main (g: f32[]) -> f32[] {\n  %g = f32[4]{0} parameter(0)\n  ROOT %q = f32[4]{0} all-reduce(%g), "
        "replica_groups={{0,1}}, to_apply=%add\n}\n"
    )
    (row,) = roofline.exchanges(hlo.read(text), mesh=mesh, chip=None)
    assert (row.axis, row.bytes, row.seconds) == ("a", 16, 0.0)
