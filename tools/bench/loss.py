"""Measures the output layer and the loss, forward and backward: complete logits against logits in chunks.

    JAX_PLATFORMS=cpu python tools/bench/loss.py
    python tools/bench/loss.py --sizes 32,256,768,32128 --chunk-mib 16 32 64 --repeats 10

A size is B,T,D,V. Measured are value and gradients, by the decoder's outputs and by the table, of cross-entropy with
z-loss, without the rest of the network. "s" is the median wall time over the repeats with its range; "CPU s" is the
processor time of all threads, which a busy machine disturbs less. Variants take turns. "temp" is the memory that the
compiled program needs in addition to arguments and results.
"""

import argparse
import importlib.metadata
import statistics
import sys
import time

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from flan_jax.models.acceleration.chunked_logits import read_logits
from flan_jax.models.execution import Execution
from flan_jax.models.layers import LogitsHead
from flan_jax.objectives.seq2seq import statistics_of, token_losses

SIZES = ("8,128,512,32128", "8,128,768,32128", "2,128,512,250112")


def compiled(arguments, *, tied: bool, execution: Execution):
    def loss(vectors_BTD, table, targets_BT):
        logits = read_logits(vectors_BTD, LogitsHead(table=table, is_tied=tied, divisor=1.0), execution=execution)
        if isinstance(logits, jax.Array):
            found = statistics_of(logits, targets_BT=targets_BT)
        else:
            found = logits.statistics(targets_BT)
        return jnp.mean(token_losses(found, z_loss=1e-4).total), jnp.mean(found.is_correct)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)).lower(*arguments).compile()


def synthetic(B: int, T: int, D: int, V: int, *, tied: bool):
    keys = jax.random.split(jax.random.key(0), 3)
    table = jax.random.normal(keys[1], (V, D) if tied else (D, V)) / D**0.5
    return jax.random.normal(keys[0], (B, T, D)), table, jax.random.randint(keys[2], (B, T), 0, V)


def measured(programs, arguments, *, repeats: int):
    """For each program the wall's and the processor's seconds of each repeat; the programs take turns."""
    seconds = {name: ([], []) for name in programs}
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            wall, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(*arguments))
            if repeat:  # the first is for the caches
                seconds[name][0].append(time.perf_counter() - wall)
                seconds[name][1].append(time.process_time() - processor)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="B,T,D,V each")
    parser.add_argument("--chunk-mib", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    variants = {"whole": Execution(logits="whole")}
    variants |= {f"{mib} MiB": Execution(logits="chunked", chunk_bytes=mib << 20) for mib in options.chunk_mib}
    table = Table("B,T,D,V", "head", "logits", "s", "spread", "CPU s", "temp MB", title="loss, forward + backward")
    for size in options.sizes:
        for tied in (False, True):
            arguments = synthetic(*map(int, size.split(",")), tied=tied)
            programs = {
                name: compiled(arguments, tied=tied, execution=execution) for name, execution in variants.items()
            }
            for name, (wall, processor) in measured(programs, arguments, repeats=options.repeats).items():
                spread = f"{min(wall):.3f} - {max(wall):.3f}"
                temporary = programs[name].memory_analysis().temp_size_in_bytes / 1e6
                row = [
                    f"{statistics.median(wall):.3f}",
                    spread,
                    f"{statistics.median(processor):.3f}",
                    f"{temporary:.0f}",
                ]
                table.add_row(size, "tied" if tied else "untied", name, *row)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "numpy"))
    console = Console(width=120)
    console.print(table)
    console.print(f"{jax.devices()[0].device_kind}, {versions}\npython {' '.join(sys.argv)}")


if __name__ == "__main__":
    main()
