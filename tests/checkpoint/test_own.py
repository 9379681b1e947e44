"""This project's own checkpoints as leaves, and writing one out of leaves."""

import dataclasses
import json

import numpy as np
import pytest

from flan_jax.checkpoint import own, reading
from flan_jax.checkpoint.digest import leaves_digest, params_digest
from flan_jax.checkpoint.leaves import BFLOAT16, cast, from_array
from flan_jax.checkpoint.trees import nested
from flan_jax.checkpoint.weights import Weights
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.parameters import parameter_shapes

CONFIG = T5Config(
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=12,
    num_encoder_layers=1,
    num_decoder_layers=2,
    vocab_size=24,
    dropout_rate=0.0,
)


def made_up(config=CONFIG, *, dtype=np.float32, slots=True):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(config)
    params = {name: from_array(rng.standard_normal(shape, np.float32).astype(dtype)) for name, shape in shapes.items()}
    moments = {f"v/{name}": from_array(rng.random(shape, np.float32)) for name, shape in shapes.items()}
    moments |= {f"{k}/{name}": from_array(np.zeros(1, np.float32)) for k in ("v_row", "v_col") for name in shapes}
    return Weights(
        format="t5x",
        layout="made up",
        path="made up",
        step=7,
        config=config,
        config_is_stated=True,
        params=params,
        slots=moments if slots else {},
    )


def written(tmp_path, weights, **metadata):
    own.write(weights, tmp_path, metadata={"model": dataclasses.asdict(CONFIG), **metadata})
    return own.open_weights(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
def test_what_is_written_reads_back_bit_for_bit_with_step_and_second_moments(tmp_path, dtype):
    weights = made_up(dtype=dtype)
    found = written(tmp_path, weights, spoken="English")
    assert leaves_digest(found.params) == leaves_digest(weights.params)
    assert leaves_digest(found.slots) == leaves_digest(weights.slots)
    assert (found.format, found.step, found.config, found.notes) == ("flan_jax", 7, CONFIG, ())
    assert found.metadata["spoken"] == "English"


def test_momentum_goes_along(tmp_path):
    weights = made_up()
    weights = dataclasses.replace(
        weights, slots={**weights.slots, "m/encoder/encoder_norm/scale": from_array(np.ones(8))}
    )
    assert leaves_digest(written(tmp_path, weights).slots) == leaves_digest(weights.slots)


def test_orbax_restores_what_is_written_as_a_runs_own_parameters(tmp_path):
    import jax

    weights = made_up()
    written(tmp_path, weights)
    abstract = nested({n: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for n, leaf in weights.params.items()})
    restored = reading.read_tree(reading.find(tmp_path), "params", abstract)
    assert params_digest(restored) == leaves_digest(weights.params)


def test_parameters_alone_leave_no_optimiser_item(tmp_path):
    found = written(tmp_path, made_up(slots=False))
    assert found.slots == {}
    assert not (tmp_path / "checkpoints" / "7" / "opt_state").exists()


def test_a_vocabulary_beside_it_is_found(tmp_path):
    assert written(tmp_path, made_up()).vocabulary_file is None
    (tmp_path / own.VOCABULARY_FILE).write_bytes(b"pieces")
    assert own.open_weights(tmp_path / "checkpoints" / "7").vocabulary_file.read_bytes() == b"pieces"


def test_a_tree_that_is_no_whole_t5_opens_with_the_reason(tmp_path):
    weights = made_up(slots=False)
    params = {name: leaf for name, leaf in weights.params.items() if name != "encoder/encoder_norm/scale"}
    own.write(dataclasses.replace(weights, params=params), tmp_path, metadata={})
    found = own.open_weights(tmp_path)
    assert found.config is None
    assert "encoder/encoder_norm/scale: missing" in found.notes[0]


def test_a_model_written_by_another_version_is_told_and_not_a_crash(tmp_path):
    own.write(made_up(), tmp_path, metadata={"model": {"emb_dim": 8, "mixture_of_depths": True}})
    found = own.open_weights(tmp_path)
    assert found.config is None
    assert "mixture_of_depths" in found.notes[0]


def test_the_slots_are_found_whatever_stands_around_adafactor():
    params = {"a/scale": 1, "v/b": 2}
    state = {"0/count": 0, "inner/rule_0/1/v/a/scale": 5, "inner/rule_0/1/v_row/v/b": 6, "2/mu/a/scale": 7}
    assert own.slots_of(state, params) == {"v/a/scale": 5, "v_row/v/b": 6}


@pytest.mark.parametrize(
    ("where", "looks"), [("", True), ("checkpoints", True), ("checkpoints/7", True), ("checkpoints/7/params", False)]
)
def test_its_own_paths_are_recognised(tmp_path, where, looks):
    written(tmp_path, made_up(slots=False))
    assert own.looks_like(tmp_path / where) is looks


def item(tmp_path):
    written(tmp_path, made_up(slots=False))
    return tmp_path / "checkpoints" / "7" / "params"


def test_an_array_whose_description_is_gone_is_named(tmp_path):
    place = item(tmp_path)
    tree = json.loads((place / "_METADATA").read_text())
    (name, entry), *_ = tree["tree_metadata"].items()
    entry["key_metadata"][-1]["key"] = "lost"
    (place / "_METADATA").write_text(json.dumps(tree))
    with pytest.raises(
        ValueError, match=r"params: the array \S+/lost is named and not there. The checkpoint is incomplete"
    ):
        own.open_weights(tmp_path)


def test_values_that_were_cut_short_are_told_by_the_arrays_name(tmp_path):
    place = item(tmp_path)
    for file in place.glob("**/d/*"):
        file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"params: .* cannot be read: .* copy the checkpoint anew"):
        leaves_digest(own.open_weights(tmp_path).params)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "has no _METADATA"), ("{", "_METADATA cannot be read: it was cut short")]
)
def test_a_list_of_arrays_that_is_gone_or_cut_is_told(tmp_path, content, message):
    place = item(tmp_path)
    if content is None:
        (place / "_METADATA").unlink()
    else:
        (place / "_METADATA").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        own.open_weights(tmp_path)


def test_half_a_checkpoint_is_no_checkpoint(tmp_path):
    item(tmp_path)
    (tmp_path / "checkpoints" / "7" / "_CHECKPOINT_METADATA").unlink()
    assert own.looks_like(tmp_path / "checkpoints" / "7")
    with pytest.raises(FileNotFoundError, match="No checkpoint in"):
        own.open_weights(tmp_path)


def test_a_cast_leaf_is_written_in_its_new_type(tmp_path):
    weights = made_up(slots=False)
    params = {name: cast(leaf, BFLOAT16) for name, leaf in weights.params.items()}
    found = written(tmp_path, dataclasses.replace(weights, params=params))
    assert {leaf.dtype for leaf in found.params.values()} == {BFLOAT16}
