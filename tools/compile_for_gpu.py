"""Compiles T5's attention, with its gradients, for an NVIDIA GPU that is not there, and tells what the compiler says.

    # Of jax's own version; the last, an assembler, where no CUDA toolkit is installed.
    pip install --no-deps --target /tmp/cuda jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12
    PYTHONPATH=/tmp/cuda python tools/compile_for_gpu.py
    PYTHONPATH=/tmp/cuda python tools/compile_for_gpu.py --gpu a100 --lengths 512 --head-dim 128 --causal
    PYTHONPATH=/tmp/cuda python tools/compile_for_gpu.py --keep /tmp/programs   # PTX of every kernel, HLO

No GPU, driver or other CUDA library is needed: the plugin holds XLA's compiler and Triton. What is compiled is
tools/bench_attention.py's attention by each implementation; "temp" is the memory it needs besides
arguments and results, "wgmma" and "mma" how many products on tensor cores stand in its own kernels' code. Autotuning, which
needs the GPU, is off, and cuDNN's plans are not made. Nothing of speed follows from this.
"""

import argparse
import importlib.metadata
import os
import re
import sys
import tempfile
import time
from pathlib import Path

# Of the product sheets and of `cudaGetDeviceProperties`.
_DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {shared} shared_memory_per_block_optin: {optin}
  core_count: {cores} fpus_per_core: {fpus} registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: {clock} device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{name}"
"""
_HOPPER = {"shared": 233472, "optin": 232448, "cores": 132, "fpus": 128, "cache": 50 << 20, "clock": 1.98, "major": 9}
_AMPERE = {"shared": 167936, "optin": 166912, "cores": 108, "fpus": 64, "cache": 40 << 20, "clock": 1.41, "major": 8}
GPUS = {
    "h200": _HOPPER | {"name": "NVIDIA H200", "bandwidth": 4_800_000_000_000, "memory": 150_000_000_000},
    "h100": _HOPPER | {"name": "NVIDIA H100 80GB HBM3", "bandwidth": 3_350_000_000_000, "memory": 84_900_000_000},
    "a100": _AMPERE | {"name": "NVIDIA A100-SXM4-80GB", "bandwidth": 2_039_000_000_000, "memory": 84_900_000_000},
}


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=GPUS, default="h200")
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--implementations", nargs="+", default=["xla", "pallas"])
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--keep", help="a folder for the compiler's own files")
    return parser.parse_args()


def described(gpu: str, count: int = 1):
    """Returns devices of a kind of GPU, to compile for.

    Raises:
        SystemExit: the plugin is not installed.
    """
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(
            platform="cuda", target_config=_DESCRIPTION.format(**GPUS[gpu]), topology=f"1x1x{count}"
        )
    except Exception as error:
        raise SystemExit(f"JAX cannot describe a GPU here ({error}); see --help for the plugin it needs.") from error
    return found.devices


def own_kernels(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns, by name, how many wgmma and mma instructions stand in the code of our own kernels."""
    found = {}
    for path in folder.glob("*.ptx"):
        text = path.read_text()
        if name := re.search(r"\.entry (t5_attention\w*)", text):
            found[name.group(1)] = (text.count("wgmma.mma_async"), text.count("mma.sync"))
            path.rename(path.with_name(f"{name.group(1)}.ptx"))
    return found


def main():
    options = parsed()
    folder = Path(options.keep or tempfile.mkdtemp())
    # Before JAX is imported. Autotuning would time kernels.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # That there is no GPU is known.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0 --xla_dump_to={folder}"

    import jax
    import jax.numpy as jnp
    from bench_attention import MEASURES, measures
    from rich.console import Console
    from rich.table import Table

    (device,) = described(options.gpu)
    mesh = jax.sharding.Mesh([device], ("all",))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    dtype = jnp.dtype(options.dtype)
    table = Table(
        *("length", "rows", "by", "compile s", "temp MB", "own kernels: wgmma, mma"),
        title=f"attention, forward + backward, compiled for {device.device_kind}: {options.heads} heads of "
        f"{options.head_dim}, {dtype.name}",
    )
    for length in options.lengths:
        rows = max(options.tokens // length, 1)
        x = jax.ShapeDtypeStruct((rows, length, options.heads, options.head_dim), dtype, sharding=where)
        bias = jax.ShapeDtypeStruct((options.heads, 32), jnp.float32, sharding=where)
        ids = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=where)
        for name in options.implementations:
            function = measures(name, None, heads=options.heads, causal=options.causal)[MEASURES[1]]
            start = time.perf_counter()
            with jax.set_mesh(mesh):
                compiled = jax.jit(function).lower(x, x, x, bias, ids, x).compile()
            seconds = time.perf_counter() - start
            temporary = compiled.memory_analysis().temp_size_in_bytes / 1e6
            counts = own_kernels(folder)
            if name == "pallas":
                assert counts, "XLA compiled no kernel of ours"
            code = "; ".join(f"{kernel} {wgmma}, {mma}" for kernel, (wgmma, mma) in sorted(counts.items()))
            table.add_row(
                f"{length}", f"{rows}", name, f"{seconds:.1f}", f"{temporary:.0f}", code if name == "pallas" else ""
            )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib"))
    Console(width=150).print(table, f"{versions}\npython {' '.join(sys.argv)}", sep="\n")


if __name__ == "__main__":
    main()
