"""The time of our step by part, for step.py --parts: from a profile, and the matrix ceiling.

A profile names the instruction of each event, and the compiled program names the layer of each instruction. Overlapping
events are counted separately, so parts are shares of the total work; time that no instruction covers is idle.
"""

import re
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

PARTS = ("attention", "feed-forward", "loss", "optimizer", "rest")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = ")
_SOURCE = re.compile(r'op_name="([^"]*)"')


def step_flops(sizes: dict, *, batch: int, lengths) -> float:
    """FLOPs of the matrix products of a step, backward at twice forward, padding included.

    >>> small = {"emb_dim": 512, "num_heads": 6, "head_dim": 64, "mlp_dim": 1024, "num_layers": 8, "vocab_size": 32128}
    >>> round(step_flops(small, batch=8, lengths=(512, 128)) / 1e9)
    879
    """
    D, X, F, L, V = (
        sizes["emb_dim"],
        sizes["num_heads"] * sizes["head_dim"],
        sizes["mlp_dim"],
        sizes["num_layers"],
        sizes["vocab_size"],
    )
    S, T = lengths
    attention, feed_forward = 4 * D * X, 3 * D * F
    encoder = S * (attention + feed_forward) + 2 * S * S * X
    cross = 2 * D * X * (S + T) + 2 * S * T * X
    decoder = T * (attention + feed_forward) + 2 * T * T * X + cross
    return 3 * 2.0 * batch * (L * (encoder + decoder) + T * D * V)


def ceiling(dtype: str, *, repeats: int = 5) -> float:
    """Floating-point operations a second of a square matrix product in this process."""
    size = 8192 if jax.default_backend() != "cpu" else 2048
    square = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul).lower(square, square).compile()
    product(square, square).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(square, square).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


def part_of(source: str) -> str:
    """Which part an instruction belongs to, from the names of the scopes it was traced in.

    >>> part_of("jit(step)/transpose(jvp(Transformer))/Transformer.encode/encoder/layers_0/attention/dot_general")
    'attention'
    >>> part_of("jit(step)/jvp()/dot_general"), part_of("jit(step)/optimizer/mul")
    ('loss', 'optimizer')
    """
    if "optimizer" in source:
        return "optimizer"
    scopes = source.split("/")
    if any(scope.endswith("attention") or scope.startswith("relpos_bias") for scope in scopes):
        return "attention"
    if "mlp" in scopes:
        return "feed-forward"
    if "jvp" in source and not any(scope in ("encoder", "decoder", "token_embedder") for scope in scopes):
        return "loss"
    return "rest"


def measure(network, function, state, batch, rows, *, spec):
    """Takes steps under the profiler; returns the state and the measurements."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    # Kernels that a GPU replays as one recorded graph do not name their instruction.
    options = {"xla_gpu_enable_command_buffer": ""} if jax.default_backend() == "gpu" else {}
    compiled = network.lowered(function, shapes, rows).compile(compiler_options=options)
    state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            began = time.perf_counter()
            state, _ = compiled(state, batch)
            jax.block_until_ready(state)
            wall = time.perf_counter() - began
        (path,) = Path(directory).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
        seconds, busy = _by_part(profile, compiled.as_text())
    total = sum(seconds.values())
    memory = compiled.memory_analysis()
    return state, {
        "shares": {part: seconds[part] / total if total else 0.0 for part in PARTS},
        "gap_share": max(0.0, 1.0 - busy / wall),
        "ceiling_flops": ceiling(spec["dtype"]),
        "step_flops": step_flops(spec["sizes"], batch=spec["batch"], lengths=spec["lengths"]),
        "temporary_bytes": memory.temp_size_in_bytes,
        "arguments_bytes": memory.argument_size_in_bytes,
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def _by_part(profile, program: str):
    """Seconds of each part, and for how many seconds at least one instruction ran."""
    sources = {}
    for line in program.splitlines():
        name, source = _INSTRUCTION.match(line), _SOURCE.search(line)
        if name and source:
            sources[name[1]] = source[1]
    seconds = dict.fromkeys(PARTS, 0.0)
    spans = []
    planes = list(profile.planes)
    # The host calls that launch a GPU's kernels have the instruction's name too.
    for plane in [plane for plane in planes if plane.name.startswith("/device:GPU")] or planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name is None:
                    continue
                seconds[part_of(sources.get(name, ""))] += event.duration_ns / 1e9
                spans.append((event.start_ns, event.start_ns + event.duration_ns))
    busy, reached = 0.0, 0.0
    for begin, end in sorted(spans):
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return seconds, busy / 1e9
