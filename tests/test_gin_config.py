"""Names in a configuration are checked, messages name the nearest one, and every value has an origin."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from flan_jax import gin_config
from flan_jax.annotations import fits
from flan_jax.errors import UserError

HEADER = "from __gin__ import dynamic_registration\nfrom tests.fixtures import toy_command\n"
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


def parse(files, bindings, *, allow=("tests",), **settings):
    gin_config.parse(files, bindings, allow=allow, **settings)


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("toy.gin").write_text(GIN)
    return importlib.import_module(
        "tests.fixtures.toy_command"
    )  # Once a session: gin knows a configurable by its object.


def test_later_bindings_win_and_call_the_command(toy):
    parse(["toy.gin"], ["TRAIN_STEPS=5", "toy_command.Model.rate=0.5", "toy_command.Model.kind=plain"])
    model, steps, lengths, name = gin_config.configured(toy.toy, {"name": "given"}, verb="toy")()
    assert (model.width, model.rate, model.kind) == (4, 0.5, "plain")
    assert (steps, lengths, name) == (5, {"inputs": 3}, "given")


def test_resolved_text_parses_back_to_itself(toy):
    parse(["toy.gin"], ["TRAIN_STEPS=5"])
    text = gin_config.resolved_text()
    Path("again.gin").write_text(text)
    parse(["again.gin"], [])
    assert gin_config.resolved_text() == text
    assert gin_config.configured(toy.toy, {}, verb="toy")()[1] == 5


def test_every_value_has_an_origin():
    Path("outer.gin").write_text("include 'toy.gin'\nTRAIN_STEPS = 7\n")
    parse(["outer.gin"], ["toy_command.Model.width=9"])
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
        (["NAMES=('a',"], r"--gin.NAMES=\('a',: the value is not gin syntax"),
        (["NAMES=[1, 2"], r"the value is not gin syntax"),
        (["NAMES={'a': }"], r"the value is not gin syntax"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(bindings, message):
    with pytest.raises(ValueError, match=message):
        parse(["toy.gin"], bindings)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("TRAIN_STEPS=many", r"train_steps: expected a whole number, got 'many'. Set in command line"),
        ("toy_command.Model.width=2.5", r"Model.width: expected a whole number, got 2.5"),
        ("toy_command.toy.model=3", r"toy.model: expected Model, got 3"),
    ],
)
def test_a_literal_of_the_wrong_type_is_refused_before_the_call(toy, binding, message):
    parse(["toy.gin"], ["TRAIN_STEPS=5", binding])
    with pytest.raises(ValueError, match=message):
        gin_config.configured(toy.toy, {}, verb="toy")


def test_missing_options_are_named(toy):
    parse([], [])
    with pytest.raises(ValueError, match="`toy` needs model, train_steps, lengths: give --model="):
        gin_config.configured(toy.toy, {}, verb="toy")
    assert gin_config.configured(toy.toy, {"model": None, "train_steps": 1}, verb="toy", later=["lengths"])(lengths={})[
        :3
    ] == (None, 1, {})


def test_a_missing_file_is_named_with_the_nearest():
    with pytest.raises(FileNotFoundError, match="No gin file 'quikstart.gin'"):
        parse(["quikstart.gin"], [])


def test_what_is_not_gin_is_refused_with_file_and_line():
    Path("bad.gin").write_text("A = 1\nB 2\n")
    with pytest.raises(ValueError, match=r"bad.gin: not gin syntax: .*line 2"):
        parse(["bad.gin"], [])


def test_a_file_that_includes_itself_is_refused(tmp_path):
    (tmp_path / "a.gin").write_text("include 'b.gin'")
    (tmp_path / "b.gin").write_text("include 'a.gin'")
    with pytest.raises(UserError, match="The gin file 'a.gin' includes itself: a.gin -> b.gin -> a.gin"):
        parse(["a.gin"], [], search_paths=[str(tmp_path)])


FOREIGN = {
    "import os\nMODEL_DIR = @os.system()\nos.system.command = 'touch ran'": r"a.gin:2: the module 'os' .*--gin_allow=os",
    "from os import system\nMODEL_DIR = @system()": r"a.gin:2: the module 'os.system' .*--gin_allow=os",
    "import subprocess as flan_jax": r"a.gin:2: the module 'subprocess' is not allowed",
    "include 'b.gin'": r"b.gin:1: the module 'untrusted' is not allowed: .*only code of flan_jax",
    "from flan_jax import cli\nMODEL_DIR = @cli.os.system()\ncli.os.system.command = 'touch ran'": (
        r"MODEL_DIR: the name 'system' of the module 'posix' is not allowed.* Set in a.gin:3"
    ),
    "import flan_jax.cli\nMODEL_DIR = [@flan_jax.cli.json.loads()]\nflan_jax.cli.json.loads.s = '1'": "'loads' of the module 'json'",
}  # fmt: skip


def test_a_module_outside_this_package_is_refused_before_any_of_it_runs(subtests, monkeypatch):
    monkeypatch.syspath_prepend(".")
    Path("untrusted.py").write_text("open('ran', 'w')\n")
    Path("b.gin").write_text("import untrusted\n")
    for text, message in FOREIGN.items():
        with subtests.test(text):
            Path("a.gin").write_text(f"from __gin__ import dynamic_registration\n{text}\n")
            with pytest.raises(UserError, match=message):
                parse(["a.gin"], [], allow=())
            assert not Path("ran").exists()


def test_a_module_is_allowed_by_name_or_as_the_module_of_the_tasks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    Path("trusted.py").write_text("def width():\n    return 7\n")
    text = "from __gin__ import dynamic_registration\nfrom tests.fixtures import toy_command\nimport trusted\n"
    Path("a.gin").write_text(f"{text}toy_command.Model.width = @trusted.width()\ntoy_command.toy.name = %NAMES")
    for allow, bindings in (
        (("tests", "trusted"), ["NAMES='x'"]),
        (("tests",), ["NAMES=%MIXTURE_OR_TASK_MODULE", "MIXTURE_OR_TASK_MODULE=seqio_tasks, trusted.py"]),
    ):
        parse(["a.gin"], bindings, allow=allow)
        assert "trusted.width" in gin_config.resolved_text()
    with pytest.raises(UserError, match="a.gin:3: the module 'trusted' is not allowed"):
        parse(["a.gin"], ["NAMES='x'"])


def test_an_object_that_constructs_itself_is_refused():
    own = "toy_command.Model.width = @toy_command.Model()"
    for text in (own, "A = [@toy_command.Model()]\ntoy_command.Model.width = %A", f"toy_command.toy.model = 1\n{own}"):
        Path("a.gin").write_text(f"include 'toy.gin'\n{HEADER}TRAIN_STEPS = 1\n{text}\n")
        with pytest.raises(UserError, match="toy_command.Model -> .*: an object is bound to itself"):
            parse(["a.gin"], [])


def test_a_value_may_replace_the_macro_that_a_recipe_binds():
    parse(["toy.gin"], ["TRAIN_STEPS=5", "toy_command.toy.train_steps=6"])
    with pytest.raises(UserError, match="Nothing uses the macro TRAIN_STEP, .* Did you mean 'TRAIN_STEPS'"):
        parse(["toy.gin"], ["TRAIN_STEPS=5", "TRAIN_STEP=6"])


def test_a_name_of_this_package_without_its_import_is_explained_with_the_line_to_add():
    for text, line in {
        "early_stopping.EarlyStopping.metric = 'm'": "from flan_jax.train import early_stopping",
        "loop.Cadence.log_every_steps = 2": "from flan_jax.train import loop",
        "A = @EarlyStopping()": "from flan_jax.train import early_stopping",
    }.items():
        Path("a.gin").write_text(f"{HEADER}{text}\n")
        with pytest.raises(UserError, match=f"Add this line .*: {line}\n"):
            parse(["a.gin"], [])


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
    assert fits(value, hint, "gin") == expected
