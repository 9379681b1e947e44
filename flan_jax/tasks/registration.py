"""The registered tasks and collections of this process, and the lookups over them.

A registered task is an ordinary entry of `seqio.TaskRegistry` that any SeqIO code can use, and lookups
also return tasks that other code registered. Everything else that registration remembers is in one object, `State`.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from flan_jax import vocab
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import nearest
from flan_jax.settings import Section
from flan_jax.tasks import lazy
from flan_jax.tasks.external import ExternalTask
from flan_jax.tasks.interface import Task


class CollectionModule(Protocol):
    """A module that registers a published collection."""

    def register(self) -> object:
        """Registers the collection with its default settings, under the vocabulary in use."""

    def register_declared(self, settings: Section, *, vocabulary: vocab.Vocabulary) -> None:
        """Registers the collection with the settings of a YAML file."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Names that are registered on first use: a collection of thousands of tasks costs nothing until one is used.

    Attributes:
      names: Lists the names that `define` knows.
      define: Registers a name, its members first; returns False for a name that is not the collection's.
      covering: Lists tasks that together use every template.
    """

    names: Callable[[], Iterable[str]]
    define: Callable[[str], bool]
    covering: Callable[[], Iterable[str]]


@dataclass(kw_only=True)
class State:
    """Everything that registration remembers in this process.

    Attributes:
      default_vocabulary: Of tasks that are registered without one.
      tasks: Each task behind the interface, with the `seqio.Task` made from it.
      hold_outs: The hold-out of each mixture, with the leaks that it allows.
      notes: Remarks of each mixture's definition for its reader.
      yaml_files: Files whose tasks are registered.
      catalog: Modules of published collections by name, imported when they are registered.
      catalog_files: Patterns of the files that define them, relative to the package's parent.
      settings: State of a collection between two registrations, by its name.
      collections: Declared collections, by name.
      defined: Names that collections registered on first use.
      depth: Number of collections that are defining a name now.
      cataloged: Names that `register_all` registered, and the vocabulary it used.
      unavailable: Why a collection of the catalog could not be registered, by its name.
    """

    default_vocabulary: str | vocab.Vocabulary = "embedded"
    tasks: dict[str, tuple[Task, Any]] = field(default_factory=dict)
    hold_outs: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    yaml_files: set[str] = field(default_factory=set)
    catalog: dict[str, Callable[[], CollectionModule]] = field(default_factory=dict)
    catalog_files: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    defined: list[str] = field(default_factory=list)
    depth: int = 0
    cataloged: tuple[tuple[str, ...], vocab.Vocabulary | None] = ((), None)
    unavailable: dict[str, str] = field(default_factory=dict)


state = State()


def use_vocabulary(spec: str | vocab.Vocabulary, *, extra_ids: int | None = None) -> None:
    """Sets the vocabulary of tasks that are registered from now on without one of their own.

    Args:
      spec: "embedded", "bytes", or the path of a SentencePiece model; see `vocab.load`.
      extra_ids: Number of sentinels; None for the kind's own.

    Raises:
      MissingFileError: There is no such file.
    """
    state.default_vocabulary = vocab.load(spec, extra_ids=extra_ids)


def vocabulary(spec: str | vocab.Vocabulary | None = None) -> vocab.Vocabulary:
    """Returns the vocabulary that `spec` names; for None, that of tasks that are registered without one."""
    if spec is not None:
        return vocab.load(spec)
    if isinstance(state.default_vocabulary, str):  # Once: finding a model's file costs as much as registering a task.
        state.default_vocabulary = vocab.load(state.default_vocabulary)
    return state.default_vocabulary


def unregister(names: Iterable[str]) -> None:
    """Removes tasks and mixtures from the registries; unknown names are ignored."""
    for name in names:
        for registry in seqio_registries():
            registry.remove(name)
        state.tasks.pop(name, None)
        state.hold_outs.pop(name, None)
        state.notes.pop(name, None)


def declare_collection(
    name: str,
    *,
    names: Callable[[], Iterable[str]],
    define: Callable[[str], bool],
    covering: Callable[[], Iterable[str]] = tuple,
) -> None:
    """Declares tasks and mixtures that are registered on first use, under the vocabulary in use then.

    An earlier declaration of the same collection is replaced, and the names that it registered are removed.

    Args:
      name: Of the collection.
      names: Lists the names that `define` knows.
      define: Registers what has a name, its members first (`mixture_or_task` of each); False for a name that is not
        the collection's.
      covering: Lists tasks that together use every template of the collection, for those who look at templates.
    """
    replaces = name in state.collections
    state.collections[name] = Collection(names=names, define=define, covering=covering)
    if replaces:
        forget_collections()


def remember(name: str) -> None:
    """Notes a registered name, when a collection is defining one, so that it can be removed with the collection."""
    if state.depth:
        state.defined.append(name)


def forget_collections() -> None:
    """Removes the names that collections have registered so far; they are registered again on next use."""
    names, state.defined = state.defined, []
    unregister(names)


def collections() -> dict[str, int]:
    """Returns the number of names of each declared collection."""
    return {name: len(_names_of(name)) for name in state.collections}


def is_registered(name: str) -> bool:
    """Returns whether SeqIO's registries hold a name, after the collections had the chance to define it."""
    tasks, mixtures = seqio_registries()
    if name in tasks.names() or name in mixtures.names():
        return True
    state.depth += 1
    try:
        return any(collection.define(name) for collection in list(state.collections.values()))
    finally:
        state.depth -= 1


def names() -> tuple[str, ...]:
    """Returns the names of all tasks and mixtures, external ones and those that collections declare too, sorted."""
    declared = (name for collection in state.collections for name in _names_of(collection))
    return tuple(sorted({*defined_names(), *declared}))


def _names_of(collection: str) -> list[str]:
    """The names of a collection; none, with the reason in `State.unavailable`, where its files are missing."""
    try:
        return list(state.collections[collection].names())
    except UserError as error:
        state.unavailable[collection] = str(error)
        return []


def defined_names() -> set[str]:
    """Returns the names that SeqIO's registries hold now."""
    return {name for registry in seqio_registries() for name in registry.names()}


def covering_names() -> tuple[str, ...]:
    """Returns the registered tasks, and of each collection enough tasks to use all of its templates."""
    tasks, _ = seqio_registries()
    covering = (name for collection in state.collections.values() for name in collection.covering())
    return tuple(sorted({*tasks.names(), *covering}))


def task(name: str) -> Any:
    """Returns the `seqio.Task` of a name.

    Raises:
      UnknownNameError: There is none; names the nearest.
    """
    tasks, mixtures = seqio_registries()
    if not is_registered(name) or name not in tasks.names():
        raise UnknownNameError(unknown("task", name, [known for known in names() if known not in mixtures.names()]))
    return tasks.get(name)


def mixture_or_task(name: str) -> Any:
    """Returns the `seqio.Mixture` or `seqio.Task` of a name.

    Raises:
      UnknownNameError: There is none; names the nearest.
    """
    tasks, mixtures = seqio_registries()
    if not is_registered(name):
        raise UnknownNameError(unknown("task or mixture", name, names()))
    return mixtures.get(name) if name in mixtures.names() else tasks.get(name)


def resolve(name: str) -> Task:
    """Returns the task of a name behind the interface that exporting, describing and linting use.

    Raises:
      UnknownNameError: There is no such task; names the nearest.
    """
    return of_seqio(task(name))


def of_seqio(task: Any) -> Task:
    """Returns a `seqio.Task` behind the task interface; one that was not registered here is an external task."""
    known, made = state.tasks.get(task.name, (None, None))
    return known if known is not None and made is task else ExternalTask(seqio_task=task)


@functools.cache  # Called for every name.
def seqio_registries() -> tuple[Any, Any]:
    """Returns SeqIO's registries of tasks and of mixtures."""
    seqio = lazy.import_seqio()
    return seqio.TaskRegistry, seqio.MixtureRegistry


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns the message for an unknown name."""
    known = list(known)
    unavailable = "".join(f" {name} could not be registered: {reason}" for name, reason in state.unavailable.items())
    return (
        f"Unknown {kind} {name!r}.{nearest(name, known)} {len(known)} are registered. Name the file or "
        "module that registers others: --mixture_or_task_module=FILE, or for `train` "
        "--gin.MIXTURE_OR_TASK_MODULE=FILE. `flan-jax show tasks` and `flan-jax show mixtures` list all names."
        f"{unavailable}"
    )


def require_free(name: str) -> None:
    """Refuses a name that is taken.

    Raises:
      UserError: A task or mixture of this name is registered.
    """
    tasks, mixtures = seqio_registries()
    if name in tasks.names() or name in mixtures.names():
        kind = "a mixture" if name in mixtures.names() else "a task"
        raise UserError(f"The name {name!r} is taken by {kind} that is registered already; choose another.")
