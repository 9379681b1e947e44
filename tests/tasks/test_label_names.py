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


def test_whole_floats_and_cells_of_tables_find_their_name():
    named = LabelNames(names={"label": ("zero", "one")})
    assert [named({"label": value})["label"] for value in (1.0, "1", "1.0", 1)] == ["one"] * 4
    assert LabelNames(names={"label": {1: "one", "1": "text"}})({"label": "1"}) == {"label": "text"}
    for value in (0.5, "x", [1], float("nan")):
        with pytest.raises(ValueError, match="the field 'label' holds .*, which has no name"):
            named({"label": value})
