"""BIG-Bench Hard (Suzgun et al. 2022, arXiv:2210.09261): 23 tasks in 27 files, answered directly or step by step.

Rows come from the released folder: `bbh/<task>.json`, and for prompts with exemplars `cot-prompts/<task>.txt`. A file
is four tasks, registered on demand:

    bbh_navigate                  the question alone
    bbh_navigate_three_shot       after the three released exemplars, answers only
    bbh_navigate_cot              the question alone, answered step by step
    bbh_navigate_cot_three_shot   after the released exemplars with their chains of thought

The mixtures `bbh`, `bbh_three_shot`, `bbh_cot` and `bbh_cot_three_shot` contain all files.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flan_jax.collections.catalog import Collection, DataFolder, FolderSettings, Table
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.file_sources import FileSource, Paths
from flan_jax.tasks.sources.rows import BadRow, Record, plain_record
from flan_jax.templates.render import Template

DATA = DataFolder(variable="FLAN_JAX_BBH_DIR", content="BIG-Bench Hard")
VARIANTS = ("", "_three_shot", "_cot", "_cot_three_shot")
SIZES = ("three", "five", "seven")
TASKS: Mapping[str, str] = {
    **{
        name: name
        for name in (
            "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
            "formal_fallacies", "geometric_shapes", "hyperbaton", "movie_recommendation", "multistep_arithmetic_two",
            "navigate", "object_counting", "penguins_in_a_table", "reasoning_about_colored_objects", "ruin_names",
            "salient_translation_error_detection", "snarks", "sports_understanding", "temporal_sequences",
            "web_of_lies", "word_sorting",
        )
    },
    **{f"{name}_{size}_objects": name for name in ("logical_deduction", "tracking_shuffled_objects") for size in SIZES},
}  # fmt: skip
"""Each file's task: three files of different sizes are one task of the paper."""

_STEPS = "Let's think step by step."
_CHAIN = re.compile(rf"^A: {re.escape(_STEPS)}.*?the answer is (.*?)\.?$", flags=re.MULTILINE | re.DOTALL)
_CANARY_END = "-----\n"


@dataclass(frozen=True, kw_only=True, init=False)
class BbhSource(FileSource):
    """The examples of a file, each with the exemplars of the second file, if any, in the field `exemplars`.

    Attributes:
      with_chains: Whether exemplars have their chains of thought.
    """

    with_chains: bool

    def __init__(self, *, files: Mapping[str, Paths], with_chains: bool):
        object.__setattr__(self, "with_chains", with_chains)
        super().__init__(files=files)

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the examples; places are "file: example number"."""
        path, *prompt = self.files(split)
        exemplars = exemplars_of(_text(prompt[0]), with_chains=self.with_chains) if prompt else ""
        try:
            examples = json.loads(_text(path))["examples"]
            rows = [{"input": one["input"], "target": one["target"], "exemplars": exemplars} for one in examples]
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{path} is no file of BIG-Bench Hard: expected an object with examples, each with input and target "
                f"({type(error).__name__}: {error})."
            ) from error
        for index, row in enumerate(rows):
            yield plain_record(row, place=f"{path}: example {index}")

    def revision(self, split: str) -> str:
        """Returns a digest of the files, and of whether exemplars have chains."""
        return f"{super().revision(split)} {self.with_chains}"


def exemplars_of(prompt: str, *, with_chains: bool) -> str:
    r"""Returns the description and the exemplars of a released prompt, with a blank line at the end.

    >>> prompt = "canary\n-----\nAdd.\n\nQ: 1+1\nA: Let's think step by step.\nOne, two.\nSo the answer is 2."
    >>> print(exemplars_of(prompt, with_chains=False), end="")
    Add.
    <BLANKLINE>
    Q: 1+1
    A: 2
    <BLANKLINE>
    """
    text = prompt.rpartition(_CANARY_END)[2].strip()
    return (text if with_chains else _CHAIN.sub(r"A: \1", text)) + "\n\n"


def _text(path: str) -> str:
    with accessing(path, setting="A file of BIG-Bench Hard", action="read"):
        return Path(path).read_text(encoding="utf-8")


def record(name: str, folder: Path, *, variant: str) -> TemplatedTask:
    """Returns a task of a file."""
    is_cot = variant.startswith("_cot")
    files = [folder / "bbh" / f"{name}.json"]
    files += [folder / "cot-prompts" / f"{name}.txt"] if variant.endswith("_three_shot") else []
    return TemplatedTask(
        name=f"bbh_{name}{variant}",
        source=BbhSource(files={"test": files}, with_chains=is_cot),
        cluster=TASKS[name],
        templates=(
            Template(inputs="{exemplars}Q: {input}\nA:" + (f" {_STEPS}" if is_cot else ""), targets="{target}"),
        ),
        metrics=("exact_match",),
        # A model that was shown exemplars continues with a question of its own after a blank line.
        postprocessor="chain_of_thought" if is_cot else "first_line",
        license="MIT",
        corpora=("bbh",),
    )


def contents(settings: FolderSettings) -> Table:
    """Returns the tasks of all files and their mixtures; the rows of those without a file are unavailable.

    Raises:
      MissingFileError: There is no such folder, or no file of a task in it.
    """
    folder = settings.data_dir
    if folder is None or not any((folder / "bbh" / f"{name}.json").is_file() for name in TASKS):
        raise MissingFileError(
            f"{folder} contains no BIG-Bench Hard: expected bbh/<task>.json and cot-prompts/<task>.txt, as released."
        )
    return Table.of_variants(
        "bbh", TASKS, VARIANTS, lambda name, variant: record(name, folder, variant=variant), covered="navigate"
    )


COLLECTION = Collection(name="bbh", read=DATA.read, default=DATA.default, contents=contents)
register, register_declared = COLLECTION.register, COLLECTION.register_declared
