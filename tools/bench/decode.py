"""Measures greedy decoding against transformers' `generate`: tokens per second at several batch sizes.

    python tools/bench/decode.py
    python tools/bench/decode.py --torch-python=TORCH/bin/python --batch-sizes 1 8 32 --new-tokens 64

Both decode the same inputs with a T5 1.1 of the same shape, random float32 weights and a key-value cache, and produce
the same number of tokens for each row (no row ends early). Each runs in its own process, and they take turns. The first
decoding of each batch size, which compiles, is not counted. The table shows medians and, in parentheses, the range.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import step_contender as contender
from rich.console import Console
from rich.table import Table

TOOLS = Path(__file__).resolve().parent
SIZES = {
    "small": {"emb_dim": 512, "num_heads": 6, "num_layers": 8, "head_dim": 64, "mlp_dim": 1024, "vocab_size": 32128},
    "base": {"emb_dim": 768, "num_heads": 12, "num_layers": 12, "head_dim": 64, "mlp_dim": 2048, "vocab_size": 32128},
}


def serve_ours() -> None:
    """Our process: a line holds a batch size, and is answered with the seconds that decoding it took."""
    import jax

    from flan_jax.models.t5 import model as t5
    from flan_jax.models.t5.config import T5Config
    from flan_jax.run.network import Network
    from flan_jax.sharding import MeshPlan

    spec = contender.read_spec()
    sizes = dict(spec["sizes"])
    layers = sizes.pop("num_layers")
    config = T5Config(
        **sizes,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        mlp_activations=("gelu", "linear"),
        logits_via_embedding=False,
    )
    network = Network(config, plan=MeshPlan())
    params = t5.init_params(config, rng=jax.random.key(0))
    # A token that no vocabulary has: no row ends early.
    generate = network.generate_fn(params, max_decode_length=spec["new_tokens"], eos_id=-1)
    with np.load(spec["inputs"]) as arrays:
        inputs = {int(name): array.astype(np.int32) for name, array in arrays.items()}
    contender.tell({"about": contender.versions("jax", "flax")})
    with network.within():
        for line in sys.stdin:
            wall, processor = time.perf_counter(), time.process_time()
            ids = inputs[int(line)]
            out = generate({"encoder_input_tokens": ids, "encoder_segment_ids": np.ones_like(ids)})
            assert jax.block_until_ready(out).shape == (len(ids), spec["new_tokens"])
            contender.tell({"wall": time.perf_counter() - wall, "processor": time.process_time() - processor})


class Contender:
    """A process that decodes on request."""

    def __init__(self, command: list[str], spec: Path):
        self._process = subprocess.Popen(
            [*command, str(spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.about = self._told()["about"]

    def decode(self, batch_size: int) -> dict[str, float]:
        assert self._process.stdin is not None
        print(batch_size, file=self._process.stdin, flush=True)
        return self._told()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _told(self) -> dict:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(contender.MARK):
                return json.loads(line.removeprefix(contender.MARK))
        raise RuntimeError(f"The contender has ended: {self._process.wait()}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--torch-python", help="of an environment with torch and transformers")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        place = Path(directory)
        rows = {str(size): rng.integers(2, 32_000, (size, given.input_tokens)) for size in given.batch_sizes}
        np.savez(place / "inputs.npz", **rows)
        spec = {
            "sizes": SIZES[given.size],
            "inputs": str(place / "inputs.npz"),
            "new_tokens": given.new_tokens,
            "dropout": 0.0,
            "seed": 0,
        }
        (place / "spec.json").write_text(json.dumps(spec))
        commands = {
            "ours": [
                sys.executable,
                "-c",
                f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import decode; decode.serve_ours()",
            ]
        }
        if given.torch_python:
            commands["transformers"] = [given.torch_python, str(TOOLS / "decode_torch.py")]
        contenders = {name: Contender(command, place / "spec.json") for name, command in commands.items()}
        for one in contenders.values():
            stack.callback(one.close)
        measured: dict[tuple[int, str], list[dict[str, float]]] = {}
        for size in given.batch_sizes:
            for one in contenders.values():
                one.decode(size)
            for _ in range(given.repeats):
                for name, one in contenders.items():
                    measured.setdefault((size, name), []).append(one.decode(size))
    table = Table(title=f"T5 1.1 {given.size}, float32: {given.input_tokens} tokens in, {given.new_tokens} out, greedy")
    for head in ("batch", "contender", "tokens/s", "processor ms a token", "against transformers"):
        table.add_column(head, justify="right")
    for (size, name), answers in measured.items():
        speeds = sorted(size * given.new_tokens / answer["wall"] for answer in answers)
        middle = statistics.median(speeds)
        used = statistics.median(answer["processor"] for answer in answers) / (size * given.new_tokens) * 1e3
        theirs = [size * given.new_tokens / answer["wall"] for answer in measured.get((size, "transformers"), [])]
        ratio = f"{middle / statistics.median(theirs):.2f}" if theirs else "-"
        table.add_row(str(size), name, f"{middle:,.0f} ({speeds[0]:,.0f}-{speeds[-1]:,.0f})", f"{used:.2f}", ratio)
    console = Console(width=150)
    console.print(table)
    packages = {"flan_jax": importlib.metadata.version("flan_jax")}
    for one in contenders.values():
        packages |= one.about
    shown = ", ".join(f"{name} {version}" for name, version in packages.items())
    console.print(f"{shown}; {os.cpu_count()} processors; {' '.join(sys.argv)}", soft_wrap=True)


if __name__ == "__main__":
    main()
