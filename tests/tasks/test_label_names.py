import pytest

from flan_jax.tasks.label_names import LabelNames


def test_numbers_and_truth_values_are_not_mixed_up():
    named = LabelNames(names={"label": ("zero", "one")})
    assert named({"label": 1, "x": True}) == {"label": "one", "x": True}
    with pytest.raises(ValueError, match="the field 'label' holds True, which has no name. Named: 0, 1"):
        named({"label": True})


def test_a_number_without_a_name_is_refused():
    with pytest.raises(ValueError, match="the field 'label' holds -1, which has no name. Named: 0"):
        LabelNames(names={"label": ("zero",)})({"label": -1})
