"""Super-NaturalInstructions (Wang et al. 2022, arXiv:2204.07705): a SeqIO task a file, encoded as Tk-Instruct was.

Tasks are named `superni_` and the task's own name; the mixtures are `superni_train` and `superni_test` (the English
track's lists) and `superni_test_sample` (five test tasks of different categories, for a quick look; a checkpoint chosen
by it has seen test data). A task of the train list has the split "train", one of the test list "test", none has both:
no mixture can train on what is held out.

Files are read by `superni_files`, prompts are written by `templates.superni`.
"""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from flan_jax.data.rates import ProportionalRate
from flan_jax.files import sha256_of
from flan_jax.names import nearest
from flan_jax.tasks import registry
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.rows import BadRow, Record, Row, Source
from flan_jax.tasks.superni_files import LISTS, TaskFile, task_files, task_lists
from flan_jax.templates.load import require_keys
from flan_jax.templates.render import Template
from flan_jax.templates.superni import Encoding, Prompter
from flan_jax.vocab import Vocabulary

SHOWN_KEYS = ("Task", "Definition", "Positive Examples", "Negative Examples")
DATA_DIR_VARIABLE = "FLAN_JAX_SUPERNI_DIR"
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
SETTINGS = {
    "data_dir": str, "max_source_tokens": int, "encoding": str, "max_instances": int, "seed": int, "prefix": str,
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
# The encodings of the paper's Table 5 and of the Tk-Instruct training mode.
ENCODINGS: Mapping[str, Encoding] = {
    "definition": Encoding(num_positive=0),
    "positive": Encoding(definition=False),
    "definition_positive": Encoding(),
    "definition_positive_negative": Encoding(num_negative=2),
    "definition_positive_explained": Encoding(explanations=True),
}

_registered: dict[str, tuple[str, ...]] = {}
"""What the last call registered under each prefix."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperNISource(Source):
    """The instances of one task, each with the task's definition and examples.

    In "train" they are a sample drawn by the seed, in "test" the first ones in the file's order (which the authors
    arranged to be balanced over labels); both in the file's order.

    Attributes:
      task: where the task lies.
      split: the one split that it has.
      max_instances: at most so many.
      seed: of the sample.
    """

    task: TaskFile
    split: Literal["train", "test"]
    max_instances: int
    seed: int

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return (self.split,)

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the instances; places are "file: task, instance id"."""
        record = self.task.record()
        shown = {key: record[key] for key in SHOWN_KEYS}
        for instance in self._instances(record):
            place = f"{self.task.path}: {self.task.name}, instance {instance.get('id')!r}"
            yield Record({**shown, **instance}, place)

    def revision(self, split: str) -> str:
        """Returns the SHA-256 of all that the rows hold."""
        self.require_split(split)
        record = self.task.record()
        return sha256_of([[record[key] for key in SHOWN_KEYS], self._instances(record)])

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the file, or the shard, that holds the task."""
        self.require_split(split)
        return (str(self.task.path.absolute()),)

    def num_rows(self, split: str) -> int | None:
        """Returns the number of instances used."""
        self.require_split(split)
        return min(self.max_instances, len(self.task.record()["Instances"]))

    def _instances(self, record: Mapping[str, Any]) -> list[Row]:
        instances = record["Instances"]
        if self.split == "test" or len(instances) <= self.max_instances:
            return instances[: self.max_instances]
        # Drawn by hash, so that the sample depends on nothing else; sorted only to keep the file's order.
        drawn = sorted(range(len(instances)), key=lambda i: _hash(self.seed, self.task.name, instances[i].get("id"), i))
        return [instances[i] for i in sorted(drawn[: self.max_instances])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encode:
    """From an instance to its prompt, its target (one of its outputs, drawn by the seed) and its references (all).

    Attributes:
      encoding: which parts the prompt shows.
      vocabulary: counts the tokens.
      max_source_tokens: the budget that examples have to fit in.
      seed: draws the target.
    """

    encoding: Encoding
    vocabulary: Vocabulary
    max_source_tokens: int
    seed: int

    @functools.cached_property
    def _kept(self) -> dict[str, Prompter]:
        """The prompter of each task. No field: an export's fingerprint digests fields, and this must not change it."""
        return {}

    def __call__(self, row: Row) -> Row:
        """Returns the fields that `TEMPLATE` names, and `references`."""
        outputs = row["output"]
        written = [output for output in outputs if output.strip()] or [""]
        target = written[_hash(self.seed, row["Task"], row.get("id")) % len(written)]
        return {"prompt": self._prompter(row)(row["input"]), "target": target, "references": outputs}

    def _prompter(self, row: Row) -> Prompter:
        prompter = self._kept.get(row["Task"])
        if prompter is None:
            prompter = Prompter(
                row,
                encoding=self.encoding,
                count_tokens=lambda text: len(self.vocabulary.encode(text)),
                max_tokens=self.max_source_tokens,
            )
            self._kept[row["Task"]] = prompter
        return prompter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a list of tasks a folder holds.

    Attributes:
      listed: names in the list.
      readable: those of them that are there.
      missing: the others, in the list's order.
    """

    listed: tuple[str, ...]
    readable: tuple[str, ...]
    missing: tuple[str, ...]


def coverage(data_dir: Path | str) -> dict[str, Coverage]:
    """Says for each list (train, test, dev, excluded) which of its tasks can be read, and which are missing, by name.

    Raises:
      FileNotFoundError, ValueError: as `superni_files.task_files` and `superni_files.task_lists`.
    """
    return _coverage(task_files(data_dir), task_lists(data_dir))


def register(
    data_dir: Path | str | None = None,
    *,
    vocabulary: Vocabulary | str | None = None,
    max_source_tokens: int = 1024,
    encoding: Encoding | str = "definition_positive",
    max_instances: int = 100,
    seed: int = 0,
    prefix: str = "superni",
) -> dict[str, Coverage]:
    """Registers every readable task of the train and test lists, and the three mixtures; replaces an earlier call's.

    Args:
      data_dir: a folder in a layout of `superni_files`; None takes the environment variable FLAN_JAX_SUPERNI_DIR.
      vocabulary: as in `registry.register`; it also counts the tokens of prompts.
      max_source_tokens: the budget of a prompt; TASK_FEATURE_LENGTHS' inputs should be the same.
      encoding: a name in `ENCODINGS`, or another choice of parts.
      max_instances: cap of a task, in training and in testing.
      seed: draws training instances beyond the cap, and targets among several outputs.
      prefix: of the names, so that several encodings can stand side by side.

    Returns:
      What was found, list by list; {} when neither the argument nor the variable names a folder.

    Raises:
      FileNotFoundError, ValueError: as `superni_files.task_files` and `superni_files.task_lists`.
      KeyError: no encoding of this name.
    """
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not folder:
        return {}
    if isinstance(encoding, str) and encoding not in ENCODINGS:
        raise KeyError(f"No encoding {encoding!r}.{nearest(encoding, ENCODINGS)} Available: {', '.join(ENCODINGS)}.")
    chosen = ENCODINGS[encoding] if isinstance(encoding, str) else encoding
    used = registry.vocabulary(vocabulary)
    files, lists = task_files(folder), task_lists(folder)
    both = sorted(set(lists["train"]) & set(lists["test"]))
    if both:
        raise ValueError(f"{folder}: {both[0]} is in the train list and in the test list: hold it out or train on it.")
    found = _coverage(files, lists)
    tasks = [
        _declared(
            seqio_name(name, prefix=prefix),
            SuperNISource(task=files[name], split=split, max_instances=max_instances, seed=seed),
            # One a task, since tasks are exported in several threads.
            Encode(encoding=chosen, vocabulary=used, max_source_tokens=max_source_tokens, seed=seed),
        )
        for split in SPLITS
        for name in found[split].readable
    ]
    known = set(registry.names())
    if not all(task.name in known and registry.templated(task.name) == task for task in tasks):
        registry.unregister(_registered.pop(prefix, ()))
        for task in tasks:
            registry.register(task, vocabulary=used)
        mixtures = _register_mixtures(found, files, max_instances=max_instances, prefix=prefix)
        _registered[prefix] = (*mixtures, *(task.name for task in tasks))
    return found


def register_declared(settings: Mapping[str, Any], *, vocabulary: Vocabulary, base: Path, where: str) -> None:
    """Registers as the entry `families: {natural_instructions: ...}` of a YAML file says.

    Args:
      settings: arguments of `register` by name; `data_dir` gives way to the environment variable.
      vocabulary: of the file.
      base: the folder that a relative `data_dir` starts from.
      where: the entry's place, for messages.

    Raises:
      ValueError: a key that is not allowed, a value of another type, or no folder.
      FileNotFoundError, KeyError: as `register`.
    """
    require_keys(settings, tuple(SETTINGS), where=where)
    for key, value in settings.items():
        if type(value) is not SETTINGS[key]:
            raise ValueError(f"{where}.{key}: expected {SETTINGS[key].__name__}, got {value!r}.")
    given = dict(settings)
    declared, overriding = given.pop("data_dir", None), os.environ.get(DATA_DIR_VARIABLE)
    if not declared and not overriding:
        raise ValueError(f"{where}: give data_dir, or set the environment variable {DATA_DIR_VARIABLE}.")
    folder = Path(overriding) if overriding else base / Path(declared).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{where}: no folder {folder} to read Super-NaturalInstructions from. "
            f"Give another data_dir, or set the environment variable {DATA_DIR_VARIABLE}."
        )
    register(folder, vocabulary=vocabulary, **given)


def seqio_name(task: str, *, prefix: str) -> str:
    """Returns the name that a task is registered under; SeqIO allows fewer characters than some files have.

    >>> seqio_name("task140_detoxifying-lms_classification_style", prefix="superni")
    'superni_task140_detoxifying_lms_classification_style'
    """
    return f"{prefix}_{re.sub(r'[^0-9A-Za-z_.:#]', '_', task)}"


def _declared(name: str, source: SuperNISource, normaliser: Encode) -> TemplatedTask:
    return TemplatedTask(
        name=name,
        source=source,
        cluster=source.task.category.lower().replace(" ", "_"),
        templates=(TEMPLATE,),
        metrics=("rouge_l", "exact_match"),
        normaliser=normaliser,
        references="references",
        licence=source.task.licence,
    )


def _register_mixtures(
    found: Mapping[str, Coverage], files: Mapping[str, TaskFile], *, max_instances: int, prefix: str
) -> list[str]:
    train, test = found["train"].readable, found["test"].readable
    members: dict[str, tuple[Collection[str], registry.Rate]] = {
        f"{prefix}_train": (train, ProportionalRate(maximum=max_instances)),
        f"{prefix}_test": (test, 1.0),
        f"{prefix}_test_sample": (_sample(test, files, avoid=found["dev"].listed), 1.0),
    }
    members = {name: entry for name, entry in members.items() if entry[0]}
    for name, (tasks, rate) in members.items():
        registry.register_mixture(name, [(seqio_name(task, prefix=prefix), rate) for task in tasks])
    return list(members)


def _sample(test: Collection[str], files: Mapping[str, TaskFile], *, avoid: Collection[str]) -> list[str]:
    """The first test task of each sample category that is no development task."""
    of_category = {
        category: [name for name in test if files[name].category == category and name not in avoid]
        for category in SAMPLE_CATEGORIES
    }
    return [names[0] for names in of_category.values() if names]


def _coverage(files: Mapping[str, TaskFile], lists: Mapping[str, tuple[str, ...]]) -> dict[str, Coverage]:
    return {
        which: Coverage(
            listed=lists[which],
            readable=tuple(name for name in lists[which] if name in files),
            missing=tuple(name for name in lists[which] if name not in files),
        )
        for which in LISTS
    }


def _hash(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")
