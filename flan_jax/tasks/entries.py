"""What SeqIO's registries hold: adding tasks and mixtures to them, finding them again, taking them out.

What is added here is an ordinary entry of `seqio.TaskRegistry` or `seqio.MixtureRegistry`, which anyone's SeqIO code
can use; entries that others made are found just the same. Files and modules that declare tasks are `registry`'s.
"""

import functools
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flan_jax import vocab
from flan_jax.data.holdout import Facts, HoldOut
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import nearest
from flan_jax.tasks import lazy
from flan_jax.tasks import members as members_lib
from flan_jax.tasks.declare import TemplatedTask, require_name, with_vocabulary
from flan_jax.tasks.families import Families
from flan_jax.tasks.hold_outs import facts, require_held_out
from flan_jax.tasks.pretraining.task import PretrainingTask

Rate = float | Callable[[Any], float]
"""A weight, or a function from the SeqIO task to one."""


@dataclass
class _State:
    """What this process has registered."""

    default_vocabulary: str | vocab.Vocabulary = "embedded"
    templated: dict[str, TemplatedTask] = field(default_factory=dict)
    pretraining: dict[str, PretrainingTask] = field(default_factory=dict)
    families: Families = field(default_factory=Families)
    hold_outs: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)


_state = _State()


def use_vocabulary(spec: str | vocab.Vocabulary, *, extra_ids: int | None = None) -> None:
    """Sets the vocabulary of tasks that are registered from now on without one of their own.

    Args:
      spec: "embedded", "bytes", or the path of a SentencePiece model; see `vocab.load`.
      extra_ids: number of sentinels; None for the kind's own.

    Raises:
      MissingFileError: the path leads nowhere.
    """
    _state.default_vocabulary = vocab.load(spec, extra_ids=extra_ids)


def vocabulary(spec: str | vocab.Vocabulary | None = None) -> vocab.Vocabulary:
    """Returns the vocabulary that `spec` names; for None, that of tasks that are registered without one."""
    return _chosen(spec)


def _chosen(spec: str | vocab.Vocabulary | None) -> vocab.Vocabulary:
    if spec is not None:
        return vocab.load(spec)
    if isinstance(_state.default_vocabulary, str):  # Once: finding a model's file costs as much as registering a task.
        _state.default_vocabulary = vocab.load(_state.default_vocabulary)
    return _state.default_vocabulary


def register(task: TemplatedTask | PretrainingTask, *, vocabulary: str | vocab.Vocabulary | None = None) -> Any:
    """Adds a templated task, or one of pretraining, to SeqIO's registry.

    Its features are `inputs` and `targets`, ids that end with the end of sequence; for a templated task
    `inputs_pretokenized` and `targets_pretokenized` hold the texts.

    Args:
      task: the record.
      vocabulary: what `vocab.load` takes; None for the one set with `use_vocabulary`.

    Returns:
      The `seqio.Task`.

    Raises:
      UserError: the name is taken.
    """
    chosen = _chosen(vocabulary)
    require_free(task.name)
    lazy.import_seqio()
    from flan_jax.tasks import seqio_source
    from flan_jax.tasks.pretraining import seqio_documents

    if isinstance(task, PretrainingTask):
        made = seqio_documents.make_task(task, vocabulary=chosen)
        _state.pretraining[task.name] = task
    else:
        task = with_vocabulary(task, chosen)
        made = seqio_source.make_task(task, vocabulary=chosen)
        _state.templated[task.name] = task
    _state.families.remember(task.name)
    return made


def register_mixture(
    name: str,
    members: Sequence[str | tuple[str, Rate | None]],
    *,
    default_rate: Rate | None = None,
    hold_out: HoldOut | None = None,
    notes: Iterable[str] = (),
) -> Any:
    """Adds a mixture to SeqIO's registry.

    Args:
      name: of the mixture.
      members: names of registered tasks and mixtures, or pairs of a name and its rate. A mixture among them needs a
        number as its rate, which its members share (SeqIO's rule).
      default_rate: for members without a rate; None for their numbers of examples.
      hold_out: what must not be trained on; checked against the declarations of all members.
      notes: what its reader must know, such as what a list that it was made from has and this machine lacks; kept in
        the manifest and shown.

    Returns:
      The `seqio.Mixture`.

    Raises:
      UnknownNameError: a member, or a task that is held out, is not registered.
      UserError: no members, one given twice, a rate that cannot be one, vocabularies that differ, or a member that
        gives away what is held out.
    """
    require_name(name, also="+")  # SeqIO's rule is for tasks alone, and T0 has mixtures with a plus.
    require_free(name)
    default = ProportionalRate() if default_rate is None else default_rate
    pairs = [(member, None) if isinstance(member, str) else member for member in members]
    rated = [(member, default if rate is None else rate) for member, rate in pairs]
    _check_members(name, rated)
    if hold_out is not None:
        _state.hold_outs[name] = require_held_out(
            name,
            hold_out=hold_out,
            members=_facts(member for member, _ in rated),
            held_out=_facts(hold_out.tasks),
        )
    _state.notes[name] = tuple(notes)
    _state.families.remember(name)
    return _registries()[1].add(name, rated)


def hold_out_of(name: str) -> dict[str, Any]:
    """Returns what a mixture holds out by its definition, with the leaks that it allows; {} when nothing."""
    return _state.hold_outs.get(name, {})


def notes_of(name: str) -> tuple[str, ...]:
    """Returns what a mixture's definition, and those of the mixtures in it, want its reader to know; () for a task."""
    members = getattr(mixture_or_task(name), "rate_per_task_name", ())
    return tuple(dict.fromkeys([*_state.notes.get(name, ()), *(note for inner in members for note in notes_of(inner))]))


def _facts(providers: Iterable[str]) -> list[Facts]:
    """What hold-out goes by, of the tasks that names of tasks and mixtures come to."""
    tasks = {task.name for name in providers for task in members_lib.tasks_of(mixture_or_task(name))}
    return [facts(name, _state.templated.get(name) or _state.pretraining.get(name)) for name in sorted(tasks)]


def declare_family(
    name: str,
    *,
    names: Callable[[], Iterable[str]],
    define: Callable[[str], bool],
    covering: Callable[[], Iterable[str]] = tuple,
) -> None:
    """Declares tasks and mixtures that are registered when they are asked for, under the vocabulary in use then.

    A family whose names run into thousands costs nothing until one is used. An earlier declaration of the same family
    is replaced, and what it had registered is taken out.

    Args:
      name: of the family.
      names: lists the names that `define` knows.
      define: registers what has a name, its members first (`mixture_or_task` of each); False for a name that is not
        the family's.
      covering: lists tasks that together use every template of the family, for those who look at templates.
    """
    if _state.families.declare(name, names=names, define=define, covering=covering):
        forget_families()


def forget_families() -> None:
    """Takes out what families have registered so far, to be registered anew when it is asked for."""
    unregister(_state.families.forget())


def _is_registered(name: str) -> bool:
    """Whether SeqIO holds a name, after a family that knows it has had its turn."""
    tasks, mixtures = _registries()
    return name in tasks.names() or name in mixtures.names() or _state.families.define(name)


def names() -> tuple[str, ...]:
    """Returns the names of all tasks and mixtures, those of others and those that families declare too, sorted."""
    return tuple(sorted({*defined_names(), *_state.families.names()}))


def defined_names() -> set[str]:
    """Returns the names that SeqIO's registries hold now."""
    return {name for registry in _registries() for name in registry.names()}


def covering_names() -> tuple[str, ...]:
    """Returns the tasks of the registries, and of each family as many as use all of its templates."""
    tasks, _ = _registries()
    return tuple(sorted({*tasks.names(), *_state.families.covering()}))


def families() -> dict[str, int]:
    """Returns how many names each family declares."""
    return _state.families.sizes()


def task(name: str) -> Any:
    """Returns the `seqio.Task` of a name.

    Raises:
      UnknownNameError: there is none; names the nearest.
    """
    tasks, mixtures = _registries()
    if not _is_registered(name) or name not in tasks.names():
        raise UnknownNameError(_unknown("task", name, [known for known in names() if known not in mixtures.names()]))
    return tasks.get(name)


def mixture_or_task(name: str) -> Any:
    """Returns the `seqio.Mixture` or `seqio.Task` of a name.

    Raises:
      UnknownNameError: there is none; names the nearest.
    """
    tasks, mixtures = _registries()
    if not _is_registered(name):
        raise UnknownNameError(_unknown("task or mixture", name, names()))
    return mixtures.get(name) if name in mixtures.names() else tasks.get(name)


def templated(name: str) -> TemplatedTask | None:
    """Returns the record of a task; None for a task that was registered with plain SeqIO.

    Raises:
      UnknownNameError: there is no such task; names the nearest.
    """
    task(name)
    return _state.templated.get(name)


def pretraining(name: str) -> PretrainingTask | None:
    """Returns the record of a task that was registered from one of pretraining; None for any other.

    Raises:
      UnknownNameError: there is no such task; names the nearest.
    """
    task(name)
    return _state.pretraining.get(name)


@functools.cache  # Asked for with every name.
def _registries() -> tuple[Any, Any]:
    seqio = lazy.import_seqio()
    return seqio.TaskRegistry, seqio.MixtureRegistry


def unregister(gone: Iterable[str]) -> None:
    """Takes tasks and mixtures out of the registries; names that are not there are passed over."""
    for name in gone:
        for registry in _registries():
            registry.remove(name)
        _state.templated.pop(name, None)
        _state.pretraining.pop(name, None)
        _state.hold_outs.pop(name, None)
        _state.notes.pop(name, None)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    return (
        f"Unknown {kind} {name!r}.{nearest(name, known)} {len(known)} are registered. Modules that register others are "
        "named by MIXTURE_OR_TASK_MODULE; all names are shown by `flan-jax show tasks` and `flan-jax show mixtures`."
    )


def require_free(name: str) -> None:
    """Refuses a name that is taken.

    Raises:
      UserError: a task or mixture of this name is registered.
    """
    tasks, mixtures = _registries()
    if name in tasks.names() or name in mixtures.names():
        kind = "a mixture" if name in mixtures.names() else "a task"
        raise UserError(f"The name {name!r} is taken by {kind} that is registered already; choose another.")


def _check_members(name: str, rated: Sequence[tuple[str, Rate]]) -> None:
    tasks, mixtures = _registries()
    if not rated:
        raise UserError(f"Mixture {name!r} has no members.")
    if all(rate == 0 for _, rate in rated):
        raise UserError(f"Mixture {name!r}: no member has a weight above 0, so there is nothing to draw.")
    seen: set[str] = set()
    for member, rate in rated:
        if member in seen:
            raise UserError(f"Mixture {name!r}: {member!r} is a member twice; give it once, with the sum of its rates.")
        seen.add(member)
        if not _is_registered(member):
            raise UnknownNameError(f"Mixture {name!r}: {_unknown('member', member, names())}")
        is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
        if member not in tasks.names() and not is_number:
            raise UserError(f"Mixture {name!r}: its member {member!r} is a mixture and needs a number as its rate.")
        if not callable(rate) and not (is_number and 0 < rate < float("inf")):
            raise UserError(
                f"Mixture {name!r}: the rate of {member!r} must be a number above 0, got {rate!r}; to keep it out, leave it out."
            )
    _check_vocabularies(name, [mixture_or_task(member) for member, _ in rated])


def _check_vocabularies(name: str, members: Sequence[Any]) -> None:
    first, *others = members
    for other in others:
        for feature, ours in first.output_features.items():
            theirs = other.output_features.get(feature)
            if theirs is None or theirs.vocabulary is ours.vocabulary:
                continue
            if theirs.vocabulary != ours.vocabulary:
                raise UserError(
                    f"Mixture {name!r}: {first.name!r} and {other.name!r} differ in the vocabulary of {feature!r}. "
                    "Register the members of a mixture under one vocabulary."
                )
