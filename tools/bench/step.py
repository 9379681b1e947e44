"""Measures complete training steps against transformers and T5X, in one run, on the same examples.

    python tools/bench/step.py --torch-python=PATH --t5x-python=PATH
    python tools/bench/step.py --torch-python=PATH --export-dir=exports --mixture=superni_train --lengths 1024 128
    python tools/bench/step.py --torch-python=PATH --sizes large xl --lengths 1024 256 --dtype bfloat16 --parts

A contender is NAME:BATCH. "ours" and "t5x" take BATCH packed rows, packed by our feed and by SeqIO. "torch-grouped" and
"torch-random" take BATCH padded examples, in batches of similar length or in random order. Each runs in its own process
under its own interpreter; contenders without an interpreter are left out, and those that fail (out of memory, or no
answer for --patience seconds) are listed with the reason below the table. The processes take turns: in every round each
takes complete steps for --turn-seconds, so that a noisy machine disturbs all alike. With --alone each has the
machine to itself, which the memory of a GPU may require.

Lengths are synthetic and log-normal (inputs: median 60 tokens, targets: median 12, truncated at --lengths), or those of
an export. "tokens/s" counts input and target tokens without padding over all rounds, with the range of the rounds; the
ratios are medians of the rounds' ratios, by wall and by processor time. "start" is the time from process start to the
end of the first step, with modules in the file cache; "again" is a second start, where ours uses cached programs.
"peak" is the largest resident memory of the process, "device" the peak of the accelerator's memory.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from step_contender import MARK

from flan_jax.data import manifest, source

TOOLS = Path(__file__).resolve().parent
SCRIPTS = {"ours": "ours", "torch-grouped": "torch", "torch-random": "torch", "t5x": "t5x"}
DEFAULT_CONTENDERS = ("ours:8", "torch-grouped:8", "torch-random:8", "t5x:8")
SIZES = {
    "tiny": {"emb_dim": 64, "num_heads": 2, "head_dim": 32, "mlp_dim": 128, "num_layers": 2},
    "small": {"emb_dim": 512, "num_heads": 6, "head_dim": 64, "mlp_dim": 1024, "num_layers": 8},
    "base": {"emb_dim": 768, "num_heads": 12, "head_dim": 64, "mlp_dim": 2048, "num_layers": 12},
    "large": {"emb_dim": 1024, "num_heads": 16, "head_dim": 64, "mlp_dim": 2816, "num_layers": 24},
    "xl": {"emb_dim": 2048, "num_heads": 32, "head_dim": 64, "mlp_dim": 5120, "num_layers": 24},
}
# By default JAX allocates three quarters of a GPU at the start, which leaves no memory for the other contenders, and it
# uses all GPUs, while Torch uses one.
SHARING = {
    **os.environ,
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
    "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0],
}
MEDIANS = (60, 12)
NUM_EXAMPLES = 4096


def synthetic(limits, *, vocab_size: int, spread: float = 1.0):
    """Tokens and lengths of both sides."""
    rng = np.random.default_rng(0)
    drawn = np.array(MEDIANS) * np.exp(spread * rng.standard_normal((NUM_EXAMPLES, 2)))
    lengths = np.clip(np.round(drawn), 1, limits).astype(int)
    sides = {"inputs": lengths[:, 0], "targets": lengths[:, 1]}
    tokens = {
        name: rng.integers(2, min(32_000, vocab_size), counts.sum()).astype(np.int32) for name, counts in sides.items()
    }
    return tokens | {f"{name}_lengths": counts for name, counts in sides.items()}


def exported(export_dir: str, mixture: str):
    """The same of examples drawn evenly from an export's training split."""
    paths = sorted(Path(export_dir).glob(f"mixtures/{manifest.safe_name(mixture)}-train-*.json"))
    if not paths:
        raise SystemExit(f"{export_dir} holds no export of {mixture!r}, split train; make one with `flan-jax export`.")
    tasks = source.open_members(manifest.read_mixture(paths[-1]), export_dir=export_dir)
    places = [(task, i) for task in tasks for i in range(len(task))]
    chosen = np.random.default_rng(0).permutation(len(places))[:NUM_EXAMPLES]
    pairs = [places[i][0].read([places[i][1]])[0] for i in chosen]
    found = {}
    for name, side in zip(("inputs", "targets"), zip(*pairs, strict=True), strict=True):
        found[name] = np.concatenate(side).astype(np.int32)
        found[f"{name}_lengths"] = np.array([len(tokens) for tokens in side])
    return found


class Failed(Exception):
    """A contender's process ended before it answered."""


class Contender:
    """A process that takes steps on request. After its first failure it gets no more requests."""

    def __init__(self, name: str, *, python: str, spec: dict, directory: Path, patience: float):
        kind, _, batch = name.partition(":")
        self.name, self.starts, self.turns, self.measured, self.failure = name, [], [], {}, ""
        self._patience = patience
        path = directory / f"{name.replace(':', '_')}.json"
        path.write_text(json.dumps({**spec, "kind": kind.removeprefix("torch-"), "batch": int(batch)}))
        self._command = [python, str(TOOLS / f"step_{SCRIPTS[kind]}.py"), str(path)]
        self._log = directory / f"{name.replace(':', '_')}.log"
        self._process: subprocess.Popen | None = None

    def unless_failed(self, act: Callable[..., None], *args) -> None:
        """Does something with it, or ends it and keeps the reason."""
        if not self.failure:
            try:
                act(self, *args)
            except Failed as failure:
                self.failure = str(failure)
                self.kill()

    def start(self) -> None:
        """Starts the process, and counts the seconds to its first step's end."""
        begin = time.perf_counter()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                env=SHARING,
                start_new_session=True,
            )
        self.about = self._answer()["about"]
        self.starts.append(time.perf_counter() - begin)

    def turn(self, seconds: float) -> None:
        """Takes complete steps until the given number of seconds is over."""
        steps = []
        while sum(step["wall"] for step in steps) < seconds:
            steps.append(self.ask("step"))
        self.turns.append(steps)

    def ask(self, what: str) -> dict:
        """Sends a word and returns the answer."""
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # Of one that has ended the answer says so.
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        return self._answer()

    def tell(self, what: str) -> None:
        """Asks for something to tell below the table."""
        self.measured |= self.ask(what)

    def end(self) -> None:
        """Ends the process and reads its peak memory; the memory of the device is free when this returns."""
        self.tell("end")
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=60)
        self.kill()

    def kill(self) -> None:
        """Ends the process if it still runs, and those that it started: Torch compiles in others."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def rates(self, clock: str) -> list[float]:
        """Real tokens a second in each round."""
        return [sum(step["tokens"] for step in turn) / sum(step[clock] for step in turn) for turn in self.turns]

    def _answer(self) -> dict:
        assert self._process is not None and self._process.stdout is not None
        late = threading.Timer(self._patience, self.kill)
        late.start()
        begin = time.perf_counter()
        try:
            for line in self._process.stdout:
                if line.startswith(MARK):
                    return json.loads(line.removeprefix(MARK))
        finally:
            late.cancel()
        tail = "\n".join(self._log.read_text().splitlines()[-15:])
        raise Failed(f"ended before it answered, after {time.perf_counter() - begin:.0f} s:\n{tail}")


def compete(names, *, pythons, spec, given, directory: Path) -> list[Contender]:
    """Starts each contender and lets them take turns, or does so with one after the other."""
    contenders = [
        Contender(
            name,
            python=pythons[SCRIPTS[name.partition(":")[0]]],
            spec=spec,
            directory=directory,
            patience=given.patience,
        )
        for name in names
        if pythons[SCRIPTS[name.partition(":")[0]]]
    ]
    with contextlib.ExitStack() as ending:
        for contender in contenders:
            ending.callback(contender.kill)
        for together in [[contender] for contender in contenders] if given.alone else [contenders]:
            for contender in together:
                for _ in range(given.starts - 1):
                    contender.unless_failed(Contender.start)
                    contender.unless_failed(Contender.end)
                contender.unless_failed(Contender.start)
            for number in range(given.rounds):
                for contender in together if number % 2 else together[::-1]:
                    contender.unless_failed(Contender.turn, given.turn_seconds)
            for contender in together:
                if given.parts:
                    contender.unless_failed(Contender.tell, "extra")
            # Asked for last, when the profile has been taken; the peak of steps alone where none was.
            for contender in together:
                contender.unless_failed(Contender.end)
    return contenders


def comparison(contenders: list[Contender], *, title: str) -> Table:
    heads = ("contender", "examples", "s/step", "CPU s/step", "real", "tokens/s", "spread", "tokens/CPU s")
    table = Table(*heads, "ours/it", "ours/it CPU", "start s", "again", "peak GB", title=title)
    has_device = any(contender.measured.get("device_peak_bytes") for contender in contenders)
    if has_device:
        table.add_column("device")
    first, rounds = contenders[0], max(len(contender.turns) for contender in contenders)
    for contender in contenders:
        if not rounds or len(contender.turns) < rounds:
            continue
        steps = [step for turn in contender.turns for step in turn]
        wall, processor = ([step[clock] for step in steps] for clock in ("wall", "processor"))
        tokens = sum(step["tokens"] for step in steps)
        rates = contender.rates("wall")
        quotients = [
            f"{statistics.median(a / b for a, b in zip(first.rates(clock), contender.rates(clock), strict=True)):.2f}"
            if contender is not first and len(first.turns) == rounds
            else ""
            for clock in ("wall", "processor")
        ]
        peaks = [contender.measured.get(name, 0) or 0 for name in ("peak_bytes", "device_peak_bytes")]
        table.add_row(
            contender.name,
            f"{statistics.mean(step['examples'] for step in steps):.1f}",
            f"{statistics.median(wall):.2f}",
            f"{statistics.median(processor):.2f}",
            f"{tokens / sum(step['positions'] for step in steps):.0%}",
            f"{tokens / sum(wall):.0f}",
            f"{min(rates):.0f}-{max(rates):.0f}",
            f"{tokens / sum(processor):.0f}",
            *quotients,
            f"{contender.starts[0]:.1f}",
            f"{contender.starts[-1]:.1f}" if len(contender.starts) > 1 else "",
            *(f"{peak / 1e9:.2f}" if peak else "" for peak in peaks[: 1 + has_device]),
        )
    return table


def parts(contenders: list[Contender], *, title: str) -> Table:
    names = ("attention", "feed-forward", "loss", "optimizer", "rest")
    table = Table("contender", "TFLOP/s", "ceiling", "share", *names, "gap", "temp GB", title=title)
    for contender in contenders:
        measured = contender.measured
        if "shares" not in measured:
            continue
        seconds = statistics.median(step["wall"] for turn in contender.turns for step in turn)
        speed = measured["step_flops"] / seconds
        table.add_row(
            contender.name,
            f"{speed / 1e12:.3g}",
            f"{measured['ceiling_flops'] / 1e12:.3g}",
            f"{speed / measured['ceiling_flops']:.0%}",
            *(f"{measured['shares'][name]:.0%}" for name in names),
            f"{measured['gap_share']:.0%}",
            f"{measured['temporary_bytes'] / 1e9:.2f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", default=DEFAULT_CONTENDERS, metavar="NAME:BATCH", help="ours first")
    parser.add_argument("--torch-python", help="interpreter that has torch and transformers")
    parser.add_argument("--t5x-python", help="interpreter that has T5X")
    parser.add_argument("--export-dir", help="take examples from an export instead")
    parser.add_argument("--mixture", help="of the export")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small"])
    parser.add_argument("--lengths", nargs=2, type=int, default=(512, 128))
    parser.add_argument("--vocab-size", type=int, default=32_128)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn-seconds", type=float, default=10.0)
    parser.add_argument("--starts", type=int, default=2, help="fresh processes of each contender; the last one steps")
    parser.add_argument("--alone", action="store_true", help="one contender after the other instead of turns")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds in which an answer has to come")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the torch contenders")
    parser.add_argument("--parts", action="store_true", help="where our step goes, and its share of the ceiling")
    given = parser.parse_args()
    for name in given.contenders:
        if name.partition(":")[0] not in SCRIPTS or not name.partition(":")[2].isdecimal():
            parser.error(f"{name!r} is no contender; write NAME:BATCH with a name of {', '.join(SCRIPTS)}")
    pythons = {"ours": sys.executable, "torch": given.torch_python, "t5x": given.t5x_python}
    console = Console(width=160)
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as directory:
            examples = Path(directory, "examples.npz")
            np.savez(
                examples,
                **(
                    exported(given.export_dir, given.mixture)
                    if given.export_dir
                    else synthetic(given.lengths, vocab_size=given.vocab_size)
                ),
            )
            spec = {
                "sizes": {"vocab_size": given.vocab_size, **SIZES[size]},
                "lengths": list(given.lengths),
                "dtype": given.dtype,
                "dropout": given.dropout,
                "seed": 0,
                "examples": str(examples),
                "compile": given.compile,
                "compile_cache": str(Path(directory, "compiled")),
            }
            contenders = compete(given.contenders, pythons=pythons, spec=spec, given=given, directory=Path(directory))
        lengths, data = "/".join(map(str, given.lengths)), given.mixture or "log-normal lengths"
        what = f"T5 1.1 {size}, {lengths}, {given.dtype}, {data}"
        console.print(comparison(contenders, title=what))
        if given.parts:
            console.print(parts(contenders, title=f"{what}: where our step goes"))
        for contender in contenders:
            if contender.failure:
                console.print(f"{contender.name}: {contender.failure}", markup=False, highlight=False)
            if not contender.starts:
                continue
            about = contender.about
            versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
            steps = sum(map(len, contender.turns))
            console.print(
                f"{contender.name}: {about['parameters']:,} parameters, {versions}; {about['notes']}; {steps} steps"
            )
        for name in given.contenders:
            if not pythons[SCRIPTS[name.partition(":")[0]]]:
                console.print(f"{name}: left out, no --{SCRIPTS[name.partition(':')[0]]}-python")
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    console.print(f"{os.cpu_count()} cores, load of the last 1, 5 and 15 minutes {load}\npython {' '.join(sys.argv)}")


if __name__ == "__main__":
    main()
