"""Steps compiled for TPU slices without a TPU: they fit, and no device brings together or holds what it should not."""

import json
import math
from pathlib import Path

import jax
import pytest

from flan_jax import cli
from flan_jax.models.families import FAMILIES
from flan_jax.planning import collectives, hlo

pytestmark = pytest.mark.libtpu
T5_1_1 = next(family for family in FAMILIES if family.name == "t5_1_1")
RECIPES = "gin_configs/recipes/"


def planned(capsys, folder: Path, recipe: str, *arguments: str):
    """The plan, and the arrays that the program's collectives of each kind leave on a device."""
    saved = folder / "program.hlo"
    given = [f"{RECIPES}{recipe}.gin", *arguments, "--search=none", "--json", f"--save_program={saved}"]
    assert cli.run(["plan", *given]) == 0
    found = json.loads(capsys.readouterr().out)
    program = hlo.read(saved.read_text())
    exchanged: dict[str, list[tuple[int, ...]]] = {}
    for body in program.computations.values():
        for instruction in body.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind in collectives.KINDS:
                exchanged.setdefault(kind, []).extend(array.sizes for array in instruction.arrays)
    return found, exchanged


def require_cut(found, exchanged, *, vocab_size: int, emb_dim: int):
    """No device holds a large leaf of the state that all hold, nor brings the whole table or output kernel together."""
    assert found["fits"] and found["whole_leaves"] == [] and found["complaints"] == []
    table = vocab_size * emb_dim
    assert [sizes for sizes in exchanged.get("all-gather", ()) if math.prod(sizes) >= table] == []
    # Each device's share of the state, and nothing besides but placeholders and vectors too short to cut.
    share = found["recipe"]["parameters"] * 4 / found["topology"]["devices"]
    assert share <= found["state_bytes"] < 1.15 * share + (1 << 20)


def test_a_small_model_is_cut_over_both_axes_and_gathers_no_table(capsys, tmp_path):
    found, exchanged = planned(
        capsys, tmp_path, "quickstart", "--topology=v5e:2x2", "--mesh=fsdp=2,tensor=2", "--gin.BATCH_SIZE=4"
    )
    require_cut(found, exchanged, vocab_size=1600, emb_dim=64)
    assert exchanged["all-gather"]
    axes = {row["axis"] for row in found["program"]["exchanges"]}
    assert axes <= {"fsdp", "tensor", "fsdp+tensor"} and {"fsdp", "tensor"} <= axes
    assert found["program"]["unknown_loops"] == 0


@pytest.mark.slow
def test_base_fits_on_one_chip(capsys, tmp_path):
    found, exchanged = planned(capsys, tmp_path, "superni_base", "--topology=v5e:1x1")
    assert found["fits"] and exchanged == {}
    assert found["memory"]["live"] < 15.75 * 2**30
    assert 0.05 < found["estimate"]["compiler_cycles"]["mfu"] < found["estimate"]["roofline"]["mfu"] < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, topology, mesh",
    [
        ("xl", "v5e:4x4", ()),
        ("xxl", "v5e:16x16", ()),
        ("xxl", "v5p:4x4x4", ("--gin.FSDP_DEVICES=64", "--gin.BATCH_SIZE=512")),
    ],
)
def test_large_models_fit_and_are_cut_everywhere(size, topology, mesh, capsys, tmp_path):
    found, exchanged = planned(capsys, tmp_path, f"superni_{size}", f"--topology={topology}", *mesh)
    require_cut(found, exchanged, vocab_size=32128, emb_dim=T5_1_1.config(size).emb_dim)
    assert found["program"]["unknown_loops"] == 0
    # What layers compute again is counted: remat full adds a forward pass to three, and little else.
    ratio = found["program"]["flops"] * found["topology"]["devices"] / found["model_flops"]["per_step"]
    assert 1.2 < ratio < 1.45
    assert jax.__version__ == found["topology"]["jax"]
