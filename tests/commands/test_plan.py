"""`flan-jax plan`: from a training recipe to what its step takes, for machines that are not there."""

import json

import jax
import pytest

from flan_jax import cli
from flan_jax.commands import plan
from flan_jax.models.execution import Execution
from flan_jax.planning import gpus, report, search
from flan_jax.planning.compiling import Memory
from flan_jax.planning.topologies import topology_named
from flan_jax.sharding import MeshPlan

QUICKSTART = "gin_configs/recipes/quickstart.gin"
SMALL = (
    "--gin.BATCH_SIZE=8",
    "--gin.config.T5Config.num_encoder_layers=1",
    "--gin.config.T5Config.num_decoder_layers=1",
    "--search=none",
)


def planned(capsys, *arguments, status=0):
    assert cli.run(["plan", QUICKSTART, *SMALL, *arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_recipe_is_planned_for_this_machines_processor(capsys):
    found = planned(capsys, "--topology=cpu:8", "--mesh=fsdp=4,tensor=2")
    assert found["topology"]["devices"] == 8 and found["topology"]["chip"] is None
    assert found["recipe"]["parameters"] == 402_432 - 98_624 and found["recipe"]["lengths"] == {
        "inputs": 64,
        "targets": 16,
    }
    assert found["memory"]["arguments"] > found["state_bytes"] > 0
    assert found["memory"]["aliased"] >= 0.9 * found["state_bytes"]  # The state is given away.
    # All matrix products of the model, and little else, on eight devices.
    per_device = found["model_flops"]["per_step"] / 8
    assert 1.0 <= found["program"]["flops"] / per_device < 1.3
    assert "estimate" not in found and found["fits"]
    assert found["recipe"]["mesh"] == "fsdp=4,tensor=2" and found["recipe"]["mesh_reason"] == "as asked for"
    axes = {row["axis"] for row in found["program"]["exchanges"]}
    assert {"fsdp", "tensor"} <= axes and not any("data" in axis for axis in axes)


def test_without_its_compiler_a_gpu_has_an_estimate_and_says_what_was_compiled(capsys, monkeypatch):
    monkeypatch.setattr(gpus, "is_installed", lambda: False)
    found = planned(capsys, "--topology=gpu:h200x2")
    assert found["topology"]["compiled_for"] == "2 CPU devices" and not found["topology"]["is_compiled_for_itself"]
    estimate = found["estimate"]["roofline"]
    assert 0 < estimate["mfu"] < 1 and estimate["rows_per_second"] * estimate["step_seconds"] == pytest.approx(8)
    report.show(found)
    text = capsys.readouterr().out
    assert "COMPILED FOR 2 CPU DEVICES, NOT FOR GPU:H200X2" in text
    assert "pip install 'flan_jax[plan-gpu]'" in text and "autotun" not in text
    for word in ("peak", "FLOPs of the model", "all-reduce", "MFU", "tokens/s", "assumed", "mesh data=2 (chosen"):
        assert word in text


def test_a_table_has_a_line_for_each_mesh_and_policy(capsys, monkeypatch):
    monkeypatch.setattr(plan, "REMAT_NAMES", ("full", "offload"))
    found = planned(capsys, "--topology=cpu:2", "--table", "--meshes=fsdp=2;tensor=16")
    rows = {(row["mesh"], row["remat"]): row for row in found["rows"]}
    assert list(rows) == [(mesh, remat) for mesh in ("fsdp=2", "tensor=16") for remat in ("full", "offload")]
    assert rows["fsdp=2", "full"]["memory"]["peak"] > 0
    assert "offload" in rows["fsdp=2", "offload"]["reason"]  # The processor has no other memory.
    assert "takes 16 devices" in rows["tensor=16", "full"]["reason"]
    report.show(found)
    assert "takes 16 devices" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--topology=v9x:4x4"], "No topology 'v9x:4x4'"),
        ([], "needs topology: give --topology="),
        (["--topology=cpu:8", "--mesh=fsdp=3"], "has to be a divisor of 8"),
        (["--topology=cpu:8", "--mesh=tensor=8"], "heads"),
        (["--topology=cpu:8", "--mesh=data=8", "--gin.BATCH_SIZE=12"], "multiples of 8. Use 8 or 16 rows"),
        (["--topology=cpu:2", "--search=most"], "--search is 'most'; allowed are all, recipe, none"),
        (["--topology=cpu:2", "--remat=ful"], "Did you mean 'full'"),
        (["--topology=cpu:2", "--num_microbatches=3"], "cannot be cut into 3 microbatches"),
        (["--topologie=cpu:2"], "Did you mean 'topology'"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_mend(arguments, message, capsys):
    assert cli.run(["plan", QUICKSTART, *SMALL, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_a_recipe_that_is_missing_says_what_to_give(capsys):
    assert cli.run(["plan", "--topology=cpu:2"]) == 2
    assert "give --model_dir=..., or a --gin_file that binds run_config.RunConfig.model_dir" in capsys.readouterr().err


@pytest.mark.libtpu
def test_a_recipe_is_compiled_for_a_slice_without_a_tpu(capfd):
    assert cli.run(["plan", QUICKSTART, "--topology=v5e:2x2", "--gin.BATCH_SIZE=8", "--search=none", "--json"]) == 0
    captured = capfd.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""  # None of libtpu's own noise.
    assert found["fits"] and found["topology"]["chip"] == "TPU v5e"
    assert found["recipe"]["mesh"] == "data=4"
    assert 1.0 <= found["program"]["flops"] / (found["model_flops"]["per_step"] / 4) < 1.1
    assert found["estimate"]["compiler_cycles"]["step_seconds"] > found["estimate"]["roofline"]["step_seconds"] > 0
    assert [(row["kind"], row["axis"]) for row in found["program"]["exchanges"]] == [("all-reduce", "data")]


@pytest.mark.libtpu
def test_a_plan_that_cannot_fit_says_what_to_change_and_ends_with_2(capfd):
    arguments = ["--topology=v5e:1x1", "--gin.BATCH_SIZE=262144", *SMALL[1:]]
    assert cli.run(["plan", QUICKSTART, *arguments]) == 2
    text = capfd.readouterr().out
    assert "DOES NOT FIT: a device has 15.75 GiB, and the step needs" in text
    assert "parameters and optimiser state are" in text and "is what the step makes between" in text
    offered = [line for line in text.splitlines() if "--" in line]
    assert len(offered) >= 3 and any("--num_microbatches=" in line for line in offered)


@pytest.mark.gpu_compiler
def test_a_recipe_is_compiled_for_gpus_without_one(capfd):
    asked = ["plan", QUICKSTART, *SMALL, "--gin.config.T5Config.dtype='bfloat16'"]
    capfd.readouterr()
    assert cli.run([*asked, "--topology=gpu:h200x2", "--mesh=fsdp=2", "--json"]) == 0
    captured = capfd.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""  # None of the compiler's own noise.
    assert found["topology"]["is_compiled_for_itself"] and found["topology"]["compiled_for"] == "2 x NVIDIA H200"
    assert found["memory"]["aliased"] >= 0.9 * found["state_bytes"] > 0
    # Every product of the model is found in a program of Triton fusions, and little else.
    assert 1.0 <= found["program"]["flops"] / (found["model_flops"]["per_step"] / 2) < 1.1
    assert {row["axis"] for row in found["program"]["exchanges"]} == {"fsdp"}
    assert 0 < found["estimate"]["roofline"]["mfu"] < 1
    report.show(found)
    text = capfd.readouterr().out
    assert "compiled for 2 x NVIDIA H200" in text and "the compiler's count" not in text
    assert all(line in text for line in gpus.ASSUMPTIONS)


@pytest.mark.gpu_compiler
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")  # From jax 0.11 on.
def test_cudnns_attention_is_compiled_and_counted_without_cudnn(capfd):
    asked = ["plan", QUICKSTART, *SMALL, "--gin.config.T5Config.dtype='bfloat16'", "--json", "--topology=gpu:h100"]
    lengths = ["--gin.TASK_FEATURE_LENGTHS={'inputs': 128, 'targets': 128}"]
    flops = {}
    for attention in ("xla", "cudnn", "pallas"):
        assert cli.run([*asked, *lengths, f"--gin.execution.Execution.attention='{attention}'"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["recipe"]["execution"]["attention"] == attention
        flops[attention] = found["program"]["flops"] / found["model_flops"]["per_step"]
    assert 1.0 <= flops["xla"] < flops["cudnn"] < flops["pallas"] < 1.5  # What is computed again grows.


@pytest.mark.gpu_compiler
def test_what_does_not_fit_a_gpu_is_told_and_ends_with_2(capfd):
    assert cli.run(["plan", QUICKSTART, *SMALL, "--topology=gpu:h100", "--gin.BATCH_SIZE=1048576"]) == 2
    text = capfd.readouterr().out
    assert "DOES NOT FIT: a device has 78.00 GiB, and the step needs" in text
    offered = [line for line in text.splitlines() if "--" in line]
    assert len(offered) >= 3 and any("--num_microbatches=" in line for line in offered)


@pytest.mark.parametrize("peak, fits, share", [(60 << 30, True, 0.76), (50 << 30, True, None), (79 << 30, False, None)])
def test_a_gpus_memory_is_held_against_the_plan(peak, fits, share, capsys, monkeypatch):
    """With CPU devices in the place of the GPUs, and the memory that is said."""
    monkeypatch.setattr(gpus, "is_installed", lambda: True)
    monkeypatch.setattr(gpus, "OPTIONS", {})
    monkeypatch.setattr(gpus, "described", lambda _, count: tuple(jax.devices("cpu")[:count]))
    monkeypatch.setattr(search.compiling, "Memory", lambda **found: Memory(**found | {"live": peak}))
    found = planned(capsys, "--topology=gpu:h100", status=0 if fits else 2)
    assert found["fits"] == fits
    if share:
        assert found["client_share"] == pytest.approx(share, abs=0.011)
    report.show(found)
    text = capsys.readouterr().out
    assert ("XLA_PYTHON_CLIENT_MEM_FRACTION=" in text) == bool(share)
    assert ("DOES NOT FIT: a device has 78.00 GiB, and the step needs 79" in text) != fits
    assert ("--num_microbatches=" in text) != fits


def test_changes_are_told_in_the_order_of_what_they_gain(monkeypatch):
    needs = {"full": 900, "minimal": 1100, "none": 1000}

    class Machine:
        topology = topology_named("gpu:h200")
        slices, model = 1, None

        def state(self, choice):
            return {}

        def peak(self, choice):
            rows = choice.batch_size // choice.num_microbatches
            return needs[choice.execution.remat] * rows << 30

    choice = search.Choice(batch_size=8, mesh=MeshPlan(data=1), execution=Execution(), num_microbatches=1)
    monkeypatch.setattr(search.meshes, "candidates", lambda *_, **__: [])
    found = search.changes(Machine(), choice, needed=1000 << 30, compiles=True)
    assert [row["change"].split(":")[0] for row in found] == [
        "--num_microbatches=8",
        "--batch_size=1",
        "--remat=full",
        "--remat=minimal",
    ]
    assert [row["peak"] >> 30 for row in found] == [1000, 1000, 7200, 8800] and not any(row["fits"] for row in found)
    reckoned = search.changes(Machine(), choice, needed=None, compiles=False)
    assert {row["peak"] for row in reckoned} == {None}


@pytest.mark.parametrize(("now", "is_offered"), [(MeshPlan(fsdp=8), False), (MeshPlan(data=8), True)])
def test_the_mesh_that_a_plan_has_is_no_change(monkeypatch, now, is_offered):
    class Machine:
        topology = topology_named("gpu:h200x8")
        slices, model = 1, None

        def state(self, choice):
            return {}

    found = [MeshPlan(data=8), MeshPlan(data=1, fsdp=8)]
    monkeypatch.setattr(search.meshes, "candidates", lambda *_, **__: found)
    choice = search.Choice(batch_size=32, mesh=now, execution=Execution(), num_microbatches=1)
    told = search.changes(Machine(), choice, needed=1000 << 30, compiles=False)
    assert any(row["change"].startswith("--mesh=fsdp=8:") for row in told) == is_offered
