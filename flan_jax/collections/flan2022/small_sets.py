"""The two small sets that Flan 2022 adds to FLAN 2021's: last words of passages, and science questions.

LAMBADA (4,860 rows) and the middle-school science questions of UnifiedQA with four choices (590 rows), from TFDS, as in
arXiv:2301.13688.
"""

import re
from pathlib import Path

from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.file_sources import TfdsSource
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates import load

TEMPLATES = Path(load.__file__).parent / "flan2022.yaml"
NAMES = ("lambada", "unified_qa_science_inst")
_CHOICES = re.compile(r"\(([A-Z])\)")


def last_word(row: Row) -> Row | None:
    """Splits the last word off a passage.

    >>> last_word({"passage": "He took his hat and left the house"})
    {'sentence': 'He took his hat and left the', 'answer': 'house'}
    """
    sentence, _, answer = row["passage"].strip().rpartition(" ")
    return {"sentence": sentence.rstrip(), "answer": answer} if sentence.strip() else None


def science_question(row: Row) -> Row | None:
    r"""Splits a question from its choices; None unless there are four.

    >>> science_question({"input": "Which is a metal? \\n (A) tin (B) air (C) ice (D) oak", "output": "tin"})
    {'question': 'Which is a metal?', 'options': ['tin', 'air', 'ice', 'oak'], 'answer': 'tin'}
    """
    question, *rest = _CHOICES.split(row["input"].replace("\\n", "\n"))
    if rest[::2] != list("ABCD"):
        return None
    options = [option.strip() for option in rest[1::2]]
    return {"question": question.strip(), "options": options, "answer": row["output"].replace("\\n", "\n").strip()}


def records() -> tuple[TemplatedTask, ...]:
    """Returns the two tasks, named as in `NAMES`; reads templates, and no row."""
    sets = load.template_sets(TEMPLATES)
    words, science = NAMES
    return (
        TemplatedTask(
            name=words,
            source=TfdsSource(name="lambada:1.0.0", splits={"train": "train"}),
            cluster="language_modelling",  # As published.
            templates=sets["lambada"],
            metrics=("accuracy",),
            postprocessor="first_word",
            normalizer=last_word,
            license="CC BY 4.0",
            corpora=("lambada",),
        ),
        TemplatedTask(
            name=science,
            source=TfdsSource(name="unified_qa/ai2_science_middle:1.0.0", splits={"train": "train"}),
            cluster="open_domain_qa",
            templates=sets["science"],
            options="options",
            metrics=("accuracy",),
            postprocessor="first_line",
            normalizer=science_question,
            license="unknown",
            corpora=("ai2_science", "arc"),
        ),
    )
