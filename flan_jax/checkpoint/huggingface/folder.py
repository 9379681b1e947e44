"""Reads and writes folders of Hugging Face's `transformers` for T5, mT5 and umT5, without that library.

Composes the weights (`safetensors_files`), the names (`rules`), the network (`config_file`) and the tokenizer's files
(`tokenizer`).
"""

import json
from pathlib import Path
from typing import Any

from flan_jax import vocab
from flan_jax.checkpoint import leaves, mapping
from flan_jax.checkpoint.huggingface import config_file, rules, safetensors_files
from flan_jax.checkpoint.huggingface.tokenizer import write_tokenizer
from flan_jax.checkpoint.leaves import Leaf
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import MissingFileError, UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import require_shapes
from flan_jax.paths import Location
from flan_jax.vocabularies.huggingface_files import SENTINELS

_WHOLE, _INDEX = safetensors_files.WHOLE, safetensors_files.INDEX
# Other formats of weights, and the argument with which `from_pretrained` reads them.
_OTHER_FORMATS = {
    "pytorch_model.bin": "",
    "pytorch_model.bin.index.json": "",
    "flax_model.msgpack": ", from_flax=True",
    "flax_model.msgpack.index.json": ", from_flax=True",
    "tf_model.h5": ", from_tf=True",
    "tf_model.h5.index.json": ", from_tf=True",
}


def looks_like(path: Location) -> bool:
    """Whether a path is such a folder, or a file in one."""
    names = (config_file.NAME, _WHOLE, _INDEX, *_OTHER_FORMATS)
    return path.name.endswith(".safetensors") or path.name in names or any((path / n).is_file() for n in names)


def open_weights(directory: Location, *, step: int | None = None) -> Weights:
    """Opens a folder. Reads headers, and values only of tensors that may be copies of the embedding table.

    Raises:
      MissingFileError: `config.json`, or a file that the index names, is missing.
      UserError: The weights are not safetensors, or damaged, or not a T5 that matches `config.json`.
    """
    if not isinstance(directory, Path):
        raise UserError(f"{directory} is a Hugging Face folder in a bucket; copy it to a local disk first.")
    if not directory.is_dir():
        raise UserError(f"{directory} is one file of a Hugging Face folder; give the folder, {directory.parent}.")
    if step is not None:
        raise UserError(
            f"{directory} is a Hugging Face folder, which has a single checkpoint and does not record its "
            "step; omit step."
        )
    stated = config_file.read(directory)
    tensors, layout, notes = _tensors(directory)
    remaining, copies = rules.without_copies(tensors, where=str(directory))
    head = _head(tensors, remaining)
    config = config_file.network(stated, head=head, where=str(directory / config_file.NAME))
    # Before the rules: a wrong number of layers would otherwise be listed as dozens of missing tensors.
    config_file.require_sizes(config, remaining, where=str(directory / config_file.NAME))
    params = mapping.to_ours(remaining, rules.rules(config), where=str(directory))
    shapes = {name: leaf.shape for name, leaf in params.items()}
    require_shapes(shapes, config, place=f"{directory}, according to its {config_file.NAME},")
    vocabulary = vocab.of_folder(directory, sentinels=sentinels(config))
    # Without a tokenizer the family's number, since the ids of sentinels follow from it.
    extra_ids = sentinels(config) if vocabulary is None else vocabulary.extra_ids
    return Weights(
        format="hf",
        layout=layout,
        path=str(directory),
        step=None,
        config=config,
        config_is_stated=True,
        params=params,
        vocabulary=vocabulary,
        metadata={"config": stated, "extra_ids": extra_ids},
        notes=(*notes, *copies, *config_file.notes(stated, config, head=head)),
    )


def write(
    weights: Weights,
    directory: Path,
    *,
    max_shard_bytes: int = safetensors_files.MAX_SHARD_BYTES,
    vocabulary: vocab.Vocabulary | None = None,
) -> None:
    """Writes a folder that transformers loads.

    Args:
      weights: A complete T5, of one type.
      directory: Exists and is empty.
      max_shard_bytes: The largest file, unless one tensor alone is larger.
      vocabulary: Of the weights' training; None writes no tokenizer.

    Raises:
      UserError: Hugging Face has no such network.
    """
    config = weights.config
    assert config is not None
    eos_id = config_file.EOS_ID if vocabulary is None else vocabulary.eos_id
    dtype = next(iter(leaves.same_dtypes(weights.params)))
    stated = config_file.written(config, dtype=dtype, eos_id=eos_id)
    tensors = mapping.to_theirs(weights.params, rules.rules(config), where=weights.path)
    if config_file.stores_copy(config):
        tensors[rules.HEAD] = tensors[rules.TABLE]
    if vocabulary is not None:
        write_tokenizer(directory, vocabulary)
    _write_json(directory / config_file.NAME, stated)
    _write_json(directory / config_file.GENERATION_NAME, config_file.generation(eos_id=eos_id))
    safetensors_files.write(tensors, directory, max_shard_bytes=max_shard_bytes)


def sentinels(config: T5Config) -> int:
    """Returns how many sentinels the vocabulary of a network's family has in addition to its pieces.

    >>> mt5_small = {"emb_dim": 512, "num_heads": 6, "head_dim": 64, "mlp_dim": 1024, "vocab_size": 250112}
    >>> sentinels(T5Config(**mt5_small, num_encoder_layers=8, num_decoder_layers=8))
    0
    """
    return SENTINELS[config_file.usual_model_type(config)]


def _tensors(directory: Path) -> tuple[dict[str, Leaf], str, list[str]]:
    """Returns the tensors of a folder, a description of the layout, and notes."""
    # The order of transformers, where a folder has both.
    if (directory / _WHOLE).is_file():
        notes = [f"{_INDEX} is ignored, because {_WHOLE} exists."] if (directory / _INDEX).is_file() else []
        return safetensors_files.open_file(directory / _WHOLE), "safetensors, one file", notes
    if (directory / _INDEX).is_file():
        tensors = safetensors_files.open_sharded(directory / _INDEX)
        count = len(list(directory.glob("model-*.safetensors")))
        return tensors, f"safetensors, {count} files", []
    if other := next((name for name in _OTHER_FORMATS if (directory / name).is_file()), None):
        raise UserError(_other_format(directory, other))
    others = sorted(file.name for file in directory.glob("*.safetensors"))
    available = f" It has {', '.join(others)}, without an index." if others else ""
    raise MissingFileError(f"{directory} has neither {_WHOLE} nor {_INDEX}.{available} Fetch the complete folder.")


def _other_format(directory: Path, name: str) -> str:
    reason = "a pickle, and opening a pickle runs any code in it" if ".bin" in name else "which is not supported"
    older = "" if ".bin" in name else " (version 4)"
    loaded = f"AutoModelForSeq2SeqLM.from_pretrained({str(directory)!r}{_OTHER_FORMATS[name]})"
    return (
        f"The weights of {directory} are {name}, {reason}. Convert them to safetensors, if you trust them, where "
        f"transformers{older} is installed:\n"
        "  from transformers import AutoModelForSeq2SeqLM\n"
        f"  {loaded}.save_pretrained({str(directory) + '-safetensors'!r}, safe_serialization=True)"
    )


def _head(tensors: dict[str, Leaf], remaining: dict[str, Leaf]) -> config_file.Head:
    if rules.HEAD in remaining:
        return "own"
    return "copy" if rules.HEAD in tensors else "absent"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
