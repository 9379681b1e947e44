"""The published collections by name, and what they have in common.

A collection is a module with the functions `register` and `register_declared`. Most define them with `Collection`: the
settings that a YAML file may give, and the contents that follow from them, which are registered on first use.
"""

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from flan_jax.data.holdout import HoldOut
from flan_jax.errors import MissingFileError
from flan_jax.paths import user_path
from flan_jax.settings import Place, Section
from flan_jax.tasks import registry
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.vocab import Vocabulary

MODULES = {
    "embedded": "embedded.collection",
    "bbh": "benchmarks.bbh",
    "cot": "flan2022.cot",
    "dialog": "flan2022.dialog",
    "flan2021": "flan2021.collection",
    "flan2022": "flan2022.collection",
    "mmlu": "benchmarks.mmlu",
    "natural_instructions": "natural_instructions.collection",
    "natural_instructions_v1": "natural_instructions.version1",
    "t0": "t0.collection",
}
"""Modules of this package. Each is imported when it is registered: together they take a second."""


def install() -> None:
    """Makes the collections known to the registry, for `registry.register_all` and for YAML files."""
    registry.add_catalog(
        {
            name: functools.partial(importlib.import_module, f"{__package__}.{module}")
            for name, module in MODULES.items()
        },
        files=("flan_jax/collections/**/*.py",),
    )


def register_yaml(path: Path | str) -> tuple[str, ...]:
    """Registers the tasks and mixtures of a YAML file, which may name collections; see `registry.register_yaml`."""
    install()
    return registry.register_yaml(path)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The declaration of a mixture; see `registry.register_mixture` for its fields."""

    members: Sequence[str | tuple[str, registry.Rate | None]]
    default_rate: registry.Rate | None = None
    hold_out: HoldOut | None = None
    notes: tuple[str, ...] = ()

    def register(self, name: str) -> None:
        """Registers the mixture, and its members where those are declared by a collection."""
        registry.register_mixture(
            name, self.members, default_rate=self.default_rate, hold_out=self.hold_out, notes=self.notes
        )


class Contents(Protocol):
    """The tasks and mixtures of a collection under one set of settings; nothing is read before a name is requested."""

    def names(self) -> Iterable[str]:
        """Lists the names; `find` may know others of the same forms, too."""

    def covering(self) -> Iterable[str]:
        """Lists tasks that together use every template of the collection."""

    def find(self, name: str) -> TemplatedTask | Mixture | None:
        """Returns the declaration of a name; None for a name that is not the collection's."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Contents that are few enough to list.

    Attributes:
      tasks: Functions that declare them, by name.
      mixtures: By name.
      covers: Names of tasks that together use every template.
    """

    tasks: Mapping[str, Callable[[], TemplatedTask]]
    mixtures: Mapping[str, Mixture]
    covers: tuple[str, ...] = ()

    @classmethod
    def of_variants(
        cls,
        name: str,
        parts: Iterable[str],
        variants: Iterable[str],
        record: Callable[[str, str], TemplatedTask],
        *,
        covered: str,
    ) -> "Table":
        """Returns a data set in several variants: tasks `<name>_<part><variant>`, in equal parts in `<name><variant>`.

        Args:
          name: Of the data set.
          parts: Its files or subjects.
          variants: Suffixes of names; "" is one, too.
          record: Returns the declaration of a part in a variant.
          covered: A part whose tasks use every template.
        """
        parts, variants = tuple(parts), tuple(variants)
        return cls(
            tasks={
                f"{name}_{part}{variant}": functools.partial(record, part, variant)
                for part in parts
                for variant in variants
            },
            mixtures={
                f"{name}{variant}": Mixture(members=[f"{name}_{part}{variant}" for part in parts], default_rate=1.0)
                for variant in variants
            },
            covers=tuple(f"{name}_{covered}{variant}" for variant in variants),
        )

    def names(self) -> Iterable[str]:
        """Lists the names."""
        return (*self.mixtures, *self.tasks)

    def covering(self) -> Iterable[str]:
        """Lists the tasks in `covers`."""
        return self.covers

    def find(self, name: str) -> TemplatedTask | Mixture | None:
        """Returns the declaration of a name."""
        # Declared when requested: a collection has up to ten thousand names, and a run needs a few hundred.
        return self.tasks[name]() if name in self.tasks else self.mixtures.get(name)


@dataclass(frozen=True, kw_only=True)
class FolderSettings:
    """The settings, and keys in a YAML file, of a collection whose only setting is the folder of its data."""

    data_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """Where the data of a collection are: a folder that a YAML file or an environment variable names.

    The variable takes precedence, so that one YAML file serves machines that store the data at different paths.

    Attributes:
      variable: The environment variable.
      content: Content of the folder, for messages.
      command: Fetches it, if one command does.
    """

    variable: str
    content: str
    command: str = ""

    def named(self) -> Path | None:
        """Returns the folder that the environment variable names; None if it is not set."""
        path = os.environ.get(self.variable)
        return user_path(path) if path else None

    def default(self) -> FolderSettings | None:
        """Returns the settings without a YAML file; None if no folder is named."""
        folder = self.named()
        return FolderSettings(data_dir=folder) if folder else None

    def read(self, section: Section) -> FolderSettings:
        """Returns the settings of a YAML file, with the folder in use; raises as `of`."""
        return FolderSettings(data_dir=self.of(section.parse(FolderSettings).data_dir, section.place))

    def of(self, declared: Path | None, place: Place) -> Path:
        """Returns the folder.

        Args:
          declared: The value of `data_dir` in a YAML file.
          place: Of the collection's settings.

        Raises:
          UserError: Neither names a folder.
          MissingFileError: There is no such folder.
        """
        folder = self.named() or declared
        if folder is None:
            raise place.error(f"give data_dir, or set the environment variable {self.variable}.")
        if not folder.is_dir():
            raise MissingFileError(
                f"{place}: no folder {folder} to read {self.content} from. "
                f"Give another data_dir, or set the environment variable {self.variable}."
                + (f" To get it: {self.command}" if self.command else "")
            )
        return folder


S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Collection(Generic[S]):
    """A collection whose names are registered on first use.

    Attributes:
      name: In YAML files.
      read: Returns the settings of a YAML file's `collections: {name: ...}`.
      default: Returns the settings without a file; None when the collection then has no data.
      contents: Returns the tasks and mixtures under some settings.
    """

    name: str
    read: Callable[[Section], S]
    default: Callable[[], S | None]
    contents: Callable[[S], Contents]

    def settings(self) -> S | None:
        """Returns the settings of the last YAML file, or the default ones."""
        declared = self._declared()
        return declared[0] if declared else self.default()

    def use(self, settings: S, *, vocabulary: Vocabulary | None = None) -> None:
        """Declares the names under settings that stay when another vocabulary is used.

        Args:
          settings: Of the collection.
          vocabulary: Of its tasks; None for the one in use.
        """
        contents = self.contents(settings)
        registry.collection_settings()[self.name] = settings, vocabulary
        self._declare(contents)

    def register(self) -> None:
        """Declares the names under the settings in use; nothing if there are none."""
        settings = self.settings()
        if settings is not None:
            self._declare(self.contents(settings))

    def register_declared(self, settings: Section, *, vocabulary: Vocabulary) -> None:
        """Declares the names under the settings of a YAML file.

        Args:
          settings: Unchecked.
          vocabulary: Of the file.

        Raises:
          UserError, MissingFileError: An invalid setting, or no data.
        """
        # None follows later changes of the vocabulary in use.
        self.use(self.read(settings), vocabulary=None if vocabulary == registry.vocabulary() else vocabulary)

    def _declared(self) -> tuple[S, Vocabulary | None] | None:
        declared: tuple[S, Vocabulary | None] | None = registry.collection_settings().get(self.name)
        return declared

    def _declare(self, contents: Contents) -> None:
        registry.declare_collection(
            self.name,
            names=contents.names,
            define=functools.partial(self._define, contents),
            covering=contents.covering,
        )

    def _define(self, contents: Contents, name: str) -> bool:
        found, declared = contents.find(name), self._declared()
        if isinstance(found, TemplatedTask):
            registry.register(found, vocabulary=declared and declared[1])
        elif found is not None:
            found.register(name)
        return found is not None


def replace(
    name: str, tasks: Sequence[TemplatedTask], mixtures: Mapping[str, Mixture], *, vocabulary: Vocabulary
) -> None:
    """Registers tasks and mixtures at once, in place of those of an earlier call; nothing if they are the same.

    Args:
      name: Of what is replaced.
      tasks: All tasks.
      mixtures: All mixtures, by name, each after its members.
      vocabulary: Of the tasks.
    """
    names = (*(task.name for task in tasks), *mixtures)
    replaced = registry.collection_settings().get(name)
    if replaced is not None:
        if replaced == (tasks, mixtures, vocabulary) and set(names) <= registry.defined_names():
            return
        registry.unregister((*(task.name for task in replaced[0]), *replaced[1]))
    for task in tasks:
        registry.register(task, vocabulary=vocabulary)
    for mixture, declared in mixtures.items():
        declared.register(mixture)
    registry.collection_settings()[name] = tasks, mixtures, vocabulary
