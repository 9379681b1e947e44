"""A checkpoint of one format into another: opened, checked, written beside its place, read back, and only then put there.

Tensor by tensor, in parts: what a conversion needs in memory does not grow with the model. What comes out is compared
with what went in by one digest over our names, so that a kernel transposed or a layer left out is an error here and not
a bad model later.
"""

import dataclasses
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from flan_jax import files, vocab
from flan_jax.checkpoint import formats, own
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.checkpoint.leaves import BFLOAT16, cast, same_dtypes
from flan_jax.checkpoint.starts import require_same_network
from flan_jax.checkpoint.t5x import writing
from flan_jax.checkpoint.weights import FORMATS, Format, Weights
from flan_jax.errors import UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import require_shapes
from flan_jax.names import nearest

DTYPES: Mapping[str, np.dtype] = {"float32": np.dtype(np.float32), "bfloat16": BFLOAT16}
_OVERHEAD_BYTES = 2**24


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """How the output is written.

    Attributes:
      format: "flan_jax", "t5x" or "hf".
      dtype: "float32" or "bfloat16", of the parameters; None keeps the checkpoint's own.
      scanned: of "t5x": layers stacked, as its `scalable_t5` has them.
      max_shard_bytes: of "hf": the largest file.
      verify: whether the output is read back and compared.
      params_only: leaves Adafactor's state out; the step stays.
    """

    format: Format
    dtype: str | None = None
    params_only: bool = False
    scanned: bool = False
    max_shard_bytes: int = 5 * 10**9
    verify: bool = True

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(
                f"No format {self.format!r}; allowed are {', '.join(FORMATS)}.{nearest(str(self.format), FORMATS)}"
            )
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UserError(
                f"dtype is {self.dtype!r}; allowed are {', '.join(DTYPES)}.{nearest(str(self.dtype), DTYPES)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """What a conversion did.

    Attributes:
      source: as it was opened.
      target: as it was read back.
      digest: of the parameters as written, under our names.
      seconds: wall time, writing and reading back.
    """

    source: Weights
    target: Weights
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
    """Writes weights in another format.

    Args:
      weights: opened; nothing is written unless all of it can be.
      to: a directory that does not exist or is empty.
      choices: what to write.
      model: the network, where it is known; decides the activations, which shapes do not tell.
      vocabulary: put beside the weights; None: the one that lies with them.

    Raises:
      UserError: the weights are no whole T5, mix types, do not fit `model`, or the output is not equal to them.
    """
    started = time.monotonic()
    config = required_config(weights, model)
    slots = {} if choices.params_only else weights.slots
    weights = _typed(dataclasses.replace(weights, config=config, slots=slots), choices)
    vocabulary = vocabulary or vocabulary_of(weights)
    _require_room_for_ids(vocabulary, config, place=weights.path)
    to = to.expanduser().absolute()
    if choices.format == "t5x" and re.fullmatch(r"checkpoint_\d+", to.name):
        raise UserError(
            f"T5X's checkpoints lie in the directory of a run, and get their names there: give --to={to.parent} (a new "
            f"directory), not {to.name} in it."
        )
    _require_free_place(to, weights)
    digest = _digest(weights, choices) if choices.verify else None
    partial = to.with_name(f".{to.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        _WRITERS[choices.format](weights, partial, choices, vocabulary, digest)
        if digest is not None:
            _compare(weights, formats.open_weights(partial), digest)
        if to.exists():
            to.rmdir()
        partial.rename(to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    target = formats.open_weights(to)
    return Converted(source=weights, target=target, digest=digest, seconds=time.monotonic() - started)


def required_config(weights: Weights, model: T5Config | None) -> T5Config:
    """Returns the network of the weights: the one given, or the one that they say or show.

    Raises:
      UserError: they are no whole T5, or not this one.
    """
    config = model or weights.config
    if config is None:
        reason = " ".join(weights.notes)
        raise UserError(f"{weights.path} does not hold one whole T5, so that it cannot be converted. {reason}")
    require_shapes({name: leaf.shape for name, leaf in weights.params.items()}, config, place=weights.path)
    require_same_network(weights, config)
    return config


def vocabulary_of(weights: Weights) -> vocab.Vocabulary | None:
    """Returns the vocabulary that lies with weights, None when there is none."""
    if weights.is_byte_vocabulary:
        return vocab.load("bytes", extra_ids=weights.metadata.get("extra_ids"))
    if weights.vocabulary_file is None:
        return None
    return vocab.load(str(weights.vocabulary_file), extra_ids=weights.metadata.get("extra_ids"))


def _typed(weights: Weights, choices: Choices) -> Weights:
    """Returns the weights in the type asked for; without one they have to be of one type that can be written."""
    groups = same_dtypes(dict(weights.params))
    if choices.dtype is not None:
        wanted = DTYPES[choices.dtype]
        return dataclasses.replace(weights, params={n: cast(leaf, wanted) for n, leaf in weights.params.items()})
    usual, most = next(iter(groups.items()))
    for dtype, names in groups.items():
        if dtype != usual:
            raise UserError(
                f"{weights.path} mixes types: {names[0]} is {dtype} ({len(names)} such), where {len(most)} others are "
                f"{usual}. Give --dtype=float32 (or bfloat16) to have all of them cast."
            )
    if usual not in DTYPES.values():
        raise UserError(
            f"{weights.path}: {most[0]} and others are {usual}, which cannot be kept. Give --dtype=float32."
        )
    return weights


def _digest(weights: Weights, choices: Choices) -> str:
    """Returns the digest of the parameters; refuses those that no longer have the digest that they say they have."""
    digest = leaves_digest(weights.params)
    said = weights.metadata.get("params_digest")
    if said is not None and said != digest and choices.dtype is None:
        raise UserError(
            f"The parameters of {weights.path} have the digest {digest[:12]}, and its metadata says {said[:12]}: they have "
            "changed since they were written. Copy the checkpoint anew, or convert it again."
        )
    return digest


def _compare(weights: Weights, written: Weights, digest: str) -> None:
    """Refuses an output that is not the input."""
    if leaves_digest(written.params) != digest:
        raise RuntimeError(
            f"What was written of {weights.path} reads back differently, and was removed: {_differing(weights, written)}."
        )
    if written.slots and leaves_digest(written.slots) != leaves_digest(weights.slots):
        raise RuntimeError(f"The optimiser's state of {weights.path} reads back differently; nothing was kept.")


def _differing(weights: Weights, written: Weights) -> str:
    for name, leaf in weights.params.items():
        if name not in written.params:
            return f"{name} is missing"
        if leaves_digest({name: leaf}) != leaves_digest({name: written.params[name]}):
            return f"{name} has other values"
    return "it holds more than was to be written"


def _require_free_place(to: Path, weights: Weights) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} exists and is not empty. Choose another --to, or remove it.")
    needed = sum(leaf.nbytes for leaf in (*weights.params.values(), *weights.slots.values()))
    files.require_writable_directory(to.parent, setting="The directory of --to")
    files.require_free_space(to.parent, needed + _OVERHEAD_BYTES, for_what=f"the converted checkpoint {to.name}")


def _require_room_for_ids(vocabulary: vocab.Vocabulary | None, config: T5Config, *, place: str) -> None:
    if vocabulary is not None and vocabulary.size > config.vocab_size:
        raise UserError(
            f"The vocabulary has {vocabulary.size} ids, and the embedding table of {place} has {config.vocab_size} rows: "
            "it is not the vocabulary that these weights were trained with."
        )


def _write_own(
    weights: Weights, directory: Path, choices: Choices, vocabulary: vocab.Vocabulary | None, digest: str | None
) -> None:
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
    if digest is not None:
        metadata["params_digest"] = digest
    own.write(weights, directory, metadata=metadata)
    if isinstance(vocabulary, vocab.SentencePieceVocabulary):
        shutil.copyfile(vocabulary.path, directory / own.VOCABULARY_FILE)


def _write_t5x(
    weights: Weights, directory: Path, choices: Choices, vocabulary: vocab.Vocabulary | None, digest: str | None
) -> None:
    place = directory / f"checkpoint_{weights.step or 0}"
    place.mkdir()
    writing.write(weights, place, layout="scanned" if choices.scanned else "unrolled")


def _write_hf(
    weights: Weights, directory: Path, choices: Choices, vocabulary: vocab.Vocabulary | None, digest: str | None
) -> None:
    is_sentencepiece = isinstance(vocabulary, vocab.SentencePieceVocabulary)
    huggingface.write(
        weights,
        directory,
        max_shard_bytes=choices.max_shard_bytes,
        vocabulary_file=Path(vocabulary.path) if is_sentencepiece else None,  # type: ignore[union-attr]
        is_byte_vocabulary=isinstance(vocabulary, vocab.ByteVocabulary),
        extra_ids=None if vocabulary is None else vocabulary.extra_ids,
        eos_id=1 if vocabulary is None else vocabulary.eos_id,
    )


_WRITERS: dict[Format, Callable[[Weights, Path, Choices, vocab.Vocabulary | None, str | None], None]] = {
    "flan_jax": _write_own,
    "t5x": _write_t5x,
    "hf": _write_hf,
}
