"""T5X's checkpoints in all their forms and layouts come out under our names, and what is incomplete is refused."""

import gzip
import json
import re
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from flan_jax.checkpoint.leaves import Leaf
from flan_jax.checkpoint.t5x import reading as t5x
from flan_jax.paths import BucketPath, location
from tests.checkpoint import t5x_files
from tests.checkpoint.t5x_files import ext, index_bytes

LAYOUTS = [(False, False), (False, True), (True, False), (True, True)]
KERNEL = "target/encoder/layers_0/mlp/wo/kernel"


def assert_equal(leaves: dict[str, Leaf], arrays: dict[str, np.ndarray]):
    assert leaves.keys() == arrays.keys()
    for name, array in arrays.items():
        whole = leaves[name].whole()
        assert (whole.dtype, whole.shape, leaves[name].shape) == (array.dtype, array.shape, array.shape), name
        assert whole.tobytes() == array.tobytes(), name


def targets(params):
    return {f"target/{name}": array for name, array in params.items()}


def halves(shape):
    """Chunks that do not divide all sizes, so that there are several and the last ones are partial."""
    return tuple(max(1, size // 2 + size % 2 - (size > 8)) for size in shape)


def checkpoint(place: Path, params, *, state=None, parts=halves) -> Path:
    separate = {name: (array, parts(array.shape)) for name, array in targets(params).items()}
    return t5x_files.write(place, {"state/step": np.asarray(9, np.int32), **(state or {})}, separate)


@pytest.fixture
def tiny(tmp_path):
    """A checkpoint in an index and Zarr arrays of several parts, and its values."""
    params = t5x_files.our_params(t5x_files.config())
    return checkpoint(tmp_path / "checkpoint_9", params), params


@pytest.mark.parametrize("per_layer", [False, True], ids=["bias a stack", "bias a layer"])
@pytest.mark.parametrize(("scanned", "split"), LAYOUTS)
def test_every_layout_comes_out_as_our_tree(tmp_path, scanned, split, per_layer):
    config = t5x_files.config(relpos_bias_per_layer=per_layer)
    ours = t5x_files.our_params(config)
    theirs = t5x_files.their_params(ours, config, scanned=scanned, split=split)
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", theirs))
    assert_equal(weights.params, ours)
    assert (weights.config, weights.config_is_stated, weights.step, weights.notes) == (config, False, 9, ())
    assert ("layers stacked" in weights.layout, "heads split" in weights.layout) == (scanned, split)


@pytest.mark.parametrize(
    "changes",
    [{"mlp_activations": ("relu",), "logits_via_embedding": True}, {"num_encoder_layers": 12}, {"relpos_buckets": 4}],
    ids=["plain and tied", "more than ten layers", "four buckets"],
)
def test_every_kind_of_t5_comes_out_of_stacked_layers(tmp_path, changes):
    config = t5x_files.config(relpos_bias_per_layer=True, **changes)
    ours = t5x_files.our_params(config)
    theirs = t5x_files.their_params(ours, config, scanned=True, split=True)
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", theirs))
    assert_equal(weights.params, ours)
    assert weights.config == config


def test_bfloat16_is_read_bit_for_bit_and_a_part_at_a_time(tmp_path):
    params = t5x_files.our_params(t5x_files.config(), ml_dtypes.bfloat16)
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", params))
    assert_equal(weights.params, params)
    name = "decoder/layers_2/mlp/wi_0/kernel"
    part = (slice(1, 5), slice(3, 9))
    np.testing.assert_array_equal(weights.params[name].part(part), params[name][part])
    assert weights.params[name].chunk == halves(params[name].shape)


def test_one_file_with_every_array_in_it_is_read_from_itself_or_its_directory(tmp_path):
    params = t5x_files.our_params(t5x_files.config())
    leaves = {name: ext(array) for name, array in targets(params).items()}
    for code, step in ((1, np.asarray(7, np.int32)), (3, np.asarray(7, np.int64))):
        data = index_bytes({**leaves, "state/step": ext(step, code)})
        (tmp_path / "tiny.checkpoint_7").write_bytes(data)
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "checkpoint").write_bytes(data)
        for path in (tmp_path / "tiny.checkpoint_7", tmp_path / "folder", tmp_path / "folder" / "checkpoint"):
            weights = t5x.open_weights(path)
            assert t5x.looks_like(path)
            assert_equal(weights.params, params)
            assert (weights.step, weights.layout) == (7, "one msgpack file; a name for each layer")


def test_orbax_arrays_are_read(tmp_path):
    params = t5x_files.our_params(t5x_files.config())
    place = orbax_checkpoint(tmp_path / "checkpoint_9", targets(params) | {"state/step": np.asarray(9, np.int32)})
    weights = t5x.open_weights(place)
    assert t5x.looks_like(place)
    assert_equal(weights.params, params)
    assert (weights.step, weights.layout) == (9, "Orbax arrays (OCDBT); a name for each layer")


def orbax_checkpoint(place: Path, named) -> Path:
    import orbax.checkpoint as ocp

    from flan_jax.checkpoint.trees import nested

    place.mkdir(parents=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as writer:
        writer.save((place / "state").absolute(), args=ocp.args.PyTreeSave(nested(named)))
    (place / "commit_success.txt").touch()
    return place


def test_any_characters_may_occur_in_a_path(tmp_path):
    params = t5x_files.our_params(t5x_files.config())
    place = checkpoint(tmp_path / "a b#c%20d?" / "checkpoint_9", params)
    assert_equal(t5x.open_weights(place).params, params)
    place = orbax_checkpoint(tmp_path / "plain" / "checkpoint_9", targets(params))
    assert_equal(t5x.open_weights(place.parent.rename(tmp_path / "e f#g%20h?") / "checkpoint_9").params, params)


def test_a_bucket_is_read_as_a_directory_is(tiny):
    place, params = tiny
    bucket = BucketPath(root={"driver": "file", "path": f"{place.parent}/"}, path="checkpoint_9")
    for path in (bucket, bucket / "checkpoint", bucket.parent):
        assert t5x.looks_like(path)
        assert_equal(t5x.open_weights(path).params, params)


def test_an_array_in_a_bucket_is_read_there_wherever_it_was_written():
    place = location("gs://some-bucket/small/checkpoint_9")
    wanted = {"driver": "gcs", "bucket": "some-bucket", "path": "small/checkpoint_9/target.a.kernel/"}
    assert t5x.zarr_spec(place, "target.a.kernel") == {"driver": "zarr", "kvstore": wanted}


def test_the_latest_complete_checkpoint_of_a_run_is_opened_and_ignored_ones_are_noted(tmp_path):
    params = t5x_files.our_params(t5x_files.config())
    for step in (9, 100):
        checkpoint(tmp_path / f"checkpoint_{step}", params, state={"state/step": np.asarray(step, np.int32)})
    (tmp_path / "checkpoint_300").mkdir()
    (tmp_path / "checkpoint_400.tmp-1700000000").mkdir()
    weights = t5x.open_weights(tmp_path)
    assert weights.step == 100
    assert weights.notes == ("Ignored, because unfinished: checkpoint_300, checkpoint_400.tmp-1700000000.",)
    assert (t5x.open_weights(tmp_path, step=9).step, t5x.open_weights(tmp_path, step=9).notes) == (9, ())
    assert t5x.open_weights(tmp_path / "checkpoint_9", step=9).step == 9
    with pytest.raises(FileNotFoundError, match=r"No checkpoint of step 5 in .*Available steps: \[9, 100, 300\]"):
        t5x.open_weights(tmp_path, step=5)
    with pytest.raises(FileNotFoundError, match="is the checkpoint of step 9, not of step 100"):
        t5x.open_weights(tmp_path / "checkpoint_9", step=100)
    with pytest.raises(ValueError, match="checkpoint_300 is unfinished: it has neither"):
        t5x.open_weights(tmp_path, step=300)
    with pytest.raises(ValueError, match="checkpoint_300 is unfinished: it has neither"):
        t5x.open_weights(tmp_path / "checkpoint_300")
    with pytest.raises(ValueError, match=r"tmp-1700000000 is unfinished: T5X renames it"):
        t5x.open_weights(tmp_path / "checkpoint_400.tmp-1700000000")


def test_a_place_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at .*nowhere: no such file or directory"):
        t5x.open_weights(tmp_path / "nowhere")
    (tmp_path / "checkpoint_3.orbax-checkpoint-tmp").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No complete checkpoint in .*checkpoint_3\.orbax-checkpoint-tmp"):
        t5x.open_weights(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "weights.txt").touch()
    assert not t5x.looks_like(other)
    assert not t5x.looks_like(other / "weights.txt")
    assert not t5x.looks_like(tmp_path / "nowhere")


def test_an_orbax_checkpoint_that_was_not_committed_is_refused(tmp_path):
    place = orbax_checkpoint(tmp_path / "checkpoint_9", {"target/a/scale": np.ones(2, np.float32)})
    for file in place.rglob("commit_success.txt"):
        file.unlink()
    with pytest.raises(ValueError, match=r"checkpoint_9 is unfinished: commit_success\.txt, which is written last"):
        t5x.open_weights(place)
    (place / "commit_success.txt").touch()
    (place / "state" / "_METADATA").unlink()
    with pytest.raises(ValueError, match="checkpoint_9 is unfinished: state/_METADATA or"):
        t5x.open_weights(place)
    (place / "state" / "checkpoint").touch()
    with pytest.raises(ValueError, match="It has Orbax's older format, without OCDBT"):
        t5x.open_weights(place)


def test_a_missing_part_is_an_error_and_not_zeros(tiny):
    place, _ = tiny
    (place / KERNEL.replace("/", ".") / "1.0").unlink()
    with pytest.raises(ValueError, match=rf"checkpoint_9: the array {KERNEL} lacks its chunk 1\.0"):
        t5x.open_weights(place)


def test_a_missing_array_is_named(tiny):
    place, _ = tiny
    (place / KERNEL.replace("/", ".") / ".zarray").unlink()
    with pytest.raises(ValueError, match=rf"index lists the leaf {KERNEL}, but target.*/\.zarray is missing"):
        t5x.open_weights(place)


@pytest.mark.parametrize("damage", ["cut", "bits"])
def test_a_damaged_chunk_is_named_when_it_is_read(tiny, damage):
    place, _ = tiny
    file = place / KERNEL.replace("/", ".") / "0.0"
    data = bytearray(file.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[-8] ^= 1  # In gzip's checksum.
    file.write_bytes(data)
    leaf = t5x.open_weights(place).params[KERNEL.removeprefix("target/")]
    with pytest.raises(ValueError, match=rf"checkpoint_9: the array {KERNEL} cannot be read: .*0\.0"):
        leaf.whole()


@pytest.mark.parametrize(("field", "value", "shown"), [("shape", [10, 7], r"\[10, 7\]"), ("dtype", "<f2", "float16")])
def test_an_array_that_is_not_what_the_index_says_is_refused(tiny, field, value, shown):
    place, _ = tiny
    file = place / KERNEL.replace("/", ".") / ".zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(ValueError, match=rf"index has the leaf {KERNEL} as float32\[10, 6\], but .*{shown}"):
        t5x.open_weights(place)


def test_an_array_with_broken_metadata_is_named(tiny):
    place, _ = tiny
    (place / KERNEL.replace("/", ".") / ".zarray").write_text("{")
    with pytest.raises(ValueError, match=f"checkpoint_9: the array {KERNEL} cannot be read"):
        t5x.open_weights(place)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((10, 6), np.float64), f"the leaf {KERNEL} is float64; supported are float32, bfloat16, float16"),
        (np.ones((10, 6), np.uint16), f"the leaf {KERNEL} is uint16, as T5X wrote bfloat16 before June 2021"),
    ],
    ids=["float64", "old bfloat16"],
)
def test_other_types_are_refused_by_name(tmp_path, array, message):
    path = t5x_files.write(tmp_path / "checkpoint_1", {KERNEL: array}, {})
    with pytest.raises(ValueError, match=message):
        t5x.open_weights(path)


def test_old_bfloat16_outside_the_index_is_refused(tiny):
    place, params = tiny
    leaves = {name: ext(array) for name, array in targets(params).items()}
    metadata = {"chunks": [10, 6], "compressor": {"id": "gzip"}, "shape": [10, 6], "dtype": "<u2"}
    leaves[KERNEL] = {"driver": "zarr", "kvstore": {"driver": "file", "path": "x/"}, "metadata": metadata}
    (place / "checkpoint").write_bytes(index_bytes(leaves))
    with pytest.raises(ValueError, match=f"the leaf {KERNEL} is uint16, as T5X wrote bfloat16 before June 2021"):
        t5x.open_weights(place)


def test_a_checkpoint_without_parameters_is_refused(tmp_path):
    path = t5x_files.write(tmp_path / "checkpoint_1", {"state/step": np.asarray(1)}, {})
    with pytest.raises(ValueError, match=r"has no parameters \(no leaf under 'target'\): \['state/step'\]"):
        t5x.open_weights(path)


def test_a_step_that_is_not_an_integer_is_refused(tmp_path):
    path = t5x_files.write(
        tmp_path / "c", {"target/a/scale": np.ones(1, np.float32), "state/step": np.asarray(1.5)}, {}
    )
    with pytest.raises(ValueError, match=r"state/step is 1\.5; expected one integer"):
        t5x.open_weights(path)


def test_an_incomplete_t5_opens_with_a_note_on_what_is_missing(tmp_path):
    config = t5x_files.config(relpos_bias_per_layer=True)
    ours = t5x_files.our_params(config)
    theirs = t5x_files.their_params(ours, config, scanned=True, split=True)
    encoder = {name: array for name, array in theirs.items() if not name.startswith("decoder")}
    head = {"head/kernel": np.ones((6, 1), np.float32)}
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", encoder | head))
    wanted = {name: array for name, array in ours.items() if not name.startswith("decoder")}
    assert_equal(weights.params, wanted | head)
    assert weights.config is None
    assert "no leaf under decoder/layers_0" in weights.notes[0]


def test_the_norm_scale_that_ul2_lacks_is_read_as_ones_with_a_note(tmp_path):
    config = t5x_files.config(mlp_activations=("silu", "linear"), logits_via_embedding=True)
    ours = t5x_files.our_params(config)
    scale = ours.pop("decoder/decoder_norm/scale")
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", ours))
    assert_equal(weights.params, {**ours, "decoder/decoder_norm/scale": np.ones_like(scale)})
    assert weights.config == config
    assert weights.notes == ("decoder/decoder_norm/scale is absent, as in T5X's UL2: it is read as ones.",)


def test_the_same_norm_missing_in_another_family_is_missing(tmp_path):
    ours = t5x_files.our_params(t5x_files.config())
    del ours["decoder/decoder_norm/scale"]
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", ours))
    assert weights.config is None and "decoder/decoder_norm/scale: missing" in weights.notes[0]


@pytest.mark.parametrize(
    ("scanned", "broken", "shape", "note"),
    [
        (False, "encoder/layers_0/mlp/wo/kernel", None, "missing: encoder/layers_0/mlp/wo/kernel"),
        (True, "encoder/encoder/mlp/wo/kernel", (10, 6), r"expected 3 dimensions"),
        (True, "encoder/encoder/mlp/wo/kernel", (10, 5, 6), r"has 5 layers and .* has 2"),
    ],
    ids=["a layer missing", "dimensions", "heights"],
)
def test_a_tree_that_the_rules_do_not_match_keeps_t5xs_names(tmp_path, scanned, broken, shape, note):
    config = t5x_files.config(relpos_bias_per_layer=True)
    theirs = t5x_files.their_params(t5x_files.our_params(config), config, scanned=scanned, split=True)
    del theirs[broken]
    if shape is not None:
        theirs[broken] = np.ones(shape, np.float32)
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", theirs, state=adafactor(theirs)))
    assert_equal(weights.params, theirs)
    assert weights.config is None
    assert any(re.search(note, text) for text in weights.notes)
    assert not weights.slots
    assert "Adafactor's state is not converted, because the parameters keep T5X's names." in weights.notes


def adafactor(theirs):
    """Unfactored second moments of T5X's names."""
    state = {}
    for name, array in theirs.items():
        state |= {f"state/param_states/{name}/{slot}": np.zeros(1, np.float32) for slot in ("v_row", "v_col", "m")}
        state[f"state/param_states/{name}/v"] = array + np.float32(0.5)
    return state


def test_adafactors_state_comes_out_under_our_names(tmp_path):
    params = t5x_files.our_params(t5x_files.config())
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", params, state=adafactor(params)))
    wanted = {f"v/{name}": array + np.float32(0.5) for name, array in params.items()}
    wanted |= {f"{slot}/{name}": np.zeros(1, np.float32) for name in params for slot in ("v_row", "v_col")}
    assert_equal(weights.slots, wanted)
    assert weights.notes == ()


def test_another_optimizers_state_and_other_leaves_are_ignored_with_a_note(tmp_path):
    params = t5x_files.our_params(t5x_files.config())
    state = {
        "state/param_states/0/mu/token_embedder/embedding": np.ones(2, np.float32),
        "state/param_states/0/count": np.ones((), np.int32),
        "flax_mutables/counts/a": np.ones(1, np.float32),
    }
    place = checkpoint(tmp_path / "checkpoint_9", params, state=state)
    (place / "train_ds-000-of-001.index").touch()
    weights = t5x.open_weights(place)
    assert not weights.slots
    assert weights.notes == (
        "The position of T5X's input pipeline (train_ds-000-of-001.index) is not used.",
        "The optimizer's state is not Adafactor's (0/count, ...) and is not converted.",
        "Not used: 1 leaves such as flax_mutables/counts/a.",
    )


def test_a_state_that_does_not_match_its_parameters_is_ignored_with_a_note(tmp_path):
    params = t5x_files.our_params(t5x_files.config())
    state = adafactor(params)
    state["state/param_states/encoder/encoder_norm/scale/v"] = np.ones(5, np.float32)
    weights = t5x.open_weights(checkpoint(tmp_path / "checkpoint_9", params, state=state))
    assert not weights.slots
    assert weights.notes == (
        "Adafactor's state is not converted: v of encoder/encoder_norm/scale has the shape [5]; expected [6].",
    )


FIXTURES = ["test_t5_tiny.checkpoint_0", "test_t5_1_1_tiny/checkpoint_3", "t5x_zarr_checkpoint_9"]


@pytest.mark.shared_data
@pytest.mark.parametrize("name", FIXTURES)
def test_what_t5x_wrote_is_read_as_an_independent_reader_reads_it(shared_data, name):
    place = shared_data / "ckpt_t5x_tiny" / name
    stored = t5x_files.read(place / "checkpoint" if place.is_dir() else place)
    weights = t5x.open_weights(place)
    assert_equal(weights.params, {n.removeprefix("target/"): a for n, a in stored.items() if n.startswith("target/")})
    slots = {}
    for full, array in stored.items():
        param, _, slot = full.removeprefix("state/param_states/").rpartition("/")
        if full.startswith("state/param_states/") and slot != "m":
            slots[f"{slot}/{param}"] = array
    assert len(slots) == 3 * len(weights.params)
    assert_equal(weights.slots, slots)
    assert weights.step == int(stored["state/step"])


@pytest.mark.shared_data
def test_what_t5x_wrote_by_orbax_is_read_as_orbax_reads_it_and_as_the_same_steps_other_form(shared_data):
    import orbax.checkpoint as ocp

    from flan_jax.checkpoint.trees import named_leaves, nested

    place = shared_data / "ckpt_t5x_tiny" / "t5x_ocdbt_checkpoint_9"
    weights = t5x.open_weights(place)
    names = named_leaves(ocp.PyTreeCheckpointHandler().metadata(place / "state").tree)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        args = nested({name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names})
        stored = named_leaves(reader.restore(place / "state", args=ocp.args.PyTreeRestore(restore_args=args)))
    assert_equal(weights.params, {n.removeprefix("target/"): a for n, a in stored.items() if n.startswith("target/")})
    other = t5x.open_weights(shared_data / "ckpt_t5x_tiny" / "t5x_zarr_checkpoint_9")
    assert_equal(weights.params, {name: leaf.whole() for name, leaf in other.params.items()})
    assert_equal(weights.slots, {name: leaf.whole() for name, leaf in other.slots.items()})
    assert weights.step == other.step == int(stored["state/step"]) == 9


@pytest.mark.shared_data
def test_a_copy_of_what_t5x_wrote_without_one_of_its_parts_is_refused(shared_data, tmp_path):
    place = tmp_path / "checkpoint_9"
    shutil.copytree(shared_data / "ckpt_t5x_tiny" / "t5x_zarr_checkpoint_9", place, copy_function=shutil.copy)
    place.chmod(0o755)
    array = place / "target.token_embedder.embedding"
    array.chmod(0o755)
    data = (array / "0.0").read_bytes()
    (array / "0.0").unlink()
    with pytest.raises(ValueError, match=r"target/token_embedder/embedding lacks its chunk 0\.0"):
        t5x.open_weights(place)
    (array / "0.0").write_bytes(gzip.compress(gzip.decompress(data)[:-4]))
    with pytest.raises(ValueError, match="target/token_embedder/embedding cannot be read"):
        t5x.open_weights(place).params["token_embedder/embedding"].whole()
