"""The exchanges of compiled programs: kinds, bytes, numbers and mesh axes, on eight CPU devices."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flan_jax.planning import hlo, roofline
from flan_jax.planning.collectives import Collective, axes_of, collectives, groups_of

AXES = {"data": 2, "fsdp": 2, "tensor": 2}
ROWS = 16  # of 4 float32: 256 bytes in total, 32 per device


@functools.cache
def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((2, 2, 2), tuple(AXES), axis_types=(AxisType.Auto,) * 3)


def exchanges(function, *, loops: int = 0):
    """What a device exchanges when it runs `function`, once or in a loop: {(kind, axis): (number, bytes)}."""
    spec = P(tuple(AXES))
    inner = jax.shard_map(function, mesh=mesh(), in_specs=spec, out_specs=spec, check_vma=False)

    def program(x):
        if not loops:
            return inner(x)
        return jax.lax.scan(lambda carry, _: (inner(carry), None), x, None, length=loops)[0]

    x = jax.ShapeDtypeStruct((ROWS, 4), jnp.float32, sharding=NamedSharding(mesh(), spec))
    return exchanged_by(program, x)


def exchanged_by(program, x):
    compiled = hlo.read(jax.jit(program).lower(x).compile().as_text())
    assert all(is_known for _, _, is_known in compiled.bodies())
    rows = roofline.exchanges(compiled, mesh=mesh(), chip=None)
    return {(row.kind, row.axis): (row.number, row.bytes) for row in rows}


@pytest.mark.parametrize("axis", AXES)
def test_a_sum_over_an_axis_is_an_all_reduce_of_the_local_array(axis):
    assert exchanges(lambda x: jax.lax.psum(x, axis)) == {("all-reduce", axis): (1, 32)}


def test_a_sum_over_two_axes_names_both_axes():
    rows = exchanges(lambda x: jax.lax.psum(x, ("data", "tensor")))
    assert rows == {("all-reduce", "data+tensor"): (1, 32)}


@pytest.mark.parametrize("axis", AXES)
def test_a_gather_counts_the_gathered_array(axis):
    rows = exchanges(lambda x: jnp.sin(jax.lax.all_gather(x, axis, tiled=True))[:2])
    assert rows == {("all-gather", axis): (1, 64)}


@pytest.mark.parametrize("axis", AXES)
def test_a_reduce_scatter_counts_the_array_before_the_sum(axis):
    def scattered(x):
        part = jax.lax.psum_scatter(x, axis, tiled=True)
        return jnp.concatenate([part, part])

    assert exchanges(scattered) == {("reduce-scatter", axis): (1, 32)}


@pytest.mark.parametrize("axis", AXES)
def test_a_permutation_names_the_axis_that_it_crosses(axis):
    rows = exchanges(lambda x: jax.lax.ppermute(x, axis, [(0, 1), (1, 0)]))
    assert rows == {("collective-permute", axis): (1, 32)}


def test_an_all_to_all_counts_the_local_array():
    def exchanged(x):
        return jax.lax.all_to_all(x.reshape(2, 4), "fsdp", split_axis=0, concat_axis=0, tiled=True).reshape(x.shape)

    assert exchanges(exchanged) == {("all-to-all", "fsdp"): (1, 32)}


@pytest.mark.parametrize("axis", ["data", "tensor"])
def test_an_exchange_in_a_loop_counts_once_per_iteration(axis):
    rows = exchanges(lambda x: jnp.sin(jax.lax.psum(x, axis)), loops=7)
    assert rows == {("all-reduce", axis): (7, 7 * 32)}


def test_nested_loops_multiply_the_number_of_exchanges():
    def program(x):
        inner = jax.shard_map(
            lambda y: jnp.cos(jax.lax.psum(y, "fsdp")),
            mesh=mesh(),
            in_specs=P("data"),
            out_specs=P("data"),
            check_vma=False,
        )

        def again(y, _):
            return jnp.sin(jax.lax.scan(lambda z, _: (inner(z), None), y, None, length=3)[0]), None

        return jax.lax.scan(again, x, None, length=5)[0]

    x = jax.ShapeDtypeStruct((ROWS, 4), jnp.float32, sharding=NamedSharding(mesh(), P("data")))
    assert exchanged_by(program, x) == {("all-reduce", "fsdp"): (15, 15 * 128)}


def test_local_work_exchanges_nothing():
    assert exchanges(jnp.sin) == {}


@pytest.mark.parametrize(
    "text, groups",
    [
        ("replica_groups={{0,1},{2,3}}, use", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[4], use", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0), use", ((0, 2), (1, 3))),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}, dimensions={0}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0','axis_1'}", ((0, 1, 2, 3),)),
        ("replica_groups=mesh['axis_0'=4] {'axis_0':(1)2}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['axis_0'=4] {'axis_0':(2)2}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}, use", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'c'}, use", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'c'=2], device_ids=(0,3,2,1) {'c'}, use", ((0, 3), (2, 1))),
        ("source_target_pairs={{0,2},{2,0}}, meta", ((0, 2), (2, 0))),
        ("replica_groups={}, to_apply", ((0, 1, 2, 3),)),
    ],
)
def test_groups_are_read_in_every_notation(text, groups):
    assert groups_of(text, devices=4) == groups


def test_axes_are_those_whose_coordinate_differs_within_a_group():
    assert axes_of(((0, 1), (2, 3)), axes={"data": 2, "tensor": 2}) == "tensor"
    assert axes_of(((0, 2), (0, 1)), axes={"data": 2, "tensor": 2}) == "data+tensor"
    assert axes_of(((0,), (1,)), axes={"tensor": 2}) == "none"


@pytest.mark.parametrize(
    "kind, groups, sent",
    [
        ("all-gather", ((0, 1, 2, 3),), 750),
        ("reduce-scatter", ((0, 1, 2, 3),), 750),
        ("all-reduce", ((0, 1, 2, 3),), 1500),
        ("all-to-all", ((0, 1, 2, 3),), 750),
        ("collective-permute", ((0, 1), (1, 0)), 1000),
        ("all-reduce", ((0,),), 0),
    ],
)
def test_a_ring_sends_each_part_once_and_a_sum_twice(kind, groups, sent):
    assert Collective(kind=kind, bytes=1000, groups=groups, number=1).sent_bytes == sent


# As compilers write one exchange, where `%g` has a million bytes and two devices exchange.
GROUPS = "channel_id=1, replica_groups={{0,1}}, use_global_device_ids=true"
WRITTEN = {
    "pair of start and done": (
        "",
        f"%q = (f32[250000]{{0}}, f32[500000]{{0}}) all-gather-start(%g), {GROUPS}",
        "%d = f32[500000]{0} all-gather-done(%q)",
        ("all-gather", 2_000_000),
    ),
    "asynchronous call": (
        f"%call (p: f32[]) -> f32[] {{\n  %p = f32[250000]{{0}} parameter(0)\n"
        f"  ROOT %r = f32[125000]{{0}} reduce-scatter(%p), {GROUPS}\n}}\n",
        "%s = ((f32[250000]{0}), f32[125000]{0}) async-start(%g), calls=%call",
        "%d = f32[125000]{0} async-done(%s), calls=%call",
        ("reduce-scatter", 1_000_000),
    ),
    "chain of fusions": (
        "".join(
            f"%{name} (p: f32[]) -> f32[] {{\n  %p.{name} = f32[250000]{{0}} parameter(0)\n"
            f"  ROOT %q.{name} = f32[500000]{{0}} all-gather(%p.{name}), {GROUPS}\n}}\n"
            for name in ("start", "end")
        ),
        "%s = (f32[500000]{0}) fusion(%g), kind=kCustom, calls=%start",
        "%e = f32[500000]{0} fusion(%g), kind=kCustom, calls=%end",
        ("all-gather", 2_000_000),
    ),
    "sum of which a slice is taken": (
        f"%scatter (p: f32[]) -> f32[] {{\n  %p = f32[250000]{{0}} parameter(0)\n"
        f"  %r = f32[250000]{{0}} all-reduce(%p), {GROUPS}, to_apply=%add\n  %z = s32[] constant(0)\n"
        "  ROOT %d = f32[125000]{0} dynamic-slice(%r, %z), dynamic_slice_sizes={125000}\n}\n",
        "%f = f32[125000]{0} fusion(%g), kind=kCustom, calls=%scatter",
        "",
        ("reduce-scatter", 1_000_000),
    ),
    "megascale transfer between slices": (
        "",
        "%s = (f32[250000]{0}, u32[], token[]) send(%g, %k), channel_id=1, is_host_transfer=true, "
        'frontend_attributes={_xla_megascale_target="{1,2}x{0:0}",_xla_megascale_transfer_type="ALL_REDUCE"}',
        "%sd = token[] send-done(%s), channel_id=1, is_host_transfer=true",
        ("all-reduce", 1_000_000),
    ),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_an_exchange_counts_once_however_it_is_written(written):
    computations, first, second, expected = WRITTEN[written]
    body = f"  %g = f32[250000]{{0}} parameter(0)\n  {first}\n  {second}\n"
    text = f"{computations}ENTRY %main (g: f32[]) -> f32[] {{\n{body}}}\n"
    rows = list(collectives(hlo.read(text), devices=2, slices=2))
    assert [(one.kind, one.bytes, one.number, one.groups) for one in rows] == [(*expected, 1, ((0, 1),))]


def test_kinds_number_their_channels_separately():
    text = (
        "ENTRY %main (g: f32[]) -> f32[] {\n  %g = f32[250000]{0} parameter(0)\n"
        f"  %a = f32[500000]{{0}} all-gather(%g), {GROUPS}\n  %r = f32[250000]{{0}} all-reduce(%g), {GROUPS}\n}}\n"
    )
    assert [one.kind for one in collectives(hlo.read(text), devices=2)] == ["all-gather", "all-reduce"]
