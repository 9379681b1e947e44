"""Rules over parameter paths: which one applies, freezing, the report, refusals."""

import jax
import jax.numpy as jnp
import optax
import pytest

from flan_jax.optim import selection

PARAMS = {
    "encoder": {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)},
    "decoder": {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)},
}


def _updated(chosen: selection.Selection):
    optimizer = chosen.transformation
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    return jax.tree.map(lambda update: round(float(update.reshape(-1)[0]), 3), updates)


def test_the_first_rule_that_matches_the_complete_path_applies():
    chosen = selection.by_path(
        [("decoder/scale", optax.sgd(0.5)), ("decoder/.*", None)],
        default=optax.sgd(0.25),
    )
    assert _updated(chosen) == {
        "decoder": {"kernel": 0.0, "scale": -0.5},
        "encoder": {"kernel": -0.25, "scale": -0.25},
    }


def test_frozen_parameters_have_no_state():
    chosen = selection.by_path([("encoder/.*", None)], default=optax.adam(0.1))
    moments = optax.tree_utils.tree_get(chosen.transformation.init(PARAMS), "mu")
    assert sorted(leaf.shape for leaf in jax.tree.leaves(moments)) == [(2, 3), (3,)]
    assert chosen.trainable(PARAMS) == {
        "decoder": {"kernel": True, "scale": True},
        "encoder": {"kernel": False, "scale": False},
    }


def test_without_rules_the_default_is_the_transformation():
    default = optax.sgd(0.1)
    chosen = selection.by_path(default=default)
    assert chosen.transformation is default
    assert jax.tree.leaves(chosen.trainable(PARAMS)) == [True] * 4


def test_the_report_lists_tensors_and_parameters_per_rule():
    chosen = selection.by_path([(".*/scale", None), ("encoder/.*", optax.sgd(0.1))], default=optax.sgd(0.1))
    shapes = jax.eval_shape(lambda: PARAMS)
    assert chosen.report(shapes) == (
        selection.RuleReport(rule=".*/scale", trained=False, tensors=2, parameters=6),
        selection.RuleReport(rule="encoder/.*", trained=True, tensors=1, parameters=6),
        selection.RuleReport(rule="default", trained=True, tensors=1, parameters=6),
    )


def test_a_rule_that_matches_nothing_names_the_nearest_path():
    chosen = selection.by_path([("encodr/kernel", None)], default=optax.sgd(0.1))
    with pytest.raises(ValueError, match="matches none of the 4 parameter paths.*Did you mean 'encoder/kernel'"):
        chosen.transformation.init(PARAMS)


def test_a_rule_must_match_the_complete_path():
    with pytest.raises(
        ValueError, match="'kernel' matches none .* it must match a complete path, such as 'decoder/kernel'"
    ):
        selection.by_path([("kernel", None)], default=optax.sgd(0.1)).report(PARAMS)


def test_a_rule_hidden_behind_a_wider_one_is_named():
    chosen = selection.by_path([("encoder/.*", None), ("encoder/scale", optax.sgd(0.1))], default=optax.sgd(0.1))
    with pytest.raises(ValueError, match="'encoder/scale' applies to nothing: an earlier rule, 'encoder/.*narrower"):
        chosen.labels(PARAMS)


def test_an_uncovered_parameter_is_named():
    with pytest.raises(ValueError, match="No rule covers 2 of 4 parameters, 'decoder/kernel' first.*freeze"):
        selection.by_path([("encoder/.*", optax.sgd(0.1))]).trainable(PARAMS)


def test_neither_rules_nor_a_default_is_refused():
    with pytest.raises(ValueError, match="neither rules nor a default optimizer"):
        selection.by_path()


def test_a_broken_pattern_is_refused():
    with pytest.raises(ValueError, match=r"'encoder/\(' is not a regular expression: missing \)"):
        selection.by_path([("encoder/(", None)])
