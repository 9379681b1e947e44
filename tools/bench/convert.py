"""Measures the time and memory of converting a large checkpoint through the command line, with synthetic weights.

    python tools/bench/convert.py --model=t5_1_1/xl --dtype=float32 --directory=/a/large/disk
    python tools/bench/convert.py --model=t5_1_1/xxl --dtype=bfloat16 --directory=... --limit_gib=8

Writes a sharded Hugging Face checkpoint of random numbers and converts it to this project's format, to T5X's, and back.
The last one must equal the first, bit for bit (with --conversions=1, the first conversion is the last). At most two
copies are on disk at a time. --limit_gib limits the memory of the processes (RLIMIT_DATA), so a conversion that needs
more fails.

"memory" is the peak of a process's anonymous pages; "with files" adds mapped file pages, which the system can reclaim.
Both are sampled twenty times per second.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flan_jax.checkpoint import conversion, formats
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.checkpoint.leaves import Index, Leaf
from flan_jax.checkpoint.weights import Weights
from flan_jax.models.t5.families import FAMILIES
from flan_jax.models.t5.parameters import parameter_shapes

STEPS = ("hf -> flan_jax", "flan_jax -> t5x", "t5x -> hf")


def synthetic(model: str, dtype: str) -> Weights:
    """Returns weights that are computed when read: the same numbers each time."""
    name, _, size = model.partition("/")
    family = next(family for family in FAMILIES if family.name == name)
    config = family.config(size)
    kept = conversion.DTYPES[dtype]

    def leaf(number: int, shape: tuple[int, ...]) -> Leaf:
        def read(index: Index) -> np.ndarray:
            rows = index[0]
            drawn = [
                np.random.default_rng((number, row)).standard_normal(shape[1:], np.float32)
                for row in range(rows.start, rows.stop)
            ]
            return np.stack(drawn)[(slice(None), *index[1:])].astype(kept)

        return Leaf(shape=shape, dtype=kept, read=read)

    params = {name: leaf(number, shape) for number, (name, shape) in enumerate(parameter_shapes(config).items())}
    return Weights(
        format="flan_jax",
        layout="synthetic",
        path=model,
        step=None,
        config=config,
        config_is_stated=True,
        params=params,
    )


def watched(command: list[str], *, limit_gib: float | None) -> tuple[float, float, float]:
    """Runs a command; returns seconds, and gibibytes at most without and with mapped files."""

    def limited() -> None:
        if limit_gib is not None:
            size = int(limit_gib * 2**30)
            resource.setrlimit(resource.RLIMIT_DATA, (size, size))

    start, own, total = time.monotonic(), 0, 0
    with subprocess.Popen(command, preexec_fn=limited) as process:
        while process.poll() is None:
            lines = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            if "RssAnon" in lines:
                anonymous, mapped = (int(lines[key].split()[0]) for key in ("RssAnon", "RssFile"))
                own, total = max(own, anonymous), max(total, anonymous + mapped)
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - start, own / 2**20, total / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="t5_1_1/xl")
    parser.add_argument("--dtype", default="float32", choices=conversion.DTYPES)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--limit_gib", type=float)
    parser.add_argument("--conversions", type=int, default=len(STEPS), help="how many of the three")
    arguments = parser.parse_args()
    directory = arguments.directory / f"convert-{arguments.model.replace('/', '-')}"
    directory.mkdir(parents=True)
    try:
        weights = synthetic(arguments.model, arguments.dtype)
        (directory / "hf").mkdir()
        start = time.monotonic()
        huggingface.write(weights, directory / "hf")
        Console().print(
            f"made {sum(leaf.size for leaf in weights.params.values()):,} numbers, {time.monotonic() - start:.0f} s"
        )
        first = leaves_digest(formats.open_weights(directory / "hf").params)
        table = Table(
            "conversion",
            "GB",
            "seconds",
            "MB/s",
            "memory GiB",
            "with files GiB",
            title=f"{arguments.model} {arguments.dtype}",
        )
        size = sum(leaf.nbytes for leaf in weights.params.values())
        place = directory / "hf"
        for number, step in enumerate(STEPS[: arguments.conversions]):
            to = directory / f"step{number}"
            command = [sys.executable, "-m", "flan_jax", "convert", f"--from={place}", f"--to={to}"]
            command.append(f"--format={step.rpartition(' ')[2]}")
            seconds, own, total = watched(command, limit_gib=arguments.limit_gib)
            table.add_row(
                step, f"{size / 1e9:.1f}", f"{seconds:.0f}", f"{size / seconds / 1e6:.0f}", f"{own:.2f}", f"{total:.2f}"
            )
            shutil.rmtree(place)
            place = to
        last = leaves_digest(formats.open_weights(place).params)
        Console().print(table)
        Console().print(f"there and back: {'equal, bit for bit' if first == last else 'DIFFERENT'}")
        raise SystemExit(first != last)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
