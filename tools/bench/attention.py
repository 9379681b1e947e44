"""Measures T5's attention, forward and with gradients, for each implementation that runs on this machine.

    JAX_PLATFORMS=cpu python tools/bench/attention.py
    python tools/bench/attention.py --lengths 512 1024 2048 --causal
    python tools/bench/attention.py --implementations pallas --tilings 128,64,4,2 128,64,8,2 64,64,4,3

One attention without projections: packed rows of several segments with a little padding, relative bias, and gradients
of query, key, value and bias table. TFLOP/s count the products of visible query-key pairs (4 K forward, 10 K backward
each), so skipping masked blocks shows as speed. The ceiling is a square matrix product in the same run; "share" is the
fraction of it that is reached. Variants take turns. "ms" is the median over the repeats, with the range from fastest to
slowest. "temp" is the memory that the compiled program needs in addition to arguments and results. Implementations that
cannot run here are listed with the reason. A tiling is queries,keys,warps,stages for all kernels of "pallas".
"""

import argparse
import dataclasses
import importlib.metadata
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from rich.console import Console
from rich.table import Table

from flan_jax.models.acceleration import attention_choice
from flan_jax.models.acceleration.attention import attention_function
from flan_jax.models.acceleration.attention_kernel import Tiling, Tilings, attend_in_tiles
from flan_jax.models.position_bias import RelativePositionBias

MEASURES = ("forward", "forward + backward")


def packed_segments(rows: int, length: int, segments: int) -> np.ndarray:
    """Returns int32 [B, T]: segments of unequal lengths, and some padding at the end."""
    rng = np.random.default_rng(0)
    ids = np.zeros((rows, length), np.int32)
    for row in ids:
        shares = rng.uniform(0.5, 1.5, segments + 1)
        shares[-1] *= 0.1  # padding
        edges = (np.cumsum(shares / shares.sum()) * length).astype(int)[:-1]
        for segment, (start, end) in enumerate(zip([0, *edges[:-1]], edges, strict=True), start=1):
            row[start:end] = segment
    return ids


def visible_pairs(ids_BT: np.ndarray, *, causal: bool) -> int:
    """Returns how many keys all queries together see."""
    seen = ids_BT[:, :, None] == ids_BT[:, None, :]
    return int(np.sum(np.tril(seen) if causal else seen))


def measures(implementation: str, tilings: Tilings | None, *, heads: int, causal: bool):
    """Returns the functions to be timed, of (query, key, value, table, segments, mixed_grad)."""

    def mixed(query_BTHK, key_BTHK, value_BTHK, table_HR, ids_BT):
        if implementation == "pallas":
            seen = {"query_ids_BT": ids_BT, "key_ids_BS": ids_BT, "causal": causal}
            return attend_in_tiles(query_BTHK, key_BTHK, value_BTHK, table_HR, **seen, tilings=tilings)

        def see(bias):
            attend = attention_function(ids_BT, ids_BT, causal=causal, implementation=implementation).with_bias(bias)
            # As a layer has them: projections give [B, T, H, K], and keys and values are handed on as [B, H, K, S].
            return attend(query_BTHK, jnp.moveaxis(key_BTHK, 1, 3), jnp.moveaxis(value_BTHK, 1, 3))

        bias = RelativePositionBias(heads, bidirectional=not causal)
        return nn.apply(see, bias)({"params": {"rel_embedding": table_HR}})

    def both(query_BTHK, key_BTHK, value_BTHK, table_HR, ids_BT, mixed_grad_BTHK):
        found, pull = jax.vjp(lambda *arrays: mixed(*arrays, ids_BT), query_BTHK, key_BTHK, value_BTHK, table_HR)
        return found, pull(mixed_grad_BTHK)

    return {MEASURES[0]: lambda *arguments: mixed(*arguments[:5]), MEASURES[1]: both}


def synthetic(ids_BT: np.ndarray, heads: int, head_dim: int, dtype):
    keys = jax.random.split(jax.random.key(0), 5)
    shape = (*ids_BT.shape, heads, head_dim)
    query, key, value, grad = (jax.random.normal(key, shape, dtype) for key in keys[:4])
    return query / head_dim**0.5, key, value, jax.random.normal(keys[4], (heads, 32)), jnp.asarray(ids_BT), grad


def seconds_of(programs, arguments, *, repeats: int, calls: int) -> dict[object, list[float]]:
    """The mean seconds of a call, in each repeat; the programs take turns."""
    found: dict[object, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            for _ in range(calls):
                result = program(*arguments[name])
            jax.block_until_ready(result)
            if repeat:  # the first is for the caches
                found[name].append((time.perf_counter() - start) / calls)
    return found


def ceiling(dtype, *, size: int, repeats: int, calls: int) -> float:
    """Returns FLOP/s of a product of two square matrices of random numbers."""
    a, b = (jax.random.normal(jax.random.key(seed), (size, size), dtype) for seed in (1, 2))
    product = jax.jit(jnp.matmul)
    seconds = seconds_of({"product": product}, {"product": (a, b)}, repeats=repeats, calls=calls)["product"]
    return 2 * size**3 / statistics.median(seconds)


def variants_here(options, device, dtype) -> tuple[dict[str, tuple[str, Tilings | None]], list[str]]:
    """Returns what can run, by name, and a sentence for each that cannot."""
    able, sentences = {}, []
    for name in options.implementations:
        try:
            attention_choice.require(
                name,
                attention_choice.Accelerator.of(device),
                lengths=options.lengths,
                head_dim=options.head_dim,
                dtype=dtype.name,
            )
        except ValueError as refusal:
            sentences.append(f"{name} left out: {refusal}")
            continue
        tilings = options.tilings if name == "pallas" else []
        able |= {f"{name} {text}": (name, _tilings(text)) for text in tilings} or {name: (name, None)}
    return able, sentences


def _tilings(text: str) -> Tilings:
    queries, keys, warps, stages = map(int, text.split(","))
    one = Tiling(queries=queries, keys=keys, warps=warps, stages=stages)
    return Tilings(**{field.name: one for field in dataclasses.fields(Tilings)})


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--implementations", nargs="+", default=["xla", "cudnn", "pallas"])
    parser.add_argument("--tokens", type=int, help="of a batch; default 16384 on a GPU or TPU, 2048 on a CPU")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--segments", type=int, default=4, help="in a row")
    parser.add_argument("--causal", action="store_true", help="the decoder's attention; default the encoder's")
    parser.add_argument("--dtype", help="default bfloat16 on a GPU or TPU, float32 on a CPU")
    parser.add_argument("--tilings", nargs="+", default=[], help="queries,keys,warps,stages each, for pallas")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--calls", type=int, help="in a repeat; default 20 on a GPU or TPU, 1 on a CPU")
    return parser.parse_args()


def main():
    options = parsed()
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    dtype = jnp.dtype(options.dtype or ("float32" if on_cpu else "bfloat16"))
    tokens = options.tokens or (2048 if on_cpu else 16384)
    timing = {"repeats": options.repeats, "calls": options.calls or (1 if on_cpu else 20)}
    most = ceiling(dtype, size=2048 if on_cpu else 8192, **timing)
    able, sentences = variants_here(options, device, dtype)
    kind = "decoder (causal)" if options.causal else "encoder"
    table = Table(
        *("length", "rows", "pairs seen", "what", "by", "ms", "spread", "TFLOP/s", "share", "temp MB"),
        title=f"attention, {kind}: {options.heads} heads of {options.head_dim}, {dtype.name}",
    )
    for length in options.lengths:
        rows = max(tokens // length, 1)
        ids_BT = packed_segments(rows, length, options.segments)
        arguments = synthetic(ids_BT, options.heads, options.head_dim, dtype)
        pairs = visible_pairs(ids_BT, causal=options.causal)
        programs, given = {}, {}
        for label, (name, tilings) in able.items():
            for what, function in measures(name, tilings, heads=options.heads, causal=options.causal).items():
                given[what, label] = arguments[:5] if what == MEASURES[0] else arguments
                programs[what, label] = jax.jit(function).lower(*given[what, label]).compile()
        for (what, label), seconds in sorted(seconds_of(programs, given, **timing).items(), key=_order(able)):
            work = pairs * options.heads * options.head_dim * (4 if what == MEASURES[0] else 14)
            median = statistics.median(seconds)
            table.add_row(
                *(f"{length}", f"{rows}", f"{pairs / rows / length**2:.0%}", what, label, f"{median * 1e3:.3f}"),
                f"{min(seconds) * 1e3:.3f} - {max(seconds) * 1e3:.3f}",
                f"{work / median / 1e12:.3g}",
                f"{work / median / most:.0%}",
                f"{programs[what, label].memory_analysis().temp_size_in_bytes / 1e6:.0f}",
            )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib"))
    console = Console(width=130)
    console.print(table)
    console.print(f"matrix ceiling {most / 1e12:.3g} TFLOP/s; {device.device_kind}, {versions}")
    console.print("\n".join([*sentences, f"python {' '.join(sys.argv)}"]))


def _order(able):
    return lambda item: (MEASURES.index(item[0][0]), list(able).index(item[0][1]))


if __name__ == "__main__":
    main()
