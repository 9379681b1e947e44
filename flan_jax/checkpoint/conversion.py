"""Converts a checkpoint to another format: writes to a temporary folder, reads back, compares, and then renames.

Tensors are converted one by one, in parts, so that memory does not grow with the model. The output is compared with the
input by a digest over this project's names: a transposed kernel or a missing layer is an error here, not a bad model
later.
"""

import dataclasses
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from flan_jax import files, vocab
from flan_jax.checkpoint import formats, native
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.checkpoint.leaves import BFLOAT16, cast, same_dtypes
from flan_jax.checkpoint.starts import require_same_network
from flan_jax.checkpoint.t5x import writing
from flan_jax.checkpoint.verification import write_digests
from flan_jax.checkpoint.weights import FORMATS, Format, Weights
from flan_jax.errors import UserError
from flan_jax.locks import locked
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import require_shapes
from flan_jax.names import require_choice

DTYPES: Mapping[str, np.dtype] = {"float32": np.dtype(np.float32), "bfloat16": BFLOAT16}
# Index, configuration and tokenizer; mT5's SentencePiece model alone has 4 MB.
_OVERHEAD_BYTES = 2**24


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """How the output is written.

    Attributes:
      format: "flan_jax", "t5x" or "hf".
      dtype: Of the parameters, "float32" or "bfloat16"; None keeps the checkpoint's.
      params_only: Omits Adafactor's state, but not the step.
      scanned: Stacks layers, for T5X's `scalable_t5`; for "t5x" only.
      max_shard_bytes: Size of the largest file; for "hf" only.
      verify: Whether the output is read back and compared.
    """

    format: Format
    dtype: str | None = None
    params_only: bool = False
    scanned: bool = False
    max_shard_bytes: int = 5 * 10**9  # The default of transformers 4.
    verify: bool = True

    def __post_init__(self) -> None:
        require_choice(self.format, FORMATS, "format")
        if self.dtype is not None:
            require_choice(self.dtype, DTYPES, "dtype")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """Result of a conversion.

    Attributes:
      source: The weights, after a cast.
      format: Of the output.
      layout: Of the output.
      optimizer_arrays: Number of arrays of Adafactor's state in the output.
      notes: On the output.
      digest: Of the parameters, by this project's names; None if they were not compared.
      seconds: Wall time of writing and reading back.
    """

    source: Weights
    format: Format
    layout: str
    optimizer_arrays: int
    notes: tuple[str, ...]
    digest: str | None
    seconds: float


def convert(
    weights: Weights,
    to: Path,
    *,
    choices: Choices,
    model: T5Config | None = None,
    vocabulary: vocab.Vocabulary | None = None,
) -> Converted:
    """Writes weights in another format. Nothing remains at `to` unless all of it was written.

    Args:
      weights: The opened checkpoint.
      to: A directory that does not exist or is empty.
      choices: How to write.
      model: The network, where it is known; decides the activations, which do not follow from shapes.
      vocabulary: Written with the weights; None selects the one stored with them.

    Raises:
      UserError: The weights are not a complete T5, mix types, do not match `model`, or differ from the output.
    """
    started = time.monotonic()
    config = required_config(weights, model)
    slots = {} if choices.params_only else weights.slots
    weights = _typed(dataclasses.replace(weights, config=config, slots=slots), choices)
    vocabulary = vocabulary or weights.vocabulary
    require_rows_for_ids(vocabulary, config, path=weights.path)
    if choices.format == "t5x" and re.fullmatch(r"checkpoint_\d+", to.name):
        raise UserError(
            f"T5X's checkpoints are folders of a run's directory, and named by the conversion: give --to={to.parent} "
            f"(a new directory), not {to.name} in it."
        )
    _require_empty(to, weights)
    # Before writing, because the output's metadata contain it.
    digest = leaves_digest(weights.params) if choices.verify else None
    # A sibling, so that renaming is one atomic operation of the same file system.
    partial = to.with_name(f".{to.name}.partial")
    with locked(to.with_name(f".{to.name}.lock"), what=f"--to={to}"):
        _require_empty(to, weights)  # Again: another conversion may have ended meanwhile.
        shutil.rmtree(partial, ignore_errors=True)  # Of a conversion that was killed.
        partial.mkdir(parents=True)
        try:
            _write(weights, partial, choices, vocabulary, digest)
            # By the public reader: what is compared is what a user will open.
            written = formats.open_weights(partial)
            if digest is not None:
                _compare(weights, written, digest)
            if to.exists():
                to.rmdir()
            partial.rename(to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Converted(
        source=weights,
        format=written.format,
        layout=written.layout,
        optimizer_arrays=len(written.slots),
        notes=written.notes + _not_written(vocabulary, choices),
        digest=digest,
        seconds=time.monotonic() - started,
    )


def required_config(weights: Weights, model: T5Config | None) -> T5Config:
    """Returns the network of the weights: `model`, or the one that the checkpoint records or that its shapes show.

    Raises:
      UserError: The weights are not a complete T5, or not of `model`.
    """
    config = model or weights.config
    if config is None:
        reason = " ".join(weights.notes)
        raise UserError(f"{weights.path} is not a complete T5 and cannot be converted. {reason}")
    require_shapes({name: leaf.shape for name, leaf in weights.params.items()}, config, place=weights.path)
    # Two networks can have the same shapes: a gated gelu and a gated silu, scaled logits or not.
    require_same_network(weights, config)
    return config


def require_rows_for_ids(vocabulary: vocab.Vocabulary | None, config: T5Config, *, path: str) -> None:
    """Refuses a vocabulary with more ids than a network has embeddings.

    Args:
      vocabulary: The vocabulary, None if there is none.
      config: The network of the weights.
      path: The weights, for the message.

    Raises:
      UserError: The last ids have no row.
    """
    if vocabulary is not None and vocabulary.size > config.vocab_size:
        raise UserError(
            f"The vocabulary has {vocabulary.size} ids, but the embedding table of {path} has {config.vocab_size} "
            "rows: these weights were trained with another vocabulary."
        )


def _typed(weights: Weights, choices: Choices) -> Weights:
    """Returns the weights in the requested type. Without one they must have a single type that can be written."""
    groups = same_dtypes(weights.params)
    if choices.dtype is not None:
        dtype = DTYPES[choices.dtype]
        # Parameters only: T5X, too, saves Adafactor's moments in float32 next to parameters of another type.
        return dataclasses.replace(weights, params={n: cast(leaf, dtype) for n, leaf in weights.params.items()})
    usual, most = next(iter(groups.items()))
    for dtype, names in groups.items():
        if dtype != usual:
            raise UserError(
                f"{weights.path} mixes types: {names[0]} is {dtype} ({len(names)} such), but {len(most)} others are "
                f"{usual}. Give --dtype=float32 (or bfloat16) to cast all of them."
            )
    if usual not in DTYPES.values():
        raise UserError(
            f"{weights.path}: {most[0]} and others are {usual}, which cannot be written. Give --dtype=float32."
        )
    return weights


def _compare(weights: Weights, written: Weights, digest: str) -> None:
    """Rejects an output that differs from the input."""
    if leaves_digest(written.params) != digest:
        # Our defect, not the user's, hence no UserError.
        raise RuntimeError(
            f"The output of {weights.path} reads back differently and was removed: {_difference(weights, written)}."
        )
    if written.slots and leaves_digest(written.slots) != leaves_digest(weights.slots):
        raise RuntimeError(f"The optimizer's state of {weights.path} reads back differently; the output was removed.")


def _difference(weights: Weights, written: Weights) -> str:
    for name, leaf in weights.params.items():
        if name not in written.params:
            return f"{name} is missing"
        if leaves_digest({name: leaf}) != leaves_digest({name: written.params[name]}):
            return f"{name} has other values"
    return "it has additional parameters"


def _require_empty(to: Path, weights: Weights) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} exists and is not empty. Choose another --to, or remove it.")
    needed_bytes = sum(leaf.nbytes for leaf in (*weights.params.values(), *weights.slots.values()))
    files.require_writable_directory(to.parent, setting="The directory of --to")
    files.require_free_space(to.parent, needed_bytes + _OVERHEAD_BYTES, for_what=f"the converted checkpoint {to.name}")


def _not_written(vocabulary: vocab.Vocabulary | None, choices: Choices) -> tuple[str, ...]:
    """Returns a note on added tokens that the output cannot hold."""
    added = vocabulary.added if isinstance(vocabulary, vocab.SentencePieceVocabulary) else None
    if choices.format != "t5x" or added is None:
        return ()
    return (
        f"T5X stores no vocabulary, and SeqIO's have no added tokens: those of these weights ({len(added.tokens)}) are "
        "not in the output. Give the original folder as --vocabulary when it is converted back.",
    )


def _write(
    weights: Weights, directory: Path, choices: Choices, vocabulary: vocab.Vocabulary | None, digest: str | None
) -> None:
    if choices.format == "hf":
        huggingface.write(weights, directory, max_shard_bytes=choices.max_shard_bytes, vocabulary=vocabulary)
        write_digests(directory)
    elif choices.format == "t5x":
        checkpoint = directory / f"checkpoint_{weights.step or 0}"
        checkpoint.mkdir()
        writing.write(weights, checkpoint, layout="scanned" if choices.scanned else "unrolled")
        write_digests(checkpoint)
    else:
        native.write(weights, directory, metadata=_metadata(weights, vocabulary, digest))
        if isinstance(vocabulary, vocab.SentencePieceVocabulary):
            (directory / native.VOCABULARY_FILE).write_bytes(vocabulary.content)


def _metadata(weights: Weights, vocabulary: vocab.Vocabulary | None, digest: str | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "model": dataclasses.asdict(weights.config),  # type: ignore[arg-type]
        "converted_from": {"format": weights.format, "layout": weights.layout},
    }
    if vocabulary is not None:
        metadata |= {
            "vocabulary_digest": vocabulary.digest,
            "vocabulary": vocabulary.kind,
            "extra_ids": vocabulary.extra_ids,
        }
    return metadata if digest is None else metadata | {"params_digest": digest}
