"""Folders of Hugging Face's `transformers`: T5, mT5 and umT5 in safetensors, in and out, without that library.

Composes the file format (`safetensors_files`), the names (`huggingface_rules`), the description
(`config_file`) and the tokenizer's files (`huggingface_tokenizer`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax.checkpoint import leaves, mapping
from flan_jax.checkpoint.huggingface import config_file, rules, safetensors_files
from flan_jax.checkpoint.huggingface.tokenizer import vocabulary_of, write_tokenizer
from flan_jax.checkpoint.leaves import Leaf
from flan_jax.checkpoint.places import place_at
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import MissingFileError, UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import require_shapes

_WHOLE, _INDEX = safetensors_files.WHOLE, safetensors_files.INDEX
# Other forms of the weights, and what `from_pretrained` of the library takes to read them.
_OTHER_FORMS = {
    "pytorch_model.bin": "",
    "pytorch_model.bin.index.json": "",
    "flax_model.msgpack": ", from_flax=True",
    "flax_model.msgpack.index.json": ", from_flax=True",
    "tf_model.h5": ", from_tf=True",
    "tf_model.h5.index.json": ", from_tf=True",
}
_BYTE_SENTINELS = 125
# Behind the pieces of the SentencePiece model. mT5's model has its hundred among its pieces.
_SENTINELS = {"umt5": 300, "mt5": 0, "t5": 100}


def looks_like(path: Any) -> bool:
    """Whether a path leads to such a folder, or to a file of one."""
    place = place_at(path)
    names = (config_file.NAME, _WHOLE, _INDEX, *_OTHER_FORMS)
    return place.name.endswith(".safetensors") or place.name in names or any((place / n).is_file() for n in names)


def open_weights(path: Any, *, step: int | None = None) -> Weights:
    """Opens a folder; reads headers, and values only of tensors that may be copies of the table.

    Raises:
      MissingFileError: `config.json`, or a file that the index names, is missing.
      UserError: the weights are no safetensors or damaged, or no T5 that fits its `config.json`.
    """
    directory = place_at(path)
    if not isinstance(directory, Path):
        raise UserError(f"{path} is a Hugging Face folder in a bucket; copy it to a local disk first.")
    if not directory.is_dir():
        raise UserError(f"{path} is one file of a Hugging Face folder; give the folder, {directory.parent}.")
    if step is not None:
        raise UserError(
            f"{path} is a Hugging Face folder, which holds one checkpoint and not its step; leave step out."
        )
    stated = config_file.read(directory)
    tensors, layout, notes = _tensors(directory)
    kept, copies = rules.without_copies(tensors, place=str(directory))
    head = _head(tensors, kept)
    config = config_file.network(stated, head=head, place=str(directory / config_file.NAME))
    params = mapping.to_ours(kept, rules.rules(config), place=str(directory))
    shapes = {name: leaf.shape for name, leaf in params.items()}
    require_shapes(shapes, config, place=f"{directory}, going by its {config_file.NAME},")
    vocabulary_file, is_bytes = vocabulary_of(directory)
    return Weights(
        format="hf",
        layout=layout,
        path=str(directory),
        step=None,
        config=config,
        config_is_stated=True,
        params=params,
        vocabulary_file=vocabulary_file,
        is_byte_vocabulary=is_bytes,
        metadata={"config": stated, "extra_ids": _extra_ids(directory, config, is_bytes=is_bytes)},
        notes=(*notes, *copies, *config_file.notes(stated, config, head=head)),
    )


def write(
    weights: Weights,
    directory: Path,
    *,
    dtype: Any = None,
    max_shard_bytes: int = safetensors_files.MAX_SHARD_BYTES,
    vocabulary_file: Path | None = None,
    is_byte_vocabulary: bool = False,
    extra_ids: int | None = None,
    eos_id: int = config_file.EOS_ID,
    model_type: str | None = None,
) -> None:
    """Fills an empty folder that transformers loads.

    Args:
      weights: a whole T5, of one type.
      directory: exists and is empty.
      dtype: what to cast to; None keeps the weights' own.
      max_shard_bytes: the largest file, unless one tensor alone is larger.
      vocabulary_file: the SentencePiece model that the weights were trained with.
      is_byte_vocabulary: or that they read bytes. With neither, no tokenizer is written.
      extra_ids: the vocabulary's sentinels; None: as many as the family's vocabularies have.
      eos_id: the vocabulary's end of sequence.
      model_type: "t5", "mt5" or "umt5"; None: the one whose network it is.

    Raises:
      UserError: Hugging Face has no such network, or the vocabulary has more ids than the table has rows.
    """
    config = weights.config
    assert config is not None, "half a model has no config.json"
    params = {n: leaves.cast(leaf, dtype) if dtype is not None else leaf for n, leaf in weights.params.items()}
    usual = next(iter(leaves.same_dtypes(params)))
    stated = config_file.written(config, dtype=np.dtype(usual), model_type=model_type, eos_id=eos_id)
    tensors = mapping.to_theirs(params, rules.rules(config), place=weights.path)
    if config_file.stores_copy(config):
        tensors[rules.HEAD] = tensors[rules.TABLE]
    if vocabulary_file is not None or is_byte_vocabulary:
        usual_ids = sentinels(config, is_byte_vocabulary=is_byte_vocabulary)
        write_tokenizer(
            directory,
            model_file=vocabulary_file,
            is_bytes=is_byte_vocabulary,
            extra_ids=usual_ids if extra_ids is None else extra_ids,
            model_rows=config.vocab_size,
        )
    _write_json(directory / config_file.NAME, stated)
    _write_json(directory / config_file.GENERATION_NAME, config_file.generation(eos_id=eos_id))
    safetensors_files.write(tensors, directory, max_shard_bytes=max_shard_bytes)


def sentinels(config: T5Config, *, is_byte_vocabulary: bool = False) -> int:
    """Returns how many sentinels the vocabulary of a network's family has beside its pieces, or beside its bytes.

    >>> mt5_small = {"emb_dim": 512, "num_heads": 6, "head_dim": 64, "mlp_dim": 1024, "vocab_size": 250112}
    >>> sentinels(T5Config(**mt5_small, num_encoder_layers=8, num_decoder_layers=8))
    0
    """
    return _BYTE_SENTINELS if is_byte_vocabulary else _SENTINELS[config_file.usual_model_type(config)]


def _extra_ids(directory: Path, config: T5Config, *, is_bytes: bool) -> int:
    """Returns how many sentinels the folder's tokenizer says it has, or those of the family where it does not say."""
    path = directory / "tokenizer_config.json"
    said = json.loads(path.read_bytes()).get("extra_ids") if path.is_file() else None
    return said if isinstance(said, int) else sentinels(config, is_byte_vocabulary=is_bytes)


def _tensors(directory: Path) -> tuple[dict[str, Leaf], str, list[str]]:
    """Returns the tensors of a folder, how they lie there, and notes."""
    if (directory / _WHOLE).is_file():
        beside = [f"{_INDEX} lies beside {_WHOLE} and is not read."] if (directory / _INDEX).is_file() else []
        return safetensors_files.open_file(directory / _WHOLE), "safetensors, one file", beside
    if (directory / _INDEX).is_file():
        tensors = safetensors_files.open_sharded(directory / _INDEX)
        count = len(list(directory.glob("model-*.safetensors")))
        return tensors, f"safetensors, {count} files", []
    found = [name for name in _OTHER_FORMS if (directory / name).is_file()]
    if found:
        raise UserError(_other_form(directory, found[0]))
    others = sorted(file.name for file in directory.glob("*.safetensors"))
    there = f" There are {', '.join(others)}, without an index." if others else ""
    raise MissingFileError(f"{directory} has neither {_WHOLE} nor {_INDEX}.{there} Fetch the whole folder.")


def _other_form(directory: Path, name: str) -> str:
    reason = (
        "a pickle, and opening a pickle runs whatever code is in it" if ".bin" in name else "which is not read here"
    )
    older = "" if ".bin" in name else " (version 4)"
    loaded = f"AutoModelForSeq2SeqLM.from_pretrained({str(directory)!r}{_OTHER_FORMS[name]})"
    return (
        f"The weights of {directory} are {name}, {reason}. Write them as safetensors, where you trust them and "
        f"transformers{older} is installed:\n"
        "  from transformers import AutoModelForSeq2SeqLM\n"
        f"  {loaded}.save_pretrained({str(directory) + '-safetensors'!r}, safe_serialization=True)"
    )


def _head(tensors: dict[str, Leaf], kept: dict[str, Leaf]) -> config_file.Head:
    if rules.HEAD in kept:
        return "own"
    return "copy" if rules.HEAD in tensors else "absent"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
