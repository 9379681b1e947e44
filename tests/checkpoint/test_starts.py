"""What a new run takes from a checkpoint: every leaf accounted for, each part read once, onto any mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flan_jax.checkpoint import starts
from flan_jax.checkpoint.leaves import BFLOAT16, Leaf, cast, from_array
from flan_jax.checkpoint.starts import Start
from flan_jax.checkpoint.trees import named_leaves, nested
from flan_jax.models.t5 import model as t5
from flan_jax.optim.optimizers import adafactor
from tests.checkpoint.test_native import CONFIG, synthetic_weights


def abstract(config=CONFIG):
    return t5.abstract_params(config)


def planned(weights=None, *rules, config=CONFIG):
    return starts.plan(weights or synthetic_weights(), abstract(config), Start(rules=rules), config=config)


def test_without_rules_every_leaf_comes_from_the_checkpoint_under_its_own_name():
    rows = planned()
    assert {row.name for row in rows} == set(named_leaves(abstract()))
    assert all(row.source == row.name and row.dtype == "float32" for row in rows)


def test_rules_rename_initialize_and_skip_and_the_plan_has_every_leaf():
    wider = dataclasses.replace(CONFIG, vocab_size=32, num_decoder_layers=1)
    rows = planned(
        None,
        (r"token_embedder/embedding|decoder/logits_dense/kernel", None),
        (r"(en|de)coder/(.*)relpos_bias/(.*)", r"encoder/\2relpos_bias/\3"),
        config=wider,
    )
    by_name = {row.name: row for row in rows if row.name}
    assert set(by_name) == set(named_leaves(abstract(wider)))
    assert by_name["token_embedder/embedding"].source is None
    assert by_name["decoder/relpos_bias/rel_embedding"].source == "encoder/relpos_bias/rel_embedding"
    assert by_name["encoder/layers_0/mlp/wo/kernel"].source == "encoder/layers_0/mlp/wo/kernel"
    unused = {row.source for row in rows if row.name is None}
    assert {"token_embedder/embedding", "decoder/relpos_bias/rel_embedding", "decoder/layers_1/mlp/wo/kernel"} <= unused
    lines = starts.grouped(rows)
    assert sum(line["leaves"] for line in lines) == len(rows)
    assert {"parameter": "token_embedder/embedding", "leaves": 1, "shape": [32, 8], "from": "initialized"} in lines
    assert any(line["from"] == "not used" for line in lines)
    assert any(line["from"] == "checkpoint, encoder/relpos_bias/rel_embedding, float32" for line in lines)


def test_the_first_rule_that_matches_decides():
    rows = planned(None, ("encoder/encoder_norm/scale", None), ("encoder/.*_norm/scale", "decoder/decoder_norm/scale"))
    by_name = {row.name: row.source for row in rows}
    assert by_name["encoder/encoder_norm/scale"] is None
    assert by_name["encoder/layers_0/pre_mlp_layer_norm/scale"] == "decoder/decoder_norm/scale"


def test_a_checkpoint_of_another_family_is_refused_with_its_family():
    plain = dataclasses.replace(CONFIG, mlp_activations=("relu",), logits_via_embedding=True)
    with pytest.raises(
        ValueError, match="synthetic does not fit the model(.|\n)*T5 1.0(.|\n)*logits_dense/kernel: missing"
    ):
        planned(synthetic_weights(plain))


def test_a_checkpoint_that_records_other_activations_is_refused_though_its_shapes_match():
    silu = dataclasses.replace(CONFIG, mlp_activations=("silu", "linear"))
    with pytest.raises(ValueError, match=r"another network(.|\n)*mlp_activations: got \('silu', 'linear'\)"):
        planned(synthetic_weights(silu))
    guessed = dataclasses.replace(synthetic_weights(silu), config_is_stated=False)
    assert planned(guessed)
    same = dataclasses.replace(CONFIG, mlp_activations=("swish", "linear"))
    assert planned(synthetic_weights(same), config=silu)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("decoder/logits/.*", None),), r"'decoder/logits/\.\*' matches no parameter of this model"),
        (
            (("decoder/decoder_norm/scale", "decoder/norm"),),
            "decoder_norm/scale: the checkpoint has no decoder/norm. Did you",
        ),
        (
            (("decoder/logits_dense/kernel", "token_embedder/embedding"),),
            r"got \[24, 8\] in the checkpoint, expected \[8, 24\]",
        ),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        planned(None, *rules)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restore": "everything"}, "Start.restore: expected one of params, params_and_optimizer, got 'everything'"),
        ({"rules": (("a", "b", "c"),)}, "Start.rules: expected a list, each item a list of 2"),
        ({"rules": (("(", None),)}, "is not a regular expression"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Start(**settings)


def test_mixed_types_are_refused_by_the_leafs_name():
    weights = synthetic_weights()
    odd = "encoder/layers_0/mlp/wo/kernel"
    params = {**weights.params, odd: cast(weights.params[odd], BFLOAT16)}
    with pytest.raises(ValueError, match=rf"mixes types: {odd} is bfloat16 \(1 such\)(.|\n)*--dtype=float32"):
        planned(dataclasses.replace(weights, params=params))


@pytest.mark.parametrize(("shape", "spec"), [((8,), ("x",)), ((4, 2), ("x", "y")), ((2, 4), (None, "y")), ((1,), ())])
def test_each_device_gets_its_own_part_and_each_part_is_read_once(shape, spec):
    values = np.arange(16 * 8, dtype=np.float32).reshape(16, 8)
    asked = []

    def read(index):
        asked.append(index)
        return values[index].astype(BFLOAT16)

    leaf = Leaf(shape=values.shape, dtype=BFLOAT16, read=read)
    mesh = jax.make_mesh(shape, ("x", "y")[: len(shape)], devices=jax.devices()[: int(np.prod(shape))])
    where = NamedSharding(mesh, PartitionSpec(*spec))
    array = starts.read_onto(leaf, jax.ShapeDtypeStruct(values.shape, jnp.float32, sharding=where))
    assert array.sharding == where and array.dtype == jnp.float32
    np.testing.assert_array_equal(array, values)
    assert (
        len(asked)
        == len({str(index) for index in asked})
        == len({str(i) for i in where.devices_indices_map(values.shape).values()})
    )


def test_a_leaf_without_a_sharding_goes_to_the_first_device():
    array = starts.read_onto(from_array(np.ones(3, np.float32)), jax.ShapeDtypeStruct((3,), jnp.float32))
    assert array.devices() == {jax.devices()[0]}


def state_of(transformation):
    return jax.eval_shape(transformation.init, abstract())


@pytest.mark.parametrize("transformation", [adafactor(1e-3), adafactor(lambda step: 1e-3, max_gradient_norm=1.0)])
def test_an_adafactor_state_is_restored_within_any_transformations(transformation):
    weights = synthetic_weights()
    found = starts.restored_optimizer(weights, state_of(transformation), params=dict(weights.params))
    assert set(found) == set(named_leaves(state_of(transformation)))
    for name, value in found.items():
        if name.endswith("count"):
            assert int(value) == 7
        else:
            slot = next(slot for slot in weights.slots if name.endswith(f"/{slot}"))
            np.testing.assert_array_equal(value, weights.slots[slot].whole())


def test_an_optimizer_with_other_state_is_refused_by_name():
    weights = synthetic_weights()
    with pytest.raises(
        ValueError, match="does not match this run's optimizer:\n  0/mu/decoder/decoder_norm/scale: expected"
    ):
        starts.restored_optimizer(weights, state_of(optax.adamw(1e-3)), params=dict(weights.params))


def test_momentum_is_restored_where_the_run_uses_it():
    weights = synthetic_weights()
    momentum = {f"m/{name}": leaf for name, leaf in weights.params.items()}
    weights = dataclasses.replace(weights, slots={**weights.slots, **momentum})
    found = starts.restored_optimizer(weights, state_of(adafactor(1e-3, momentum=0.9)), params=dict(weights.params))
    (name,) = [name for name in found if name.endswith("ema/encoder/encoder_norm/scale")]
    np.testing.assert_array_equal(found[name], weights.params["encoder/encoder_norm/scale"].whole())


def test_momentum_that_the_run_does_not_use_is_not_dropped_silently():
    weights = synthetic_weights()
    momentum = {f"m/{name}": leaf for name, leaf in weights.params.items()}
    weights = dataclasses.replace(weights, slots={**weights.slots, **momentum})
    with pytest.raises(ValueError, match="m/decoder/decoder_norm/scale: the checkpoint has it, this run's"):
        starts.restored_optimizer(weights, state_of(adafactor(1e-3)), params=dict(weights.params))


def test_parameters_alone_restore_no_optimizer():
    weights = synthetic_weights(slots=False)
    with pytest.raises(ValueError, match="has only parameters(.|\n)*Start.restore to 'params'"):
        starts.restored_optimizer(weights, state_of(adafactor(1e-3)), params=dict(weights.params))


def test_restored_parameters_are_on_the_mesh_in_the_runs_type():
    weights = synthetic_weights(dtype=BFLOAT16)
    taken = starts.restored_params(weights, planned(weights), abstract())
    for name, array in taken.items():
        assert array.dtype == jnp.float32
        np.testing.assert_array_equal(array, weights.params[name].whole().astype(np.float32))
    assert jax.tree.structure(nested(taken)) == jax.tree.structure(abstract())
