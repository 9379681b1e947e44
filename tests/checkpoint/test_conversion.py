"""Conversions: every format into every other and back is the identity, and what cannot be whole is not there at all."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from flan_jax import vocab
from flan_jax.checkpoint import conversion, formats
from flan_jax.checkpoint.conversion import Choices
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.checkpoint.leaves import BFLOAT16, Leaf, cast
from flan_jax.checkpoint.weights import FORMATS
from flan_jax.errors import UserError
from flan_jax.locks import locked
from flan_jax.models.t5.families import FAMILIES
from tests.checkpoint.huggingface.test_tokenizer import trained
from tests.checkpoint.test_native import CONFIG, synthetic_weights
from tests.vocabularies import synthetic_folders

TINY = {"emb_dim": 8, "num_heads": 2, "head_dim": 4, "mlp_dim": 12, "num_encoder_layers": 3, "num_decoder_layers": 2}


def tiny(family):
    return dataclasses.replace(family.config(family.sizes[0]), **TINY, vocab_size=400, dropout_rate=0.0)


def converted(weights, to, format, **choices):
    conversion.convert(weights, to, choices=Choices(format=format, **choices))
    return formats.open_weights(to)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("format", "family"), list(itertools.product(FORMATS, FAMILIES)), ids=lambda x: getattr(x, "name", x)
)
def test_import_of_export_is_the_identity_bit_for_bit(tmp_path, format, family, dtype):
    # T5X keeps means of heads that are apart at any size, this project's Adafactor only of large kernels.
    weights = synthetic_weights(tiny(family), dtype=dtype, slots=not tiny(family).relpos_bias_per_layer)
    found = converted(weights, tmp_path / "out", format)
    assert found.format == format
    assert leaves_digest(found.params) == leaves_digest(weights.params)
    assert found.config.mlp_activations == weights.config.mlp_activations or not found.config_is_stated
    if format != "hf":
        assert found.step == weights.step
        assert leaves_digest(found.slots) == leaves_digest(weights.slots)


def test_all_the_way_around_and_back(tmp_path):
    weights = synthetic_weights()
    for number, format in enumerate(("t5x", "flan_jax", "t5x", "hf", "flan_jax")):
        weights = converted(weights, tmp_path / str(number), format, max_shard_bytes=2000)
    assert leaves_digest(weights.params) == leaves_digest(synthetic_weights().params)
    assert weights.config == CONFIG


def test_layers_are_stacked_for_t5x_and_split_again(tmp_path):
    weights = synthetic_weights(dataclasses.replace(CONFIG, relpos_bias_per_layer=True, num_encoder_layers=2))
    with pytest.raises(ValueError, match="Write the parameters only"):
        converted(weights, tmp_path / "out", "t5x", scanned=True)
    found = converted(weights, tmp_path / "out", "t5x", scanned=True, params_only=True)
    assert (tmp_path / "out" / "checkpoint_7" / "target.encoder.encoder.mlp.wo.kernel").is_dir()
    assert leaves_digest(found.params) == leaves_digest(weights.params)
    assert (found.slots, found.step) == ({}, 7)


def test_parameters_are_cast_to_the_requested_type(tmp_path):
    found = converted(synthetic_weights(), tmp_path / "out", "hf", dtype="bfloat16")
    expected = {name: cast(leaf, BFLOAT16) for name, leaf in synthetic_weights().params.items()}
    assert leaves_digest(found.params) == leaves_digest(expected)


@pytest.mark.parametrize("format", ["flan_jax", "hf"])
def test_the_vocabulary_is_converted_too(tmp_path, format):
    wide = synthetic_weights(dataclasses.replace(CONFIG, vocab_size=1600))
    embedded = vocab.load("embedded")
    conversion.convert(wide, tmp_path / "out", choices=Choices(format=format), vocabulary=embedded)
    assert formats.open_weights(tmp_path / "out").vocabulary.digest == embedded.digest


@pytest.mark.parametrize(
    ("family", "extra_ids"), [("t5_1_1", 100), ("mt5", 0), ("umt5", 300), ("byt5", 125), ("byt5", 0)]
)
def test_the_number_of_sentinels_survives_conversions(tmp_path, family, extra_ids):
    (found,) = [f for f in FAMILIES if f.name == family]
    config = dataclasses.replace(tiny(found), vocab_size=found.vocab_size, emb_dim=2)
    given = vocab.load("bytes" if family == "byt5" else "embedded", extra_ids=extra_ids)
    weights = synthetic_weights(config, slots=False)
    for number, format in enumerate(("hf", "flan_jax", "hf")):
        conversion.convert(
            weights, tmp_path / str(number), choices=Choices(format=format), vocabulary=given if number == 0 else None
        )
        weights = formats.open_weights(tmp_path / str(number))
        assert weights.vocabulary.digest == given.digest


def test_another_end_of_sequence_is_written_to_a_hugging_face_folder(tmp_path):
    given = vocab.load(trained(tmp_path / "other.model", unk_id=1, eos_id=2), extra_ids=10)
    weights = synthetic_weights(dataclasses.replace(CONFIG, vocab_size=64), slots=False)
    conversion.convert(weights, tmp_path / "out", choices=Choices(format="hf"), vocabulary=given)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["eos_token_id"] == 2


def test_a_folder_without_a_number_of_sentinels_has_its_familys(tmp_path):
    (mt5,) = [family for family in FAMILIES if family.name == "mt5"]
    config = dataclasses.replace(tiny(mt5), vocab_size=mt5.vocab_size, emb_dim=2)
    given = vocab.load("embedded", extra_ids=0)
    conversion.convert(
        synthetic_weights(config, slots=False), tmp_path / "out", choices=Choices(format="hf"), vocabulary=given
    )
    (tmp_path / "out" / "tokenizer_config.json").unlink()
    (tmp_path / "out" / "digests.json").unlink()  # As in a folder of another program.
    assert formats.open_weights(tmp_path / "out").vocabulary.extra_ids == 0


def mixed():
    weights = synthetic_weights()
    odd = "encoder/layers_0/mlp/wo/kernel"
    return dataclasses.replace(weights, params={**weights.params, odd: cast(weights.params[odd], BFLOAT16)})


def in_type(dtype):
    return dataclasses.replace(
        synthetic_weights(), params={n: cast(leaf, dtype) for n, leaf in synthetic_weights().params.items()}
    )


def unlike(**changes):
    return synthetic_weights(dataclasses.replace(CONFIG, **changes))


def without(name):
    params = {n: leaf for n, leaf in synthetic_weights().params.items() if n != name}
    return dataclasses.replace(synthetic_weights(), params=params, config=None, notes=(f"{name}: missing.",))


@pytest.mark.parametrize(
    ("weights", "settings", "message"),
    [
        (mixed(), {}, r"mixes types: encoder/layers_0/mlp/wo/kernel is bfloat16 \(1 such\)(.|\n)*--dtype=float32"),
        (in_type(np.float16), {}, "are float16, which cannot be written. Give --dtype=float32"),
        (without("decoder/decoder_norm/scale"), {}, "is not a complete T5(.|\n)*decoder/decoder_norm/scale: missing"),
        (unlike(mlp_activations=("relu",)), {"model": CONFIG}, "does not fit the model(.|\n)*mlp/wi_0/kernel: missing"),
        (
            unlike(mlp_activations=("silu", "linear")),
            {"model": CONFIG},
            "another network(.|\n)*activations: got .'silu'",
        ),
        (
            synthetic_weights(),
            {"vocabulary": vocab.load("embedded")},
            "vocabulary has 1599 ids, but the embedding table .* 24 rows",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, weights, settings, message):
    with pytest.raises(ValueError, match=message):
        conversion.convert(weights, tmp_path / "out", choices=Choices(format="hf"), **settings)
    assert list(tmp_path.iterdir()) == []


def test_mixed_types_are_cast_to_the_requested_one(tmp_path):
    found = converted(mixed(), tmp_path / "out", "flan_jax", dtype="float32")
    assert {leaf.dtype for leaf in found.params.values()} == {np.dtype(np.float32)}


def test_a_target_that_is_not_empty_is_unchanged(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        converted(synthetic_weights(), tmp_path, "hf")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert converted(synthetic_weights(), tmp_path / "empty", "hf").format == "hf"


def test_t5x_names_its_checkpoints_itself(tmp_path):
    with pytest.raises(ValueError, match=r"give --to=.*/run \(a new directory\), not checkpoint_7 in it"):
        converted(synthetic_weights(), tmp_path / "run" / "checkpoint_7", "t5x")
    assert list(tmp_path.iterdir()) == []


def broken(reads_left):
    """Weights of which one tensor can be read a number of times only."""
    weights, reads = synthetic_weights(slots=False), itertools.count()
    name = "decoder/layers_1/mlp/wo/kernel"
    leaf = weights.params[name]

    def read(index):
        if next(reads) >= reads_left:
            raise ValueError(f"{name} cannot be read")
        return leaf.read(index)

    params = {**weights.params, name: Leaf(shape=leaf.shape, dtype=leaf.dtype, read=read)}
    return dataclasses.replace(weights, params=params)


@pytest.mark.parametrize("reads_left", [0, 1], ids=["while it is digested", "while it is written"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_tensor_that_cannot_be_read_leaves_nothing_behind(tmp_path, format, reads_left):
    with pytest.raises(ValueError, match="decoder/layers_1/mlp/wo/kernel cannot be read"):
        converted(broken(reads_left), tmp_path / "out", format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_conversion_that_changed_since_it_was_written_is_refused_by_file(tmp_path, format):
    converted(synthetic_weights(), tmp_path / "first", format)
    data = max((path for path in (tmp_path / "first").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ValueError, match=rf"(is damaged: |is intact \(7: ).*{data.name} was changed"):
        formats.open_weights(tmp_path / "first")


def test_what_a_killed_conversion_left_is_removed_and_a_second_one_at_once_is_refused(tmp_path):
    (tmp_path / ".out.partial" / "checkpoints").mkdir(parents=True)
    (tmp_path / ".out.lock").write_text("")
    converted(synthetic_weights(), tmp_path / "out", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with locked(tmp_path / ".other.lock", what="--to"), pytest.raises(ValueError, match="--to=.* is in use by process"):
        converted(synthetic_weights(), tmp_path / "other", "hf")


def test_an_output_that_appears_before_the_lock_is_not_replaced(tmp_path):
    weights = synthetic_weights(slots=False)
    name, leaf = next(iter(weights.params.items()))

    def read(index):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "other").write_text("mine")
        return leaf.read(index)

    params = {**weights.params, name: Leaf(shape=leaf.shape, dtype=leaf.dtype, read=read)}
    with pytest.raises(ValueError, match="out exists and is not empty"):
        converted(dataclasses.replace(weights, params=params), tmp_path / "out", "flan_jax")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_that_is_not_the_input_is_refused_by_name(tmp_path, format):
    weights, reads = synthetic_weights(slots=False), itertools.count()
    name = "encoder/layers_0/mlp/wo/kernel"
    leaf = weights.params[name]
    # Another value at each reading: what was written is not what is there now.
    changing = Leaf(shape=leaf.shape, dtype=leaf.dtype, read=lambda index: leaf.read(index) + np.float32(next(reads)))
    weights = dataclasses.replace(weights, params={**weights.params, name: changing})
    with pytest.raises(RuntimeError, match=rf"reads back differently and was removed: {name} has other values"):
        converted(weights, tmp_path / "out", format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "huggingface"}, "format must be one of flan_jax, t5x, hf; got 'huggingface'"),
        (
            {"format": "hf", "dtype": "float16"},
            "dtype must be one of float32, bfloat16; got 'float16'. Did you mean 'bfloat16'",
        ),
    ],
)
def test_choices_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Choices(**settings)


def test_a_path_without_a_checkpoint_is_refused_with_its_content(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or directory"):
        formats.open_weights(tmp_path / "absent")
    with pytest.raises(ValueError, match="it holds nothing. Supported are a run"):
        formats.open_weights(tmp_path)
    for number in range(9):
        (tmp_path / f"picture_{number}.png").touch()
    with pytest.raises(ValueError, match="it holds picture_0.png, .* and 3 more. Supported are"):
        formats.open_weights(tmp_path)
    with pytest.raises(ValueError, match="it holds one file, .png"):
        formats.open_weights(tmp_path / "picture_0.png")


def test_added_tokens_travel_with_the_weights_and_t5x_notes_their_absence(tmp_path):
    source = synthetic_folders.folder(tmp_path / "source")
    given = vocab.load(str(source))
    weights = synthetic_weights(dataclasses.replace(tiny(FAMILIES[1]), vocab_size=given.size), slots=False)
    conversion.convert(weights, tmp_path / "own", choices=Choices(format="flan_jax"), vocabulary=given)
    own = formats.open_weights(tmp_path / "own")
    assert own.vocabulary.digest == given.digest == own.metadata["vocabulary_digest"]
    conversion.convert(own, tmp_path / "hf", choices=Choices(format="hf"))
    back = formats.open_weights(tmp_path / "hf").vocabulary
    assert (back.digest, back.added.tokens) == (given.digest, given.added.tokens)
    notes = conversion.convert(own, tmp_path / "t5x", choices=Choices(format="t5x")).notes
    assert any("T5X stores no vocabulary" in note and "(111)" in note for note in notes)


def test_more_ids_than_rows_are_refused_before_anything_is_written(tmp_path):
    given = vocab.load(str(synthetic_folders.folder(tmp_path / "source")))
    weights = synthetic_weights(dataclasses.replace(tiny(FAMILIES[1]), vocab_size=given.size - 1), slots=False)
    with pytest.raises(UserError, match="The vocabulary has 1607 ids, but the embedding table of .* has 1606 rows"):
        conversion.convert(weights, tmp_path / "hf", choices=Choices(format="hf"), vocabulary=given)
    assert not (tmp_path / "hf").exists()
