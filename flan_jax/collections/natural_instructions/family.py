"""Super-NaturalInstructions (Wang et al. 2022, arXiv:2204.07705): a SeqIO task a file, encoded as Tk-Instruct was.

Tasks are named `superni_` and the task's own name. Mixtures are the lists of the English track (`superni_train`,
`superni_test`), those of the cross-lingual track where the folder has them (`superni_xlingual_train`,
`superni_xlingual_test`), `superni_test_sample` (five test tasks of different categories, for a quick look; a checkpoint
chosen by it has seen test data) and `superni_train_disjoint`: the train list without the tasks that share a corpus with
a test task under another spelling, of which the published list has some. A task of a train list has the split "train",
one of a test list "test", none has both: no mixture can train on what is held out.

Files are read by `task_files`, chosen by `selection`, become rows in `instances` and prompts in
`templates.superni`.
"""

import dataclasses
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flan_jax.collections.natural_instructions.corpora import corpora
from flan_jax.collections.natural_instructions.instances import Encode, Split, SuperNISource
from flan_jax.collections.natural_instructions.selection import XLINGUAL, Coverage, label_rule, lists_of, select
from flan_jax.collections.natural_instructions.task_files import TaskFile, task_files
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import nearest
from flan_jax.tasks import registry
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.family_settings import checked
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.templates.render import Template
from flan_jax.templates.superni import HEADLINE, TK_INSTRUCT, Encoding
from flan_jax.vocab import Vocabulary

DATA_DIR_VARIABLE = "FLAN_JAX_SUPERNI_DIR"
SPLITS: tuple[Split, ...] = ("train", "test")
SETTINGS = {
    "data_dir": str, "max_source_tokens": int, "encoding": str, "max_instances": int, "passes": int, "split": str,
    "licences": dict, "sources": dict, "on_bad_row": str, "seed": int, "prefix": str,
}  # fmt: skip
"""What a YAML file may say about this family, and of which type; see `register`."""
TEMPLATE = Template(inputs="{prompt}", targets="{target}", name="super-natural-instructions")
SAMPLE_CATEGORIES = (
    "Textual Entailment",
    "Title Generation",
    "Coreference Resolution",
    "Question Rewriting",
    "Data to Text",
)
# What the paper's tables report of a category first (section 5.2 and the released script): exact match of those whose
# answers are labels. ROUGE-L, which is reported over everything, comes first for the others.
EXACT_MATCH_CATEGORIES = frozenset(
    {
        "Textual Entailment",
        "Cause Effect Classification",
        "Coreference Resolution",
        "Dialogue Act Recognition",
        "Answerability Classification",
        "Word Analogy",
    }
)
# The encodings of the paper's Table 5, and the Tk-Instruct training mode, which draws one of them for each instance.
_ENCODING_NAMES = (
    "definition", "positive", "definition_positive", "definition_positive_negative", "definition_positive_explained",
)  # fmt: skip
ENCODINGS: Mapping[str, tuple[Encoding, ...]] = {
    **{name: (encoding,) for name, encoding in zip(_ENCODING_NAMES, TK_INSTRUCT, strict=True)},
    "tk_instruct": TK_INSTRUCT,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    """What `register` was asked for, all of its tasks alike."""

    encodings: tuple[Encoding, ...]
    vocabulary: Vocabulary
    max_source_tokens: int
    max_instances: int
    passes: int
    on_bad_row: OnBadRow
    seed: int
    prefix: str

    def __post_init__(self) -> None:
        for name in ("max_source_tokens", "max_instances", "passes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} of Super-NaturalInstructions must be 1 or more, got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Registered:
    """What a call registered: the records, and the names of tasks and mixtures."""

    tasks: tuple[TemplatedTask, ...]
    names: tuple[str, ...]


_registered: dict[str, _Registered] = {}
"""What the last call registered under each prefix."""


def coverage(data_dir: Path | str) -> dict[str, Coverage]:
    """Says for each list (train, test, dev, excluded) which of its tasks can be read, and which are missing, by name.

    Raises:
      MissingFileError, UserError: as `task_files.task_files` and `selection.lists_of`.
    """
    files = task_files(data_dir)
    return select(files, lists_of(data_dir, split=None, names=files))


def register(
    data_dir: Path | str | None = None,
    *,
    vocabulary: Vocabulary | str | None = None,
    max_source_tokens: int = 1024,
    encoding: Encoding | str = "definition_positive",
    max_instances: int = 100,
    passes: int = 1,
    split: Split | None = None,
    licences: Mapping[str, Any] | None = None,
    sources: Mapping[str, Any] | None = None,
    on_bad_row: OnBadRow = "error",
    seed: int = 0,
    prefix: str = "superni",
) -> dict[str, Coverage]:
    """Registers every readable task of the train and test lists, and their mixtures; replaces an earlier call's.

    Args:
      data_dir: a folder in a layout of `task_files`; None takes the environment variable FLAN_JAX_SUPERNI_DIR.
      vocabulary: as in `registry.register`; it also counts the tokens of prompts.
      max_source_tokens: the budget of a prompt; TASK_FEATURE_LENGTHS' inputs should be the same.
      encoding: a name in `ENCODINGS`, or another choice of parts. "tk_instruct" draws one of five for each training
        instance; test instances then have the headline encoding.
      max_instances: cap of a task, in training and in testing.
      passes: how many times a training instance is there, each with an encoding and a target of its own.
      split: what all tasks of a folder without lists are for.
      licences: {"allow": patterns, "deny": patterns} over "Instance License"; see `selection`.
      sources: the same over "Source": {"deny": ["synthetic"]} leaves out what a program generated.
      on_bad_row: "skip" leaves out instances that break the schema, and counts them.
      seed: draws training instances beyond the cap, encodings, and targets among several outputs.
      prefix: of the names, so that several encodings can stand side by side.

    Returns:
      What was found, list by list; {} when neither the argument nor the variable names a folder.

    Raises:
      MissingFileError, UserError: as `task_files.task_files` and `selection.lists_of`; also a number below
        1, or that no task is left.
      UnknownNameError: no encoding of this name.
    """
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not folder:
        return {}
    if split not in (None, *SPLITS):
        raise UserError(f"split must be one of {', '.join(SPLITS)}, or absent to go by the lists; got {split!r}.")
    chosen = _Settings(
        encodings=_encodings(encoding),
        vocabulary=registry.vocabulary(vocabulary),
        max_source_tokens=max_source_tokens,
        max_instances=max_instances,
        passes=passes,
        on_bad_row=on_bad_row,
        seed=seed,
        prefix=prefix,
    )
    files = task_files(folder)
    found = select(
        files,
        lists_of(folder, split=split, names=files),
        licences=label_rule(licences, where="licences"),
        sources=label_rule(sources, where="sources"),
    )
    tasks = _tasks(found, files, chosen)
    if not tasks:
        why = [note for which in found if which.endswith(SPLITS) for note in found[which].notes(which, folder=folder)]
        raise UserError(f"No task of Super-NaturalInstructions is left. {' '.join(why) or 'Its lists are empty.'}")
    before = _registered.get(prefix)
    if before is None or before.tasks != tasks or not set(before.names) <= set(registry.defined_names()):
        registry.unregister(before.names if before else ())
        for task in tasks:
            registry.register(task, vocabulary=chosen.vocabulary)
        mixtures = _register_mixtures(found, files, folder=folder, chosen=chosen)
        _registered[prefix] = _Registered(tasks=tasks, names=(*mixtures, *(task.name for task in tasks)))
    return found


def register_declared(settings: Mapping[str, Any], *, vocabulary: Vocabulary, base: Path, where: str) -> None:
    """Registers as the entry `families: {natural_instructions: ...}` of a YAML file says.

    Args:
      settings: arguments of `register` by name; `data_dir` gives way to the environment variable.
      vocabulary: of the file.
      base: the folder that a relative `data_dir` starts from.
      where: the entry's place, for messages.

    Raises:
      UserError: a key that is not allowed, a value of another type, or no folder.
      MissingFileError, UnknownNameError: as `register`.
    """
    folder, given = checked(
        settings, SETTINGS, variable=DATA_DIR_VARIABLE, what="Super-NaturalInstructions", base=base, where=where
    )
    register(folder, vocabulary=vocabulary, **given)


def seqio_name(task: str, *, prefix: str) -> str:
    """Returns the name that a task is registered under; SeqIO allows fewer characters than some files have.

    >>> seqio_name("task140_detoxifying-lms_classification_style", prefix="superni")
    'superni_task140_detoxifying_lms_classification_style'
    """
    return f"{prefix}_{re.sub(r'[^0-9A-Za-z_.:#]', '_', task)}"


def _encodings(encoding: Encoding | str) -> tuple[Encoding, ...]:
    if isinstance(encoding, Encoding):
        return (encoding,)
    if encoding not in ENCODINGS:
        raise UnknownNameError(
            f"No encoding {encoding!r}.{nearest(encoding, ENCODINGS)} Available: {', '.join(ENCODINGS)}."
        )
    return ENCODINGS[encoding]


def _tasks(
    found: Mapping[str, Coverage], files: Mapping[str, TaskFile], chosen: _Settings
) -> tuple[TemplatedTask, ...]:
    tasks = []
    for split in SPLITS:
        for name in _in_either_track(found, split):
            of_xlingual = split == "test" and name not in found["test"].readable
            tasks.append(_declared(files[name], split, chosen, rouge="rouge_l_xlingual" if of_xlingual else "rouge_l"))
    return tuple(tasks)


def _in_either_track(found: Mapping[str, Coverage], split: Split) -> list[str]:
    tracks = [found[which].readable for which in (split, XLINGUAL + split) if which in found]
    return list(dict.fromkeys(name for readable in tracks for name in readable))


def _declared(file: TaskFile, split: Split, chosen: _Settings, *, rouge: str) -> TemplatedTask:
    is_drawn = len(chosen.encodings) > 1 and split == "test"
    metrics = ("exact_match", rouge) if file.category in EXACT_MATCH_CATEGORIES else (rouge, "exact_match")
    return TemplatedTask(
        name=seqio_name(file.name, prefix=chosen.prefix),
        source=SuperNISource(
            task=file,
            split=split,
            max_instances=chosen.max_instances,
            seed=chosen.seed,
            on_bad_row=chosen.on_bad_row,
        ),
        cluster=file.category.lower().replace(" ", "_"),
        templates=(TEMPLATE,),
        metrics=metrics,
        # One a task, since tasks are exported in several threads.
        normaliser=Encode(
            encodings=(HEADLINE,) if is_drawn else chosen.encodings,
            vocabulary=chosen.vocabulary,
            max_source_tokens=chosen.max_source_tokens,
            seed=chosen.seed,
            passes=chosen.passes if split == "train" else 1,
        ),
        references="references",
        licence=file.licence,
        corpora=corpora(file.sources),
    )


def _register_mixtures(
    found: Mapping[str, Coverage], files: Mapping[str, TaskFile], *, folder: Path | str, chosen: _Settings
) -> list[str]:
    train, test = found["train"].readable, found["test"].readable
    lists: dict[str, Collection[str]] = {which: found[which].readable for which in found if which.endswith(SPLITS)}
    mixtures = {
        **lists,
        "train_disjoint": _disjoint(train, test, files) if test else (),
        "test_sample": _sample(test, files, avoid=found["dev"].listed),
    }
    mixtures = {which: tasks for which, tasks in mixtures.items() if tasks}
    for which, tasks in mixtures.items():
        rate: registry.Rate = ProportionalRate(maximum=chosen.max_instances) if "train" in which else 1.0
        registry.register_mixture(
            f"{chosen.prefix}_{which}",
            [(seqio_name(task, prefix=chosen.prefix), rate) for task in tasks],
            notes=found[which].notes(which, folder=Path(folder).resolve()) if which in found else (),
        )
    return [f"{chosen.prefix}_{which}" for which in mixtures]


def _disjoint(train: Collection[str], test: Collection[str], files: Mapping[str, TaskFile]) -> list[str]:
    """The training tasks that share neither category nor corpus with a test task that is there."""
    categories = {files[name].category for name in test}
    held_out = {corpus for name in test for corpus in corpora(files[name].sources)}
    return [
        name
        for name in train
        if files[name].category not in categories and held_out.isdisjoint(corpora(files[name].sources))
    ]


def _sample(test: Collection[str], files: Mapping[str, TaskFile], *, avoid: Collection[str]) -> list[str]:
    """The first test task of each sample category that is no development task."""
    of_category = {
        category: [name for name in test if files[name].category == category and name not in avoid]
        for category in SAMPLE_CATEGORIES
    }
    return [names[0] for names in of_category.values() if names]
