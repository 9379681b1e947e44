"""Rule tables between two trees: both ways, complete, and clear about what is left over."""

import numpy as np
import pytest

from flan_jax.checkpoint import mapping
from flan_jax.checkpoint.leaves import from_array
from flan_jax.checkpoint.mapping import Rule, SplitHeads, Transposed

ONE_BY_ONE = (
    Rule(ours="encoder/layers_{i}/q/kernel", theirs="encoder.block.{i}.q.weight", form=Transposed()),
    Rule(ours="decoder/layers_{i}/q/kernel", theirs="decoder.block.{i}.q.weight", form=Transposed()),
    Rule(ours="token_embedder/embedding", theirs="shared.weight"),
)
STACKED = (
    Rule(ours="encoder/layers_{i}/q/kernel", theirs="encoder/encoder/q/kernel", form=SplitHeads(1, 3), stack_axis=1),
    Rule(ours="encoder/norm/scale", theirs="encoder/norm/scale"),
)


def tree(**arrays):
    return {name.replace("__", "/"): from_array(array) for name, array in arrays.items()}


def ours(encoder=2, decoder=3):
    rng = np.random.default_rng(0)
    layers = [("encoder", encoder), ("decoder", decoder)]
    named = {f"{s}/layers_{i}/q/kernel": rng.standard_normal((4, 6), np.float32) for s, n in layers for i in range(n)}
    return {name: from_array(array) for name, array in {**named, "token_embedder/embedding": np.eye(5, 4)}.items()}


def same(first, second):
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name].whole(), second[name].whole())


def test_the_round_trip_is_the_identity_for_stacks_of_different_depth():
    theirs = mapping.to_theirs(ours(), ONE_BY_ONE, where="x")
    assert sorted(theirs)[:2] == ["decoder.block.0.q.weight", "decoder.block.1.q.weight"]
    assert theirs["decoder.block.2.q.weight"].shape == (6, 4)
    same(mapping.to_ours(theirs, ONE_BY_ONE, where="x"), ours())


def test_layers_are_stacked_in_one_tensor_and_split_again():
    kernels = np.random.default_rng(1).standard_normal((3, 4, 6), np.float32)
    mine = {f"encoder/layers_{i}/q/kernel": from_array(kernel) for i, kernel in enumerate(kernels)}
    mine["encoder/norm/scale"] = from_array(np.ones(4, np.float32))
    theirs = mapping.to_theirs(mine, STACKED, where="x")
    expected = kernels.reshape(3, 4, 2, 3).transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(theirs["encoder/encoder/q/kernel"].whole(), expected)
    same(mapping.to_ours(theirs, STACKED, where="x"), mine)


def test_unmatched_names_are_listed_on_both_sides_with_the_nearest():
    theirs = mapping.to_theirs(ours(), ONE_BY_ONE, where="x")
    theirs["decoder.block.1.Q.weight"] = theirs.pop("decoder.block.1.q.weight")
    with pytest.raises(ValueError, match=r"tensors of some/place do not match the network") as caught:
        mapping.to_ours(theirs, ONE_BY_ONE, where="some/place")
    assert "missing: decoder.block.1.q.weight Did you mean 'decoder.block.1.Q.weight'?" in str(caught.value)
    assert "unknown: decoder.block.1.Q.weight Did you mean 'decoder.block.1.q.weight'?" in str(caught.value)


def test_a_layer_missing_in_the_middle_is_missed_in_both_directions():
    theirs = mapping.to_theirs(ours(), ONE_BY_ONE, where="x")
    del theirs["encoder.block.0.q.weight"]
    with pytest.raises(ValueError, match="missing: encoder.block.0.q.weight"):
        mapping.to_ours(theirs, ONE_BY_ONE, where="x")
    mine = ours()
    del mine["decoder/layers_1/q/kernel"]
    with pytest.raises(ValueError, match="missing: decoder/layers_1/q/kernel"):
        mapping.to_theirs(mine, ONE_BY_ONE, where="x")


def test_a_long_list_is_shortened_and_counted():
    theirs = {f"odd.{i}": from_array(np.zeros(1)) for i in range(20)}
    with pytest.raises(ValueError, match="unknown: 8 more"):
        mapping.to_ours(theirs, ONE_BY_ONE, where="x")


def test_a_table_is_chosen_by_how_many_names_it_has():
    names = ours()
    assert mapping.fits(names, [rule.ours for rule in ONE_BY_ONE]) == len(names)
    assert mapping.fits(names, [rule.theirs for rule in ONE_BY_ONE]) == 0
