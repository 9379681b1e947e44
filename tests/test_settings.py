"""YAML files are read strictly, and values are checked against the fields of dataclasses."""

import doctest
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from flan_jax import settings as settings_lib
from flan_jax.annotations import NOT_IN_YAML
from flan_jax.errors import UserError
from flan_jax.settings import Place, parse, parse_kind
from flan_jax.yaml_loader import read_mapping

PLACE = Place(file="/data/my.yaml", keys="f")


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    path: Path | None = None

    def __post_init__(self):
        if self.size < 0:
            raise UserError(f"size must be 0 or more, got {self.size}.")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = ""
    many: tuple[str, ...] = ()
    count: int | None = None
    share: float = 0.0
    on: bool = False
    which: Literal["a", "b"] = "a"
    path: Path = Path()
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    words: str | tuple[str, ...] | Mapping[str, float | None] = ""
    open: Any = None
    hidden: str = field(default="", metadata=NOT_IN_YAML)


def write(tmp_path, text):
    path = tmp_path / "words.yaml"
    path.write_text(text)
    return path


def test_doctests():
    assert doctest.testmod(settings_lib).failed == 0


def test_values_become_the_types_of_the_fields():
    given = {
        "name": "x", "many": ["a"], "count": None, "share": 1, "on": True, "which": "b", "path": "p/q.txt",
        "inner": {"size": 1, "path": "/abs"}, "inners": [{"size": 2}], "by_name": {"n": {"size": 3}},
        "words": {"w": 1, "v": None}, "open": [{"anything": 1}],
    }  # fmt: skip
    assert parse(given, Outer, PLACE) == Outer(
        name="x", many=("a",), share=1, on=True, which="b", path=Path("/data/p/q.txt"),
        inner=Inner(size=1, path=Path("/abs")), inners=(Inner(size=2),), by_name={"n": Inner(size=3)},
        words={"w": 1, "v": None}, open=[{"anything": 1}],
    )  # fmt: skip
    assert parse({}, Outer, PLACE) == Outer()
    assert parse({"many": "a", "words": ["b"]}, Outer, PLACE) == Outer(many=("a",), words=("b",))
    assert parse({"words": "c"}, Outer, PLACE).words == "c"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": 1}, "f.name: expected a text, got 1"),
        ({"name": True}, "f.name: expected a text, got True"),
        ({"many": [1]}, r"f.many\[0\]: expected a text, got 1"),
        ({"many": ["a", True]}, r"f.many\[1\]: expected a text, got True"),
        ({"many": {"a": 1}}, "f.many: expected a list, each item a text, got {'a': 1}"),
        ({"count": True}, "f.count: expected a whole number, got True"),
        ({"count": 1.5}, "f.count: expected a whole number, got 1.5"),
        ({"share": "1"}, "f.share: expected a number, got '1'"),
        ({"on": 1}, "f.on: expected true or false, got 1"),
        ({"which": 2}, "f.which: expected one of a, b, got 2"),
        ({"which": "c"}, "f.which: expected one of a, b, got 'c'"),
        ({"path": ""}, "f.path: expected a path, got ''"),
        ({"inner": 3}, r"f.inner: expected a mapping \(size, path\), got 3"),
        ({"inner": {}}, "f.inner: the key 'size' is missing; got nothing"),
        ({"inner": {"size": -1}}, "f.inner: size must be 0 or more, got -1"),
        ({"inners": {"size": 1}}, r"f.inners: expected a list, each item a mapping \(size, path\), got"),
        ({"inners": [{"sise": 1}]}, r"f.inners\[0\]: unknown key 'sise'. Did you mean 'size'\? Allowed: size, path"),
        ({"by_name": {"n": {"size": "x"}}}, "f.by_name.n.size: expected a whole number, got 'x'"),
        ({"by_name": {1: {}}}, "f.by_name: expected a mapping, got {1: {}}"),
        ({"words": {"w": "x"}}, "f.words.w: expected a number, got 'x'"),
        ({"hidden": "x"}, "f: unknown key 'hidden'"),
        ([], r"/data/my.yaml: f: expected a mapping, got \[\]"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_what_is_allowed(given, message):
    with pytest.raises(UserError, match=message):
        parse(given, Outer, PLACE)


def test_a_kind_is_named_alone_or_with_its_keys():
    kinds = {"inner": Inner, "outer": Outer}
    assert parse_kind("outer", kinds, PLACE) == Outer()
    assert parse_kind({"kind": "inner", "size": 1}, kinds, PLACE) == Inner(size=1)
    for value, message in (
        ("iner", "f: unknown kind 'iner'. Did you mean 'inner'. Allowed: inner, outer"),
        ({"size": 1}, "f: the key 'kind' is missing. Allowed: inner, outer"),
        ({"kind": "inner", "sise": 1}, "f: unknown key 'sise'. Did you mean 'size'. Allowed: kind, size, path"),
        ({"kind": ["inner"]}, r"f: unknown kind \['inner'\]"),
        (3, "f: expected a mapping, got 3"),
    ):
        with pytest.raises(UserError, match=message):
            parse_kind(value, kinds, PLACE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nmany:\n  - a\n  - {}\n", r"words.yaml, line 4: many\[1\]: expected a text"),
        ("name: x\n\nsise: 3\n", "words.yaml, line 3: unknown key 'sise'"),
        ("inner:\n  path: x\n", "words.yaml, line 1: inner: the key 'size' is missing"),
        ("by_name:\n  n: {size: 1}\n  m:\n    size: x\n", "words.yaml, line 4: by_name.m.size: expected a whole"),
        ("inners:\n- size: 1\n- size: -1\n", r"words.yaml, line 3: inners\[1\]: size must be 0 or more"),
    ],
)
def test_messages_name_the_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        content, place = read_mapping(write(tmp_path, text))
        parse(content, Outer, place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", r"words.yaml: expected a mapping, got \['a list'\]"),
        ("a: 1\nb: 2\na: 3", r"words.yaml: not YAML: the key 'a' is given twice \(line 3\)"),
        ("a: {b", "words.yaml, line 2: not YAML: .*opens in line 1 has no partner"),
        (
            "a: !!python/object/apply:os.system ['true']",
            "words.yaml, line 1: not YAML: .*could not determine a constructor",
        ),
    ],
)
def test_what_is_not_a_mapping_in_plain_yaml_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read_mapping(write(tmp_path, text))


def test_a_missing_file_is_refused_with_the_nearest(tmp_path):
    write(tmp_path, "{}")
    with pytest.raises(FileNotFoundError, match=r"word.yaml. Did you mean 'words.yaml'\?"):
        read_mapping(tmp_path / "word.yaml")


def test_merge_keys_may_override(tmp_path):
    path = write(tmp_path, "a: &a {x: 1, y: 2}\nb: &b {z: 4}\nc: {<<: *a, <<: *b, x: 3}")
    content, _ = read_mapping(path)
    assert content["c"] == {"x": "3", "y": "2", "z": "4"}
