"""FLAN 2021's multiple-choice questions: about a text, from knowledge, or requiring inference."""

from flan_jax.collections.flan2021.normalizers import (
    UNLABELED,
    ClassOfTexts,
    OneOfOptions,
    broken_off,
    one_line,
    typed_quotes,
)
from flan_jax.collections.flan2021.records import FlanDataset
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates.render import option_block

LAST_200 = {"train": "train[:-200]", "validation": "train[-200:]", "test": "validation"}
NO_YES = ("no", "yes")

_BOOL_Q = ClassOfTexts(
    texts={"title": "title", "text": "passage", "question": "question"},
    answers={False: "no", True: "yes"},
    label="answer",
    tidy=typed_quotes,
)
_MULTIRC = ClassOfTexts(
    texts={"paragraph": "paragraph", "question": "question", "response": "answer"},
    answers=NO_YES,
    words={"verdict": ("a wrong answer", "a right answer")},
)
_OPENBOOKQA = OneOfOptions(
    texts={"question": "question/stem", "fact": "fact1"},
    options=("question/choice_A", "question/choice_B", "question/choice_C", "question/choice_D"),
    label="answerKey",
)
_ARC = OneOfOptions(texts={"question": "question"}, options="choices/text", label="position", number_of_options=4)
PLACEHOLDER, HIGHLIGHT = "@placeholder", "\n@highlight"


def bool_q(row: Row) -> Row | None:
    """Adds a capital and a question mark to the question; the dataset has neither.

    >>> bool_q({"title": "Rain", "passage": "Rain is wet.", "question": "is rain wet", "answer": True})
    {'title': 'Rain', 'text': 'Rain is wet.', 'question': 'Is rain wet?', 'answer': 'yes'}
    """
    fields = _BOOL_Q(row)
    if fields is None:
        return None
    question = fields["question"].rstrip("? ")
    return {**fields, "question": question[:1].upper() + question[1:] + "?"}


def multirc(row: Row) -> Row | None:
    """Adds the index of the candidate answer and of its question, whose candidates are judged together."""
    fields, place = _MULTIRC(row), row["idx"]
    return fields and {
        **fields,
        "paragraph_index": place["paragraph"],
        "question_index": place["question"],
        "answer_index": place["answer"],
        "group": f"{place['paragraph']}/{place['question']}",
    }


def openbookqa(row: Row) -> Row | None:
    """Removes the full stop of the fact, so that templates can use it inside a sentence."""
    fields = _OPENBOOKQA(row)
    return fields and {**fields, "fact": fields["fact"].rstrip(". ")}


def arc(row: Row) -> Row | None:
    """Finds the correct choice by its letter. As released, only questions with four choices are retained."""
    letters, key = row["choices"]["label"], row["answerKey"]
    return _ARC({**row, "position": letters.index(key) if key in letters else UNLABELED})


def record(row: Row) -> Row | None:
    r"""Splits the query at its blank; options and answers are the text after it, each with its entity in front.

    >>> row = {"passage": "Ann met Bo.\n@highlight\nThey met", "query": "Later @placeholder's car broke."}
    >>> fields = record({**row, "entities": ["Ann", "Bo"], "answers": ["Bo"]})
    >>> fields["passage"], fields["query"], fields["answers"]
    ('Ann met Bo.', 'Later ...', ["Bo's car broke."])
    >>> print(fields["options_str"])
    OPTIONS:
    - Ann's car broke.
    - Bo's car broke.
    """
    opening, _, ending = row["query"].partition(PLACEHOLDER)
    options, answers = (
        list(dict.fromkeys(one_line(entity + ending) for entity in row[field])) for field in ("entities", "answers")
    )
    if not answers:
        return None
    return {
        "passage": row["passage"].partition(HIGHLIGHT)[0].strip(),
        "query": broken_off(opening),
        "options": options,
        "options_str": option_block(options),
        "answers": answers,
        "answer": answers[0],
    }


def _arc(name: str, *, config: str, size: int) -> FlanDataset:
    return FlanDataset(
        name=name,
        cluster="open_domain_qa",
        tfds=f"ai2_arc/{config}:1.0.0",
        splits={**LAST_200, "test": "test"},
        corpora=("arc",),
        normalizer=arc,
        template_set="arc",
        options="options",
        license="CC BY-SA 4.0",
        size=size,
    )


READING = (
    FlanDataset(
        name="bool_q",
        cluster="reading_comprehension",
        tfds="bool_q:1.0.0",
        splits=LAST_200,
        corpora=("boolq",),
        normalizer=bool_q,
        template_set="bool_q",
        options=NO_YES,
        license="CC BY-SA 3.0",
        size=9_220,
    ),
    FlanDataset(
        name="multirc",
        cluster="reading_comprehension",
        tfds="super_glue/multirc:1.0.2",
        splits=LAST_200,
        corpora=("multirc",),
        normalizer=multirc,
        template_set="multirc",
        options=NO_YES,
        metrics=("multirc",),
        group="group",
        size=27_040,
    ),
    FlanDataset(
        name="openbookqa",
        cluster="reading_comprehension",
        tfds="openbookqa:0.1.0",
        splits={"train": "train", "validation": "validation[:200]", "test": "test"},
        corpora=("openbookqa",),
        normalizer=openbookqa,
        template_set="openbookqa",
        options="options",
        license="Apache-2.0",
        size=4_950,
    ),
)

KNOWLEDGE = (
    _arc("arc_challenge", config="ARC-Challenge", size=910),
    _arc("arc_easy", config="ARC-Easy", size=2_040),
)

READING_WITH_COMMON_SENSE = (
    FlanDataset(
        name="cosmos_qa",
        cluster="read_comp_and_common_sense",
        tfds="cosmos_qa:1.0.0",
        splits=LAST_200,
        corpora=("cosmos_qa",),
        normalizer=OneOfOptions(
            texts={"context": "context", "question": "question"},
            options=("answer0", "answer1", "answer2", "answer3"),
        ),
        template_set="cosmos_qa",
        options="options",
        license="CC BY 4.0",
        size=25_060,
    ),
    FlanDataset(
        name="record",
        cluster="read_comp_and_common_sense",
        tfds="super_glue/record:1.0.2",
        splits={"train": "train[:30000]", "validation": "train[-200:]", "test": "validation"},
        corpora=("record",),
        normalizer=record,
        template_set="record",
        options="options",
        metrics=("record",),
        references="answers",
        license="Apache-2.0",
        size=100_520,
    ),
)
