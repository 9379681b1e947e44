"""Registers tasks and mixtures with SeqIO, looks them up, and imports users' modules.

A task from a JSONL file:

    from flan_jax.tasks import registry

    registry.register_jsonl(
        "capitals", {"train": "capitals.jsonl"}, inputs="Capital of {country}?", targets="{capital}"
    )

A YAML file declares the same without Python; see `yaml_file`. Nothing is read before rows are requested.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from flan_jax import vocab
from flan_jax.data.manifest import Request
from flan_jax.errors import UserError, in_errors
from flan_jax.files import accessing
from flan_jax.names import nearest
from flan_jax.paths import user_path
from flan_jax.tasks import modules, registration, yaml_file
from flan_jax.tasks.declare import TemplatedTask, require_name, with_vocabulary
from flan_jax.tasks.formats.declare import format_task, jsonl_task
from flan_jax.tasks.interface import Task
from flan_jax.tasks.inverted import inverted, inverted_name
from flan_jax.tasks.mixtures import Rate, hold_out_of, notes_of, register_mixture, register_mixture_with_share
from flan_jax.tasks.pretraining.document_task import DocumentTask
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.registration import (
    CollectionModule,
    collections,
    covering_names,
    declare_collection,
    defined_names,
    forget_collections,
    mixture_or_task,
    names,
    of_seqio,
    require_free,
    resolve,
    task,
    unregister,
    use_vocabulary,
    vocabulary,
)
from flan_jax.tasks.sources.file_sources import set_tfds_data_dir
from flan_jax.tasks.templated import RenderedTask

__all__ = [
    "Rate", "TemplatedTask", "add_catalog", "collection_settings", "collections", "covering_names",
    "declare_collection", "defined_names", "definition_patterns", "hold_out_of", "import_module", "mixture_or_task",
    "names", "notes_of", "of_seqio", "prepare", "register", "register_all", "register_files",
    "register_inverted", "register_jsonl", "register_mixture", "register_mixture_with_share", "register_yaml",
    "resolve", "task", "templated", "unavailable", "unregister", "use_vocabulary", "vocabulary",
]  # fmt: skip


P = ParamSpec("P")
DEFINITIONS = tuple(
    f"flan_jax/{path}"
    for path in (
        "tasks/**/*.py",
        "templates/**/*.py",
        "templates/**/*.yaml",
        "vocabularies/*.model",
        "draws.py",
        "vocab.py",
    )
)


def templated(name: str) -> TemplatedTask | None:
    """Returns the declaration of a templated task; None for any other task.

    Raises:
      UnknownNameError: There is no such task; names the nearest.
    """
    found = resolve(name)
    return found.declaration if isinstance(found, RenderedTask) else None


def register(task: TemplatedTask | PretrainingTask | Task, *, vocabulary: str | vocab.Vocabulary | None = None) -> Any:
    """Adds a task to SeqIO's registry.

    Its features are `inputs` and `targets`, ids that end with the end of sequence; for a templated task
    `inputs_pretokenized` and `targets_pretokenized` hold the texts.

    Args:
      task: The declaration of a templated or a pretraining task; or anything that implements `interface.Task`, which
        brings its own vocabulary.
      vocabulary: An argument of `vocab.load`; None for the one set with `use_vocabulary`.

    Returns:
      The `seqio.Task`.

    Raises:
      UserError: The name is taken.
    """
    bound = _bound(task, vocabulary)
    require_free(bound.name)
    made = bound.to_seqio()
    registration.state.tasks[bound.name] = (bound, made)
    registration.remember(bound.name)
    return made


def _bound(task: TemplatedTask | PretrainingTask | Task, spec: str | vocab.Vocabulary | None) -> Task:
    if isinstance(task, TemplatedTask):
        chosen = registration.vocabulary(spec)
        return RenderedTask(declaration=with_vocabulary(task, chosen), vocabulary=chosen)
    if isinstance(task, PretrainingTask):
        return DocumentTask(declaration=task, vocabulary=registration.vocabulary(spec))
    return task


def _registering(declare: Callable[P, TemplatedTask]) -> Callable[P, Any]:
    """Returns a function with the arguments of `declare` that registers what it declares: the `seqio.Task`."""

    @functools.wraps(declare)
    def declare_and_register(*args: P.args, **kwargs: P.kwargs) -> Any:
        return register(declare(*args, **kwargs))

    return declare_and_register


register_jsonl = _registering(jsonl_task)
register_files = _registering(format_task)
"""Tasks over files in one call, under the vocabulary in use: `register_files("mine", "alpaca.json", format="alpaca")`;
`formats.declare` explains the arguments."""


def register_inverted(name: str) -> Any:
    """Registers the inverted templates of a registered task as a task of their own, `<name>_inverted`.

    It has only the split "train", and leaves out (and counts) pairs whose target is part of the input. The task itself
    keeps all its templates.

    Returns:
      The `seqio.Task`.

    Raises:
      UnknownNameError: There is no such task, or it has no split "train".
      UserError: It has no inverted templates, it is no templated task, or the name is taken.
    """
    found = resolve(name)
    if not isinstance(found, RenderedTask):
        raise UserError(f"Task {name!r} is not a templated task, so it has no inverted templates.")
    return register(inverted(found.declaration), vocabulary=found.vocabulary)


def register_yaml(path: Path | str) -> tuple[str, ...]:
    """Registers the tasks and mixtures of a YAML file; see `yaml_file` for its schema.

    Returns:
      Their names.

    Raises:
      MissingFileError, UserError: As `yaml_file.read_yaml`; also when a name is taken. Nothing is registered then.
    """
    declared = yaml_file.read_yaml(path)
    chosen = vocabulary(declared.vocabulary)
    records: tuple[TemplatedTask | PretrainingTask, ...] = (*declared.tasks, *declared.pretraining)
    for name, place in declared.places.items():
        with in_errors(place):
            require_name(name)
            require_free(name)
    catalog = registration.state.catalog
    for collection, settings in declared.collections.items():
        if collection not in catalog:
            near = nearest(collection, catalog)
            raise settings.place.error(f"unknown collection {collection!r}.{near} Allowed: {', '.join(catalog)}.")
        catalog[collection]().register_declared(settings, vocabulary=chosen)
    done: list[str] = []
    try:
        for record in records:
            with in_errors(declared.places[record.name]):
                register(record, vocabulary=chosen)
            done.append(record.name)
        for name in declared.inverted:
            with in_errors(declared.places[inverted_name(name)]):
                done.append(register_inverted(name).name)
        for name, mixture in declared.mixtures.items():
            with in_errors(declared.places[name]):
                # With a share, its members are a mixture within.
                main = name if mixture.share is None else f"{name}_main"
                register_mixture(main, mixture.weights, default_rate=mixture.default_rate, hold_out=mixture.hold_out)
                done.append(main)
                if mixture.share is not None:
                    share, of, unit = mixture.share.share, mixture.share.member, mixture.share.of
                    register_mixture_with_share(
                        name, main=main, share_of=of, share=share, unit=unit, hold_out=mixture.hold_out
                    )
                    done.append(name)
    except UserError:
        unregister(done)
        raise
    return tuple(done)


def import_module(names: str) -> tuple[str, ...]:
    """Imports what `MIXTURE_OR_TASK_MODULE` names: modules that register tasks, and YAML files that declare them.

    Args:
      names: Dotted modules and paths of .py, .yaml or .yml files, separated by commas; each is imported once.

    Returns:
      The files that define the registered tasks, as absolute paths; of a package all .py files in it.

    Raises:
      MissingFileError: There is no such module or file.
      UnknownNameError, UserError: As `register_yaml`, and whatever the modules raise.
    """
    files: list[str] = []
    for name in filter(None, (name.strip() for name in names.split(","))):
        if name.endswith((".yaml", ".yml")):
            with accessing(name, setting="The file", action="read"):
                path = str(user_path(name))
            if path not in registration.state.yaml_files:
                register_yaml(path)
                registration.state.yaml_files.add(path)
            files.append(path)
        else:
            files.extend(modules.load(name))
    return tuple(dict.fromkeys(files))


def add_catalog(modules: Mapping[str, Callable[[], CollectionModule]], *, files: Sequence[str]) -> None:
    """Makes published collections known by name; each module is imported when the collection is registered.

    Args:
      modules: From the name of a collection to what imports its module.
      files: Patterns of the files that define them, relative to the package's parent; when one of these
        files changes, tasks are exported again.
    """
    registration.state.catalog.update(modules)
    registration.state.catalog_files += tuple(files)


def definition_patterns() -> tuple[str, ...]:
    """Returns patterns of this package's files that decide what exports hold, relative to the package's parent."""
    return (*DEFINITIONS, *registration.state.catalog_files)


def collection_settings() -> dict[str, Any]:
    """Returns what collections remember by their names, such as the settings of a YAML file."""
    return registration.state.settings


def register_all() -> None:
    """Registers the collections of the catalog under the vocabulary in use.

    A second call does nothing; under another vocabulary it registers them again, since a name has one vocabulary. A
    collection whose files are missing does not prevent the others; `unavailable` has the reason.
    """
    state, current = registration.state, vocabulary()
    cataloged, used = state.cataloged
    if used == current:
        return
    unregister(cataloged)
    forget_collections()
    before = defined_names()
    state.unavailable.clear()
    for name, load in state.catalog.items():
        try:
            load().register()
        except UserError as error:
            state.unavailable[name] = str(error)
    state.cataloged = tuple(sorted(defined_names() - before)), current


def unavailable() -> Mapping[str, str]:
    """Returns why collections of the catalog could not be registered, by their names."""
    return registration.state.unavailable


def prepare(request: Request) -> tuple[str, ...]:
    """Registers everything that a request can name: the collections of the catalog, and its modules.

    Returns:
      The files of its modules, as absolute paths.
    """
    set_tfds_data_dir(request.tfds_data_dir)
    use_vocabulary(request.vocabulary or "embedded")
    register_all()
    return import_module(request.module) if request.module else ()
