"""Names in a configuration are checked, messages name the nearest one, and every value has an origin."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from flan_jax import gin_config
from flan_jax.errors import UserError

GIN = """
from __gin__ import dynamic_registration
from tests.fixtures import toy_command
TRAIN_STEPS = %gin.REQUIRED
LENGTHS = {"inputs": 3}
toy_command.toy:
  model = @toy_command.Model()
  train_steps = %TRAIN_STEPS
  lengths = %LENGTHS
toy_command.Model.width = 4
"""


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("toy.gin").write_text(GIN)
    return importlib.import_module(
        "tests.fixtures.toy_command"
    )  # Once a session: gin knows a configurable by its object.


def test_later_bindings_win_and_call_the_command(toy):
    gin_config.parse(["toy.gin"], ["TRAIN_STEPS=5", "toy_command.Model.rate=0.5", "toy_command.Model.kind=plain"])
    model, steps, lengths, name = gin_config.configured(toy.toy, {"name": "given"}, verb="toy")()
    assert (model.width, model.rate, model.kind) == (4, 0.5, "plain")
    assert (steps, lengths, name) == (5, {"inputs": 3}, "given")


def test_resolved_text_parses_back_to_itself(toy):
    gin_config.parse(["toy.gin"], ["TRAIN_STEPS=5"])
    text = gin_config.resolved_text()
    Path("again.gin").write_text(text)
    gin_config.parse(["again.gin"], [])
    assert gin_config.resolved_text() == text
    assert gin_config.configured(toy.toy, {}, verb="toy")()[1] == 5


def test_every_value_has_an_origin():
    Path("outer.gin").write_text("include 'toy.gin'\nTRAIN_STEPS = 7\n")
    gin_config.parse(["outer.gin"], ["toy_command.Model.width=9"])
    origins = {s.name: s.origin for s in gin_config.settings()}
    assert origins["TRAIN_STEPS"] == "outer.gin:2"
    assert origins["LENGTHS"] == "toy.gin:5"
    assert origins["toy.lengths"] == "toy.gin:9"
    assert origins["Model.width"] == "command line (--gin.toy_command.Model.width=9)"


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        ([], r"no value yet:\n  TRAIN_STEPS  \(declared in toy.gin:4\)\n(.|\n)*--gin.TRAIN_STEPS=VALUE"),
        (["TRAIN_STEP=5"], r"Nothing uses the macro TRAIN_STEP, set in command line.*Did you mean 'TRAIN_STEPS'"),
        (
            ["TRAIN_STEPS=5", "toy_command.Model.widht=5"],
            "no.*parameter named 'widht'.*Did you mean 'width'|widht'. Did you mean 'width'",
        ),
        (
            ["TRAIN_STEPS=5", "toy_command.Modle.width=5"],
            "No configurable matching 'toy_command.Modle'.*Did you mean '.*Model'",
        ),
        (
            ["TRAIN_STEPS=5", "toy_command.toy.lengths=%LENGHTS"],
            "macro %LENGHTS, which no gin file sets. Did you mean 'LENGTHS'",
        ),
        (["TRAIN_STEPS"], "has no value: write --gin.NAME=VALUE"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(bindings, message):
    with pytest.raises(ValueError, match=message):
        gin_config.parse(["toy.gin"], bindings)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("TRAIN_STEPS=many", r"train_steps is 'many' \(str\); it must be int. Set in command line"),
        ("toy_command.Model.width=2.5", r"Model.width is 2.5 \(float\); it must be int"),
        ("toy_command.toy.model=3", r"toy.model is 3 \(int\); it must be Model"),
    ],
)
def test_a_literal_of_the_wrong_type_is_refused_before_the_call(toy, binding, message):
    gin_config.parse(["toy.gin"], ["TRAIN_STEPS=5", binding])
    with pytest.raises(ValueError, match=message):
        gin_config.configured(toy.toy, {}, verb="toy")


def test_missing_options_are_named(toy):
    gin_config.parse([], [])
    with pytest.raises(ValueError, match="`toy` needs model, train_steps, lengths: give --model="):
        gin_config.configured(toy.toy, {}, verb="toy")
    assert gin_config.configured(toy.toy, {"model": None, "train_steps": 1}, verb="toy", later=["lengths"])(lengths={})[
        :3
    ] == (None, 1, {})


def test_a_missing_file_is_named_with_the_nearest():
    with pytest.raises(FileNotFoundError, match="No gin file 'quikstart.gin'"):
        gin_config.parse(["quikstart.gin"], [])


def test_what_is_not_gin_is_refused_with_file_and_line():
    Path("bad.gin").write_text("A = 1\nB 2\n")
    with pytest.raises(ValueError, match=r"bad.gin: not gin syntax: .*line 2"):
        gin_config.parse(["bad.gin"], [])


def test_a_file_that_includes_itself_is_refused(tmp_path):
    (tmp_path / "a.gin").write_text("include 'b.gin'")
    (tmp_path / "b.gin").write_text("include 'a.gin'")
    with pytest.raises(UserError, match="The gin file 'a.gin' includes itself: a.gin -> b.gin -> a.gin"):
        gin_config.parse(["a.gin"], [], search_paths=[str(tmp_path)])


def test_a_builtin_module_can_be_imported(tmp_path):
    (tmp_path / "a.gin").write_text("from __gin__ import dynamic_registration\nimport sys")
    gin_config.parse([str(tmp_path / "a.gin")], [])


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ({"inputs": 3}, Mapping[str, int], True),
        ({1: 2}, Mapping[str, Sequence[str]], False),
        (("a", "b"), Sequence[str], True),
        (["a"], str | None, False),
        ((("mlp", None),), tuple[tuple[str, str | None], ...], True),
        ([["mlp", None]], tuple[tuple[str, str | None], ...], True),
        (((1, 2, 3),), tuple[tuple[str, str | None], ...], False),
    ],
)
def test_the_items_of_containers_are_checked(value, hint, expected):
    assert gin_config.fits(value, hint) == expected
