"""Adafactor's second moments: T5X's names and dimensions against what Optax holds after the same gradients."""

import functools

import jax
import numpy as np
import pytest

from flan_jax.checkpoint.leaves import from_array
from flan_jax.checkpoint.native import slots_of
from flan_jax.checkpoint.t5x import adafactor_slots, layouts
from flan_jax.checkpoint.t5x.layouts import Layout
from flan_jax.checkpoint.trees import named_leaves, nested
from flan_jax.optim import optimizers
from tests.checkpoint import t5x_files

LAYOUTS = [(False, False), (False, True), (True, False), (True, True)]
SMALLEST_FACTORED = 4
UNUSED = np.zeros(1, np.float32)


def leaves(arrays):
    return {name: from_array(array) for name, array in arrays.items()}


def assert_equal(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name].whole(), array, err_msg=name)


def config(head_dim):
    """Sizes are powers of two, so that means of integers are exact; heads are too few to be a factored side."""
    sizes = {"emb_dim": 16, "mlp_dim": 32, "vocab_size": 64, "num_encoder_layers": 2, "num_decoder_layers": 4}
    return t5x_files.config(**sizes, head_dim=head_dim, relpos_bias_per_layer=True)


def gradients(config):
    return {name: array % 7 - 3 for name, array in t5x_files.our_params(config).items()}


@functools.cache
def optax_slots(head_dim):
    """One update from nothing: the moments are the means of the squares themselves."""
    optimizer = optimizers.adafactor(1.0, min_dim_size_to_factor=SMALLEST_FACTORED)
    grads = nested(gradients(config(head_dim)))
    params = jax.tree.map(np.ones_like, grads)
    _, state = jax.jit(lambda grads, params: optimizer.update(grads, optimizer.init(params), params))(grads, params)
    return {name: np.asarray(leaf) for name, leaf in slots_of(named_leaves(state), named_leaves(params)).items()}


def t5x_states(grads, *, scanned, split):
    """What T5X's Adafactor holds after the same: by the larger side, or by what each dimension means."""
    states = {}
    for name, grad in grads.items():
        slots = dict.fromkeys(("v_row", "v_col", "v", "m"), UNUSED)
        stacked = scanned and name.startswith(("encoder/encoder/", "decoder/decoder/"))
        square = grad.astype(np.float32) ** 2
        if name.endswith("kernel") and (stacked or grad.ndim > 2):
            width = grad.ndim - 1 if name.endswith(("out/kernel", "wo/kernel")) else 0
            rest = tuple(axis for axis in range(grad.ndim) if axis != width and not (stacked and axis == 1))
            slots |= {"v_row": square.mean(rest), "v_col": square.mean(width)}
        elif grad.ndim == 2 and not stacked and min(grad.shape) >= SMALLEST_FACTORED:
            larger = 1 if grad.shape[1] >= grad.shape[0] else 0
            slots |= {"v_row": square.mean(larger), "v_col": square.mean(1 - larger)}
        else:
            slots["v"] = np.maximum(square, np.float32(1e-30))
        states |= {f"{name}/{slot}": values for slot, values in slots.items()}
    return states


@pytest.mark.parametrize("head_dim", [4, 8, 16], ids=["kernels high", "kernels square", "kernels wide"])
@pytest.mark.parametrize(("scanned", "split"), LAYOUTS)
def test_t5xs_moments_are_optaxs_both_ways(scanned, split, head_dim):
    network = config(head_dim)
    grads = gradients(network)
    theirs = t5x_files.their_params(grads, network, scanned=scanned, split=split)
    translated = layouts.to_ours(leaves(theirs), where="x")
    states = t5x_states(theirs, scanned=scanned, split=split)
    assert adafactor_slots.is_adafactor(leaves(states), theirs)
    slots = adafactor_slots.to_ours(leaves(states), translated.rules, translated.params, where="x")
    assert_equal(slots, optax_slots(head_dim))
    again = adafactor_slots.to_theirs(slots, translated.rules, translated.params, where="x")
    assert_equal(again, states)


def test_momentum_is_converted_like_its_parameter():
    network = config(4)
    grads = gradients(network)
    theirs = t5x_files.their_params(grads, network, scanned=True, split=True)
    translated = layouts.to_ours(leaves(theirs), where="x")
    states = t5x_states(theirs, scanned=True, split=True) | {f"{name}/m": array for name, array in theirs.items()}
    slots = adafactor_slots.to_ours(leaves(states), translated.rules, translated.params, where="x")
    assert_equal({n: leaf for n, leaf in slots.items() if n.startswith("m/")}, {f"m/{n}": g for n, g in grads.items()})
    assert_equal(adafactor_slots.to_theirs(slots, translated.rules, translated.params, where="x"), states)


def test_a_state_of_four_leaves_for_each_parameter_is_adafactors():
    four = leaves({f"a/{slot}": UNUSED for slot in ("v_row", "v_col", "v", "m")})
    assert adafactor_slots.is_adafactor(four, {"a": 1, "b": 1})
    assert not adafactor_slots.is_adafactor(four, {"b": 1})
    assert not adafactor_slots.is_adafactor({"0/mu/a": UNUSED}, {"a": 1})
    assert not adafactor_slots.is_adafactor({}, {"a": 1})


def rules(*, scanned, split):
    layout = Layout(is_scanned=scanned, has_split_heads=split)
    return layouts.present(t5x_files.our_params(config(4)), layouts.rules(layout, head_dim=4))


def test_full_moments_are_refused_where_t5x_stores_means():
    params = leaves(gradients(config(4)))
    slots = {f"v/{name}": leaf for name, leaf in params.items()}
    adafactor_slots.to_theirs(slots, rules(scanned=False, split=False), params, where="x")
    with pytest.raises(
        ValueError, match=r"some place: Adafactor stores all of v for encoder/layers_\{i\}/.* by name with"
    ):
        adafactor_slots.to_theirs(slots, rules(scanned=True, split=True), params, where="some place")


def test_a_parameter_without_state_among_others_is_named():
    params = leaves(gradients(config(4)))
    slots = {f"v/{name}": leaf for name, leaf in params.items() if name != "token_embedder/embedding"}
    with pytest.raises(ValueError, match="x: the parameter token_embedder/embedding has no state of Adafactor"):
        adafactor_slots.to_theirs(slots, rules(scanned=False, split=False), params, where="x")


def test_a_moment_of_another_shape_than_its_parameters_is_named():
    params = leaves(gradients(config(4)))
    states = leaves({"token_embedder/embedding/v_row": np.ones(5, np.float32)})
    with pytest.raises(ValueError, match=r"v_row of token_embedder/embedding has the shape \[5\]; expected \[16\]"):
        adafactor_slots.to_ours(states, rules(scanned=False, split=False), params, where="x")
