"""What is written in T5X's form is what T5X writes, and reads back bit for bit in every layout."""

import dataclasses
import json
import tempfile
from pathlib import Path

import flax.serialization
import ml_dtypes
import numpy as np
import pytest

from flan_jax.checkpoint.leaves import Leaf, from_array, same_values
from flan_jax.checkpoint.t5x import reading as t5x
from flan_jax.checkpoint.t5x import writing
from flan_jax.checkpoint.weights import Weights
from tests.checkpoint import t5x_files

# A layout, and whether the bias is per layer, which decides whether heads and head size are two dimensions.
LAYOUTS = {"layers by name": ("unrolled", False), "heads split": ("unrolled", True), "scanned": ("scanned", True)}


def weights(*, config=None, step=9, dtype=np.float32, slots=False, **changes) -> Weights:
    config = config or t5x_files.config(**changes)
    params = t5x_files.our_params(config, dtype)
    state = {}
    if slots:
        for name, array in params.items():
            state[f"v/{name}"] = from_array(array.astype(np.float32) + np.float32(0.5))
            state |= {f"{slot}/{name}": from_array(np.zeros(1, np.float32)) for slot in ("v_row", "v_col")}
    return Weights(
        format="flan_jax",
        layout="",
        path="some place",
        step=step,
        config=config,
        config_is_stated=True,
        params={name: from_array(array) for name, array in params.items()},
        slots=state,
    )


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "checkpoint_9"
    directory.mkdir()
    return directory


def assert_same_weights(got: Weights, wanted: Weights):
    assert (got.step, got.config) == (wanted.step, wanted.config)
    for mine, theirs in ((got.params, wanted.params), (got.slots, wanted.slots)):
        assert mine.keys() == theirs.keys()
        assert [name for name, leaf in theirs.items() if not same_values(leaf, mine[name])] == []


@pytest.mark.parametrize(("layout", "per_layer"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "changes",
    [{}, {"mlp_activations": ("relu",), "logits_via_embedding": True}],
    ids=["gated and untied", "plain and tied"],
)
def test_reading_what_was_written_is_the_identity(place, layout, per_layer, dtype, changes):
    original = weights(relpos_bias_per_layer=per_layer, dtype=dtype, **changes)
    writing.write(original, place, layout=layout)
    got = t5x.open_weights(place)
    activations = original.config.mlp_activations  # Shapes do not tell them.
    assert_same_weights(
        dataclasses.replace(got, config=dataclasses.replace(got.config, mlp_activations=activations)), original
    )


@pytest.mark.parametrize(("layout", "per_layer"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_tree_written_is_that_of_numpys_own_stack_and_reshape(place, layout, per_layer):
    config = t5x_files.config(relpos_bias_per_layer=per_layer)
    writing.write(weights(config=config), place, layout=layout)
    stored = t5x_files.read(place / "checkpoint")
    wanted = t5x_files.their_params(t5x_files.our_params(config), config, scanned=layout == "scanned", split=per_layer)
    assert stored.pop("state/step") == 9
    assert stored.keys() == {f"target/{name}" for name in wanted}
    for name, array in wanted.items():
        assert stored[f"target/{name}"].tobytes() == array.tobytes(), name
        assert stored[f"target/{name}"].shape == array.shape, name


def test_heads_are_split_where_t5xs_network_splits_them(place, tmp_path):
    writing.write(weights(relpos_bias_per_layer=True), place)
    assert t5x.open_weights(place).layout.endswith("a name for each layer, heads split")
    (tmp_path / "b").mkdir()
    writing.write(weights(), tmp_path / "b")
    assert t5x.open_weights(tmp_path / "b").layout.endswith("a name for each layer")


def test_partitioned_arrays_are_stored_outside_the_index_and_small_ones_in_it(place):
    writing.write(weights(slots=True), place)
    tree = flax.serialization.msgpack_restore((place / "checkpoint").read_bytes())
    assert tree.keys() == {"version", "optimizer"}
    assert tree["version"] == 3
    assert tree["optimizer"].keys() == {"target", "state"}
    assert tree["optimizer"]["state"].keys() == {"step", "param_states"}
    step = tree["optimizer"]["state"]["step"]
    assert (step.dtype, step.shape, int(step)) == (np.int32, (), 9)
    name = "encoder.layers_0.mlp.wo.kernel"
    spec = tree["optimizer"]["target"]["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
    assert spec == {
        "driver": "zarr",
        "dtype": "float32",
        "kvstore": {"driver": "file", "path": f"target.{name}/"},
        "metadata": {"chunks": [10, 6], "compressor": {"id": "gzip", "level": 1}, "shape": [10, 6]},
    }
    state = tree["optimizer"]["state"]["param_states"]["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
    assert state["v"]["kvstore"] == {"driver": "file", "path": f"state.param_states.{name}.v/"}
    for slot in ("v_row", "v_col", "m"):
        assert (state[slot].dtype, state[slot].tolist()) == (np.float32, [0.0])
    about = json.loads((place / f"target.{name}" / ".zarray").read_text())
    assert (about["zarr_format"], about["dtype"], about["compressor"]) == (2, "<f4", {"id": "gzip", "level": 1})
    assert (about["fill_value"], about["order"], about["dimension_separator"]) == (None, "C", ".")
    assert {file.name for file in place.iterdir() if not file.is_dir()} == {"checkpoint"}


def test_parameters_alone_have_no_state_except_the_step(place):
    writing.write(weights(step=None), place)
    tree = flax.serialization.msgpack_restore((place / "checkpoint").read_bytes())
    assert tree["optimizer"]["state"].keys() == {"step"}
    assert t5x.open_weights(place).step == 0


def test_step_and_adafactors_state_come_back_bit_for_bit(place):
    original = weights(slots=True)
    writing.write(original, place)
    assert_same_weights(t5x.open_weights(place), original)


def test_means_and_momentum_of_stacked_layers_come_back_bit_for_bit(place):
    config = t5x_files.config(relpos_bias_per_layer=True)
    rng = np.random.default_rng(0)
    slots = {}
    for name, array in t5x_files.our_params(config).items():
        is_mean = name.endswith(("kernel", "embedding")) and "relpos" not in name
        larger = 1 if array.ndim == 2 and array.shape[1] >= array.shape[0] else 0
        shapes = {"v_row": (1,), "v_col": (1,), "v": array.shape, "m": array.shape}
        if is_mean and name != "token_embedder/embedding":
            shapes |= {"v_row": (array.shape[1 - larger],), "v_col": (array.shape[larger],), "v": (1,)}
        for slot, shape in shapes.items():
            values = np.zeros(1, np.float32) if shape == (1,) else rng.standard_normal(shape, np.float32)
            slots[f"{slot}/{name}"] = from_array(values)
    original = dataclasses.replace(weights(config=config), slots=slots)
    writing.write(original, place, layout="scanned")
    stored = t5x_files.read(place / "checkpoint")
    kernel = "state/param_states/decoder/decoder/self_attention/query/kernel"
    assert stored[f"{kernel}/v_row"].shape == (6, 3)
    assert stored[f"{kernel}/v_col"].shape == (3, 2, 4)
    assert stored[f"{kernel}/m"].shape == (6, 3, 2, 4)
    files = {file.name for file in place.iterdir()}
    assert f"{kernel}/m".replace("/", ".") in files  # T5X partitions momentum as its parameter, and no means.
    assert f"{kernel}/v_row".replace("/", ".") not in files
    assert_same_weights(t5x.open_weights(place), original)


def test_arrays_of_several_parts_are_written_in_full_and_no_more_than_a_part_is_read_at_a_time(place, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK_BYTES", 100)
    asked = []

    def counted(leaf: Leaf) -> Leaf:
        def read(index):
            values = leaf.read(index)
            asked.append(values.nbytes)
            return values

        return dataclasses.replace(leaf, read=read)

    original = weights(relpos_bias_per_layer=True, num_decoder_layers=4)
    original = dataclasses.replace(original, params={name: counted(leaf) for name, leaf in original.params.items()})
    for layout in ("unrolled", "scanned"):
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            asked.clear()
            writing.write(original, Path(folder), layout=layout)
            assert max(asked) <= 100 and len(asked) > 2 * len(original.params)
            assert len(list((Path(folder) / "target.token_embedder.embedding").iterdir())) == 1 + 3
            stored = t5x_files.read(Path(folder) / "checkpoint")
            assert (
                stored["target/token_embedder/embedding"].tolist()
                == original.params["token_embedder/embedding"].whole().tolist()
            )
            assert_same_weights(t5x.open_weights(Path(folder)), original)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_parameters_keep_their_type_and_the_optimizers_state_stays_float32(place, dtype):
    original = weights(slots=True, dtype=dtype)
    writing.write(original, place)
    assert_same_weights(t5x.open_weights(place), original)


def test_parts_are_as_large_as_t5xs_and_those_of_stacked_layers_part_the_layers():
    assert writing.chunk_shape((), 4) == ()
    assert writing.chunk_shape((4096, 4096), 4) == (4096, 4096)
    assert writing.chunk_shape((4096, 10240), 4) == (4096, 2560)
    assert writing.chunk_shape((4096, 10240), 2) == (4096, 5120)
    assert writing.chunk_shape((2048, 24, 32, 64), 4, is_stacked=True) == (2048, 4, 32, 64)
    assert writing.chunk_shape((4096, 24, 10240), 4, is_stacked=True) == (4096, 1, 2560)


def test_what_t5x_has_no_network_for_is_refused_with_the_reason(place):
    with pytest.raises(
        ValueError, match=r"some place has one relative position bias for all layers .* Write .*'unrolled'"
    ):
        writing.write(weights(), place, layout="scanned")
    with pytest.raises(ValueError, match="scale_decoder_outputs=True with logits_via_embedding=False; T5X's network"):
        writing.write(weights(scale_decoder_outputs=True), place)
    with pytest.raises(ValueError, match="relpos_max_distance 64; T5X's network has 128, which no setting of it"):
        writing.write(weights(relpos_max_distance=64), place)
    with pytest.raises(ValueError, match="layer_norm_epsilon 1e-05; T5X's network has 1e-06"):
        writing.write(weights(layer_norm_epsilon=1e-5), place)
    mixed = weights()
    mixed.params["decoder/logits_dense/kernel"] = from_array(np.ones((6, 12)))
    with pytest.raises(ValueError, match="some place: decoder/logits_dense/kernel is float64; T5X supports float32"):
        writing.write(mixed, place)
    assert list(place.iterdir()) == []


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["test_t5_tiny.checkpoint_0", "t5x_zarr_checkpoint_9", "t5x_ocdbt_checkpoint_9"])
def test_a_checkpoint_of_t5x_is_rewritten_bit_for_bit(shared_data, place, name):
    original = t5x.open_weights(shared_data / "ckpt_t5x_tiny" / name)
    writing.write(original, place)
    assert_same_weights(t5x.open_weights(place), original)


@pytest.mark.shared_data
def test_a_checkpoint_of_t5xs_is_written_as_it_wrote_it(shared_data, place):
    """The same leaves outside the index and in it, with the same specs."""
    source = shared_data / "ckpt_t5x_tiny" / "t5x_zarr_checkpoint_9"
    writing.write(t5x.open_weights(source), place)
    for mine, theirs in zip(sorted(place.iterdir()), sorted(source.iterdir()), strict=True):
        assert mine.name == theirs.name
        if mine.is_dir():
            assert (mine / ".zarray").read_text() == (theirs / ".zarray").read_text()
    mine, theirs = (
        flax.serialization.msgpack_restore((folder / "checkpoint").read_bytes()) for folder in (place, source)
    )
    assert flax.serialization.msgpack_serialize(_sorted(mine)) == flax.serialization.msgpack_serialize(_sorted(theirs))


def _sorted(tree):
    return {key: _sorted(tree[key]) for key in sorted(tree)} if isinstance(tree, dict) else tree
