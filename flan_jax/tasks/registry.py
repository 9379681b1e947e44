"""Registering tasks and mixtures with SeqIO, finding them again, and importing the modules that define them.

What is registered here is an ordinary entry of `seqio.TaskRegistry` or `seqio.MixtureRegistry`, which anyone's SeqIO
code can use; entries that others made are found just the same. A task from a JSONL file:

    from flan_jax.tasks import registry

    registry.register_jsonl(
        "capitals", {"train": "capitals.jsonl"}, inputs="Capital of {country}?", targets="{capital}"
    )

The same without Python is described in `user_files`. Nothing is read before rows are asked for.
"""

import importlib
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flan_jax import vocab
from flan_jax.data.rates import ProportionalRate
from flan_jax.names import nearest
from flan_jax.tasks import lazy, modules, user_files
from flan_jax.tasks.declare import Evaluation, Normaliser, TemplatedTask, require_name
from flan_jax.tasks.identity import identity
from flan_jax.tasks.rendering import Preview, RenderedRow, check, iter_rendered, num_examples, preview
from flan_jax.tasks.rows import OnBadRow
from flan_jax.tasks.sources import Paths

__all__ = [
    "FAMILIES", "Preview", "Rate", "RenderedRow", "TemplatedTask", "check", "identity", "import_module",
    "iter_rendered", "mixture_or_task", "names", "num_examples", "preview", "register", "register_all",
    "register_jsonl", "register_mixture", "register_yaml", "task", "templated", "unregister", "use_vocabulary",
    "vocabulary",
]  # fmt: skip

Rate = float | Callable[[Any], float]
"""A weight, or a function from the SeqIO task to one."""

FAMILIES = ("flan_jax.tasks.embedded", "flan_jax.tasks.natural_instructions")
"""The package's own families: modules with a function `register()`."""
DECLARED_FAMILIES = {"natural_instructions": "flan_jax.tasks.natural_instructions"}
"""Those that a YAML file may register with settings of its own: modules with a function `register_declared`."""


@dataclass
class _State:
    """What this process has registered."""

    default_vocabulary: str | vocab.Vocabulary = "embedded"
    templated: dict[str, TemplatedTask] = field(default_factory=dict)
    yaml_files: set[str] = field(default_factory=set)
    families_vocabulary: vocab.Vocabulary | None = None
    families_names: tuple[str, ...] = ()


_state = _State()


def use_vocabulary(spec: str | vocab.Vocabulary, *, extra_ids: int | None = None) -> None:
    """Sets the vocabulary of tasks that are registered from now on without one of their own.

    Args:
      spec: "embedded", "bytes", or the path of a SentencePiece model; see `vocab.load`.
      extra_ids: number of sentinels; None for the kind's own.

    Raises:
      FileNotFoundError: the path leads nowhere.
    """
    _state.default_vocabulary = vocab.load(spec, extra_ids=extra_ids)


def vocabulary(spec: str | vocab.Vocabulary | None = None) -> vocab.Vocabulary:
    """Returns the vocabulary that `spec` names; for None, that of tasks that are registered without one."""
    return vocab.load(_state.default_vocabulary if spec is None else spec)


def register(task: TemplatedTask, *, vocabulary: str | vocab.Vocabulary | None = None) -> Any:
    """Adds a templated task to SeqIO's registry.

    Its features are `inputs` and `targets`, ids that end with the end of sequence; `inputs_pretokenized` and
    `targets_pretokenized` hold the texts.

    Args:
      task: the record.
      vocabulary: what `vocab.load` takes; None for the one set with `use_vocabulary`.

    Returns:
      The `seqio.Task`.

    Raises:
      ValueError: the name is taken.
    """
    chosen = vocab.load(_state.default_vocabulary if vocabulary is None else vocabulary)
    _require_free(task.name)
    lazy.import_seqio()
    from flan_jax.tasks import seqio_source

    made = seqio_source.make_task(task, vocabulary=chosen)
    _state.templated[task.name] = task
    return made


def register_mixture(
    name: str, members: Sequence[str | tuple[str, Rate | None]], *, default_rate: Rate | None = None
) -> Any:
    """Adds a mixture to SeqIO's registry.

    Args:
      name: of the mixture.
      members: names of registered tasks and mixtures, or pairs of a name and its rate. A mixture among them needs a
        number as its rate, which its members share (SeqIO's rule).
      default_rate: for members without a rate; None for their numbers of examples.

    Returns:
      The `seqio.Mixture`.

    Raises:
      KeyError: a member is not registered.
      ValueError: no members, one given twice, a rate that cannot be one, or vocabularies that differ.
    """
    require_name(name)
    _require_free(name)
    default = ProportionalRate() if default_rate is None else default_rate
    pairs = [(member, None) if isinstance(member, str) else member for member in members]
    rated = [(member, default if rate is None else rate) for member, rate in pairs]
    _check_members(name, rated)
    return _registries()[1].add(name, rated)


def register_jsonl(
    name: str,
    files: Paths | Mapping[str, Paths],
    *,
    inputs: str,
    targets: str,
    cluster: str = "user",
    options: Sequence[str] | str | None = None,
    metrics: Sequence[str] = TemplatedTask.metrics,
    evaluation: Evaluation = TemplatedTask.evaluation,
    references: str | None = None,
    normaliser: Normaliser | None = None,
    on_bad_row: OnBadRow = "error",
    vocabulary: str | vocab.Vocabulary | None = None,
) -> Any:
    """Registers a task that asks in one way about the rows of JSONL files; see `TemplatedTask` for what arguments mean.

    Args:
      name: of the task.
      files: a path or several, for the split "train"; or a mapping from splits to them.
      inputs: pattern of what the model reads, "Capital of {country}?".
      targets: pattern of what it should write.
      vocabulary: what `vocab.load` takes; None for the one set with `use_vocabulary`.

    Returns:
      The `seqio.Task`.

    Raises:
      ValueError: a declaration that cannot be right; see `TemplatedTask`.
    """
    record = user_files.jsonl_task(
        name,
        files,
        inputs=inputs,
        targets=targets,
        cluster=cluster,
        options=options,
        metrics=metrics,
        evaluation=evaluation,
        references=references,
        normaliser=normaliser,
        on_bad_row=on_bad_row,
    )
    return register(record, vocabulary=vocabulary)


def register_yaml(path: Path | str) -> tuple[str, ...]:
    """Registers the tasks and mixtures of a YAML file; see `user_files` for its schema.

    Returns:
      Their names.

    Raises:
      FileNotFoundError, ValueError: as `user_files.read_yaml`; also when a name is taken. Nothing is registered then.
    """
    declared = user_files.read_yaml(path)
    chosen = vocabulary(declared.vocabulary)
    for name in (*(t.name for t in declared.tasks), *(m.name for m in declared.mixtures)):
        require_name(name)
        _require_free(name)
    done: list[str] = []
    try:
        for family, settings in declared.families.items():
            _register_family(family, settings, vocabulary=chosen, path=Path(path))
        for record in declared.tasks:
            register(record, vocabulary=chosen)
            done.append(record.name)
        for mixture in declared.mixtures:
            register_mixture(mixture.name, mixture.members, default_rate=mixture.default_rate)
            done.append(mixture.name)
    except (KeyError, ValueError) as error:
        unregister(done)
        kind = KeyError if isinstance(error, KeyError) else ValueError
        raise kind(f"{path}: {error.args[0]}") from error
    return tuple(done)


def _register_family(name: str, settings: Mapping[str, Any], *, vocabulary: vocab.Vocabulary, path: Path) -> None:
    """Registers a family that takes settings, as a YAML file gives them."""
    if name not in DECLARED_FAMILIES:
        raise ValueError(
            f"families: unknown family {name!r}.{nearest(name, DECLARED_FAMILIES)} "
            f"Allowed: {', '.join(DECLARED_FAMILIES)}."
        )
    module = importlib.import_module(DECLARED_FAMILIES[name])
    module.register_declared(settings, vocabulary=vocabulary, base=path.expanduser().parent, where=f"families.{name}")


def names() -> tuple[str, ...]:
    """Returns the names of all tasks and mixtures, those of others too, sorted."""
    return tuple(sorted({name for registry in _registries() for name in registry.names()}))


def task(name: str) -> Any:
    """Returns the `seqio.Task` of a name.

    Raises:
      KeyError: there is none; names the nearest.
    """
    tasks, _ = _registries()
    if name not in tasks.names():
        raise KeyError(_unknown("task", name, tasks.names()))
    return tasks.get(name)


def mixture_or_task(name: str) -> Any:
    """Returns the `seqio.Mixture` or `seqio.Task` of a name.

    Raises:
      KeyError: there is none; names the nearest.
    """
    tasks, mixtures = _registries()
    if name in mixtures.names():
        return mixtures.get(name)
    if name in tasks.names():
        return tasks.get(name)
    raise KeyError(_unknown("task or mixture", name, names()))


def templated(name: str) -> TemplatedTask | None:
    """Returns the record of a task; None for a task that was registered with plain SeqIO.

    Raises:
      KeyError: there is no such task; names the nearest.
    """
    task(name)
    return _state.templated.get(name)


def import_module(words: str) -> tuple[str, ...]:
    """Imports what `MIXTURE_OR_TASK_MODULE` names: modules that register tasks, and YAML files that declare them.

    Args:
      words: dotted modules and paths of .py, .yaml or .yml files, separated by commas. What is there already stays.

    Returns:
      The files that define what was registered, as absolute paths; a package counts with all .py files beneath it.

    Raises:
      FileNotFoundError: there is no such module or file.
      KeyError, ValueError: as `register_yaml`, and whatever the modules raise.
    """
    files: list[str] = []
    for word in filter(None, (word.strip() for word in words.split(","))):
        if word.endswith((".yaml", ".yml")):
            path = str(Path(word).expanduser().resolve())
            if path not in _state.yaml_files:
                register_yaml(path)
                _state.yaml_files.add(path)
            files.append(path)
        else:
            files.extend(modules.load(word))
    return tuple(dict.fromkeys(files))


def register_all() -> None:
    """Registers the package's own families under the vocabulary in use.

    Done again it does nothing; under another vocabulary it registers them anew, since a name has one vocabulary.
    """
    current = vocabulary()
    if _state.families_vocabulary == current:
        return
    unregister(_state.families_names)
    before = set(names())
    for family in FAMILIES:
        importlib.import_module(family).register()
    _state.families_names = tuple(name for name in names() if name not in before)
    _state.families_vocabulary = current


def _registries() -> tuple[Any, Any]:
    seqio = lazy.import_seqio()
    return seqio.TaskRegistry, seqio.MixtureRegistry


def unregister(gone: Iterable[str]) -> None:
    """Takes tasks and mixtures out of the registries; names that are not there are passed over."""
    for name in gone:
        for registry in _registries():
            registry.remove(name)
        _state.templated.pop(name, None)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    return (
        f"Unknown {kind} {name!r}.{nearest(name, known)} {len(known)} are registered. Modules that register others are "
        "named by MIXTURE_OR_TASK_MODULE; all names are shown by `flan-jax show tasks` and `flan-jax show mixtures`."
    )


def _require_free(name: str) -> None:
    tasks, mixtures = _registries()
    if name in tasks.names() or name in mixtures.names():
        kind = "a mixture" if name in mixtures.names() else "a task"
        raise ValueError(f"The name {name!r} is taken by {kind} that is registered already; choose another.")


def _check_members(name: str, rated: Sequence[tuple[str, Rate]]) -> None:
    tasks, mixtures = _registries()
    if not rated:
        raise ValueError(f"Mixture {name!r} has no members.")
    seen: set[str] = set()
    for member, rate in rated:
        if member in seen:
            raise ValueError(
                f"Mixture {name!r}: {member!r} is a member twice; give it once, with the sum of its rates."
            )
        seen.add(member)
        if member not in tasks.names() and member not in mixtures.names():
            raise KeyError(f"Mixture {name!r}: {_unknown('member', member, names())}")
        is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
        if member not in tasks.names() and not is_number:
            raise ValueError(f"Mixture {name!r}: its member {member!r} is a mixture and needs a number as its rate.")
        if not callable(rate) and not (is_number and 0 < rate < float("inf")):
            raise ValueError(f"Mixture {name!r}: the rate of {member!r} must be a number above 0, got {rate!r}.")
    _check_vocabularies(name, [mixture_or_task(member) for member, _ in rated])


def _check_vocabularies(name: str, members: Sequence[Any]) -> None:
    first, *others = members
    for other in others:
        for feature, ours in first.output_features.items():
            theirs = other.output_features.get(feature)
            if theirs is not None and theirs.vocabulary != ours.vocabulary:
                raise ValueError(
                    f"Mixture {name!r}: {first.name!r} and {other.name!r} differ in the vocabulary of {feature!r}. "
                    "Register the members of a mixture under one vocabulary."
                )
