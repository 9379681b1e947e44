"""Natural Instructions v1 (Mishra et al. 2021, arXiv:2104.08773): one SeqIO task per file, `ni1_` and the file's name.

The folder contains task files (`subtask001_x.json`, possibly under `Dataset_Jsons/`) in the schema of the first
version; `collection` reads the second version. The split "test" is the authors' evaluation set, 100 instances evenly
spaced from position 60 on; "train" is all others, so that no instance is in both. A held-out task has "test" only. The
mixtures are `ni1_train` (all tasks except those held out) and `ni1_test` (the held-out ones, or all tasks if none is
held out). `templates.natural_instructions_v1` writes the prompts.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.collections.catalog import DataFolder, Mixture, replace
from flan_jax.collections.natural_instructions.collection import seqio_name
from flan_jax.collections.natural_instructions.corpora import corpora
from flan_jax.collections.natural_instructions.instances import BREAKS_SCHEMA
from flan_jax.collections.natural_instructions.schema import instance_problem, instances_problem, is_v1, is_v2
from flan_jax.data.rates import ProportionalRate
from flan_jax.draws import Draws, hash64
from flan_jax.errors import MissingFileError, UnknownNameError, UserError, in_errors
from flan_jax.files import sha256_of
from flan_jax.names import nearest, require_choice, shortened
from flan_jax.paths import user_path
from flan_jax.settings import Section
from flan_jax.tasks import registry
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.rows import BadRow, Record, Row, Source
from flan_jax.templates.natural_instructions_v1 import FIELDS, InstructionEncoding, InstructionPrompter
from flan_jax.templates.render import Template
from flan_jax.vocab import Vocabulary

DATA = DataFolder(variable="FLAN_JAX_NI1_DIR", content="Natural Instructions v1")
TEMPLATE = Template(inputs="{prompt}", targets="{target}", name="natural-instructions-v1")
NUM_TEST, FIRST_TEST = 100, 60
ENCODINGS: Mapping[str, InstructionEncoding] = {
    "full": InstructionEncoding(),
    "definition": InstructionEncoding(num_negative=0, num_positive=0),
    "positive": InstructionEncoding(fields=(), num_negative=0),
}
SHOWN_KEYS = (*FIELDS, "Examples")
# The six kinds of tasks in the paper's Table 1, recognized by the files' names; the first match.
_KINDS = (
    (r"question_generation|generat\w*_question|question_modification", "question_generation"),
    (r"wrong|incorrect", "incorrect_answer_generation"),
    (r"modification|paraphras", "minimal_modification"),
    (r"classif|binary|presence|category|answerability|typing|identify|grammatical|needed", "classification"),
    (r"answer|span|generation|combined|fact|words", "answer_generation"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructionSource(Source):
    """The instances of one task, each with the task's instruction.

    Attributes:
      path: The task's file.
      is_held_out: Whether it has the split "test" only.
      max_instances: The largest number in training, drawn by the seed; None takes all.
      seed: Of the sample.
    """

    path: Path
    is_held_out: bool
    max_instances: PositiveInt | None
    seed: int

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return ("test",) if self.is_held_out else ("train", "test")

    @property
    def name(self) -> str:
        """The file's own name for the task."""
        return self.path.name.removesuffix(".json")

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the instances; places are "file: instance position"."""
        record = read_task(self.path)
        shown = {"Task": self.name, **{key: record.get(key) for key in SHOWN_KEYS}}
        for position in self._positions(split, len(record["Instances"])):
            instance, place = record["Instances"][position], f"{self.path}: instance {position}"
            problem = instance_problem(instance)
            row = {**shown, "position": position, **instance}
            yield BadRow(BREAKS_SCHEMA, problem, place) if problem else Record(row, place)

    def revision(self, split: str) -> str:
        """Returns the SHA-256 of the content of the rows."""
        self.require_split(split)
        record = read_task(self.path)
        positions = self._positions(split, len(record["Instances"]))
        return sha256_of([[record.get(key) for key in SHOWN_KEYS], [record["Instances"][i] for i in positions]])

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the task's file.

        Raises:
          MissingFileError: It was removed.
        """
        self.require_split(split)
        if not self.path.is_file():
            raise MissingFileError(f"The file {self.path} of the task {self.name} was removed.")
        return (str(self.path.absolute()),)

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the same path, whether or not the file exists."""
        self.require_split(split)
        return (str(self.path.absolute()),)

    def num_rows(self, split: str) -> int | None:
        """Returns the number of instances used."""
        self.require_split(split)
        return len(self._positions(split, len(read_task(self.path)["Instances"])))

    def _positions(self, split: str, num_instances: int) -> Sequence[int]:
        tested = evaluated_positions(num_instances)
        if split == "test":
            return tested
        others = sorted(set(range(num_instances)) - set(tested))
        if self.max_instances is None or len(others) <= self.max_instances:
            return others
        drawn = Draws(self.seed, self.name, "instances").sample(len(others), self.max_instances)
        return [others[i] for i in sorted(drawn)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeInstruction:
    """From an instance to its prompt, its target (one of its outputs, drawn by the seed) and its references (all).

    Attributes:
      encoding: The parts that the prompt shows.
      vocabulary: Counts the tokens.
      max_source_tokens: The budget for the prompt with its examples.
      seed: Draws the target.
    """

    encoding: InstructionEncoding
    vocabulary: Vocabulary
    max_source_tokens: int
    seed: int

    @functools.cached_property
    def _prompters(self) -> dict[str, InstructionPrompter]:
        """The prompter of each task. Not a field, since an export's fingerprint digests fields."""
        return {}

    def __call__(self, row: Row) -> Row:
        """Returns the fields that `TEMPLATE` names, and `references`."""
        if row["Task"] not in self._prompters:
            self._prompters[row["Task"]] = InstructionPrompter(
                row, encoding=self.encoding, count_tokens=self.vocabulary.count, max_tokens=self.max_source_tokens
            )
        written = [output for output in row["output"] if output.strip()] or [""]
        target = written[hash64(self.seed, row["Task"], row["position"]) % len(written)]
        return {"prompt": self._prompters[row["Task"]](row["input"]), "target": target, "references": row["output"]}


def evaluated_positions(num_instances: int) -> range:
    """Returns the evaluated positions of a task: 100 evenly spaced from position 60 on; all of a smaller task.

    >>> evaluated_positions(1060)[:3], len(evaluated_positions(1060))
    (range(60, 90, 10), 100)
    """
    if num_instances <= FIRST_TEST:
        return range(num_instances)
    step = max(1, (num_instances - FIRST_TEST) // NUM_TEST)
    return range(FIRST_TEST, num_instances, step)[:NUM_TEST]


def read_task(path: Path) -> Mapping[str, Any]:
    """Returns a task, checked except for the fields of its instances.

    Raises:
      UserError: Not JSON, of the second version, or it breaks the schema; names the file and the field.
    """
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the tasks of a folder are registered.

    Attributes:
      max_source_tokens: The budget of a prompt; TASK_FEATURE_LENGTHS' inputs should be the same.
      encoding: A name in `ENCODINGS`.
      max_instances: Cap of a training task; None takes all.
      held_out: Tasks, by their files' names, that are for evaluation only.
      seed: Draws training instances beyond the cap, and targets among several outputs.
    """

    max_source_tokens: PositiveInt = 1024
    encoding: str = "full"
    max_instances: PositiveInt | None = None
    held_out: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice(self.encoding, ENCODINGS, "encoding", error=UnknownNameError)
        check_fields(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Keys(Settings):
    """The keys of the collection in a YAML file."""

    data_dir: Path | None = None


def register(
    data_dir: Path | str | None = None,
    settings: Settings = Settings(),
    *,
    vocabulary: Vocabulary | str | None = None,
) -> tuple[str, ...]:
    """Registers every task of a folder and the two mixtures; replaces those of an earlier call.

    Args:
      data_dir: The folder; None takes the environment variable FLAN_JAX_NI1_DIR.
      settings: Of all tasks.
      vocabulary: As in `registry.register`; it also counts the tokens of prompts.

    Returns:
      The tasks' own names; () when neither the argument nor the variable names a folder.

    Raises:
      MissingFileError: There is no such folder, or no task in it.
      UnknownNameError: No task to hold out of this name.
      UserError: The tasks are of the second version.
    """
    folder = user_path(data_dir) if data_dir else DATA.named()
    if folder is None:
        return ()
    held_out = settings.held_out
    paths = _task_paths(folder)
    unknown = [name for name in held_out if name not in paths]
    if unknown:
        raise UnknownNameError(f"held_out: {folder} has no task {unknown[0]!r}.{nearest(unknown[0], paths)}")
    read_task(next(iter(paths.values())))  # Reading one task suffices to reject a folder of the other version at once.
    used = registry.vocabulary(vocabulary)
    tasks = [
        TemplatedTask(
            name=seqio_name(name, prefix="ni1"),
            source=InstructionSource(
                path=path, is_held_out=name in held_out, max_instances=settings.max_instances, seed=settings.seed
            ),
            cluster=_kind(name),
            templates=(TEMPLATE,),
            metrics=("rouge_l", "exact_match"),
            normalizer=EncodeInstruction(
                encoding=ENCODINGS[settings.encoding],
                vocabulary=used,
                max_source_tokens=settings.max_source_tokens,
                seed=settings.seed,
            ),
            references="references",
            # The schema has no source; the second word of a file's name is the corpus.
            corpora=corpora(name.split("_")[1:2]),
        )
        for name, path in paths.items()
    ]
    mixtures = _mixtures(list(paths), held_out=held_out, max_instances=settings.max_instances)
    replace("natural_instructions_v1", tasks, mixtures, vocabulary=used)
    return tuple(paths)


def register_declared(settings: Section, *, vocabulary: Vocabulary) -> None:
    """Registers the collection with the settings of a YAML file's `collections: {natural_instructions_v1: ...}`.

    Raises:
      UserError, MissingFileError, UnknownNameError: An invalid setting, or as `register`.
    """
    keys = settings.parse(_Keys)
    folder = DATA.of(keys.data_dir, settings.place)
    with in_errors(settings.place):
        register(folder, keys, vocabulary=vocabulary)


def _mixtures(names: list[str], *, held_out: Collection[str], max_instances: int | None) -> dict[str, Mixture]:
    train = [name for name in names if name not in held_out]
    test = [name for name in names if name in held_out] or names
    rates: tuple[registry.Rate, ...] = (ProportionalRate(maximum=max_instances), 1.0)
    return {
        mixture: Mixture(members=[seqio_name(name, prefix="ni1") for name in members], default_rate=rate)
        for mixture, members, rate in zip(("ni1_train", "ni1_test"), (train, test), rates, strict=True)
        if members
    }


def _task_paths(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise MissingFileError(f"No folder {folder} to read Natural Instructions v1 from.")
    found = sorted([*folder.glob("*.json"), *folder.glob("Dataset_Jsons/*.json")], key=lambda path: path.name)
    if not found:
        raise MissingFileError(
            f"{folder} contains no task of Natural Instructions v1: expected *.json or Dataset_Jsons/*.json."
        )
    return {path.name.removesuffix(".json"): path for path in found}


def _kind(name: str) -> str:
    return next((kind for pattern, kind in _KINDS if re.search(pattern, name)), "natural_instructions_v1")


# A task is read several times during its export, by one thread: only the last few are cached.
@functools.lru_cache(maxsize=4)
def _read(path: Path, size_bytes: int, modified_ns: int) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:  # Not JSON, or not Unicode.
        raise UserError(f"{path}: not JSON ({error}). {_FIX}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path}: expected a JSON object, got a {type(record).__name__}. {_FIX}")
    if is_v2(record) and not is_v1(record):
        raise UserError(
            f"{path}: this is a task of Super-NaturalInstructions (version 2), whose schema differs: it has its own "
            "reader, `natural_instructions`."
        )
    problem = _head_problem(record) or instances_problem(record)
    if problem is not None:
        raise UserError(f"{path}: {problem}. {_FIX}")
    return record


def _head_problem(record: Mapping[str, Any]) -> str | None:
    if not isinstance(record.get("Definition"), str):
        return f"'Definition' must be a text, got {shortened(record.get('Definition'))}"
    for field in FIELDS[1:]:
        if not isinstance(record.get(field, "-"), str):
            return f"{field!r} must be a text, got {shortened(record[field])}"
    examples = record.get("Examples")
    if not isinstance(examples, dict):
        return f"'Examples' must hold 'Positive Examples' and 'Negative Examples', got {shortened(examples)}"
    for key in ("Positive Examples", "Negative Examples"):
        for index, example in enumerate(examples.get(key, [])):
            has_both = isinstance(example, dict) and all(isinstance(example.get(k), str) for k in ("input", "output"))
            if example != "-" and not has_both:
                return (
                    f"'Examples'[{key!r}][{index}] must have the texts 'input' and 'output', got {shortened(example)}"
                )
    return None


_FIX = "Fix the file, download it again or remove it."
