"""The instances of a Super-NaturalInstructions task: their selection, and their prompts and targets.

Every choice (instances beyond the cap, encoding, target) follows from the seed and the instance's id.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from flan_jax.collections.natural_instructions.schema import instance_problem, schema_problems
from flan_jax.collections.natural_instructions.task_files import TaskFile
from flan_jax.draws import Draws, hash64
from flan_jax.errors import MissingFileError
from flan_jax.files import sha256_of
from flan_jax.tasks.sources.rows import BadRow, Record, Row, Source
from flan_jax.templates.superni import Encoding, Prompter
from flan_jax.vocab import Vocabulary

SHOWN_KEYS = ("Task", "Definition", "Positive Examples", "Negative Examples")
BREAKS_SCHEMA = "breaks the schema"
Split = Literal["train", "test"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperNISource(Source):
    """The instances of one task, each with the task's definition and examples.

    In "train" they are a sample drawn by the seed, in "test" the first ones of the file (whose order the authors
    balanced over labels); both in the file's order.

    Attributes:
      task: The file of the task.
      split: Its only split.
      max_instances: The largest number.
      seed: Of the sample.
    """

    task: TaskFile
    split: Split
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
        for position, instance in self._instances(record):
            # Instances had no ids in the dataset's first versions, and the random choices need one.
            named = {"id": f"{self.task.name}-{position}", **instance}
            place = f"{self.task.path}: {self.task.name}, instance {named['id']!r}"
            problem = instance_problem(instance)
            yield BadRow(BREAKS_SCHEMA, problem, place) if problem else Record({**shown, **named}, place)

    def revision(self, split: str) -> str:
        """Returns the SHA-256 of the content of the rows."""
        self.require_split(split)
        record = self.task.record()
        instances = [instance for _, instance in self._instances(record)]
        return sha256_of([[record[key] for key in SHOWN_KEYS], instances])

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the file or shard that contains the task.

        Raises:
          MissingFileError: It was removed.
        """
        self.require_split(split)
        if not self.task.path.is_file():
            raise MissingFileError(f"The file {self.task.path} of the task {self.task.name} was removed.")
        return (str(self.task.path.absolute()),)

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the same path, whether or not the file exists."""
        self.require_split(split)
        return (str(self.task.path.absolute()),)

    def num_rows(self, split: str) -> int | None:
        """Returns the number of instances used."""
        self.require_split(split)
        return min(self.max_instances, len(self.task.record()["Instances"]))

    def problems(self, split: str) -> tuple[str, ...]:
        """Returns violations of the dataset's own validation rules; see `schema.schema_problems`."""
        self.require_split(split)
        return schema_problems(self.task.record(), name=self.task.name)

    def _instances(self, record: Mapping[str, Any]) -> list[tuple[int, Row]]:
        """Returns the selected instances, with their positions in the file."""
        instances = record["Instances"]
        if self.split == "test" or len(instances) <= self.max_instances:
            return list(enumerate(instances[: self.max_instances]))
        # Drawn by hash, so that the sample depends on nothing else; sorted into the file's order.
        drawn = sorted(
            range(len(instances)), key=lambda i: hash64(self.seed, self.task.name, instances[i].get("id"), i)
        )
        return [(i, instances[i]) for i in sorted(drawn[: self.max_instances])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encode:
    """From an instance to its prompt, its target (one of its outputs, drawn by the seed) and its references (all).

    Attributes:
      encodings: The parts that the prompt shows; of several, one is drawn per instance and pass.
      vocabulary: Counts the tokens.
      max_source_tokens: The budget for the prompt with its examples.
      seed: Draws the encoding and the target.
      passes: The number of rows per instance, each with its own random choices.
    """

    encodings: tuple[Encoding, ...]
    vocabulary: Vocabulary
    max_source_tokens: int
    seed: int
    passes: int = 1

    @functools.cached_property
    def _kept(self) -> dict[tuple[str, Encoding], Prompter]:
        """The prompters of each task. Not a field, since an export's fingerprint digests fields."""
        return {}

    def __call__(self, row: Row) -> list[Row]:
        """Returns for each pass the fields `prompt` and `target`, and `references`."""
        outputs = row["output"]
        # Where all outputs are blank the target is empty, which training drops and counts.
        written = [output for output in outputs if output.strip()] or [""]
        rows = []
        for number in range(self.passes):
            # The first pass has the key of a single pass, so that more passes add rows without changing the first ones.
            key = (self.seed, row["Task"], row["id"], *([number] if number else []))
            encoding = self.encodings[0]
            if len(self.encodings) > 1:
                encoding = Draws(self.seed, row["Task"], row["id"], number, "encoding").choice(self.encodings)
            prompt = self._prompter(row, encoding)(row["input"])
            rows.append({"prompt": prompt, "target": written[hash64(*key) % len(written)], "references": outputs})
        return rows

    def _prompter(self, row: Row, encoding: Encoding) -> Prompter:
        key = (row["Task"], encoding)
        if key not in self._kept:
            self._kept[key] = Prompter(
                row, encoding=encoding, count_tokens=self.vocabulary.count, max_tokens=self.max_source_tokens
            )
        return self._kept[key]
