"""Hugging Face folders: transformers' logits, the identity both ways, and every way in which one can be wrong."""

import json
import shutil

import numpy as np
import pytest

from flan_jax import vocab
from flan_jax.checkpoint.huggingface import config_file, rules, safetensors_files
from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.checkpoint.leaves import BFLOAT16, Leaf, from_array, same_values
from flan_jax.models.t5.parameters import parameter_shapes
from flan_jax.paths import location
from tests.checkpoint import synthetic_huggingface as synthetic

WHOLE, INDEX = safetensors_files.WHOLE, safetensors_files.INDEX
_OTHER_LOGITS = "transformers {} computes other logits from this folder: it {} the decoder's output by d_model**-0.5."
NOT_FOR_4 = _OTHER_LOGITS.format(4, "reads shared.weight instead of lm_head.weight and multiplies")
UNSCALED_IN_4 = _OTHER_LOGITS.format(4, "does not multiply")
NOT_FOR_5 = (
    _OTHER_LOGITS.format("5.3 to 5.23", "multiplies")
    + " Use 5.24 or later, or set model.config.tie_word_embeddings = False there, after loading."
)


def tensors(folder) -> dict[str, Leaf]:
    if (folder / INDEX).exists():
        return safetensors_files.open_sharded(folder / INDEX)
    return safetensors_files.open_file(folder / WHOLE)


def assert_same(got: dict[str, Leaf], wanted: dict[str, Leaf]) -> None:
    assert sorted(got) == sorted(wanted)
    for name, leaf in wanted.items():
        assert same_values(got[name], leaf), name


@pytest.fixture
def folder(tmp_path):
    """A copy of what transformers 4 saved of a T5 1.1, to be damaged."""
    shutil.copytree(synthetic.GOLDEN_DIR / "t5_1_1_v4", tmp_path / "saved")
    return tmp_path / "saved"


def changed(folder, **changes) -> None:
    """Replaces tensors of a folder; None removes one."""
    arrays = {name: leaf.whole() for name, leaf in tensors(folder).items()} | changes
    kept = {name: from_array(array) for name, array in arrays.items() if array is not None}
    safetensors_files.write(kept, folder)


def refused(folder, error_type=ValueError, **arguments) -> str:
    with pytest.raises(error_type) as error:
        huggingface.open_weights(folder, **arguments)
    return str(error.value)


@pytest.mark.parametrize("golden", synthetic.GOLDENS)
def test_a_folder_that_transformers_saved_gives_its_logits(golden):
    opened = huggingface.open_weights(synthetic.GOLDEN_DIR / golden)
    with np.load(synthetic.GOLDEN_DIR / golden / "expected.npz") as expected:
        got = synthetic.logits(opened, dict(expected))
        np.testing.assert_allclose(got, expected["logits"], atol=1e-4, rtol=0)
        assert np.abs(expected["logits"]).max() > 0.5


def test_the_goldens_are_of_every_family_and_both_versions():
    families = ("byt5", "mt5", "t5_1_0", "t5_1_1", "ul2", "umt5")
    names = [f"{family}_v{version}" for family in families for version in (4, 5)]
    assert sorted([*names, "t5_other_numbers_v5", "umt5_scaled_v5", "umt5_unscaled_v5"]) == synthetic.GOLDENS


@pytest.mark.parametrize("golden", synthetic.GOLDENS)
def test_export_of_import_is_the_identity(golden, tmp_path):
    source = synthetic.GOLDEN_DIR / golden
    huggingface.write(huggingface.open_weights(source), tmp_path)
    written, got, wanted = huggingface.open_weights(tmp_path), tensors(tmp_path), tensors(source)
    assert written.config is not None
    if config_file.stores_copy(written.config):  # For version 4; 5 left it out.
        assert same_values(got["lm_head.weight"], got["shared.weight"])
        wanted["lm_head.weight"] = wanted["shared.weight"]
    assert_same(got, wanted)
    assert written.config == huggingface.open_weights(source).config


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("max_shard_bytes", [5 * 10**9, 3000], ids=["single", "sharded"])
@pytest.mark.parametrize("family", synthetic.FAMILIES)
def test_import_of_export_is_the_identity(family, max_shard_bytes, dtype, tmp_path):
    weights = synthetic.write(family, tmp_path, dtype=dtype, max_shard_bytes=max_shard_bytes)
    assert (tmp_path / INDEX).exists() == (max_shard_bytes == 3000)
    opened = huggingface.open_weights(tmp_path)
    assert_same(dict(opened.params), dict(weights.params))
    assert opened.config == weights.config
    assert opened.metadata["config"]["torch_dtype"] == np.dtype(dtype).name


def test_kernels_are_transposed_and_layers_have_the_same_numbers(tmp_path):
    weights = synthetic.write("umt5", tmp_path)
    theirs, ours = tensors(tmp_path), weights.params
    attention, bias = "encoder.block.1.layer.0.SelfAttention", "relative_attention_bias.weight"
    pairs = {
        "decoder.block.1.layer.1.EncDecAttention.o.weight": "decoder/layers_1/encoder_decoder_attention/out/kernel",
        "decoder.block.1.layer.2.DenseReluDense.wi_1.weight": "decoder/layers_1/mlp/wi_1/kernel",
        f"{attention}.{bias}": "encoder/layers_1/relpos_bias/rel_embedding",
        "lm_head.weight": "decoder/logits_dense/kernel",
    }
    for their_name, our_name in pairs.items():
        np.testing.assert_array_equal(theirs[their_name].whole(), ours[our_name].whole().T)
    np.testing.assert_array_equal(
        theirs["decoder.block.1.layer.2.layer_norm.weight"].whole(),
        ours["decoder/layers_1/pre_mlp_layer_norm/scale"].whole(),
    )


@pytest.mark.parametrize("family", synthetic.FAMILIES)
def test_the_rules_cover_the_complete_tree(family):
    model = synthetic.config(family, num_encoder_layers=1, num_decoder_layers=1)
    ours = [rule.ours.replace("{i}", "0") for rule in rules.rules(model)]
    assert sorted(ours) == sorted(parameter_shapes(model))


def test_the_type_of_each_tensor_is_reported(folder):
    changed(folder, **{"shared.weight": tensors(folder)["shared.weight"].whole().astype(BFLOAT16)})
    params = huggingface.open_weights(folder).params
    assert [name for name, leaf in params.items() if leaf.dtype == BFLOAT16] == ["token_embedder/embedding"]


def test_what_a_folder_is_and_where(folder):
    assert huggingface.looks_like(folder) and huggingface.looks_like(folder / WHOLE)
    assert not huggingface.looks_like(folder.parent) and not huggingface.looks_like(folder / "absent")
    opened = huggingface.open_weights(folder)
    assert (opened.format, opened.layout, opened.path) == ("hf", "safetensors, one file", str(folder))
    assert (opened.step, opened.config_is_stated, opened.slots) == (None, True, {})
    assert opened.metadata["config"]["transformers_version"].startswith("4.")


@pytest.mark.parametrize(
    ("golden", "notes"),
    [
        ("t5_1_1_v4", ()),
        ("t5_1_0_v5", ()),
        ("t5_1_1_v5", (NOT_FOR_4,)),
        ("mt5_v5", (NOT_FOR_4,)),
        ("umt5_v4", (NOT_FOR_5,)),
    ],
)
def test_a_version_that_computes_other_logits_is_noted(golden, notes):
    assert huggingface.open_weights(synthetic.GOLDEN_DIR / golden).notes == notes


@pytest.mark.parametrize(
    ("family", "notes"),
    [
        *((family, ()) for family in ("t5_1_0", "t5_1_1", "mt5", "byt5", "ul2", "umt5_tied")),
        ("umt5", (NOT_FOR_5,)),
        ("t5_tied_unscaled", ("lm_head.weight is a copy of shared.weight: the logits are tied.",)),
        ("t5_untied_scaled", (UNSCALED_IN_4,)),
    ],
)
def test_every_published_family_is_written_for_both_versions_but_umt5(family, notes, tmp_path):
    synthetic.write(family, tmp_path)
    assert huggingface.open_weights(tmp_path).notes == notes


def test_a_vocabulary_is_stored_with_the_weights(tmp_path):
    weights = synthetic.weights(synthetic.config("t5_1_1", vocab_size=32128, emb_dim=2))
    huggingface.write(weights, tmp_path, vocabulary=vocab.load("embedded"))
    opened = huggingface.open_weights(tmp_path)
    assert opened.vocabulary == vocab.load(str(tmp_path / "spiece.model"))
    assert opened.vocabulary.digest == vocab.load("embedded").digest


def test_bytes_need_no_file(tmp_path):
    synthetic.write("byt5", tmp_path, vocabulary=vocab.load("bytes", extra_ids=125))
    opened = huggingface.open_weights(tmp_path)
    assert opened.vocabulary == vocab.load("bytes", extra_ids=125)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["extra_ids"] == 125


@pytest.mark.parametrize(
    ("family", "changes", "count"),
    [("t5_1_1", {}, 100), ("mt5", {"vocab_size": 250112}, 0), ("umt5", {}, 300), ("ul2", {}, 100)],
)
def test_each_family_has_its_sentinels(family, changes, count):
    assert huggingface.sentinels(synthetic.config(family, **changes)) == count


def test_no_file_contains_the_path_it_was_written_to(tmp_path):
    synthetic.write("t5_1_1", tmp_path)
    for file in tmp_path.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes() and b"a/path" not in file.read_bytes()


def test_copies_of_the_table_are_ignored_with_a_note(folder):
    table = tensors(folder)["shared.weight"].whole()
    changed(folder, **{"encoder.embed_tokens.weight": table, "decoder.embed_tokens.weight": table})
    opened = huggingface.open_weights(folder)
    assert opened.notes == tuple(
        f"{stack}.embed_tokens.weight is a copy of shared.weight and is ignored." for stack in ("encoder", "decoder")
    )
    assert sorted(opened.params) == sorted(parameter_shapes(opened.config))


def test_a_table_under_another_name_is_read(folder):
    table = tensors(folder)["shared.weight"].whole()
    changed(folder, **{"shared.weight": None, "decoder.embed_tokens.weight": table})
    opened = huggingface.open_weights(folder)
    assert opened.notes == (
        "shared.weight is absent; decoder.embed_tokens.weight is read as the table of both stacks.",
    )
    np.testing.assert_array_equal(opened.params["token_embedder/embedding"].whole(), table)


def test_a_copy_that_differs_in_one_bit_is_refused(folder):
    table = np.array(tensors(folder)["shared.weight"].whole())
    table[-1, -1] = np.nextafter(table[-1, -1], 9)
    changed(folder, **{"encoder.embed_tokens.weight": table})
    assert "encoder.embed_tokens.weight of" in (message := refused(folder))
    assert "differs from shared.weight: the stacks have separate embedding tables" in message


def test_an_obsolete_tensor_is_ignored_with_a_note(folder):
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    changed(folder, **{name: np.zeros((32, 3), np.float32)})
    assert huggingface.open_weights(folder).notes == (f"{name} is obsolete (no T5 uses it) and is ignored.",)


def test_an_index_next_to_a_single_file_is_ignored_with_a_note(folder):
    (folder / INDEX).write_text("{}")
    assert huggingface.open_weights(folder).notes == (f"{INDEX} is ignored, because {WHOLE} exists.",)


def test_missing_and_unknown_tensors_are_listed_on_both_sides(folder):
    wo = "decoder.block.1.layer.2.DenseReluDense.wo.weight"
    w0 = wo.replace("wo", "w0")
    changed(folder, **{wo: None, w0: tensors(folder)[wo].whole()})
    message = refused(folder)
    assert f"missing: {wo} Did you mean '{w0}'?" in message and f"unknown: {w0} Did you mean '{wo}'?" in message
    assert str(folder) in message


def test_weights_of_another_family_than_the_config_are_refused(folder):
    synthetic.edit(folder / "config.json", feed_forward_proj="relu", dense_act_fn="relu", is_gated_act=False)
    message = refused(folder)
    assert "missing: encoder.block.0.layer.1.DenseReluDense.wi.weight" in message
    assert "unknown: encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 10**12}, "vocab_size 1000000000000, but shared.weight of the weights is [48, 16]: expected 48"),
        ({"d_model": 17}, "d_model 17, but shared.weight of the weights is [48, 16]: expected 16"),
        ({"d_kv": 5}, "num_heads times d_kv 15, but encoder.block.0.layer.0.SelfAttention.q.weight of the weights is"),
        ({"num_heads": 6, "d_kv": 2}, "num_heads 6, but encoder.block.0.layer.0.SelfAttention.relative_attention_bias"),
        ({"relative_attention_num_buckets": 16}, "relative_attention_num_buckets 16, but encoder.block.0"),
        ({"d_ff": 24}, "d_ff 24, but encoder.block.0.layer.1.DenseReluDense.wi_0.weight of the weights is [20, 16]"),
        ({"num_layers": 10**12}, "num_layers 1000000000000, but the weights have 2 layers in the encoder"),
        ({"num_decoder_layers": 1}, "num_decoder_layers 1, but the weights have 2 layers in the decoder"),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_of_them_is_made(folder, changes, message):
    synthetic.edit(folder / "config.json", **changes)
    assert f"{folder / 'config.json'} has {message}" in refused(folder)


def test_a_pickle_is_refused_with_the_lines_that_convert_it(folder):
    (folder / WHOLE).rename(folder / "pytorch_model.bin")
    message = refused(folder)
    assert huggingface.looks_like(folder) and huggingface.looks_like(folder / "pytorch_model.bin")
    assert "opening a pickle runs any code in it" in message
    first, second = message.splitlines()[-2:]
    assert first == "  from transformers import AutoModelForSeq2SeqLM"
    assert second == (
        f"  AutoModelForSeq2SeqLM.from_pretrained('{folder}')"
        f".save_pretrained('{folder}-safetensors', safe_serialization=True)"
    )


@pytest.mark.parametrize(("name", "argument"), [("flax_model.msgpack", "from_flax"), ("tf_model.h5", "from_tf")])
def test_weights_of_other_libraries_are_named(folder, name, argument):
    (folder / WHOLE).rename(folder / name)
    message = refused(folder)
    assert f"are {name}, which is not supported" in message and f"'{folder}', {argument}=True)" in message


def test_a_folder_without_weights_is_refused(folder):
    (folder / WHOLE).rename(folder / "model.fp16.safetensors")
    message = refused(folder, FileNotFoundError)
    assert f"has neither {WHOLE} nor {INDEX}. It has model.fp16.safetensors, without an index." in message


def test_a_folder_without_a_config_is_refused(folder):
    (folder / "config.json").unlink()
    assert huggingface.looks_like(folder)
    assert "config.json is missing, which describes the network" in refused(folder, FileNotFoundError)


def test_a_truncated_file_of_a_folder_is_refused(folder):
    (folder / WHOLE).write_bytes((folder / WHOLE).read_bytes()[:20000])
    assert "is not an intact safetensors file" in refused(folder)


def test_one_file_a_bucket_and_a_step_are_refused(folder):
    assert f"is one file of a Hugging Face folder; give the folder, {folder}." in refused(folder / WHOLE)
    assert "is a Hugging Face folder in a bucket; copy it to a local disk first" in refused(
        location("gs://bucket/flan-t5-small")
    )
    assert "which has a single checkpoint and does not record its step; omit step" in refused(folder, step=3)
