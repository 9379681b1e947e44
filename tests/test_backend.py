"""Flags are checked against the installed jaxlib; the cache in child processes, because its settings are per process."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from flan_jax import backend, cli


def run(program, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != backend.CACHE_VARIABLE}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env={**inherited, **environment}, capture_output=True, text=True
    )


REMOVED = (  # All of them are in launch scripts of T5X and Rosetta.
    "xla_gpu_enable_async_all_reduce",
    "xla_gpu_enable_triton_softmax_fusion",
    "xla_gpu_simplify_all_fp_conversions",
    "xla_gpu_graph_level",
    "xla_gpu_cudnn_gemm_fusion",  # A prefix of one that exists.
)
PRESENT = ("xla_gpu_enable_latency_hiding_scheduler", "xla_gpu_enable_triton_gemm", "xla_gpu_cudnn_gemm_fusion_level")


def test_unknown_flags_are_named_with_the_nearest_known_one():
    flags = " ".join(f"--{name}=true" for name in (*REMOVED, "xla_gpu_enable_latency_hiding"))
    problem = backend.flags_problem(flags)
    assert all(f"--{name}" in problem for name in REMOVED) and "Remove it from XLA_FLAGS" in problem
    assert "Did you mean 'xla_gpu_enable_latency_hiding_scheduler'?" in problem


def test_known_flags_pass():
    assert backend.flags_problem("--xla_gpu_enable_triton_gemm=false --xla_gpu_cudnn_gemm_fusion_level=1") == ""
    assert backend.flags_problem("") == backend.flags_problem("  ") == ""
    assert backend.known_flags() >= set(PRESENT) and not backend.known_flags() & set(REMOVED)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--xla_force_host_platform_device_count=many", "value 'many' of --xla_force_host_platform_device_count"),
        ("--xla_dump_max_hlo_modules", "--xla_dump_max_hlo_modules without a value"),
        ("xla_gpu_enable_triton_gemm", "neither a list of flags (--name=value) nor a file of them"),
    ],
)
def test_other_invalid_flags_are_named(flags, message):
    assert message in backend.flags_problem(flags)


def test_a_file_of_flags_is_read_as_jaxlib_reads_it(tmp_path):
    file = tmp_path / "flags"
    file.write_text("--xla_gpu_graph_level=1\n")
    assert "--xla_gpu_graph_level" in backend.flags_problem(str(file))
    file.write_text("--xla_gpu_enable_triton_gemm=false\n")
    backend.flags_problem.cache_clear()
    assert backend.flags_problem(str(file)) == ""


def test_a_run_with_an_unknown_flag_ends_with_one_message_and_writes_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_graph_level=1")
    recipe = Path(__file__).resolve().parents[1] / "gin_configs" / "recipes" / "quickstart.gin"
    assert cli.run(["train", f"--gin_file={recipe}", f"--gin.MODEL_DIR='{tmp_path}/run'"]) == 2
    assert "does not accept --xla_gpu_graph_level" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_doctor_names_an_unknown_flag_and_starts_no_backend(monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_graph_level=1")
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.run(["doctor"]) == 2
    shown = capsys.readouterr().out
    assert "--xla_gpu_graph_level" in shown and "devices" not in shown


COMPILE = """
from flan_jax import backend
place = backend.compile_cache()
import jax, jax.numpy as jnp
from jax import monitoring
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
monitoring.register_event_listener(lambda event, **_: events.append(event))
def step(x):
    for _ in range(20):
        x = jnp.tanh(x @ x)
    return x
bits = float(jax.jit(step)(jnp.eye(8) * 0.5).sum()).hex()
print(place, bits, sum("cache_hits" in event for event in events))
"""


def test_a_second_start_uses_the_cache_of_the_first_and_computes_the_same_bits(tmp_path):
    home = {"XDG_CACHE_HOME": str(tmp_path)}
    first, second, off = run(COMPILE, **home), run(COMPILE, **home), run(COMPILE, FLAN_JAX_COMPILE_CACHE="off", **home)
    assert first.returncode == second.returncode == off.returncode == 0, first.stderr + second.stderr + off.stderr
    (place, bits, hits), (again, same_bits, later_hits), without = (run.stdout.split() for run in (first, second, off))
    assert place == again and place.startswith(str(tmp_path / "flan_jax" / "compiled"))
    assert hits == "0" and int(later_hits) > 0 and without == ["None", bits, "0"] and same_bits == bits
    assert len(list(tmp_path.glob("flan_jax/compiled/*/jit_step-*-cache"))) == 1


def test_without_a_writable_cache_folder_a_run_warns_and_continues(tmp_path):
    (tmp_path / "file").write_text("")
    result = run(COMPILE, FLAN_JAX_COMPILE_CACHE=str(tmp_path / "file"))
    assert result.returncode == 0 and result.stdout.startswith("None ")
    assert result.stderr.startswith("flan-jax: no cache of compiled programs (")


def test_jaxs_own_setting_takes_precedence(tmp_path):
    result = run(COMPILE, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"), XDG_CACHE_HOME=str(tmp_path / "other"))
    assert result.stdout.startswith("None ") and list((tmp_path / "own").glob("jit_step-*"))
    assert not (tmp_path / "other").exists()


def test_the_oldest_programs_beyond_the_size_limit_are_removed(tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(b"x" * 10)
        os.utime(tmp_path / name, (1_000_000 - age, 1_000_000 - age))
    backend._prune(tmp_path, max_bytes=20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "new"]


def test_only_steps_on_cpu_have_compiler_options():
    assert backend.step_options("gpu") == {} == backend.step_options("tpu")
    options = backend.step_options("cpu")
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    with pytest.raises(Exception, match="No such compile option"):
        jax.jit(lambda x: x + 2, compiler_options={name + "_": value for name, value in options.items()})(1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries manage memory in other ways")
@pytest.mark.parametrize("platform_name", ["cpu", "gpu"])
def test_memory_freed_by_a_cpu_program_is_reused_by_the_next_one(platform_name):
    program = f"""
import resource
import jax, jax.numpy as jnp
from flan_jax import backend
backend.compute_in_calling_thread()
step = jax.jit(lambda x: jnp.sum(jnp.sort(x[:, None] * x[None, :], axis=1)))  # A temporary of 64 MB.
x = jnp.arange(4096.0)
step.lower(x).compile()
backend.retain_freed_memory({platform_name!r})
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    before = faults()
    step(x).block_until_ready()
    print(faults() - before)
"""
    done = run(program, JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr
    cleared = [int(line) for line in done.stdout.split()]
    assert cleared[0] > 15_000  # 64 MB in pages of 4 KB.
    assert (cleared[2] < 1_000) == (platform_name == "cpu")


def test_what_another_process_takes_away_meanwhile_is_no_reason_to_keep_nothing(tmp_path):
    (tmp_path / "jit_step-1-cache").write_bytes(b"ab")
    (tmp_path / ".17").symlink_to(tmp_path / "gone")
    backend._prune(tmp_path, max_bytes=1)
    assert [path.name for path in tmp_path.iterdir()] == [".17"]
