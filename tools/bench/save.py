"""Measures the cost of saving through the command line: how long the loop waits, and how much steps slow down.

    python tools/bench/save.py
    python tools/bench/save.py --size=base --steps=12 --every=4 --repeats=2

Runs of the same steps on the embedded mixture take turns: one saves asynchronously, one waits for the files, one saves
only at the end. The figures come from metrics.jsonl, one line per step. "loop waits" is the time that the training loop
waits for a save, with the share of a step in parentheses. "steps during a write" began while files were being written.
The first step, which compiles, and the final save are excluded. On CPU the writer's threads and the step share the
processors; on an accelerator they do not.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from recipe import write_recipe
from rich.console import Console
from rich.table import Table

KINDS = {
    "asynchronous": {"CHECKPOINT_PERIOD": "{every}"},
    "waiting": {"CHECKPOINT_PERIOD": "{every}", "manager.CheckpointPolicy.asynchronous": "False"},
    "at the end only": {"CHECKPOINT_PERIOD": "None"},
}


def run(kind: str, number: int, place: Path, given: argparse.Namespace) -> dict[str, list[float]]:
    directory = place / f"run_{number}_{kind.replace(' ', '_')}"
    bindings = [f"--gin.{name}={value.format(every=given.every)}" for name, value in KINDS[kind].items()]
    command = [sys.executable, "-m", "flan_jax", "train", f"--gin_file={place}/recipe.gin", *bindings]
    environment = {**os.environ, "FLAN_JAX_COMPILE_CACHE": str(place / "programs")}
    start = time.perf_counter()
    subprocess.run([*command, f"--gin.MODEL_DIR='{directory}'"], env=environment, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    saves = {line["step"]: line["save_seconds"] for line in lines if line["kind"] == "save"}
    steps = {line["step"]: line["seconds_per_step"] for line in lines if line["kind"] == "train" and line["step"] > 1}
    during = [seconds for step, seconds in steps.items() if step - 1 in saves]
    return {
        "blocks": [seconds for step, seconds in saves.items() if step < given.steps],
        "during": during,
        "others": [seconds for step, seconds in steps.items() if step - 1 not in saves],
        "total": [time.perf_counter() - start],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", help="of T5 1.1, as in gin_configs/models/t5_1_1")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs=2, default=[512, 128])
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--every", type=int, default=4, help="steps between saves")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {kind: defaultdict(list) for kind in given.kinds}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        inputs, targets = given.lengths
        more = (f"TRAIN_STEPS = {given.steps}", "loop.Cadence.log_every_steps = 1")
        write_recipe(place, *more, size=given.size, batch_size=given.batch_size, lengths=(inputs, targets))
        for number in range(given.repeats):
            for kind in given.kinds:
                for name, values in run(kind, number, place, given).items():
                    found[kind][name] += values
    table = Table(
        title=f"T5 1.1 {given.size}, batch {given.batch_size}, {inputs}/{targets}, a save every {given.every} steps"
    )
    for head in (
        "saving",
        "saves",
        "loop waits, s",
        "longest",
        "steps during a write, s",
        "other steps, s",
        "complete run, s",
    ):
        table.add_column(head, justify="right")
    for kind in given.kinds:
        got = {name: statistics.median(values) for name, values in found[kind].items() if values}
        blocks = found[kind]["blocks"]
        share = f"{got['blocks']:.3f} ({got['blocks'] / got['others']:.1%} of a step)" if blocks else "-"
        during = f"{got['during']:.2f} ({got['during'] / got['others'] - 1:+.1%})" if found[kind]["during"] else "-"
        longest = f"{max(blocks):.3f}" if blocks else "-"
        table.add_row(kind, str(len(blocks)), share, longest, during, f"{got['others']:.2f}", f"{got['total']:.1f}")
    console = Console(width=150)
    console.print(table)
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "orbax-checkpoint", "tensorstore")
    )
    console.print(f"{packages}; {os.cpu_count()} processors; {' '.join(sys.argv)}", soft_wrap=True)


if __name__ == "__main__":
    main()
