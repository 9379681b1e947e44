"""`flan-jax convert`: weights between this project, T5X and Hugging Face."""

import resource
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flan_jax import vocab
from flan_jax.checkpoint import conversion, formats
from flan_jax.models.config import T5Config
from flan_jax.models.families import recognise
from flan_jax.run.terminal import console
from flan_jax.run.trained import vocabulary_of_run


def convert(
    *,
    from_: str,
    to: str,
    format: str,
    step: int | None = None,
    dtype: str | None = None,
    params_only: bool = False,
    vocabulary: str | None = None,
    model: T5Config | None = None,
    scanned: bool = False,
    max_shard_bytes: int = 5 * 10**9,
    verify: bool = True,
) -> None:
    """Converts a checkpoint; nothing is left behind unless all of it was written and reads back the same.

    Args:
      from_: a run, one of its checkpoints, a T5X checkpoint (local or gs://) or a Hugging Face folder.
      to: a directory that does not exist yet.
      format: "flan_jax", "t5x" or "hf".
      step: which of several checkpoints; the latest unless given.
      dtype: "float32" or "bfloat16"; the checkpoint's own unless given.
      params_only: leaves Adafactor's state out, which "flan_jax" and "t5x" keep otherwise.
      vocabulary: goes with the weights: a SentencePiece model, "embedded" or "bytes"; None: the run's, or what lies there.
      model: the network, where shapes do not tell its activations (--gin_file=runs/convert.gin).
      scanned: to "t5x": layers stacked, for its `scalable_t5`.
      max_shard_bytes: to "hf": the largest file.
      verify: whether the output is read back and compared.

    Raises:
      FileNotFoundError: there is nothing at `from_`.
      ValueError: the checkpoint is incomplete, of no known format or no whole T5, or `to` is not free.
    """
    choices = conversion.Choices(
        format=format,  # type: ignore[arg-type]
        dtype=dtype,
        params_only=params_only,
        scanned=scanned,
        max_shard_bytes=max_shard_bytes,
        verify=verify,
    )
    weights = formats.open_weights(from_, step=step)
    found = vocab.load(vocabulary) if vocabulary else _vocabulary_beside(from_, weights.format)
    done = conversion.convert(weights, Path(to), choices=choices, model=model, vocabulary=found)
    console().print(_told(done, to))


def _vocabulary_beside(path: str, format: str) -> vocab.Vocabulary | None:
    """Returns the vocabulary of the run that a path leads to, or into."""
    if format != "flan_jax" or "://" in path:
        return None
    place = Path(path).expanduser().absolute()
    for directory in (place, place.parent, place.parent.parent):  # A run, its checkpoints, one of them.
        if found := vocabulary_of_run(directory):
            return found
    return None


def _told(done: conversion.Converted, to: str) -> RenderableType:
    """Returns the table of what was done."""
    source, target = done.source, done.target
    assert source.config is not None
    size = sum(leaf.size for leaf in source.params.values())
    rows: dict[str, Any] = {
        "from": f"{source.path} ({source.format}: {source.layout})",
        "to": f"{to} ({target.format}: {target.layout})",
        "network": f"{recognise(source.config).title}"
        + ("" if source.config_is_stated else "; recognised by its shapes, which do not tell the activations"),
        "parameters": f"{size:,} in {len(source.params):,} tensors",
        "step": "-" if source.step is None else f"{source.step:,}",
        "optimiser": f"Adafactor, {len(target.slots):,} tensors" if target.slots else "not carried over",
        "digest": done.digest or "not compared (--verify=false)",
        "time, memory": f"{done.seconds:.1f} s, {peak_gib():.2f} GiB at most",
    }
    rows |= {f"note {number}": note for number, note in enumerate((*source.notes, *target.notes), start=1)}
    table = Table(box=box.SIMPLE, show_header=False)
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), Text(str(value), overflow="fold"))
    return Group(Text("converted; what was written reads back the same" if done.digest else "converted"), table)


def peak_gib() -> float:
    """Returns the most memory that this process has had, files mapped into it included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
