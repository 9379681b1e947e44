"""Steps compiled for TPU slices without a TPU: they fit, and no device gathers or stores what should be sharded."""

import contextlib
import functools
import io
import json
import math

import jax
import pytest

from flan_jax import cli
from flan_jax.models.t5.families import FAMILIES
from flan_jax.planning import hlo
from flan_jax.planning.topologies import topology_named
from flan_jax.sharding import MeshPlan, make_mesh

pytestmark = pytest.mark.libtpu
T5_1_1 = next(family for family in FAMILIES if family.name == "t5_1_1")
RECIPES = "gin_configs/recipes/"


@pytest.fixture(scope="module")
def planned():
    """Plans a recipe once: the plan, and the bytes of each array that its all-gathers return."""

    @functools.cache
    def plan(recipe: str, *arguments: str):
        programs, printed = [], io.StringIO()
        with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(printed):
            read = hlo.read
            patched.setattr(hlo, "read", lambda text: programs.append(read(text)) or programs[-1])
            assert cli.run(["plan", f"{RECIPES}{recipe}.gin", *arguments, "--search=False", "--json"]) == 0
        gathered = [
            array.bytes
            for body in programs[0].computations.values()
            for instruction in body.values()
            if instruction.opcode in ("all-gather", "all-gather-start")
            for array in instruction.arrays
        ]
        return json.loads(printed.getvalue()), gathered

    return plan


def require_sharded(result, gathered, *, vocab_size: int, emb_dim: int):
    """Each device stores its share of the state, and no device gathers the complete table or output kernel."""
    assert result["fits"] and result["warnings"] == []
    assert [size for size in gathered if size >= 2 * vocab_size * emb_dim] == []  # Gathered in bfloat16.
    # Besides its share, a device stores placeholders and vectors that are too short to shard.
    mesh = result["recipe"]["mesh"]
    share = result["recipe"]["parameters"] * 4 / (mesh["fsdp"] * mesh["tensor"])
    assert share <= result["state_bytes"] < 1.15 * share + (1 << 20)


def test_a_small_model_is_sharded_over_both_axes_and_gathers_no_table(planned):
    mesh = ("--gin.sharding.MeshPlan.fsdp=2", "--gin.sharding.MeshPlan.tensor=2")
    result, gathered = planned("quickstart", "--topology=v5e:2x2", *mesh, "--gin.BATCH_SIZE=4")
    require_sharded(result, gathered, vocab_size=1600, emb_dim=64)
    assert gathered
    axes = {row["axis"] for row in result["exchanges"]}
    assert axes <= {"fsdp", "tensor", "fsdp+tensor"} and {"fsdp", "tensor"} <= axes
    assert result["unknown_loops"] == 0


def test_two_slices_exchange_gradients_and_nothing_else(planned):
    mesh = ("--gin.sharding.MeshPlan.replica=2", "--gin.sharding.MeshPlan.fsdp=4")
    result, _ = planned("quickstart", "--topology=v5e:2x2*2", *mesh, "--gin.BATCH_SIZE=16")
    between = {row["kind"]: row for row in result["exchanges"] if "replica" in row["axis"]}
    assert set(between) == {"all-reduce"} and between["all-reduce"]["axis"] == "replica"
    part = result["recipe"]["parameters"] * 4 / 4  # float32, of which a device holds a quarter
    assert part <= between["all-reduce"]["bytes"] < 1.5 * part


@pytest.mark.parametrize(
    "name, plan",
    [
        ("v5p:4x4x4", MeshPlan(data=2, fsdp=32)),
        ("v6e:8x8", MeshPlan(data=4, fsdp=16)),
        ("v4:2x2x4", MeshPlan(data=4, fsdp=4)),
    ],
)
def test_axes_may_share_a_dimension_of_a_slice(name, plan):
    """The devices of an fsdp group are a block of neighbors."""
    mesh = make_mesh(plan, devices=topology_named(name).devices)
    for block in mesh.devices.reshape(plan.data, plan.fsdp):
        corners = [max(places) - min(places) + 1 for places in zip(*(one.coords for one in block), strict=True)]
        assert math.prod(corners) == plan.fsdp


@pytest.mark.slow
def test_base_fits_on_one_chip(planned):
    result, gathered = planned("superni_base", "--topology=v5e:1x1")
    assert result["fits"] and gathered == [] and result["exchanges"] == []
    assert result["memory"]["live"] < 15.75 * 2**30
    assert 0.05 < result["estimate"]["mfu"] < 1


XL = {
    16: ("superni_xl", "--topology=v5e:4x4"),
    64: ("superni_xl", "--topology=v5e:8x8", "--gin.BATCH_SIZE=512"),
    256: ("superni_xl", "--topology=v5e:16x16", "--gin.BATCH_SIZE=2048"),
}
"""By number of chips, with 8 rows on each: the recipe's fsdp=16, and `data` over the rest."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, arguments",
    [
        ("xxl", ("superni_xxl", "--topology=v5p:4x4x4", "--gin.BATCH_SIZE=512")),
        *[("xl", arguments) for arguments in XL.values()],
        ("xxl", ("superni_xxl", "--topology=v5e:16x16")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value,
)
def test_large_models_fit_and_are_sharded_everywhere(size, arguments, planned):
    result, gathered = planned(*arguments)
    require_sharded(result, gathered, vocab_size=32128, emb_dim=T5_1_1.config(size).emb_dim)
    assert result["unknown_loops"] == 0
    # Recomputation is counted: remat full adds a forward pass to three, and little else.
    assert 1.2 < result["flops"] / result["model_flops"] < 1.45
    assert jax.__version__ == result["topology"]["jax"]


@pytest.mark.slow
def test_throughput_per_chip_falls_by_at_most_a_tenth_on_larger_slices(planned):
    """XL at constant work per chip."""
    tokens = {chips: planned(*xl)[0]["estimate"]["tokens_per_second_per_chip"] for chips, xl in XL.items()}
    assert min(tokens.values()) >= 0.9 * tokens[16], tokens
