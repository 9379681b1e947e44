"""Super-NaturalInstructions in Flan 2022 (Longpre et al. 2023, arXiv:2301.13688): one task per file, ten templates.

The tasks are those of the train list without MMLU's questions. The release treats them all as one task, so that its cap
of 5,000 rows per task has no effect. Instances are shown without examples, with one of the file's positive examples and
its explanation (`template_mix_five_shot`), or with two of them in a few-shot format (`x_shot`). The release draws the
latter from sampled instances, which are training rows themselves; positive examples are not.
`natural_instructions.task_files` reads the folders.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flan_jax.collections.flan2022.variants import MIX, X_SHOT, ZERO_SHOT, Variant
from flan_jax.collections.natural_instructions import collection as natural_instructions
from flan_jax.collections.natural_instructions.corpora import corpora
from flan_jax.collections.natural_instructions.instances import SuperNISource
from flan_jax.collections.natural_instructions.selection import lists_of, select
from flan_jax.collections.natural_instructions.task_files import TaskFile, task_files
from flan_jax.draws import Draws
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates import fewshot_formats, load
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.templates.render import Template

TEMPLATES = Path(load.__file__).parent / "flan2022.yaml"
PREFIX = "niv2"
# Left out as in the release, since Flan-T5 is evaluated on MMLU.
MMLU_TASKS = frozenset({*range(664, 668), *range(685, 738)})
# No limit in the source: the mixture's rate has the cap.
ALL_INSTANCES = 10**9
NUM_EXAMPLES = 2
VARIANTS = (ZERO_SHOT, MIX, X_SHOT)
Examples = Literal["none", "explained", "several"]
_NUMBER = re.compile(r"task(\d+)_")
_SHOWN: Mapping[Variant, tuple[Examples, str]] = {
    ZERO_SHOT: ("none", "natural_instructions"),
    MIX: ("explained", "natural_instructions_explained"),
    X_SHOT: ("several", "natural_instructions_shots"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instance:
    """From an instance to the fields of the templates; its target and examples are drawn by the instance's id.

    Attributes:
      task: Its name determines the random choices.
      examples: Which of the file's positive examples are shown.
      formats: For several examples.
      seed: Of the random choices.
    """

    task: str
    examples: Examples
    formats: tuple[FewShotFormat, ...] = ()
    seed: int = 0

    def __call__(self, row: Row) -> Row | None:
        """Returns the fields; None if the file lacks the examples."""
        draws = Draws(self.seed, self.task, row["id"], "instance")
        written = [output for output in row["output"] if output.strip()] or [""]
        fields = {
            "definition": _first(row["Definition"]).strip(),
            "input": row["input"].strip(),
            "output": draws.choice(written).strip(),
            "references": row["output"],
        }
        shown = self._examples(row, draws)
        return None if shown is None else {**fields, **shown}

    def _examples(self, row: Row, draws: Draws) -> Row | None:
        available = [example for example in row["Positive Examples"] if example["output"].strip()]
        if self.examples == "none":
            return {}
        if self.examples == "explained":
            available = [example for example in available if (example.get("explanation") or "").strip()]
            if not available:
                return None
            chosen = draws.choice(available)
            names = {"example_input": "input", "example_output": "output", "example_reason": "explanation"}
            return {field: chosen[name].strip() for field, name in names.items()}
        if not available:
            return None
        several = [available[i] for i in draws.sample(len(available), NUM_EXAMPLES)]
        pairs = [(example["input"].strip(), example["output"].strip()) for example in several]
        return {"prompt": draws.choice(self.formats).join(pairs, row["input"].strip())}


def members(folder: Path | str) -> dict[str, TaskFile]:
    """Returns the training tasks of a folder, by the prefixes of their names.

    Raises:
      MissingFileError, UserError: As `natural_instructions.task_files.task_files` and
      `natural_instructions.selection.lists_of`.
    """
    files = task_files(folder)
    train = lists_of(folder, split=None, names=files)["train"]
    return {
        natural_instructions.seqio_name(name, prefix=PREFIX): files[name]
        for name in train
        if name in files and not is_mmlu(name)
    }


def notes(folder: Path | str) -> tuple[str, ...]:
    """Returns notes on the train list: which of its tasks are missing from the folder."""
    files = task_files(folder)
    return select(files, lists_of(folder, split=None, names=files))["train"].notes("train", folder=folder)


def is_mmlu(task: str) -> bool:
    """Whether a task consists of MMLU's questions, by its number.

    >>> is_mmlu("task700_mmmlu_answer_generation_high_school_chemistry"), is_mmlu("task001_quoref_question_generation")
    (True, False)
    """
    number = _NUMBER.match(task)
    return number is not None and int(number[1]) in MMLU_TASKS


def record(dataset: str, file: TaskFile, variant: Variant, *, seed: int = 0) -> TemplatedTask:
    """Returns a task of a file.

    Args:
      dataset: The prefix of its name.
      file: Of the task.
      variant: One of `VARIANTS`.
      seed: Of the random choices.
    """
    name = variant.name(dataset)
    examples, template_set = _SHOWN[variant]
    return TemplatedTask(
        name=name,
        source=SuperNISource(task=file, split="train", max_instances=ALL_INSTANCES, seed=seed),
        cluster=file.category.lower().replace(" ", "_"),
        templates=_templates()[template_set],
        metrics=("rouge_l", "superni_exact_match"),
        normalizer=Instance(
            task=name,
            examples=examples,
            formats=fewshot_formats.rotated(dataset) if examples == "several" else (),
            seed=seed,
        ),
        references="references",
        license=file.license,
        corpora=corpora(file.sources),
        seed=seed,
    )


@functools.cache
def _templates() -> Mapping[str, tuple[Template, ...]]:
    return load.template_sets(TEMPLATES)


def _first(definition: Any) -> str:
    return definition if isinstance(definition, str) else definition[0]
