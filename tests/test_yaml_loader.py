"""Scalars of YAML files are what was typed; numbers, true, false and null are those of YAML 1.2."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from flan_jax.annotations import Fraction, PositiveInt
from flan_jax.errors import UserError
from flan_jax.settings import parse, parse_value
from flan_jax.yaml_loader import read_mapping

TYPED = [
    "12:30", "1.10", "007", "no", "Yes", "on", "OFF", "y", "2020-01-01", "2020-99-99", "2020-01-01 12:00:00", "1_000",
    "0x10", "0o17", "017", "null", "~", "1e3", "+1", ".5", "True", ".nan", ".inf", "=", "<<", "1,5", "190:20:30",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Keys:
    name: str = ""
    names: tuple[str, ...] = ()
    by_name: Mapping[str, str] = field(default_factory=dict)
    count: PositiveInt | None = None
    share: Fraction = 0.0
    number: float = 0.0
    on: bool = False
    answer: Literal["yes", "no"] = "no"
    either: str | tuple[float, ...] | None = None
    open: Any = None
    mixed: str | float | None = None


def read(tmp_path, text) -> Keys:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    content, place = read_mapping(path)
    return parse(content, Keys, place)


def test_a_text_is_what_was_typed(tmp_path):
    keys = read(tmp_path, f"names: [{', '.join(t for t in TYPED if ',' not in t)}]\nby_name: {{no: 1.0, 010: 0b1}}\n")
    assert keys.names == tuple(t for t in TYPED if "," not in t)
    assert keys.by_name == {"no": "1.0", "010": "0b1"}
    for typed in TYPED:
        assert read(tmp_path, f"name: {typed}\nnames: {typed}") == Keys(name=typed, names=(typed,))
        assert type(read(tmp_path, f"name: {typed}").name) is str
        assert read(tmp_path, f"name: '{typed}'").name == typed
    assert read(tmp_path, "answer: no").answer == "no" and read(tmp_path, "answer: yes").answer == "yes"


def test_numbers_and_truth_values_are_those_of_yaml_1_2(tmp_path):
    keys = read(tmp_path, "count: 0x10\nnumber: 1e-3\nshare: .5\non: true\neither: [1.10, 3]")
    assert (keys.count, keys.number, keys.share, keys.on, keys.either) == (16, 0.001, 0.5, True, (1.1, 3))
    for absent in ("null", "~", "", "Null"):
        assert read(tmp_path, f"count: {absent}\nmixed: {absent}\neither: {absent}") == Keys()
    assert read(tmp_path, "open: [12:30, 1.10, no, true, ~, 'x', {7: 0o10}]").open == [
        "12:30", 1.1, "no", True, None, "x", {7: 8}
    ]  # fmt: skip
    assert read(tmp_path, "mixed: 5").mixed == 5 and read(tmp_path, "mixed: '5'").mixed == "5"


FIXES = {
    'name: "a\nb: 1': (2, "The quotation mark that opens in line 1 has no partner"),
    "name: 'a\n": (2, "The quotation mark that opens in line 1 has no partner"),
    'name: "\\d"': (1, "a backslash begins an escape"),
    "names: [a, b\n": (2, "The bracket or brace that opens in line 1 has no partner"),
    "names: [a b: {c: d} e]": (1, "an item in it needs a comma after it or quotation marks"),
    "by_name:\n\ta: b": (2, "Indent with spaces"),
    "name: @a": (1, "Put a text that begins with '@' between quotation marks"),
    "name: `a`": (1, "Put a text that begins with '`' between quotation marks"),
    "name: a: b": (1, "a colon and a space between quotation marks"),
    "by_name:\n    a: b\n  c: d": (3, "Keys of one mapping start in one column"),
    "name: *a": (1, "found undefined alias"),
}


@pytest.mark.parametrize("text", FIXES)
def test_what_is_no_yaml_is_refused_with_its_line_and_its_own_fix(tmp_path, text):
    line, fix = FIXES[text]
    with pytest.raises(UserError, match=rf"my.yaml, line {line}: not YAML: ") as refused:
        read(tmp_path, text)
    message = str(refused.value)
    assert fix in message and "\n" not in message and "unicode string" not in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_another_encoding_is_named_with_the_command_that_converts_it(tmp_path, encoding):
    name = "WINDOWS-1252" if encoding == "latin-1" else encoding[:6].upper()
    (tmp_path / "my.yaml").write_bytes("name: ä and another, longer text".encode(encoding))
    with pytest.raises(UserError, match=f"my.yaml: .*iconv -f {name} -t UTF-8"):
        read_mapping(tmp_path / "my.yaml")


def test_a_byte_order_mark_of_utf8_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "my.yaml").write_bytes("name: ä".encode("utf-8-sig"))
    assert read_mapping(tmp_path / "my.yaml")[0] == {"name": "ä"}


@pytest.mark.parametrize("keys", ["1: a, 1.0: b", "true: a, 1: b", "0.5: a, 5.0e-1: b"])
def test_two_keys_of_one_value_are_refused(tmp_path, keys):
    (tmp_path / "my.yaml").write_text("labels: {" + keys + "}")
    content, place = read_mapping(tmp_path / "my.yaml")
    with pytest.raises(UserError, match=r"line 1: labels\.\S+: the key \S+ has the value of an earlier one"):
        parse_value(content["labels"], Mapping[Any, str], place.at("labels", content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 12:30", "my.yaml, line 1: count: expected a whole number of at least 1, got 12:30"),
        ("count: 007", "count: expected a whole number of at least 1, got 007"),
        ("count: 1_000", "count: expected a whole number of at least 1, got 1_000"),
        ("count: '2'", "count: expected a whole number of at least 1, got '2'. Remove the quotation marks"),
        ("count: 2.0", "count: expected a whole number of at least 1, got 2.0"),
        ("count: 0", "count: expected a whole number of at least 1, got 0"),
        ("count: -3", "count: expected a whole number of at least 1, got -3"),
        (f"count: {10**40}", "count: expected a whole number of at least 1, got 1000"),
        ("share: 1.5", "share: expected a number of at least 0 and at most 1, got 1.5"),
        ("share: .nan", "share: expected a number of at least 0 and at most 1, got .nan"),
        ("number: -.inf", "number: expected a number, got -.inf"),
        (f"number: {'9' * 400}", "number: expected a number, got 999"),
        ("number: 1e999", "number: expected a number, got 1e999"),
        ("on: yes", "on: expected true or false, got yes. Write true or false"),
        ("on: off", "on: expected true or false, got off. Write true or false"),
        ("answer: true", "answer: expected one of yes, no, got true"),
        ("name:", "name: expected a text, got nothing. Write '' for an empty text"),
        ("names: [[a]]", r"names\[0\]: expected a text, got \['a'\]"),
        ("a: &a [*a]", "not YAML: .*recursive"),
        ("name: a\nname: b", r"the key 'name' is given twice \(line 2\)"),
        ("by_name: {on: a, 'on': b}", "the key 'on' is given twice"),
        ("open: {1: a, 1: b}", "the key '1' is given twice"),
        *(
            (f"open:{deep * 100_000}", "values are nested more than 100 levels deep")
            for deep in (" [", " {a: ", " [{a: ")
        ),
        (f"open:\n {'- ' * 100_000}", "values are nested more than 100 levels deep"),
        ("open: !!python/name:os.system", "not YAML: .*could not determine a constructor"),
    ],
)
def test_what_is_not_of_the_type_is_refused_as_it_was_typed(tmp_path, text, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        read(tmp_path, text)
