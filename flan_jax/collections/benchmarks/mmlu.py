"""MMLU (Hendrycks et al. 2021, arXiv:2009.03300): questions with four choices in 57 subjects.

Rows come from the released folder: `dev/<subject>_dev.csv`, `val/<subject>_val.csv` and `test/<subject>_test.csv`,
without headers (question, four choices, letter). A subject is three tasks, registered on demand:

    mmlu_anatomy             ranks the four letters after the released prompt
    mmlu_anatomy_five_shot   the same after the five questions of the split dev, which is called train here
    mmlu_anatomy_cot         generates a chain of thought and the answer

The mixtures `mmlu`, `mmlu_five_shot` and `mmlu_cot` contain all subjects. A departure: the five questions are in an
order drawn for each row, not in the file's.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

from flan_jax.collections.catalog import Collection, DataFolder, FolderSettings, Table
from flan_jax.errors import MissingFileError
from flan_jax.tasks.declare import TRAIN_SPLIT, FewShot, TemplatedTask
from flan_jax.tasks.sources.file_sources import CsvSource
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.templates.render import Template

DATA = DataFolder(variable="FLAN_JAX_MMLU_DIR", content="MMLU")
COLUMNS = ("question", "A", "B", "C", "D", "answer")
LETTERS = ("A", "B", "C", "D")
SPLITS = {TRAIN_SPLIT: "dev", "validation": "val", "test": "test"}
VARIANTS = ("", "_five_shot", "_cot")
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "stem": (
        "abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
        "college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
        "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
        "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning",
    ),
    "humanities": (
        "formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
        "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
        "prehistory", "professional_law", "world_religions",
    ),
    "social_sciences": (
        "econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics",
        "high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology",
        "public_relations", "security_studies", "sociology", "us_foreign_policy",
    ),
    "other": (
        "anatomy", "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging",
        "management", "marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting",
        "professional_medicine", "virology",
    ),
}  # fmt: skip
"""The subjects by category, as in the released code."""

_INTRODUCTION = "The following are multiple choice questions (with answers) about {subject}.\n\n"
_QUESTION = "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n"
_ANSWER = "Answer:"
# Leaves room for a question in 2,048 tokens, with which Flan-T5 was evaluated.
_MAX_PROMPT_TOKENS = 2_000


def _with_words(row: Row, *, subject: str) -> Row:
    """Returns a row with the subject in words, and the letter of the answer as a chain of thought ends with it."""
    return {**row, "subject": subject.replace("_", " "), "parenthesized": f"({row['answer'].strip()})"}


def record(subject: str, category: str, folder: Path, *, variant: str) -> TemplatedTask:
    """Returns a task of a subject."""
    files = {split: folder / of_file / f"{subject}_{of_file}.csv" for split, of_file in SPLITS.items()}
    is_cot, is_few_shot = variant == "_cot", variant == "_five_shot"
    question = _QUESTION if is_few_shot else _INTRODUCTION + _QUESTION
    inputs = question + ("Let's think step by step." if is_cot else "" if is_few_shot else _ANSWER)
    introduction = _INTRODUCTION.replace("{subject}", subject.replace("_", " "))
    few_shot = FewShot(
        num_exemplars=5,
        formats=(
            FewShotFormat(
                name="mmlu",
                delimiter="",
                target_prefix=f"{_ANSWER} ",
                separator="\n\n",
                wrapper=introduction + "{prompt}",
            ),
        ),
        max_tokens=_MAX_PROMPT_TOKENS,
    )
    return TemplatedTask(
        name=f"mmlu_{subject}{variant}",
        source=CsvSource(files=files, columns=COLUMNS),
        cluster=category,
        templates=(Template(inputs=inputs, targets="{parenthesized}" if is_cot else "{answer}"),),
        normalizer=functools.partial(_with_words, subject=subject),
        options=None if is_cot else LETTERS,
        metrics=("exact_match",) if is_cot else ("rank_accuracy",),
        postprocessor="chain_of_thought" if is_cot else None,
        evaluation="generate" if is_cot else "rank",
        few_shot=few_shot if is_few_shot else None,
        license="MIT",
        corpora=("mmlu",),
    )


def contents(settings: FolderSettings) -> Table:
    """Returns the tasks of all subjects and their mixtures; the rows of a subject without files are unavailable.

    Raises:
      MissingFileError: There is no such folder, or no file of a subject in it.
    """
    folder = settings.data_dir
    if folder is None or not any((folder / "test").glob("*_test.csv")):
        raise MissingFileError(
            f"{folder} contains no MMLU: expected test/<subject>_test.csv, val/<subject>_val.csv and "
            "dev/<subject>_dev.csv, as in the released archive."
        )
    of_category = {subject: category for category, members in SUBJECTS.items() for subject in members}

    def declared(subject: str, variant: str) -> TemplatedTask:
        return record(subject, of_category[subject], folder, variant=variant)

    return Table.of_variants("mmlu", of_category, VARIANTS, declared, covered="anatomy")


COLLECTION = Collection(name="mmlu", read=DATA.read, default=DATA.default, contents=contents)
register, register_declared = COLLECTION.register, COLLECTION.register_declared
