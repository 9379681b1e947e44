"""Compiles T5's attention, with gradients, for an NVIDIA GPU without one, and reports the compiler's figures.

    pip install -e '.[plan-gpu]'   # or jax-cuda12-plugin and jax-cuda12-pjrt of JAX's own version
    python tools/bench/compile_for_gpu.py
    python tools/bench/compile_for_gpu.py --gpu a100 --lengths 512 --head-dim 128 --causal
    python tools/bench/compile_for_gpu.py --keep /tmp/programs   # PTX of every kernel, HLO

Needs no GPU, driver or other CUDA library: the plugin contains XLA's compiler and Triton. It compiles the attention of
tools/bench/attention.py for each implementation. "temp" is the memory that the program needs in addition to arguments
and results; "wgmma" and "mma" count the tensor-core instructions in this project's own kernels. Autotuning, which needs
a GPU, is off, and cuDNN's plans are not built. The figures say nothing about speed. flan_jax/planning/gpus.py describes
the GPU to the compiler; `flan-jax plan --topology=gpu:h200` compiles a complete step in the same way.
"""

import argparse
import importlib.metadata
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from flan_jax.planning.chips import GPUS


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=[chip.name for chip in GPUS], default="h200")
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--implementations", nargs="+", default=["xla", "pallas"])
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--keep", help="a folder for the compiler's own files")
    return parser.parse_args()


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
    # Before JAX is imported.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # That there is no GPU is known.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder}"

    import jax
    import jax.numpy as jnp
    from attention import MEASURES, measures
    from rich.console import Console
    from rich.table import Table

    from flan_jax.planning import gpus

    try:
        (device,) = gpus.described(options.gpu)
    except ValueError as error:
        raise SystemExit(f"{error} See --help.") from error
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
                compiled = jax.jit(function).lower(x, x, x, bias, ids, x).compile(dict(gpus.OPTIONS))
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
