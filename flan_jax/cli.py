"""The command line: a verb, gin files and bindings, turned into one call.

    flan-jax VERB [--gin_file=FILE]... [--gin.NAME=VALUE]... [--gin_search_paths=DIRS] [--check] [--OPTION=VALUE]...

Exit status: 0; 2 for what the user can mend (one message, no traceback; `--traceback` shows it); 1 for a defect of
ours. A command is imported only when it is called.
"""

import ast
import dataclasses
import importlib
import inspect
import keyword
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from flan_jax import errors
from flan_jax.errors import UserError
from flan_jax.names import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """A command.

    Attributes:
      does: what, in a line.
      positional: its positional arguments in order; where that is `gin_file`, all of them are gin files.
      in_many_processes: whether several processes can share it.
      reads_recipe_of: the verb whose bindings it takes for what it is not told itself.
    """

    does: str
    positional: tuple[str, ...] = ()
    in_many_processes: bool = False
    reads_recipe_of: str | None = None


VERBS = {
    "train": Verb(
        does="a run: exports what is missing, trains, evaluates, saves; the same command again resumes it",
        in_many_processes=True,
    ),
    "evaluate": Verb(
        does="checkpoints of a run, or imported weights, on tasks and mixtures",
        positional=("model_dir",),
        in_many_processes=True,
    ),
    "infer": Verb(
        does="rows of a file or of standard input to JSONL, with a run's or a checkpoint's weights",
        positional=("model_dir",),
        in_many_processes=True,
    ),
    "export": Verb(does="tasks and mixtures to tokenised shards"),
    "convert": Verb(does="weights between this project, T5X and Hugging Face: --from=PATH --to=PATH --format=hf"),
    "show": Verb(
        does="tasks, mixtures, task NAME, mixture NAME, template FILE, lint, export DIR, run DIR, checkpoint DIR",
        positional=("what", "name"),
    ),
    "plan": Verb(
        does="compiles a recipe for a machine that is not there (--topology=v5e:16x16): memory, FLOPs, communication, time",
        positional=("gin_file",),
        reads_recipe_of="train",
    ),
    "doctor": Verb(does="what is installed, which devices JAX sees, what would go wrong, with the mend"),
}


PROCESS_OPTIONS = ("coordinator_address", "process_count", "process_index")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invocation:
    """One parsed command line."""

    verb: str
    gin_files: tuple[str, ...]
    gin_bindings: tuple[str, ...]
    search_paths: tuple[str, ...]
    options: dict[str, Any]
    processes: dict[str, Any]
    check: bool
    traceback: bool


def parse_arguments(arguments: Sequence[str]) -> Invocation:
    """Splits a command line into verb, gin files, bindings and the verb's own options.

    >>> parsed = parse_arguments(["show", "run", "runs/a", "--json", "--gin.SEED=3"])
    >>> parsed.options, parsed.gin_bindings
    ({'what': 'run', 'name': 'runs/a', 'json': True}, ('SEED=3',))

    Raises:
      UserError: an unknown verb, or more words than the verb takes.
    """
    verb = arguments[0] if arguments else ""
    if verb not in VERBS:
        raise UserError(f"No verb {verb!r}.{nearest(verb, VERBS)} Verbs: {', '.join(VERBS)}; flan-jax --help explains.")
    files: list[str] = []
    bindings: list[str] = []
    search_paths: list[str] = []
    options: dict[str, Any] = {}
    processes: dict[str, Any] = {}
    positional = list(VERBS[verb].positional)
    for argument in _join_values(arguments[1:]):
        name, separator, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            if not positional:
                raise UserError(f"`{verb}` takes no word {argument!r} here: options are written --name=value.")
            if positional[0] == "gin_file":
                files.append(argument)
            else:
                options[positional.pop(0)] = argument
        elif name == "gin_file":
            files.append(value)
        elif name == "gin_search_paths":
            search_paths += value.split(",")
        elif name == "gin_bindings":
            bindings.append(value)
        elif name.startswith("gin."):
            bindings.append(argument.removeprefix("--gin."))
        elif name == "tfds_data_dir" and verb == "train":
            bindings.append(f"TFDS_DATA_DIR={value!r}")
        elif VERBS[verb].in_many_processes and _parameter(name) in PROCESS_OPTIONS:
            processes[_parameter(name)] = _literal(value) if name.startswith("process") else value
        elif name not in ("check", "traceback"):
            options[_parameter(name)] = _literal(value) if separator else True
    return Invocation(
        verb=verb,
        gin_files=tuple(files),
        gin_bindings=tuple(bindings),
        search_paths=tuple(search_paths),
        options=options,
        processes=processes,
        check="--check" in arguments,
        traceback="--traceback" in arguments,
    )


def _join_values(arguments: Sequence[str]) -> list[str]:
    """Joins `--gin_file FILE` into `--gin_file=FILE`; other options use `=` only, so that flags stay flags."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--gin_file", "--gin_search_paths", "--gin_bindings", "--tfds_data_dir"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parameter(name: str) -> str:
    """Returns the parameter of an option; one that Python keeps for itself, as `--from`, has a stroke behind it."""
    name = name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from flan_jax import __version__

        print(f"flan_jax {__version__}")
        return 0
    try:
        if "--help" in arguments[1:] and arguments[0] in VERBS:
            print(verb_usage(arguments[0]))
            return 0
        invocation = parse_arguments(arguments)
        call = prepare(invocation)
        if invocation.check:
            print_settings()
            return 0
        outcome = _in_its_group(call, invocation) if VERBS[invocation.verb].in_many_processes else call()
        return outcome if isinstance(outcome, int) else 0
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return _left(128 + signal.SIGINT)
    except Exception as error:  # pylint: disable=broad-except
        status = _report(error, show_traceback="--traceback" in arguments)
        return _left(status)


def _in_its_group(call: Callable[[], Any], invocation: Invocation) -> Any:
    """Calls a command that computes, as one of several processes if this is one.

    What XLA is told, and that the processes find each other, comes before anybody asks JAX for a device.
    """
    from flan_jax import backend, gin_config, launch

    backend.require_known_flags()
    backend.compute_in_calling_thread()
    group = gin_config.configured(launch.join, invocation.processes)()
    if group.count == 1:
        # Of several JAX lets the first alone write, and on CPU the others find nothing, for its keys differ by process. On
        # GPUs one that finds its program would leave those that do not waiting for its share of XLA's trials. Where
        # a shared folder is known to serve all, JAX's own JAX_COMPILATION_CACHE_DIR names it.
        gin_config.configured(backend.compile_cache, {})()
    with group.ended_together():
        return call()


def prepare(invocation: Invocation) -> Callable[[], Any]:
    """Parses the gin configuration of an invocation and returns the call that runs its command.

    Raises:
      UserError: whatever is wrong in the configuration; nothing has run yet.
    """
    # Imported here so that `--help` and mistakes in the verb answer at once.
    from flan_jax import gin_config

    gin_config.parse(invocation.gin_files, invocation.gin_bindings, search_paths=invocation.search_paths)
    function = _command(invocation.verb)
    options = dict(invocation.options)
    if "resolved_config" in inspect.signature(function).parameters:
        options["resolved_config"] = gin_config.resolved_text()
    recipe_of = VERBS[invocation.verb].reads_recipe_of
    return gin_config.configured(function, options, like=_command(recipe_of) if recipe_of else None)


def _command(verb: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"flan_jax.commands.{verb}"), verb)


def _left(status: int) -> int:
    """Ends this process at once where others wait for it to end; returns the status where there are none."""
    if "flan_jax.processes" in sys.modules:
        sys.modules["flan_jax.processes"].group().leave(status)
    return status


def print_settings() -> None:
    """Prints every binding in force with the file and line that set it."""
    from rich.console import Console
    from rich.table import Table

    from flan_jax import gin_config

    table = Table(title="resolved configuration", title_justify="left")
    for column in ("name", "value", "set in"):
        table.add_column(column, overflow="fold")
    for setting in gin_config.settings():
        table.add_row(setting.name, repr(setting.value), setting.origin)
    Console().print(table)


def usage() -> str:
    """Returns the text of `flan-jax --help`."""
    verbs = "\n".join(f"  {name:<10} {verb.does}" for name, verb in VERBS.items())
    return f"{__doc__}\nVerbs:\n{verbs}\n\nflan-jax VERB --help lists a verb's options."


def verb_usage(verb: str) -> str:
    """Returns a verb's documentation and its options."""
    function = _command(verb)
    lines = [f"flan-jax {verb} {' '.join(p.upper() for p in VERBS[verb].positional)}: {VERBS[verb].does}", ""]
    lines += [inspect.getdoc(function) or "", "", "Options (or gin bindings of the same names):"]
    parameters = dict(inspect.signature(function).parameters)
    if VERBS[verb].in_many_processes:
        from flan_jax import launch

        parameters |= {name: inspect.signature(launch.join).parameters[name] for name in PROCESS_OPTIONS}
    for name, parameter in parameters.items():
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"  --{name.rstrip('_')}{default}")
    return "\n".join(lines)


def _report(error: Exception, *, show_traceback: bool) -> int:
    """Prints one message for what the user can mend, a traceback for a defect of ours."""
    if show_traceback or not isinstance(error, errors.UserError):
        traceback.print_exception(error)
    if not isinstance(error, errors.UserError):
        print(
            "This is a defect of flan_jax, not of your input: please report it with the lines above.", file=sys.stderr
        )
        return 1
    print(f"flan-jax: {errors.message(error)}", file=sys.stderr)
    return 2


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
