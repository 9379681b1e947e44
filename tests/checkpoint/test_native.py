"""This project's own checkpoints as leaves, and writing one out of leaves."""

import dataclasses
import json

import numpy as np
import pytest

from flan_jax import vocab
from flan_jax.checkpoint import native, reading
from flan_jax.checkpoint.digest import leaves_digest, params_digest
from flan_jax.checkpoint.leaves import BFLOAT16, cast, from_array
from flan_jax.checkpoint.orbax_arrays import open_arrays
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


def synthetic_weights(config=CONFIG, *, dtype=np.float32, slots=True):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(config)
    params = {name: from_array(rng.standard_normal(shape, np.float32).astype(dtype)) for name, shape in shapes.items()}
    moments = {f"v/{name}": from_array(rng.random(shape, np.float32)) for name, shape in shapes.items()}
    moments |= {f"{k}/{name}": from_array(np.zeros(1, np.float32)) for k in ("v_row", "v_col") for name in shapes}
    return Weights(
        format="t5x",
        layout="synthetic",
        path="synthetic",
        step=7,
        config=config,
        config_is_stated=True,
        params=params,
        slots=moments if slots else {},
    )


def written(tmp_path, weights, **metadata):
    native.write(weights, tmp_path, metadata={"model": dataclasses.asdict(CONFIG), **metadata})
    return native.open_weights(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
def test_what_is_written_reads_back_bit_for_bit_with_step_and_second_moments(tmp_path, dtype):
    weights = synthetic_weights(dtype=dtype)
    found = written(tmp_path, weights, spoken="English")
    assert leaves_digest(found.params) == leaves_digest(weights.params)
    assert leaves_digest(found.slots) == leaves_digest(weights.slots)
    assert (found.format, found.step, found.config, found.notes) == ("flan_jax", 7, CONFIG, ())
    assert found.metadata["spoken"] == "English"


def test_momentum_is_read_and_written(tmp_path):
    weights = synthetic_weights()
    weights = dataclasses.replace(
        weights, slots={**weights.slots, "m/encoder/encoder_norm/scale": from_array(np.ones(8))}
    )
    assert leaves_digest(written(tmp_path, weights).slots) == leaves_digest(weights.slots)


def test_orbax_restores_what_is_written_as_a_runs_own_parameters(tmp_path):
    import jax

    weights = synthetic_weights()
    written(tmp_path, weights)
    abstract = nested({n: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for n, leaf in weights.params.items()})
    restored = reading.read_tree(reading.find(tmp_path), "params", abstract)
    assert params_digest(restored) == leaves_digest(weights.params)


def test_parameters_alone_have_no_optimizer_item(tmp_path):
    found = written(tmp_path, synthetic_weights(slots=False))
    assert found.slots == {}
    assert not (tmp_path / "checkpoints" / "7" / "opt_state").exists()


def test_a_stored_vocabulary_is_found(tmp_path):
    assert written(tmp_path, synthetic_weights()).vocabulary is None
    file = tmp_path / native.VOCABULARY_FILE
    file.write_bytes(b"pieces")
    assert native.open_weights(tmp_path / "checkpoints" / "7").vocabulary == vocab.load(str(file))


def test_an_incomplete_t5_opens_with_the_reason(tmp_path):
    weights = synthetic_weights(slots=False)
    params = {name: leaf for name, leaf in weights.params.items() if name != "encoder/encoder_norm/scale"}
    native.write(dataclasses.replace(weights, params=params), tmp_path, metadata={})
    found = native.open_weights(tmp_path)
    assert found.config is None
    assert "encoder/encoder_norm/scale: missing" in found.notes[0]


def test_a_network_recorded_by_another_version_is_noted(tmp_path):
    native.write(synthetic_weights(), tmp_path, metadata={"model": {"emb_dim": 8, "mixture_of_depths": True}})
    found = native.open_weights(tmp_path)
    assert found.config is None
    assert "mixture_of_depths" in found.notes[0]


def test_the_slots_are_found_whatever_transformations_surround_adafactor():
    params = {"a/scale": 1, "v/b": 2}
    state = {"0/count": 0, "inner/rule_0/1/v/a/scale": 5, "inner/rule_0/1/v_row/v/b": 6, "2/mu/a/scale": 7}
    assert native.slots_of(state, params) == {"v/a/scale": 5, "v_row/v/b": 6}


@pytest.mark.parametrize(
    ("where", "looks"), [("", True), ("checkpoints", True), ("checkpoints/7", True), ("checkpoints/7/params", False)]
)
def test_its_own_paths_are_recognised(tmp_path, where, looks):
    written(tmp_path, synthetic_weights(slots=False))
    assert native.looks_like(tmp_path / where) is looks


def item(tmp_path):
    written(tmp_path, synthetic_weights(slots=False))
    return tmp_path / "checkpoints" / "7" / "params"


def test_an_array_without_metadata_is_named(tmp_path):
    place = item(tmp_path)
    tree = json.loads((place / "_METADATA").read_text())
    (name, entry), *_ = tree["tree_metadata"].items()
    entry["key_metadata"][-1]["key"] = "lost"
    (place / "_METADATA").write_text(json.dumps(tree))
    with pytest.raises(
        ValueError, match=r"params: the array \S+/lost is listed but missing. The checkpoint is incomplete"
    ):
        open_arrays(place)


def test_truncated_values_are_reported_with_the_arrays_name(tmp_path):
    place = item(tmp_path)
    for file in place.glob("**/d/*"):
        file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"params: .* cannot be read: .* copy the checkpoint again"):
        leaves_digest(open_arrays(place))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "has no _METADATA"), ("{", "_METADATA cannot be read: it is truncated")]
)
def test_a_missing_or_truncated_list_of_arrays_is_reported(tmp_path, content, message):
    place = item(tmp_path)
    if content is None:
        (place / "_METADATA").unlink()
    else:
        (place / "_METADATA").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_arrays(place)


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "digests.json"])
def test_a_partial_copy_is_refused_and_an_older_checkpoint_is_used_with_a_warning(tmp_path, name):
    item(tmp_path)
    (tmp_path / "checkpoints" / "7" / name).unlink()
    assert native.looks_like(tmp_path / "checkpoints" / "7")
    with pytest.raises(ValueError, match=rf"checkpoints/7 is damaged: {name} is missing"):
        native.open_weights(tmp_path / "checkpoints" / "7")
    with pytest.raises(ValueError, match=rf"No checkpoint in .* is intact \(7: {name} is missing"):
        native.open_weights(tmp_path)
    written(tmp_path, dataclasses.replace(synthetic_weights(slots=False), step=3))
    found = native.open_weights(tmp_path)
    assert found.step == 3 and f"7 is damaged ({name} is missing" in found.warnings[0]
    with pytest.raises(ValueError, match="The newest checkpoint, .*/7, is damaged"):
        native.open_weights(tmp_path, strict=True)


def test_a_cast_leaf_is_written_in_its_new_type(tmp_path):
    weights = synthetic_weights(slots=False)
    params = {name: cast(leaf, BFLOAT16) for name, leaf in weights.params.items()}
    found = written(tmp_path, dataclasses.replace(weights, params=params))
    assert {leaf.dtype for leaf in found.params.values()} == {BFLOAT16}
