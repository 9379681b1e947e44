"""The verbs of the command line as a table, their options, and the help texts."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """A command.

    Attributes:
      does: One line of help.
      positional: Its positional arguments in order; `gin_file` takes all that are left.
      in_many_processes: Whether several processes can run it together.
      takes_run_config: Whether its first argument is the recipe's `RunConfig`, whose fields are options too.
      yields_rows: Whether it returns an iterator of rows, which `--output` names a file for.
      has_json: Whether `--json` prints the `data` of its result.
    """

    does: str
    positional: tuple[str, ...] = ()
    in_many_processes: bool = False
    takes_run_config: bool = False
    yields_rows: bool = False
    has_json: bool = False


VERBS = {
    "train": Verb(
        does="one run: exports what is missing, trains, evaluates, saves; the same command resumes it",
        in_many_processes=True,
        takes_run_config=True,
    ),
    "evaluate": Verb(
        does="evaluates checkpoints of a run, or imported weights, on tasks and mixtures",
        positional=("model_dir",),
        in_many_processes=True,
    ),
    "infer": Verb(
        does="adds predictions to the rows of a file or of standard input, with the weights of a run or a checkpoint",
        positional=("model_dir",),
        in_many_processes=True,
        yields_rows=True,
    ),
    "export": Verb(does="exports tasks and mixtures to tokenized shards"),
    "convert": Verb(
        does="converts weights between this project, T5X and Hugging Face: --from=PATH --to=PATH --format=hf"
    ),
    "show": Verb(
        does="tasks, mixtures, task NAME, mixture NAME, template FILE, lint, export DIR, run DIR, checkpoint DIR",
        positional=("what", "name"),
        has_json=True,
    ),
    "plan": Verb(
        does="compiles a recipe for another machine (--topology=v5e:16x16): memory, FLOPs, communication, time",
        positional=("gin_file",),
        takes_run_config=True,
        has_json=True,
    ),
    "doctor": Verb(does="checks the installation and the devices that JAX finds, and says how to fix what is wrong"),
}

PROCESS_OPTIONS = ("coordinator_address", "process_count", "process_index")
SUPPLIED = ("config", "console", "resolved_config")  # Parameters of verbs that the command line fills in.


def command(verb: str) -> Callable[..., Any]:
    """Returns the function of a verb, importing its module."""
    return getattr(importlib.import_module(f"flan_jax.commands.{verb}"), verb)


def option_parameters(verb: str) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a verb that are options of the command line: its own, and the fields of `RunConfig`."""
    parameters = {n: p for n, p in inspect.signature(command(verb)).parameters.items() if n not in SUPPLIED}
    if VERBS[verb].takes_run_config:
        from flan_jax.run.run_config import RunConfig

        parameters = {**inspect.signature(RunConfig).parameters, **parameters}
    if VERBS[verb].yields_rows:
        parameters["output"] = inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, default="-")
    return parameters


def usage(summary: str | None) -> str:
    """Returns the text of `flan-jax --help`, which begins with a summary."""
    verbs = "\n".join(f"  {name:<10} {verb.does}" for name, verb in VERBS.items())
    return f"{summary}\nVerbs:\n{verbs}\n\nflan-jax VERB --help lists a verb's options."


def verb_usage(verb: str) -> str:
    """Returns the documentation of a verb and its options."""
    lines = [f"flan-jax {verb} {' '.join(p.upper() for p in VERBS[verb].positional)}: {VERBS[verb].does}", ""]
    lines += [inspect.getdoc(command(verb)) or "", ""]
    if VERBS[verb].takes_run_config:
        from flan_jax.run.run_config import RunConfig

        lines += [inspect.getdoc(RunConfig) or "", ""]
    lines += ["Options (or gin bindings of the same names):"]
    parameters = option_parameters(verb)
    if VERBS[verb].in_many_processes:
        from flan_jax import launch

        parameters |= {name: inspect.signature(launch.join).parameters[name] for name in PROCESS_OPTIONS}
    for name, parameter in parameters.items():
        lines.append(f"  --{name.rstrip('_')}{_shown_default(parameter.default)}")
    return "\n".join(lines)


def _shown_default(default: Any) -> str:
    """Returns a default as one would type it; an object has no such form."""
    if default is inspect.Parameter.empty:
        return ""
    if isinstance(default, Path):
        default = str(default)
    named = getattr(default, "__name__", f"{type(default).__name__}()")
    return (
        f" = {default!r}" if default is None or isinstance(default, bool | int | float | str | tuple) else f" = {named}"
    )
