"""Registering tasks and mixtures with SeqIO, finding them again, and importing the modules that define them.

The one module that users import; how entries are kept is in `entries`. A task from a JSONL file:

    from flan_jax.tasks import registry

    registry.register_jsonl(
        "capitals", {"train": "capitals.jsonl"}, inputs="Capital of {country}?", targets="{capital}"
    )

A YAML file declares the same without Python; see `yaml_file`. Nothing is read before rows are asked for.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flan_jax import vocab
from flan_jax.data.holdout import HoldOut
from flan_jax.data.rates import ShareUnit, StatedShare
from flan_jax.errors import UserError
from flan_jax.files import accessing
from flan_jax.names import nearest
from flan_jax.paths import user_path
from flan_jax.settings import Section
from flan_jax.tasks import modules, yaml_file
from flan_jax.tasks.declare import Evaluation, Normaliser, TemplatedTask, require_name
from flan_jax.tasks.entries import (
    Rate,
    covering_names,
    declare_family,
    defined_names,
    families,
    forget_families,
    hold_out_of,
    mixture_or_task,
    names,
    notes_of,
    pretraining,
    register,
    register_mixture,
    require_free,
    task,
    templated,
    unregister,
    use_vocabulary,
    vocabulary,
)
from flan_jax.tasks.filters.rule import RowFilter
from flan_jax.tasks.formats.declare import format_task, jsonl_task
from flan_jax.tasks.formats.shape import Format
from flan_jax.tasks.identity import identity
from flan_jax.tasks.inverted import forward, inverted
from flan_jax.tasks.members import tasks_of
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.rendering import Preview, RenderedRow, check, iter_rendered, num_examples, preview
from flan_jax.tasks.sources.file_sources import Paths
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.tasks.vocabularies import from_seqio
from flan_jax.templates.render import Pattern

__all__ = [
    "FAMILIES", "Preview", "Rate", "RenderedRow", "TemplatedTask", "check", "covering_names", "declare_family",
    "defined_names", "families", "hold_out_of", "identity", "import_module", "iter_rendered", "mixture_or_task",
    "names", "notes_of", "num_examples", "pretraining", "preview", "register", "register_all", "register_forward",
    "register_inverted", "register_files", "register_jsonl", "register_mixture", "register_mixture_with_share",
    "register_yaml", "task", "templated", "unregister", "use_vocabulary", "vocabulary",
]  # fmt: skip

DECLARED_FAMILIES = {
    "cot": "flan_jax.collections.flan2022.cot",
    "dialog": "flan_jax.collections.flan2022.dialog",
    "flan2021": "flan_jax.collections.flan2021.family",
    "flan2022": "flan_jax.collections.flan2022.family",
    "natural_instructions": "flan_jax.collections.natural_instructions.family",
    "natural_instructions_v1": "flan_jax.collections.natural_instructions.version1",
    "t0": "flan_jax.collections.t0.family",
}
"""Those that a YAML file may register with settings of its own: modules with a function `register_declared`."""
FAMILIES = ("flan_jax.collections.embedded.family", *DECLARED_FAMILIES.values())
"""The package's own families: modules with a function `register()`."""


@dataclass
class _State:
    """What this process has imported."""

    yaml_files: set[str] = field(default_factory=set)
    families_vocabulary: vocab.Vocabulary | None = None
    families_names: tuple[str, ...] = ()


_state = _State()


def register_jsonl(
    name: str,
    files: Paths | Mapping[str, Paths],
    *,
    inputs: str | Sequence[str],
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
    """Registers a task that asks about the rows of JSONL files; see `TemplatedTask` for what arguments mean.

    Args:
      name: of the task.
      files: a path or several, for the split "train"; or a mapping from splits to them.
      inputs: pattern of what the model reads, "Capital of {country}?"; or several, for as many templates.
      targets: pattern of what it should write.
      vocabulary: what `vocab.load` takes; None for the one set with `use_vocabulary`.

    Returns:
      The `seqio.Task`.

    Raises:
      UserError: a declaration that cannot be right; see `TemplatedTask`.
    """
    record = jsonl_task(
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


def register_files(
    name: str,
    files: Paths | Mapping[str, Paths],
    *,
    format: str | Format,
    cluster: str | None = None,
    templates: Sequence[Pattern] | None = None,
    metrics: Sequence[str] | None = None,
    evaluation: Evaluation = TemplatedTask.evaluation,
    filters: Sequence[RowFilter] = (),
    licence: str = "",
    max_rows: int | None = None,
    on_bad_row: OnBadRow = "error",
    vocabulary: str | vocab.Vocabulary | None = None,
) -> Any:
    """Registers a task over files of a published format, with the format's own templates.

        registry.register_files("mine", "alpaca.json", format="alpaca")

    Args:
      name: of the task.
      files: a path or several, for the split "train"; or a mapping from splits to them.
      format: "alpaca", "dolly", "self_instruct", "unnatural", "prompted", "chat" or "preference"; or one of the classes
        of these names with settings.
      vocabulary: what `vocab.load` takes; None for the one set with `use_vocabulary`.

    The others are explained in `formats.declare.format_task`.

    Returns:
      The `seqio.Task`.

    Raises:
      UnknownNameError: no format of this name.
      UserError: a declaration that cannot be right; see `TemplatedTask`.
    """
    record = format_task(
        name,
        files,
        format=format,
        cluster=cluster,
        templates=templates,
        metrics=metrics,
        evaluation=evaluation,
        filters=filters,
        licence=licence,
        max_rows=max_rows,
        on_bad_row=on_bad_row,
    )
    return register(record, vocabulary=vocabulary)


def register_mixture_with_share(
    name: str, *, main: str, share_of: str, share: float, unit: ShareUnit, hold_out: HoldOut | None = None
) -> Any:
    """Adds a mixture of two to SeqIO's registry: a task or mixture, and a stated share of another.

    To state a second share, take a mixture that was made here as `main` of another. In SeqIO's own pipeline the share
    is one of examples, whatever the unit; exports keep the unit.

    Args:
      name: of the mixture.
      main: what makes up the rest; its members keep their proportions.
      share_of: the task or mixture whose share is stated.
      share: above 0 and below 1.
      unit: "examples", or "tokens" of inputs and targets together.
      hold_out: as in `register_mixture`.

    Returns:
      The `seqio.Mixture`.

    Raises:
      UnknownNameError: a member is not registered.
      UserError: no share, or the two have a task in common.
    """
    try:
        stated = StatedShare(share, unit=unit)
    except ValueError as error:
        raise UserError(f"Mixture {name!r}, the share of {share_of!r}: {error}") from error
    both = [{task.name for task in tasks_of(mixture_or_task(member))} for member in (main, share_of)]
    common = sorted(both[0] & both[1])
    if common:
        more = f" and {len(common) - 1} more tasks" if len(common) > 1 else ""
        raise UserError(
            f"Mixture {name!r}: {common[0]!r}{more} is in {main!r} and in {share_of!r}, so that the share of the latter "
            "could be read in two ways. Leave it out of one of them."
        )
    rest = StatedShare(1.0 - share, unit=unit)
    return register_mixture(name, [(main, rest), (share_of, stated)], hold_out=hold_out)


def register_inverted(name: str) -> Any:
    """Registers the inverted templates of a registered task as a task of their own, `<name>_inverted`.

    It has the split "train" alone, and leaves out (and counts) pairs whose target stands in the input. The task itself
    keeps all its templates; `register_forward` makes one of the others.

    Returns:
      The `seqio.Task`.

    Raises:
      UnknownNameError: there is no such task, or it has no split "train".
      UserError: it has no inverted templates, was registered with plain SeqIO, or the name is taken.
    """
    return register(inverted(_own(name)), vocabulary=from_seqio(task(name).output_features["inputs"].vocabulary))


def register_forward(name: str) -> Any:
    """Registers the forward templates of a registered task as a task of their own, `<name>_forward`.

    Returns:
      The `seqio.Task`.

    Raises:
      UnknownNameError: there is no such task.
      UserError: it has no forward templates, was registered with plain SeqIO, or the name is taken.
    """
    return register(forward(_own(name)), vocabulary=from_seqio(task(name).output_features["inputs"].vocabulary))


def _own(name: str) -> TemplatedTask:
    record = templated(name)
    if record is None:
        raise UserError(f"Task {name!r} has no templates of ours, so it has no directions to take apart.")
    return record


def register_yaml(path: Path | str) -> tuple[str, ...]:
    """Registers the tasks and mixtures of a YAML file; see `yaml_file` for its schema.

    Returns:
      Their names.

    Raises:
      MissingFileError, UserError: as `yaml_file.read_yaml`; also when a name is taken. Nothing is registered then.
    """
    declared = yaml_file.read_yaml(path)
    chosen = vocabulary(declared.vocabulary)
    records: tuple[TemplatedTask | PretrainingTask, ...] = (*declared.tasks, *declared.pretraining)
    for name in (*(record.name for record in records), *declared.mixtures):
        require_name(name)
        require_free(name)
    for collection, settings in declared.collections.items():
        _register_collection(collection, settings, vocabulary=chosen)
    done: list[str] = []
    try:
        for record in records:
            register(record, vocabulary=chosen)
            done.append(record.name)
        for name in declared.inverted:
            done.append(register_inverted(name).name)
        for name, mixture in declared.mixtures.items():
            done += _register_declared_mixture(name, mixture)
    except UserError as error:
        unregister(done)
        raise type(error)(f"{path}: {error}") from error
    return tuple(done)


def _register_declared_mixture(name: str, mixture: yaml_file.Mixture) -> list[str]:
    """Registers a mixture of a YAML file; with a share, its members are a mixture within, called <name>_main."""
    settings: dict[str, Any] = {"default_rate": mixture.default_rate, "hold_out": mixture.hold_out}
    if mixture.share is None:
        register_mixture(name, mixture.weights, **settings)
        return [name]
    main = f"{name}_main"
    # A mixture as the only member needs a number, whatever it is.
    alone = len(mixture.weights) == 1 and mixture.weights[0][1] is None
    register_mixture(main, [(mixture.weights[0][0], 1.0)] if alone else mixture.weights, **settings)
    try:
        register_mixture_with_share(
            name,
            main=main,
            share_of=mixture.share.member,
            share=mixture.share.share,
            unit=mixture.share.of,
            hold_out=mixture.hold_out,
        )
    except UserError:
        unregister([main])
        raise
    return [main, name]


def _register_collection(name: str, settings: Section, *, vocabulary: vocab.Vocabulary) -> None:
    """Registers a collection with the settings of a YAML file."""
    if name not in DECLARED_FAMILIES:
        raise settings.place.error(
            f"unknown collection {name!r}.{nearest(name, DECLARED_FAMILIES)} Allowed: {', '.join(DECLARED_FAMILIES)}."
        )
    importlib.import_module(DECLARED_FAMILIES[name]).register_declared(settings, vocabulary=vocabulary)


def import_module(words: str) -> tuple[str, ...]:
    """Imports what `MIXTURE_OR_TASK_MODULE` names: modules that register tasks, and YAML files that declare them.

    Args:
      words: dotted modules and paths of .py, .yaml or .yml files, separated by commas. What is there already stays.

    Returns:
      The files that define what was registered, as absolute paths; a package counts with all .py files beneath it.

    Raises:
      MissingFileError: there is no such module or file.
      UnknownNameError, UserError: as `register_yaml`, and whatever the modules raise.
    """
    files: list[str] = []
    for word in filter(None, (word.strip() for word in words.split(","))):
        if word.endswith((".yaml", ".yml")):
            with accessing(word, setting="The file", action="read"):
                path = str(user_path(word))
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
    forget_families()
    before = defined_names()
    for family in FAMILIES:
        importlib.import_module(family).register()
    _state.families_names = tuple(sorted(defined_names() - before))
    _state.families_vocabulary = current
