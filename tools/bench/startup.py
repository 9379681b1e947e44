"""Measures the time from process start to the end of the first training step, against the peers.

    python tools/bench/startup.py
    python tools/bench/startup.py --torch-python=TORCH/bin/python --t5x-python=T5X/bin/python --repeats=3

Ours is `flan-jax train` on the embedded mixture, already exported: with an empty compile cache, with cached programs,
and resuming a checkpoint with cached programs. The peers are the contenders of step.py, which take the same step
without a trainer or a run directory. All have T5 1.1's shape and the same batch size, in float32. They take turns, in
processes that are killed after their first step. The table shows medians and, in parentheses, the range. The phases of
our start come from the run's own record, `start` in metrics.jsonl.
"""

import argparse
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from recipe import ROOT, write_recipe
from rich.console import Console
from rich.table import Table

SIZES = {  # numbers of gin_configs/models/t5_1_1, for the peers
    "small": {"emb_dim": 512, "num_heads": 6, "num_layers": 8, "head_dim": 64, "mlp_dim": 1024, "vocab_size": 32128},
    "base": {"emb_dim": 768, "num_heads": 12, "num_layers": 12, "head_dim": 64, "mlp_dim": 2048, "vocab_size": 32128},
}
OURS = ("empty cache", "cached programs", "resumed, cached programs")
PEERS = {"transformers": "step_torch.py", "T5X": "step_t5x.py"}


def started(command: list[str], *, until: str, environment: dict[str, str]) -> tuple[float, float]:
    """Runs a command until a line of its output begins with `until`; returns wall and processor seconds."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )
        assert process.stdout is not None
        found = any(line.startswith(until) for line in process.stdout)
        wall = time.perf_counter() - start
        process.send_signal(signal.SIGKILL)
        _, _, used = os.wait4(process.pid, 0)
        process.stdout.close()
        if not found:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} finished no step:\n{errors.read()[-2000:]}")
    return wall, used.ru_utime + used.ru_stime


def ours(kind: str, run: Path, *, place: Path, steps: int | None = None) -> list[str]:
    command = [sys.executable, "-m", "flan_jax", "train", f"--gin_file={place}/recipe.gin", f"--gin.MODEL_DIR='{run}'"]
    return command if steps is None else [*command, f"--gin.TRAIN_STEPS={steps}"]


def prepared(place: Path, given: argparse.Namespace) -> None:
    """Writes the recipe, the export, the compile cache, a checkpoint to resume, and the examples of the peers."""
    more = ("DROPOUT_RATE = 0.05", "TRAIN_STEPS = 1000")
    write_recipe(place, *more, size=given.size, batch_size=given.batch_size, lengths=given.lengths)
    keeping = {**os.environ, "FLAN_JAX_COMPILE_CACHE": str(place / "programs")}
    subprocess.run(
        ours("", place / "resumed", place=place, steps=1), env=keeping, check=True, stdout=subprocess.DEVNULL
    )
    rng = np.random.default_rng(0)
    drawn = np.array([60, 12]) * np.exp(rng.standard_normal((400, 2)))
    counts = np.clip(np.round(drawn), 1, given.lengths).astype(int)
    sides = {
        side: [rng.integers(2, 32_000, count).astype(np.int32) for count in counts[:, i]]
        for i, side in enumerate(("inputs", "targets"))
    }
    lengths = {f"{side}_lengths": np.array([len(row) for row in rows]) for side, rows in sides.items()}
    np.savez(place / "examples.npz", **{side: np.concatenate(rows) for side, rows in sides.items()}, **lengths)
    spec = {
        "sizes": SIZES[given.size],
        "lengths": given.lengths,
        "batch": given.batch_size,
        "dtype": "float32",
        "dropout": 0.05,
        "seed": 0,
        "examples": str(place / "examples.npz"),
        "kind": "grouped",
        "compile": False,
    }
    (place / "spec.json").write_text(json.dumps(spec))


def take_turns(place: Path, given: argparse.Namespace) -> tuple[dict, dict]:
    """Returns, by contender, its times, and of ours the phases."""
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    phases: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    pythons = {"transformers": given.torch_python, "T5X": given.t5x_python}
    for turn in range(given.repeats):
        for kind in OURS:
            run = place / "resumed" if kind.startswith("resumed") else place / f"run_{kind.split()[0]}_{turn}"
            cache = "off" if kind == "empty cache" else str(place / "programs")
            environment = {"FLAN_JAX_COMPILE_CACHE": cache}
            measured = started(ours(kind, run, place=place), until="first step finished", environment=environment)
            times[f"ours, {kind}"].append(measured)
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            for name, seconds in [line for line in lines if line["kind"] == "start"][-1].items():
                if name.endswith("_seconds"):
                    phases[kind][name.removesuffix("_seconds")].append(seconds)
        for peer, python in pythons.items():
            if python:
                command = [python, str(ROOT / "tools" / PEERS[peer]), str(place / "spec.json")]
                times[peer].append(started(command, until="@bench", environment={}))
    return times, phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs=2, default=[512, 128])
    parser.add_argument("--torch-python", help="of an environment with torch and transformers")
    parser.add_argument("--t5x-python", help="of an environment with T5X (docs/t5x.md)")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        prepared(place, given)
        times, phases = take_turns(place, given)
    console = Console(width=150)
    table = Table(title=f"T5 1.1 {given.size}, batch {given.batch_size}, {given.lengths[0]}/{given.lengths[1]}")
    for head in ("contender", "start to first step, s", "processor s", "relative to an empty cache"):
        table.add_column(head, justify="right")
    base = statistics.median(wall for wall, _ in times["ours, empty cache"])
    for name, measured in times.items():
        walls = sorted(wall for wall, _ in measured)
        middle = statistics.median(walls)
        spread = f"{middle:.1f} ({walls[0]:.1f}-{walls[-1]:.1f})"
        table.add_row(name, spread, f"{statistics.median(used for _, used in measured):.1f}", f"{middle / base:.2f}")
    console.print(table)
    table = Table(title="phases of our start, s (compile: time spent waiting; compile_thread: total, in parallel)")
    names = list(dict.fromkeys(name for kind in OURS for name in phases[kind]))
    for head in ("start", *names):
        table.add_column(head, justify="right")
    for kind in OURS:
        medians = (statistics.median(phases[kind][name]) if phases[kind][name] else 0.0 for name in names)
        table.add_row(kind, *(f"{seconds:.2f}" for seconds in medians))
    console.print(table)
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "orbax-checkpoint"))
    console.print(f"{packages}; {os.cpu_count()} processors; {' '.join(sys.argv)}", soft_wrap=True)


if __name__ == "__main__":
    main()
