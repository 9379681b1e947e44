"""The command line: parsing, messages and exit status."""

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flan_jax import cli
from flan_jax.errors import UnknownNameError


def test_arguments_files_bindings_and_options_are_distinguished():
    parsed = cli.parse_arguments(
        [
            "train",
            "--gin_file=a.gin",
            "--gin_file",
            "b.gin",
            "--gin.SEED=3",
            "--tfds_data_dir=/d",
            "--check",
            "--x-y=[1, 2]",
        ]
    )
    assert parsed.gin_files == ("a.gin", "b.gin")
    assert parsed.gin_bindings == ("SEED=3", "TFDS_DATA_DIR='/d'")
    assert parsed.options == {"x_y": "[1, 2]"}
    assert parsed.check and not parsed.traceback


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No verb 'trian'. Did you mean 'train'?"),
        (["show", "run", "dir", "more"], "show run takes one name or path; got 'dir' and 'more'"),
        (["show", "run", "dir", "other", "more"], "`show` takes no argument 'more' here"),
        (["doctor", "--expcet=gpu"], "`doctor` has no option --expcet. Did you mean 'expect'?"),
        (["train", "--gin_file=quikstart.gin"], "No gin file 'quikstart.gin'"),
        (["train"], "`train` needs model_dir, data, model"),
        (["train", "--sede=3"], "`train` has no option --sede. Did you mean 'seed'?"),
        (["train", "--resolved_config=x"], "`train` has no option --resolved_config."),
    ],
)
def test_what_the_user_can_fix_is_one_message_and_status_2(arguments, message, capsys):
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err and printed.out == ""


def test_a_traceback_is_shown_on_request(capsys):
    assert cli.run(["train", "--gin_file=nothing.gin", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [TypeError("x"), AssertionError("x"), ValueError("x"), KeyError("x"), FileNotFoundError("x")]
)
def test_a_defect_of_ours_is_status_1_with_a_traceback(error, monkeypatch, capsys):
    def broken(*, expect: str = ""):
        raise error

    broken.__name__ = f"broken_by_{type(error).__name__}"  # Gin knows a configurable by its name.
    monkeypatch.setattr(importlib.import_module("flan_jax.commands.doctor"), "doctor", broken)
    assert cli.run(["doctor"]) == 1
    assert "defect of flan_jax" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "evaluate", "infer", "export", "convert", "show", "plan"])
def test_a_verb_without_its_arguments_shows_examples(verb, capsys):
    assert cli.run([verb]) == 2
    message = capsys.readouterr().err
    assert f"`{verb}` needs " in message and "from_" not in message.split(":")[1]
    assert all(f"\n  flan-jax {verb} {example}\n" in message for example in cli.VERBS[verb].examples)


def test_an_unknown_name_is_shown_as_it_was_written(monkeypatch, capsys):
    def unknown(*, expect: str = ""):
        raise UnknownNameError(f"No task 'x'. Did you mean 'y'?\nAllowed: y. {expect}")

    monkeypatch.setattr(importlib.import_module("flan_jax.commands.doctor"), "doctor", unknown)
    assert cli.run(["doctor"]) == 2
    assert capsys.readouterr().err.startswith("flan-jax: No task 'x'. Did you mean 'y'?\nAllowed: y.")


def test_commands_holds_verbs_only():
    modules = {path.stem for path in Path(cli.__file__).parent.joinpath("commands").glob("*.py")} - {"__init__"}
    assert modules == set(cli.VERBS)


def test_every_verb_explains_itself(capsys):
    assert cli.run(["--help"]) == 0
    listed = capsys.readouterr().out
    for verb in cli.VERBS:
        assert verb in listed
        assert cli.run([verb, "--help"]) == 0
        assert "Options" in capsys.readouterr().out


def test_help_begins_with_examples_and_macros_and_fits_a_terminal(capsys):
    for verb in cli.VERBS:
        assert cli.run([verb, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"\nExamples:\n  flan-jax {verb}" in shown and "object at 0x" not in shown and "function" not in shown
    assert cli.run(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "  TRAIN_STEPS = REQUIRED  updates\n" in shown and '  EXPORT_DIR = "exports"  tokenized' in shown
    assert shown.index("TRAIN_STEPS") < shown.index("Options")
    for line in ("LEARNING_RATE  the rate after", "WARMUP_STEPS  steps", "EVALUATED = %MIXTURE_OR_TASK_NAME  the task"):
        assert f"\n  {line}" in shown
    assert max(map(len, shown.split("Macros")[1].splitlines())) <= 80


def test_the_examples_of_help_name_options_that_exist():
    for verb, described in cli.VERBS.items():
        for example in described.examples:
            parsed = cli.parse_arguments([verb, *shlex.split(example)])
            assert parsed.options.keys() <= cli.option_parameters(verb).keys(), example
            assert all(binding.split("=")[0] in cli.macros() for binding in parsed.gin_bindings), example


@pytest.mark.parametrize("option", ["steps", "train_steps", "mixture"])
def test_an_option_that_is_a_macro_is_explained(option, capsys):
    assert cli.run(["train", f"--{option}=10"]) == 2
    macro = "MIXTURE_OR_TASK_NAME" if option == "mixture" else "TRAIN_STEPS"
    assert f"no option --{option}. Did you mean --gin.{macro}=VALUE?" in capsys.readouterr().err


def test_settings_of_processes_are_no_options_of_verbs(capsys):
    settings = ["--coordinator_address=10.0.0.1:8476", "--process_count=2", "--process-index=1"]
    invocation = cli.parse_arguments(["train", *settings])
    assert invocation.processes == {"coordinator_address": "10.0.0.1:8476", "process_count": 2, "process_index": 1}
    assert not invocation.options
    assert cli.parse_arguments(["doctor", *settings]).processes == {}
    assert cli.run(["evaluate", "nowhere", "--process_count=2"]) == 2
    assert "got no coordinator_address, process_index" in capsys.readouterr().err
    assert cli.run(["infer", "--help"]) == 0
    assert "--process_index = None" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--batch_size=foo", "--batch_size: expected a whole number of at least 1, got 'foo'."),
        ("--task_feature_lengths=3", "--task_feature_lengths: expected a mapping"),
    ],
)
def test_an_option_of_another_type_is_refused(option, message, capsys):
    assert cli.run(["show", "mixture", "embedded_train", option]) == 2
    assert message in capsys.readouterr().err


def test_a_number_is_a_name_where_an_option_takes_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["evaluate", "--model_dir=3"]) == 2
    assert f"There is no checkpoint at {tmp_path}/3" in capsys.readouterr().err


def test_help_into_a_closed_pipe_ends_quietly():
    code = "import os, sys; from flan_jax import cli; sys.exit(cli.run(['train', '--help']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0
