"""Settings from YAML held to a dataclass's types."""

from dataclasses import dataclass
from typing import Literal

import pytest

from flan_jax.tasks.settings import checked, texts


@dataclass
class Made:
    name: str = ""
    many: tuple[str, ...] = ()
    count: int | None = None
    share: float = 0.0
    on: bool = False
    which: Literal["a", "b"] = "a"


def test_values_of_the_right_type_pass_and_lists_become_tuples():
    given = {"name": "x", "many": ["a"], "count": None, "share": 1, "on": True, "which": "c"}
    assert checked(given, Made, where="f") == {**given, "many": ("a",)}
    assert texts("a", where="f") == ("a",)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"name": 1}, "f.name: expected a text, got 1"),
        ({"many": [1]}, r"f.many: expected a list of texts, got \[1\]"),
        ({"many": {"a": 1}}, "f.many: expected a list of texts"),
        ({"count": True}, "f.count: expected a whole number, got True"),
        ({"share": "1"}, "f.share: expected a number, got '1'"),
        ({"on": 1}, "f.on: expected true or false, got 1"),
        ({"which": 2}, "f.which: expected a text, got 2"),
    ],
)
def test_values_of_another_type_are_named_with_their_place(setting, message):
    with pytest.raises(ValueError, match=message):
        checked(setting, Made, where="f")
