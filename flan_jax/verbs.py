"""The verbs of the command line as a table, their options, and the help texts."""

import dataclasses
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """A command.

    Attributes:
      does: One line of help.
      examples: Command lines to copy, without `flan-jax` and the verb.
      positional: Its positional arguments in order; `gin_file` takes all that are left.
      in_many_processes: Whether several processes can run it together.
      configuration: The class of its first argument, whose fields are options too: the recipe, or a trained network.
      model_free_with: The option with which the verb needs no trained network.
      yields_rows: Whether it returns an iterator of rows, which `--output` names a file for.
      has_json: Whether `--json` prints the `data` of its result.
    """

    does: str
    examples: tuple[str, ...]
    positional: tuple[str, ...] = ()
    in_many_processes: bool = False
    configuration: str = ""
    model_free_with: str = ""
    yields_rows: bool = False
    has_json: bool = False


RUN_CONFIG = "flan_jax.run.run_config.RunConfig"
MODEL_OPTIONS = "flan_jax.run.trained.ModelOptions"
VERBS = {
    "train": Verb(
        does="one run: exports what is missing, trains, evaluates, saves; the same command resumes it",
        examples=(
            "--gin_file=gin_configs/recipes/quickstart.gin",
            "--gin_file=gin_configs/recipes/quickstart.gin --gin.TRAIN_STEPS=200 --gin.MODEL_DIR=runs/short",
            "--gin_file=gin_configs/recipes/jsonl.gin --check",
        ),
        in_many_processes=True,
        configuration=RUN_CONFIG,
    ),
    "evaluate": Verb(
        does="evaluates checkpoints of a run, or imported weights, on tasks and mixtures",
        examples=(
            "runs/quickstart",
            "runs/quickstart --mixture_or_task_name=embedded_held_out",
            "runs/quickstart --suite=embedded/held_out",
            "--from_predictions=answers.jsonl --metrics=squad,rouge_l",
        ),
        positional=("model_dir",),
        in_many_processes=True,
        configuration=MODEL_OPTIONS,
        model_free_with="from_predictions",
        has_json=True,
    ),
    "infer": Verb(
        does="adds predictions to the rows of a file or of standard input, with the weights of a run or a checkpoint",
        examples=(
            "runs/quickstart --input=rows.jsonl --output=answers.jsonl --template='Question: {question}\\nAnswer:'",
            "runs/quickstart --input=rows.csv --output=answers.jsonl --task=my_task --on_bad_row=skip",
        ),
        positional=("model_dir",),
        in_many_processes=True,
        configuration=MODEL_OPTIONS,
        yields_rows=True,
    ),
    "export": Verb(
        does="exports tasks and mixtures to tokenized shards",
        examples=(
            "--mixture_or_task_name=embedded_train --export_dir=exports "
            "--task_feature_lengths=\"{'inputs': 64, 'targets': 16}\"",
        ),
    ),
    "convert": Verb(
        does="converts weights between this project, T5X and Hugging Face: --from=PATH --to=PATH --format=hf",
        examples=("--from=runs/quickstart --to=quickstart_hf --format=hf",),
    ),
    "show": Verb(
        does="tasks, mixtures, suites, task NAME, mixture NAME, template FILE, lint, export DIR, run DIR, "
        "checkpoint DIR, evaluation DIR [DIR], gin --from-t5x FILE",
        examples=("tasks 'rte_*'", "template my_tasks.yaml", "run runs/quickstart --json"),
        positional=("what", "name", "other"),
        has_json=True,
    ),
    "plan": Verb(
        does="compiles a recipe for another machine (--topology=v5e:16x16): memory, FLOPs, communication, time",
        examples=("gin_configs/recipes/superni_xl.gin --topology=v5e:4x4",),
        positional=("gin_file",),
        configuration=RUN_CONFIG,
        has_json=True,
    ),
    "doctor": Verb(
        does="checks the installation and the devices that JAX finds, and shows how to fix problems", examples=("",)
    ),
}

PROCESS_OPTIONS = ("coordinator_address", "process_count", "process_index")
SUPPLIED = ("config", "options", "console", "resolved_config")  # Parameters of verbs that the command line fills in.


def command(verb: str) -> Callable[..., Any]:
    """Returns the function of a verb, importing its module."""
    return getattr(importlib.import_module(f"flan_jax.commands.{verb}"), verb)


def configuration(verb: str) -> type[Any]:
    """Returns the class of a verb's first argument, importing its module."""
    module, _, name = VERBS[verb].configuration.rpartition(".")
    return getattr(importlib.import_module(module), name)


def option_parameters(verb: str) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a verb that are options: its own, and the fields of its configuration."""
    parameters = {n: p for n, p in inspect.signature(command(verb)).parameters.items() if n not in SUPPLIED}
    if VERBS[verb].configuration:
        kind = configuration(verb)
        fields = inspect.signature(kind).parameters
        own = inspect.get_annotations(kind)  # Before those of its bases, which dataclasses list first.
        parameters = {n: fields[n] for n in sorted(fields, key=lambda n: n not in own)} | parameters
    if VERBS[verb].yields_rows:
        parameters["output"] = inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, default="-")
    return parameters


def usage(summary: str | None) -> str:
    """Returns the text of `flan-jax --help`, which begins with a summary."""
    verbs = "\n".join(f"  {name:<10} {verb.does}" for name, verb in VERBS.items())
    return f"{summary}\nVerbs:\n{verbs}\n\nflan-jax VERB --help lists a verb's options."


def verb_usage(verb: str) -> str:
    """Returns the documentation of a verb: examples, the macros of recipes, and its options."""
    own = command(verb)
    lines = [" ".join(["flan-jax", verb, *(p.upper() for p in VERBS[verb].positional), "[--OPTION=VALUE]..."]), ""]
    lines += [_opening(own), "", "Examples:", *(f"  flan-jax {verb} {e}".rstrip() for e in VERBS[verb].examples), ""]
    described = {**_described(own), "output": 'A .jsonl file; "-" is standard output.'}
    if VERBS[verb].configuration:
        described = {**_described(configuration(verb)), **described}
    if VERBS[verb].configuration == RUN_CONFIG:
        lines += [
            "Macros of the recipes, set with --gin.NAME=VALUE. Text needs no quotes of its own;",
            "a tuple or a dict is written as in Python and quoted for the shell, such as",
            "--gin.TASK_FEATURE_LENGTHS=\"{'inputs': 64, 'targets': 16}\".",
        ]
        lines += [
            *(_entry(name, macro.default and f" = {macro.default}", macro.comment) for name, macro in macros().items()),
            "",
        ]
    lines += ["Options (gin bindings of the same names set them too):"]
    parameters = option_parameters(verb)
    if VERBS[verb].in_many_processes:
        from flan_jax import launch

        parameters |= {name: inspect.signature(launch.join).parameters[name] for name in PROCESS_OPTIONS}
        described |= _described(launch.join)
    for name, parameter in parameters.items():
        default = _shown_default(parameter.default)
        # gin builds the fields of a recipe that have no default, and those whose default is an object.
        is_of_recipe = VERBS[verb].configuration == RUN_CONFIG and name not in inspect.signature(own).parameters
        if default is not None and (default or not is_of_recipe):
            lines.append(_entry(f"--{name.rstrip('_')}", default, described.get(name, "")))
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Macro:
    """A setting that recipes share.

    Attributes:
      default: As gin text; "REQUIRED" where a recipe must set it, "" where it depends on the optimizer's file.
      comment: The comment after its definition.
    """

    default: str
    comment: str


@functools.cache
def macros() -> dict[str, Macro]:
    """Returns the macros that gin files define with a comment: those of all runs first."""
    # Read as text, so that help needs neither gin nor the modules that the files import.
    found: dict[str, Macro] = {}
    for folder in ("runs", "optimizers", "meshes", "recipes"):
        for file in sorted((Path(__file__).parent.parent / "gin_configs" / folder).glob("*.gin")):
            text = file.read_text(encoding="utf-8")
            for name, default, comment in re.findall(r"^([A-Z][A-Z_]+) = (.*?) +# (.*)$", text, flags=re.MULTILINE):
                default = default.removeprefix("%gin.")
                if name not in found:
                    found[name] = Macro(default=default, comment=comment)
                elif folder != "recipes" and found[name].default != default:
                    found[name] = Macro(default="", comment=found[name].comment)
    return found


def _opening(documented: Any) -> str:
    """Returns the part of a docstring that precedes its sections."""
    return re.split(r"\n\n(?:Args|Attributes|Returns|Raises):\n", inspect.getdoc(documented) or "")[0]


def _described(documented: Any) -> dict[str, str]:
    """Returns the descriptions of arguments or attributes in a docstring, each on one line; a class has its bases'."""
    inherited = [_described(base) for base in documented.__bases__] if inspect.isclass(documented) else []
    section = re.search(r"\n(?:Args|Attributes):\n((?:  .*\n?)+)", inspect.getdoc(documented) or "")
    entries = re.split(r"^  (\w+): ", section[1] if section else "", flags=re.MULTILINE)[1:]
    own = {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}
    return {name: text for described in [*inherited, own] for name, text in described.items()}


def _entry(name: str, default: str, text: str) -> str:
    """Returns an entry of a list, wrapped under its name."""
    return textwrap.fill(
        f"{name}{default}  {text}".rstrip(), width=80, initial_indent="  ", subsequent_indent=" " * 6,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _shown_default(default: Any) -> str | None:
    """Returns a default as a user would type it; None for an object, which cannot be typed."""
    if default is inspect.Parameter.empty:
        return ""
    if isinstance(default, Path):
        default = str(default)
    return f" = {default!r}" if default is None or isinstance(default, bool | int | float | str | tuple) else None
