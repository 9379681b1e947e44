"""What the contenders of step.py share: their specification, padding, and the protocol of taking turns.

Runs under each contender's own interpreter, so it imports nothing but NumPy.
"""

import importlib.metadata
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

MARK = "@bench "  # Libraries print too; the driver reads lines with this prefix.
MEGABATCH = 50  # Batches that are sorted by length together, as transformers' Trainer does.
GOLDEN = 0.6180339887498949


def read_spec() -> dict:
    """Returns the driver's specification: sizes, lengths, batch, compute type, dropout, seed, path of the examples."""
    return json.loads(Path(sys.argv[1]).read_text())


def read_examples(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns pairs of inputs and targets, int32, end of sequence included."""
    with np.load(path) as arrays:
        sides = [np.split(arrays[side], np.cumsum(arrays[f"{side}_lengths"])[:-1]) for side in ("inputs", "targets")]
    return list(zip(*sides, strict=True))


def write_rows(path: Path, rows: list[list[int]]) -> None:
    """Writes token ids of several rows."""
    np.savez(path, tokens=np.concatenate(rows).astype(np.int32), lengths=[len(row) for row in rows])


def read_rows(path: str) -> list[list[int]]:
    """Returns the token ids of several rows."""
    with np.load(path) as arrays:
        return [row.tolist() for row in np.split(arrays["tokens"], np.cumsum(arrays["lengths"])[:-1])]


def padded_batches(examples, *, batch: int, is_grouped: bool, seed: int) -> Iterator[list[int]]:
    """Yields, forever, the indices of the examples of a batch.

    In random order, or in batches of similar length: shuffled, split into runs of 50 batches, each run sorted. Complete
    passes equal those of training. Within a pass, batches are ordered so that any few consecutive ones, such as those
    that are timed, have long and short ones in proportion.
    """
    lengths = np.array([len(inputs) for inputs, _ in examples])
    targets = np.array([len(target) for _, target in examples])
    for number in range(sys.maxsize):
        order = np.random.default_rng((seed, number)).permutation(len(lengths))
        if is_grouped:
            runs = [order[i : i + MEGABATCH * batch] for i in range(0, len(order), MEGABATCH * batch)]
            order = np.concatenate([run[np.argsort(-lengths[run], kind="stable")] for run in runs])
        batches = order[: len(order) // batch * batch].reshape(-1, batch)
        cost = lengths[batches].max(axis=1) + targets[batches].max(axis=1)
        yield from batches[np.argsort(cost, kind="stable")][_spread(len(batches))].tolist()


def _spread(count: int) -> np.ndarray:
    """The numbers below `count` in an order of which every stretch is spread evenly over them."""
    return np.argsort(np.argsort((np.arange(count) * GOLDEN + 0.5) % 1.0))


def versions(*names: str) -> dict[str, str]:
    """Returns those of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def tell(message: dict) -> None:
    """Says something to the driver."""
    print(MARK + json.dumps(message), flush=True)


class Server:
    """A process that answers lines on its standard input with messages."""

    def __init__(self, command: list[str], spec: Path, *, stderr: int | None = None):
        self._process = subprocess.Popen(
            [*command, str(spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        self.about = self._answer()["about"]

    def ask(self, request: str) -> dict:
        assert self._process.stdin is not None
        print(request, file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"The contender has ended: {self._process.wait()}.")


def serve(step: Callable[[], dict], *, about: dict, extra: Callable[[], dict] | None = None) -> None:
    """Takes the first step, then follows the commands on standard input until it ends.

    Args:
      step: takes a complete step and returns `examples`, `tokens` (without padding), `positions` and `loss`.
      about: of the contender, for the table's notes.
      extra: further measurements, made on request.
    """
    tell({"first": step(), "about": about})
    for line in sys.stdin:
        match line.strip():
            case "step":
                wall, processor = time.perf_counter(), time.process_time()
                done = step()
                tell({**done, "wall": time.perf_counter() - wall, "processor": time.process_time() - processor})
            case "extra":
                tell({} if extra is None else extra())
            case "end":
                tell({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
                return
