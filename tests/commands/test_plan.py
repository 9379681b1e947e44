"""`flan-jax plan`: what the training step of a recipe takes on another machine."""

import json

import jax
import pytest

from flan_jax import cli
from flan_jax.planning import gpus, report
from flan_jax.planning.compiling import Compiled, Memory
from flan_jax.planning.steps import Step

QUICKSTART = "gin_configs/recipes/quickstart.gin"
SMALL = (
    "--gin.BATCH_SIZE=8",
    "--gin.config.T5Config.num_encoder_layers=1",
    "--gin.config.T5Config.num_decoder_layers=1",
)
BOTH_AXES = ("--gin.sharding.MeshPlan.fsdp=4", "--gin.sharding.MeshPlan.tensor=2")


def planned(capsys, *arguments, status=0, search=False):
    assert cli.run(["plan", QUICKSTART, *SMALL, *arguments, f"--search={search}", "--json"]) == status
    return json.loads(capsys.readouterr().out)


def text_of(plan):
    from rich.console import Console

    console = Console(width=1000)
    with console.capture() as captured:
        console.print(report.Plan(data=plan))
    return captured.get()


def test_a_recipe_is_planned_for_cpu_devices(capsys):
    plan = planned(capsys, "--topology=cpu:8", *BOTH_AXES)
    assert plan["topology"]["devices"] == 8 and plan["chip"] is None
    recipe = plan["recipe"]
    assert recipe["parameters"] == 402_432 - 98_624 and recipe["lengths"] == {"inputs": 64, "targets": 16}
    assert recipe["mesh"] == {"replica": 1, "data": 1, "fsdp": 4, "tensor": 2}
    assert plan["memory"]["arguments"] > plan["state_bytes"] > 0
    assert plan["memory"]["aliased"] >= 0.9 * plan["state_bytes"]  # The state is donated.
    # All matrix products of the model, and little else.
    assert 1.0 <= plan["flops"] / plan["model_flops"] < 1.3
    assert "estimate" not in plan and "policies" not in plan and plan["fits"]
    axes = {row["axis"] for row in plan["exchanges"]}
    assert {"fsdp", "tensor"} <= axes and not any("data" in axis for axis in axes)
    text = text_of(plan)
    for words in ("peak memory", "FLOPs of the model", "all-reduce over tensor", "mesh fsdp=4,tensor=2"):
        assert words in text


@pytest.fixture
def cpus_as_gpus(monkeypatch):
    """CPU devices, which cannot offload, in place of described GPUs."""
    monkeypatch.setattr("flan_jax.commands.plan.REMAT_NAMES", ("none", "minimal", "full"))
    monkeypatch.setattr(gpus, "OPTIONS", {})
    monkeypatch.setattr(gpus, "described", lambda _, count: tuple(jax.devices("cpu")[:count]))


def with_memory(monkeypatch, bytes_of):
    """Replaces the compiler by one that needs so many bytes for a step."""
    program = "ENTRY %main (x: f32[]) -> f32[] {\n  ROOT %x = f32[] parameter(0)\n}\n"

    def compiled(step):
        memory = Memory(arguments=1, outputs=1, aliased=1, temporaries=1, code=0, live=bytes_of(step.config))
        return Compiled(memory=memory, text=program, warnings=())

    monkeypatch.setattr(Step, "compiled", property(compiled))


def test_a_chip_gives_an_estimate_of_the_time(capsys, cpus_as_gpus):
    plan = planned(capsys, "--topology=gpu:h200x2")
    estimate = plan["estimate"]
    longest = max(estimate[f"{name}_seconds"] for name in ("compute", "memory", "exchange"))
    assert estimate["step_seconds"] == longest > 0 and 0 < estimate["mfu"] < 1
    assert estimate["tokens_per_second"] * longest == pytest.approx(8 * (64 + 16))
    assert estimate["memory_seconds"] == pytest.approx(plan["hbm_bytes"] / 4800e9)
    assert estimate["compute_seconds"] == pytest.approx(plan["flops"] / 989e12)
    text = text_of(plan)
    for words in ("MFU", "tokens/s", "At best: NVIDIA H200", "mesh data=2", "all-reduce over data"):
        assert words in text


@pytest.mark.parametrize(
    "peak, fits, fraction", [(60 << 30, True, "0.76"), (50 << 30, True, None), (79 << 30, False, None)]
)
def test_the_memory_of_a_gpu_limits_the_plan(peak, fits, fraction, capsys, monkeypatch, cpus_as_gpus):
    with_memory(monkeypatch, lambda _: peak)
    plan = planned(capsys, "--topology=gpu:h100", status=0 if fits else 2)
    assert plan["fits"] == fits
    text = text_of(plan)
    assert (f"XLA_PYTHON_CLIENT_MEM_FRACTION={fraction}" in text) == bool(fraction)
    assert ("DOES NOT FIT: a device has 78.00 GiB, and the step needs 79" in text) != fits
    assert ("--num_microbatches, now 1" in text) != fits


def test_each_remat_policy_has_its_memory_and_its_largest_batch(capsys, monkeypatch, cpus_as_gpus):
    per_row = {"none": 10 << 30, "minimal": 9 << 30, "full": 5 << 30}
    with_memory(monkeypatch, lambda config: config.batch_size * per_row[config.execution.remat])
    plan = planned(capsys, "--topology=gpu:h100", search=True, status=2)
    fits = {name: (fit["peaks"]["8"] >> 30, fit["batch_size"]) for name, fit in plan["policies"].items()}
    assert fits == {"none": (80, 7), "minimal": (72, 8), "full": (40, 15)}


def test_the_table_of_policies_is_printed(capsys, monkeypatch, cpus_as_gpus):
    with_memory(monkeypatch, lambda config: config.batch_size * (10 << 30))
    assert cli.run(["plan", QUICKSTART, *SMALL, "--topology=gpu:h100", "--search"]) == 2
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ minimal")]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["minimal", "80.00 GiB", "7", "70.00 GiB", "8"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--topology=v9x:4x4"], "No topology 'v9x:4x4'"),
        ([], "needs topology: give --topology="),
        (["--topology=cpu:8", "--gin.sharding.MeshPlan.fsdp=3"], "divisor of 8"),
        (["--topology=cpu:8", "--gin.sharding.MeshPlan.tensor=8"], "heads"),
        (["--topology=cpu:8", "--gin.BATCH_SIZE=12"], "multiples of 8. Use 8 or 16 rows"),
        (["--topology=cpu:2", "--remat=ful"], "Did you mean 'full'"),
        (["--topology=cpu:2", "--num_microbatches=3"], "3 microbatches"),
        (["--topologie=cpu:2"], "Did you mean 'topology'"),
    ],
)
def test_an_impossible_plan_is_refused_with_the_fix(arguments, message, capsys):
    assert cli.run(["plan", QUICKSTART, *SMALL, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_a_missing_recipe_is_reported_with_the_option_that_names_it(capsys):
    assert cli.run(["plan", "--topology=cpu:2"]) == 2
    assert "give --model_dir=..., or a --gin_file that binds run_config.RunConfig.model_dir" in capsys.readouterr().err


@pytest.mark.libtpu
def test_a_recipe_is_compiled_for_a_slice_without_a_tpu(capfd):
    assert cli.run(["plan", QUICKSTART, "--topology=v5e:2x2", "--gin.BATCH_SIZE=8", "--search=False", "--json"]) == 0
    captured = capfd.readouterr()
    plan = json.loads(captured.out)
    assert captured.err == "compiling for v5e:2x2 ...\n"  # Nothing that libtpu prints.
    assert plan["fits"] and plan["chip"]["title"] == "TPU v5e"
    assert 1.0 <= plan["flops"] / plan["model_flops"] < 1.1
    assert plan["estimate"]["step_seconds"] > 0
    assert [(row["kind"], row["axis"]) for row in plan["exchanges"]] == [("all-reduce", "data")]


@pytest.mark.libtpu
def test_a_step_that_a_tpu_refuses_is_reported_with_the_fix(capfd):
    arguments = ["--topology=v5e:1x1", "--gin.BATCH_SIZE=262144", *SMALL[1:], "--search=False"]
    assert cli.run(["plan", QUICKSTART, *arguments]) == 2
    text = capfd.readouterr().out
    assert "DOES NOT FIT: a device has 15.75 GiB, and the step needs" in text
    assert "of it is parameters and optimizer state" in text and "--num_microbatches, now 1" in text
    assert "The compiler reports: RESOURCE_EXHAUSTED" in text


@pytest.mark.gpu_compiler
def test_a_recipe_is_compiled_for_gpus_without_one(capfd):
    arguments = ["plan", QUICKSTART, *SMALL, "--gin.config.T5Config.dtype='bfloat16'", "--search=False"]
    capfd.readouterr()
    assert cli.run([*arguments, "--topology=gpu:h200x2", "--gin.sharding.MeshPlan.fsdp=2", "--json"]) == 0
    captured = capfd.readouterr()
    plan = json.loads(captured.out)
    assert captured.err == "compiling for gpu:h200x2 ...\n"  # Nothing that the compiler prints.
    assert plan["topology"]["device_kind"] == "NVIDIA H200" and plan["topology"]["devices"] == 2
    assert plan["memory"]["aliased"] >= 0.9 * plan["state_bytes"] > 0
    assert 1.0 <= plan["flops"] / plan["model_flops"] < 1.1
    assert {row["axis"] for row in plan["exchanges"]} == {"fsdp"}
    assert 0 < plan["estimate"]["mfu"] < 1
    assert "compiled for NVIDIA H200" in text_of(plan)


@pytest.mark.gpu_compiler
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")  # From jax 0.11 on.
def test_each_implementation_of_attention_is_compiled_and_counted(capsys):
    bfloat16 = ("--topology=gpu:h100", "--gin.config.T5Config.dtype='bfloat16'")
    lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 128, 'targets': 128}"
    flops = {}
    for attention in ("xla", "cudnn", "pallas"):
        plan = planned(capsys, *bfloat16, lengths, f"--gin.execution.Execution.attention='{attention}'")
        assert plan["recipe"]["execution"]["attention"] == attention
        flops[attention] = plan["flops"] / plan["model_flops"]
    assert 1.0 <= flops["xla"] < flops["cudnn"] < flops["pallas"] < 1.5  # More and more is recomputed.


@pytest.mark.gpu_compiler
def test_a_step_that_does_not_fit_a_gpu_is_reported_with_the_fix(capsys):
    arguments = ["--topology=gpu:h100", "--gin.BATCH_SIZE=1048576", "--search=False"]
    assert cli.run(["plan", QUICKSTART, *SMALL, *arguments]) == 2
    text = capsys.readouterr().out
    assert "DOES NOT FIT: a device has 78.00 GiB, and the step needs" in text and "--num_microbatches, now 1" in text
