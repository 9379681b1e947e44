"""The command line: turns a verb, gin files and bindings into one call, and prints its result.

    flan-jax VERB [--gin_file=FILE]... [--gin.NAME=VALUE]... [--gin_search_paths=DIRS] [--gin_allow=MODULE]...
                  [--check] [--OPTION=VALUE]...

A gin file may import modules of this package, and others that `--gin_allow` or MIXTURE_OR_TASK_MODULE names.

Exit status: 0; 2 for what the user can fix (one message, no traceback; `--traceback` shows it); 1 for a defect of this
package, with a traceback; 130 or 143 when Ctrl-C or SIGTERM stopped it. A command is imported only when it
is called.
"""

import ast
import dataclasses
import inspect
import json
import keyword
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flan_jax import errors
from flan_jax.annotations import fits, hints_of, mismatch
from flan_jax.errors import UserError
from flan_jax.names import counted, nearest
from flan_jax.verbs import (
    PROCESS_OPTIONS,
    RUN_CONFIG,
    SUPPLIED,
    VERBS,
    command,
    configuration,
    macros,
    option_parameters,
    usage,
    verb_usage,
)

if TYPE_CHECKING:
    from rich.console import Console


PIPED_COLUMNS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invocation:
    """One parsed command line."""

    verb: str
    gin_files: tuple[str, ...]
    gin_bindings: tuple[str, ...]
    search_paths: tuple[str, ...]
    allow: tuple[str, ...]
    options: dict[str, Any]
    processes: dict[str, Any]
    check: bool
    json: bool
    traceback: bool


def parse_arguments(arguments: Sequence[str]) -> Invocation:
    """Splits a command line into verb, gin files, bindings and the verb's own options.

    >>> parsed = parse_arguments(["show", "run", "runs/a", "--json", "--gin.SEED=3"])
    >>> parsed.options, parsed.gin_bindings, parsed.json
    ({'what': 'run', 'name': 'runs/a'}, ('SEED=3',), True)

    Raises:
      UserError: The verb is unknown, or there are more positional arguments than it takes.
    """
    verb = arguments[0] if arguments else ""
    if verb not in VERBS:
        raise UserError(f"No verb {verb!r}.{nearest(verb, VERBS)} Verbs: {', '.join(VERBS)}; flan-jax --help explains.")
    files: list[str] = []
    bindings: list[str] = []
    search_paths: list[str] = []
    allow: list[str] = []
    options: dict[str, Any] = {}
    processes: dict[str, Any] = {}
    positional = list(VERBS[verb].positional)
    for argument in _join_values(arguments[1:]):
        name, separator, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            if not positional:
                hint = f"--gin_file={argument}" if argument.endswith(".gin") else "--name=value"
                raise UserError(f"`{verb}` takes no argument {argument!r} here: options are written {hint}.")
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
        elif name == "gin_allow":
            allow.append(value)
        elif name.startswith("gin."):
            bindings.append(argument.removeprefix("--gin."))
        # A flag of T5X's own command line.
        elif name == "tfds_data_dir" and verb == "train":
            bindings.append(f"TFDS_DATA_DIR={value!r}")
        elif VERBS[verb].in_many_processes and _parameter(name) in PROCESS_OPTIONS:
            processes[_parameter(name)] = _literal(value) if name.startswith("process") else value
        elif name not in ("check", "traceback") and not (name == "json" and VERBS[verb].has_json):
            options[_parameter(name)] = value if separator else True
    return Invocation(
        verb=verb,
        gin_files=tuple(files),
        gin_bindings=tuple(bindings),
        search_paths=tuple(search_paths),
        allow=tuple(allow),
        options=options,
        processes=processes,
        check="--check" in arguments,
        json="--json" in arguments and VERBS[verb].has_json,
        traceback="--traceback" in arguments,
    )


def _join_values(arguments: Sequence[str]) -> list[str]:
    """Joins `--gin_file FILE` into `--gin_file=FILE`; other options use `=` only, so that flags stay flags."""
    names = ("gin_file", "gin_search_paths", "gin_bindings", "gin_allow", "tfds_data_dir", "from-t5x")
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in {f"--{name}" for name in names}:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parameter(name: str) -> str:
    """Returns the parameter name of an option; a Python keyword such as `--from` gets an underscore at its end."""
    name = name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit status."""
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(usage(__doc__))
            return 0 if arguments else 2
        if arguments[0] == "--version":
            from flan_jax import __version__

            print(f"flan_jax {__version__}")
            return 0
        if "--help" in arguments[1:] and arguments[0] in VERBS:
            print(verb_usage(arguments[0]))
            return 0
        invocation = parse_arguments(arguments)
        call = prepare(invocation)
        if invocation.check:
            print_settings()
            return 0
        return _in_process_group(call, invocation) if VERBS[invocation.verb].in_many_processes else call()
    except KeyboardInterrupt as error:
        print(" ".join(["Interrupted.", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return _leave_group(128 + (error.args[0] if error.args else signal.SIGINT))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_stdout_closed():  # As under `| head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # For what Python flushes at its exit.
            return 0
        return _leave_group(_report(error, show_traceback="--traceback" in arguments))


def _is_stdout_closed() -> bool:
    """Returns whether standard output is a pipe without a reader; its buffer may be empty after a failed write."""
    watched = select.poll()
    watched.register(1, select.POLLOUT)
    return any(event & select.POLLERR for _, event in watched.poll(0))


def _in_process_group(call: Callable[[], int], invocation: Invocation) -> int:
    """Calls a command that computes, as one of several processes if this is one.

    XLA's flags are set and the processes connect before anything asks JAX for a device.
    """
    from flan_jax import backend, gin_config, launch

    backend.require_known_flags()
    backend.compute_in_calling_thread()
    group = gin_config.configured(launch.join, invocation.processes, verb=invocation.verb)()
    if group.count == 1:
        # Of several processes JAX lets only the first write. On CPU the others would find nothing, because their keys
        # differ. On GPUs a process that finds its program would leave the others waiting for its share of XLA's
        # autotuning. JAX_COMPILATION_CACHE_DIR names a cache where a shared folder is known to serve all processes.
        gin_config.configured(backend.compile_cache, {}, verb=invocation.verb)()
    with group.ended_together():
        return call()


def prepare(invocation: Invocation) -> Callable[[], int]:
    """Parses the gin configuration of an invocation.

    Returns:
      The call that runs the verb, prints its result and returns the exit status.

    Raises:
      UserError: The configuration is wrong; nothing has run yet.
    """
    # Imported here so that `--help` and an unknown verb answer at once.
    from flan_jax import gin_config

    verb = VERBS[invocation.verb]
    paths, allow = invocation.search_paths, invocation.allow
    gin_config.parse(invocation.gin_files, invocation.gin_bindings, search_paths=paths, allow=allow)
    function = command(invocation.verb)
    own = inspect.signature(function).parameters
    _require_known_options(invocation.verb, invocation.options)
    options = dict(invocation.options)
    output = options.pop("output", "-") if verb.yields_rows else "-"
    # A name that both have belongs to the verb, as in `option_parameters`.
    options_of_verb = _typed(function, {name: value for name, value in options.items() if name in own})
    examples = [f"flan-jax {invocation.verb} {example}" for example in verb.examples]
    call = gin_config.configured(function, options_of_verb, verb=invocation.verb, examples=examples, later=SUPPLIED)
    make_config: Callable[[], Any] | None = None
    if verb.configuration:
        kind = configuration(invocation.verb)
        rest = _typed(kind, {name: value for name, value in options.items() if name not in own})
        if verb.model_free_with in options_of_verb:
            rest = {"model_dir": "", **rest}
        make_config = gin_config.configured(kind, rest, verb=invocation.verb, examples=examples)
        if invocation.check:
            check(make_config(), invocation.verb)

    def run_verb() -> int:
        first = () if make_config is None else (make_config(),)
        supplied: dict[str, Any] = {}
        if "console" in own and _is_first_process():  # The others print nothing.
            supplied["console"] = _console(stderr=verb.yields_rows or invocation.json)
        if "resolved_config" in own:
            supplied["resolved_config"] = gin_config.resolved_text()
        result = call(*first, **supplied)
        return _write_rows(result, output) if verb.yields_rows else _print_result(result, as_json=invocation.json)

    return run_verb


def check(config: Any, verb: str) -> None:
    """Checks all of a recipe that can be known before rows are read; `plan` needs no data."""
    if verb == "train":
        from flan_jax.run.run_data import check_data

        check_data(config)


def _typed(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options with the text of each as a value of the parameter's type: 3 is a number or the name "3".

    Raises:
      UserError: A text is no such value.
    """
    hints = hints_of(function)
    typed = {}
    for name, text in options.items():
        values = [text] if text is True else [_literal(text), text]
        fitting = [value for value in values if fits(value, hints[name], "gin")]
        if not fitting:
            raise UserError(f"--{name.rstrip('_')}: {mismatch(text, hints[name], 'gin')}")
        typed[name] = fitting[0]
    return typed


def _require_known_options(verb: str, options: Iterable[str]) -> None:
    parameters = option_parameters(verb)
    for name in options:
        if name not in parameters:
            meant = (
                [macro for macro in macros() if name.upper() in macro]
                if VERBS[verb].configuration == RUN_CONFIG
                else []
            )
            hint = f" Did you mean --gin.{meant[0]}=VALUE?" if meant else nearest(name, parameters)
            raise UserError(
                f"`{verb}` has no option --{name}.{hint} It takes: {', '.join(parameters)}; "
                f"flan-jax {verb} --help explains."
            )


def _print_result(result: Any, *, as_json: bool) -> int:
    """Prints the result of a verb and returns the exit status; of several processes the first one prints."""
    if _is_first_process():
        if as_json:
            print(json.dumps(result.data, ensure_ascii=False, default=str))
        else:
            # Not cropped: a line that has to be copied as a whole, such as a digest, may be wider than the terminal.
            _console().print(result, crop=False)
    return getattr(result, "exit_status", 0)


def _write_rows(predictions: Any, output: str) -> int:
    from flan_jax.run.predictions import write_predictions

    if output == "-" and predictions.converse is not None:
        predictions.converse()
        return 0
    count = write_predictions(predictions, output)
    if output != "-" and _is_first_process():
        _console(stderr=True).print(f"{counted(count, 'row')} written to {output}.", highlight=False)
    return 0


def _is_first_process() -> bool:
    # Looked up, not imported: verbs that never have several processes start without it.
    module = sys.modules.get("flan_jax.processes")
    return module is None or module.group().is_first


def _console(*, stderr: bool = False) -> "Console":
    """Returns the terminal; for a file or a pipe a console wide enough that no table is folded."""
    from rich.console import Console

    # Without markup: paths and names may have brackets.
    console = Console(stderr=stderr, markup=False)
    return console if console.is_terminal else Console(stderr=stderr, markup=False, width=PIPED_COLUMNS)


def _leave_group(status: int) -> int:
    """Exits immediately when other processes wait for this one; otherwise returns the status."""
    if "flan_jax.processes" in sys.modules:
        sys.modules["flan_jax.processes"].group().leave(status)
    return status


def print_settings() -> None:
    """Prints every binding in force as gin text, each on one line with the file and line that set it."""
    from flan_jax import gin_config

    for setting in gin_config.settings():
        print(f"{setting.name} = {setting.value!r}  # {setting.origin}")


def _report(error: Exception, *, show_traceback: bool) -> int:
    """Prints one message for what the user can fix, a traceback for a defect of this package."""
    refusal = errors.as_user_error(error)
    if show_traceback or refusal is None:
        traceback.print_exception(error)
    if refusal is None:
        print(
            "This is a defect of flan_jax, not of your input: please report it with the lines above.", file=sys.stderr
        )
        return 1
    print(f"flan-jax: {refusal}", file=sys.stderr)
    return 2


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
