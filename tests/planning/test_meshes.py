"""Meshes written, chosen and compared."""

import pytest

from flan_jax.models.families import FAMILIES
from flan_jax.planning.meshes import candidates, chosen_mesh, is_left_open, mesh_written, named, row_parts
from flan_jax.sharding import MeshPlan

XL = next(family for family in FAMILIES if family.name == "t5_1_1").config("xl")
GIB = 1 << 30


def test_a_mesh_is_read_as_it_is_written():
    plan = mesh_written("fsdp=16, tensor=4,activations=cut", base=MeshPlan(data=3))
    assert (plan.replica, plan.data, plan.fsdp, plan.tensor, plan.activations) == (1, -1, 16, 4, "cut")
    assert named(mesh_written("replica=2,data=1,fsdp=8", base=MeshPlan())) == "replica=2,fsdp=8"
    assert named(MeshPlan(data=1)) == "data=1" and named(plan) == "fsdp=16,tensor=4,activations=cut"


@pytest.mark.parametrize(
    "text, message", [("fdsp=4", "Did you mean 'fsdp'"), ("fsdp=four", "whole number"), ("4", "--mesh")]
)
def test_a_mesh_written_wrongly_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        mesh_written(text, base=MeshPlan())


def test_only_a_mesh_that_says_nothing_is_left_open():
    assert is_left_open(MeshPlan()) and is_left_open(MeshPlan(activations="cut"))
    assert not is_left_open(MeshPlan(fsdp=4)) and not is_left_open(MeshPlan(data=4))


def choose(devices, batch, *, slices=1, state=12 * GIB, available=16 * GIB):
    plan, reason = chosen_mesh(
        MeshPlan(),
        config=XL,
        devices=devices,
        slices=slices,
        batch_size=batch,
        num_microbatches=1,
        state_bytes=state,
        available=available,
    )
    assert reason
    return named(plan)


def test_a_batch_that_divides_goes_over_all_devices():
    assert choose(16, 128) == "fsdp=16"


def test_a_batch_of_fewer_rows_than_devices_leaves_the_rest_to_tensor():
    assert choose(64, 16) == "fsdp=16,tensor=4"


def test_parts_of_a_parameter_stay_as_wide_as_a_tile():
    """XL is 2,048 wide, a tile 128: finer than 16 devices it is not cut, and the rest stands along the batch."""
    assert choose(256, 256) == "data=16,fsdp=16"
    assert choose(256, 64) == "data=4,fsdp=16,tensor=4"


def test_a_small_state_lies_whole_on_every_device():
    assert choose(4, 128, state=1 * GIB) == "data=4"


def test_slices_are_replicas():
    assert choose(32, 128, slices=2) == "replica=2,fsdp=16"


def test_a_table_compares_rows_first_with_tensor():
    found = [named(plan) for plan in candidates(MeshPlan(), config=XL, devices=16, slices=1)]
    assert found == ["fsdp=16", "fsdp=8,tensor=2", "fsdp=4,tensor=4", "fsdp=2,tensor=8", "tensor=16", "data=16"]
    assert [named(plan) for plan in candidates(MeshPlan(), config=XL, devices=1, slices=1)] == ["data=1"]


def test_rows_are_cut_over_everything_but_tensor():
    assert row_parts(MeshPlan(data=2, fsdp=4, tensor=2), devices=16) == 8
    assert row_parts(MeshPlan(data=-1, fsdp=4, tensor=2), devices=16) == 8
