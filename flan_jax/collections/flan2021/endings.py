"""FLAN 2021's datasets of coreference and common sense: the referent of a pronoun, and the sensible ending.

Where a sentence has a blank (Winogrande, WSC273), the templates show the text before it, and the options are the text
after it, each with its noun in front.
"""

import re

from flan_jax.collections.flan2021.normalizers import ClassOfTexts, OneOfOptions, broken_off
from flan_jax.collections.flan2021.records import FlanDataset
from flan_jax.tasks.label_names import LabelNames
from flan_jax.tasks.sources.rows import Row

NO_YES = ("no", "yes")

_COPA = OneOfOptions(texts={"premise": "premise", "asked": "question"}, options=("choice1", "choice2"))
_COUNTERPART = LabelNames(names={"counterpart": {"cause": "effect", "effect": "cause"}})
_GAP_OPTIONS = OneOfOptions(texts={"context": "context"}, options="endings", tidy=broken_off)
_STEP_MARKS = re.compile(r"\s*\[[^\]]*\]\s*")


def copa(row: Row) -> Row | None:
    """Adds the relation of the premise to the answer: effect, or cause."""
    fields = _COPA(row)
    return fields and _COUNTERPART({**fields, "counterpart": fields["asked"]})


def winogrande(row: Row) -> Row | None:
    """Splits the sentence at its blank.

    >>> row = {"sentence": "Ann beat Sue because _ was fast.", "option1": "Ann", "option2": "Sue", "label": 0}
    >>> winogrande(row)["context"], winogrande(row)["options"]
    ('Ann beat Sue because ...', ['Ann was fast.', 'Sue was fast.'])
    """
    context, _, rest = row["sentence"].partition("_")
    endings = [row["option1"] + rest, row["option2"] + rest]
    return _GAP_OPTIONS({"context": context, "endings": endings, "label": row["label"]})


def wsc273(row: Row) -> Row | None:
    """Splits the text at its pronoun.

    >>> row = {"text": "The ball hit the pane and it broke.", "pronoun_start": 26, "pronoun_end": 28, "label": 1}
    >>> fields = wsc273({**row, "option1_normalized": "the ball", "option2_normalized": "the pane"})
    >>> fields["context"], fields["answer"]
    ('The ball hit the pane and ...', 'the pane broke.')
    """
    context, rest = row["text"][: row["pronoun_start"]], row["text"][row["pronoun_end"] :]
    endings = [row["option1_normalized"] + rest, row["option2_normalized"] + rest]
    return _GAP_OPTIONS({"context": context, "endings": endings, "label": row["label"]})


def without_marks(text: str) -> str:
    r"""Replaces the marks that divide WikiHow's articles in HellaSwag with line breaks.

    >>> without_marks("[header] How to cook rice [title] Wash it. [step] Take a bowl")
    'How to cook rice\nWash it.\nTake a bowl'
    """
    return _STEP_MARKS.sub("\n", text).strip()


COREFERENCE = (
    FlanDataset(
        name="definite_pronoun_resolution",
        cluster="coreference",
        tfds="definite_pronoun_resolution:1.1.0",
        splits={"train": "train[:-200]", "validation": "train[-200:]", "test": "test"},
        corpora=("definite_pronoun_resolution",),
        normalizer=OneOfOptions(texts={"sentence": "sentence", "pronoun": "pronoun"}, options="candidates"),
        template_set="definite_pronoun_resolution",
        options="options",
        size=1_120,
    ),
    FlanDataset(
        name="winogrande",
        cluster="coreference",
        tfds="winogrande:1.1.0",
        splits={"train": "train_xl[:30000]", "validation": "train_xl[-200:]", "test": "validation"},
        corpora=("winogrande",),
        normalizer=winogrande,
        template_set="winogrande",
        options="options",
        license="CC BY 4.0",
        size=40_190,
    ),
    FlanDataset(
        name="wsc",
        cluster="coreference",
        tfds="super_glue/wsc:1.0.2",
        splits={"train": "train[:-50]", "validation": "train[-50:]", "test": "validation"},
        corpora=("wsc",),
        normalizer=ClassOfTexts(texts={"text": "text", "noun": "span1_text", "pronoun": "span2_text"}, answers=NO_YES),
        template_set="wsc",
        options=NO_YES,
        license="CC BY 4.0",
        size=500,
    ),
    FlanDataset(
        name="wsc273",
        cluster="",
        tfds="wsc273:1.0.0",
        splits={"test": "test"},
        corpora=("wsc273",),
        normalizer=wsc273,
        template_set="wsc273",
        options="options",
        license="CC BY 4.0",
    ),
)

COMMON_SENSE = (
    FlanDataset(
        name="copa",
        cluster="common_sense",
        tfds="super_glue/copa:1.0.2",
        splits={"train": "train[:-50]", "validation": "train[-50:]", "test": "validation"},
        corpora=("copa",),
        normalizer=copa,
        template_set="copa",
        options="options",
        license="BSD-2-Clause",
        size=350,
    ),
    FlanDataset(
        name="hellaswag",
        cluster="common_sense",
        tfds="hellaswag:1.1.0",
        splits={"train": "train[:30000]", "validation": "train[-200:]", "test": "validation"},
        corpora=("hellaswag",),
        normalizer=OneOfOptions(
            texts={"context": "context", "activity": "activity_label"},
            options="endings",
            tidy=without_marks,
            tidy_option=without_marks,
        ),
        template_set="hellaswag",
        options="options",
        license="MIT",
        size=39_700,
    ),
    FlanDataset(
        name="piqa",
        cluster="common_sense",
        tfds="piqa:1.0.0",
        splits={"train": "train[:-100]", "validation": "train[-100:]", "test": "validation"},
        corpora=("piqa",),
        normalizer=OneOfOptions(texts={"goal": "goal"}, options=("sol1", "sol2")),
        template_set="piqa",
        options="options",
        license="AFL-3.0",
        size=16_010,
    ),
    FlanDataset(
        name="story_cloze",
        cluster="common_sense",
        tfds="story_cloze/2016:1.0.0",
        splits={"train": "validation[:-200]", "validation": "validation[-200:]", "test": "test"},
        corpora=("story_cloze",),
        normalizer=OneOfOptions(texts={"context": "context"}, options="endings", first=1),
        template_set="story_cloze",
        options="options",
        size=1_670,
    ),
)
