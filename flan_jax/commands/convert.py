"""`flan-jax convert`: converts weights between this project, T5X and Hugging Face."""

import dataclasses
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
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.families import recognize
from flan_jax.paths import Location, location, user_path
from flan_jax.run.trained import vocabulary_of_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """A finished conversion and the directory that it was written to."""

    done: conversion.Converted
    to: str

    def __rich__(self) -> RenderableType:
        """Shows what was converted, and the digest of the parameters."""
        done, source, digest = self.done, self.done.source, self.done.digest
        assert source.config is not None
        size = sum(leaf.size for leaf in source.params.values())
        rows: dict[str, Any] = {
            "from": f"{source.path} ({source.format}: {source.layout})",
            "to": f"{self.to} ({done.format}: {done.layout})",
            "network": f"{recognize(source.config).title}"
            + ("" if source.config_is_stated else "; recognized by its shapes, which do not determine the activations"),
            "parameters": f"{size:,} in {len(source.params):,} tensors",
            "step": "-" if source.step is None else f"{source.step:,}",
            "optimizer": f"Adafactor, {done.optimizer_arrays:,} tensors" if done.optimizer_arrays else "not converted",
            "digest": digest or "not compared (--verify=false)",
            "time, memory": f"{done.seconds:.1f} s, {peak_gib():.2f} GiB at most",
        }
        notes = (*source.warnings, *source.notes, *done.notes)
        rows |= {f"note {number}": note for number, note in enumerate(notes, start=1)}
        table = Table(box=box.SIMPLE, show_header=False)
        for name, value in rows.items():
            table.add_row(Text(name, style="dim"), Text(str(value), overflow="fold"))
        return Group(Text("converted; the output reads back the same" if digest else "converted"), table)


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
    strict: bool = False,
) -> Conversion:
    """Converts a checkpoint; the output appears only when it is complete and reads back the same.

    Args:
      from_: A run, one of its checkpoints, a T5X checkpoint (local or gs://) or a Hugging Face directory.
      to: A directory that does not exist yet.
      format: "flan_jax", "t5x" or "hf".
      step: The step of the checkpoint; None uses the latest.
      dtype: "float32" or "bfloat16"; None retains the checkpoint's own.
      params_only: Leaves out Adafactor's state, which "flan_jax" and "t5x" retain otherwise.
      vocabulary: The vocabulary to store with the weights: a SentencePiece model, a Hugging Face folder, "embedded" or
        "bytes"; None uses the run's, or the one next to the weights.
      model: The network, when the shapes do not determine its activations (--gin_file=runs/convert.gin).
      scanned: For "t5x": layers stacked, for its `scalable_t5`.
      max_shard_bytes: For "hf": the size of the largest file.
      verify: Whether the output is read back and compared.
      strict: Whether a damaged newest checkpoint of a run is an error; otherwise the newest intact one is converted.

    Raises:
      MissingFileError: There is nothing at `from_`.
      UserError: The checkpoint is incomplete, of an unknown format or not a complete T5, or `to` is not empty.
    """
    choices = conversion.Choices(
        format=format,  # type: ignore[arg-type]
        dtype=dtype,
        params_only=params_only,
        scanned=scanned,
        max_shard_bytes=max_shard_bytes,
        verify=verify,
    )
    source = location(from_)
    weights = formats.open_weights(source, step=step, strict=strict)
    stored = vocab.load(vocabulary) if vocabulary else _vocabulary_of_run(source, weights.format)
    done = conversion.convert(weights, user_path(to), choices=choices, model=model, vocabulary=stored)
    return Conversion(done=done, to=to)


def _vocabulary_of_run(path: Location, format: str) -> vocab.Vocabulary | None:
    """Returns the vocabulary of the run that a path is, or is inside of."""
    if format != "flan_jax" or not isinstance(path, Path):
        return None
    for directory in (path, path.parent, path.parent.parent):  # A run, its checkpoints, or one of them.
        if vocabulary := vocabulary_of_run(directory):
            return vocabulary
    return None


def peak_gib() -> float:
    """Returns the peak memory of this process, including mapped files."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
