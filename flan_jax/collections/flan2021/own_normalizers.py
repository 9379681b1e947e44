"""Normalizers and cleaning functions of single FLAN 2021 datasets with options, which need more than a row of `table`.

Where a sentence has a blank (Winogrande, WSC273, ReCoRD), the templates show the text before it, and the options are
the text after it, each with its noun in front.
"""

import re

from flan_jax.collections.flan2021.normalizers import (
    UNLABELED,
    ClassOfTexts,
    OneOfOptions,
    broken_off,
    one_line,
    typed_quotes,
)
from flan_jax.tasks.label_names import LabelNames
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates.render import option_block

NO_YES = ("no", "yes")
PLACEHOLDER, HIGHLIGHT = "@placeholder", "\n@highlight"

_COPA = OneOfOptions(texts={"premise": "premise", "asked": "question"}, options=("choice1", "choice2"))
_COUNTERPART = LabelNames(names={"counterpart": {"cause": "effect", "effect": "cause"}})
_GAP_OPTIONS = OneOfOptions(texts={"context": "context"}, options="endings", tidy=broken_off)
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
_STEP_MARKS = re.compile(r"\s*\[[^\]]*\]\s*")


def doubled_quotes(text: str) -> str:
    """Removes the doubled quotation marks in GLUE's copy of Quora's questions.

    >>> doubled_quotes('What does ""so long"" mean?')
    'What does "so long" mean?'
    """
    return text.replace('""', '"').strip()


def stsb(row: Row) -> Row | None:
    """Rounds the score to an integer, half to even as in the released code; a row without a score has -1.

    >>> stsb({"sentence1": "It rained.", "sentence2": "Rain fell.", "label": 4.6, "idx": 3})
    {'sentence1': 'It rained.', 'sentence2': 'Rain fell.', 'answer': '5'}
    """
    if row["label"] < 0:
        return None
    texts = {name: row[name].strip() for name in ("sentence1", "sentence2")}
    return {**texts, "answer": f"{row['label']:.0f}"}


def unescaped(text: str) -> str:
    r"""Removes the escapes in Yelp's reviews, which are CSV within CSV.

    >>> unescaped('A \\""nice\\"" place.\\nGo!')
    'A "nice" place.\nGo!'
    """
    return text.replace('\\""', '"').replace("\\n", "\n").strip()


def without_marks(text: str) -> str:
    r"""Replaces the marks that divide WikiHow's articles in HellaSwag with line breaks.

    >>> without_marks("[header] How to cook rice [title] Wash it. [step] Take a bowl")
    'How to cook rice\nWash it.\nTake a bowl'
    """
    return _STEP_MARKS.sub("\n", text).strip()


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
        # The released code fills it from the question's index.
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
    # Entities are mentioned several times; an option that is listed twice could not be ranked.
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
