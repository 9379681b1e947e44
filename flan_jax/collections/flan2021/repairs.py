"""Cleaning of FLAN 2021's rows for use in prompts: pure functions from the value of a field to another."""

import re
import urllib.parse
from collections.abc import Sequence

from flan_jax.collections.flan2021.normalizers import one_line
from flan_jax.tasks.sources.rows import Row

UNANSWERABLE = "unanswerable"

_PLACE = r"(?:[A-Z.,' -][\w.,' -]{0,60})?"
_PLACE_AND_AGENCY = re.compile(rf"\A(?:{_PLACE}(?:\([A-Z][^()]{{1,39}}\) -- |\(CNN\)(?=\w))|\(CNN\) )")
_STAMP = r"(?:PUBLISHED|UPDATED):[ .]*[^.|]*?\b20\d\d ?\. ?"
# Within the first 300 characters: the words may occur in the article itself, too.
_BYLINE_AND_STAMPS = re.compile(rf"\A.{{0,300}}?{_STAMP}(?:\| ?\. ?{_STAMP})?", re.DOTALL)
_TAG = re.compile(r"<[^<>\n]*>")
_CELL = re.compile(r"\[([A-Z]+)\]")
_PUNCTUATION = re.compile(r"[^\w\s]")
_QUAC_END = re.compile(r"\s*CANNOTANSWER\s*\Z")


def without_dateline(article: str) -> str:
    """Removes the dateline or byline of a news article (CNN/Daily Mail).

    >>> without_dateline("OSLO, Norway (CNN) -- Snow fell.")
    'Snow fell.'
    >>> stamps = "PUBLISHED: . 10:01 EST, 2 May 2013 . | . UPDATED: . 2 May 2013 ."
    >>> without_dateline(f"By . A. Writer . {stamps} Snow fell .")
    'Snow fell .'
    """
    for prefix in (_PLACE_AND_AGENCY, _BYLINE_AND_STAMPS):
        article = prefix.sub("", article.strip())
    return article.strip()


def separate_articles(document: str) -> str:
    r"""Replaces the marks between articles and between their lines with blank lines and line breaks (Multi-News).

    >>> separate_articles("One. NEWLINE_CHAR Two. ||||| Three. |||||")
    'One.\nTwo.\n\nThree.'
    """
    articles = document.replace("NEWLINE_CHAR", "\n").split("|||||")
    lines = [[line.strip() for line in article.splitlines() if line.strip()] for article in articles]
    return "\n\n".join("\n".join(article) for article in lines if article)


def without_dash(summary: str) -> str:
    """Drops the dash that every summary of Multi-News begins with.

    >>> without_dash("– Snow fell.")
    'Snow fell.'
    """
    return summary.strip().lstrip("–—-").strip()


def plain_chat(dialogue: str) -> str:
    r"""Removes the marks for files and links from a chat, and its carriage returns (SAMSum).

    >>> plain_chat("Ann: look\r\nAnn: <file_photo>\r\nBo: nice")
    'Ann: look\nAnn:\nBo: nice'
    """
    return "\n".join(_TAG.sub("", line).strip() for line in dialogue.splitlines()).strip()


def spaced(title: str) -> str:
    """Decodes a title from an address: underscores are spaces, %27 is an apostrophe.

    >>> spaced("New_Year%27s_Eve")
    "New Year's Eve"
    """
    return urllib.parse.unquote(title).replace("_", " ").strip()


def numbered(texts: Sequence[str], *, at_most: int | None = None) -> str:
    r"""Lists texts, each with a number on a line of its own.

    >>> numbered(["Good\nfilm.", "Bad film."])
    '1. Good film.\n2. Bad film.'
    """
    return "\n".join(f"{number}. {one_line(text)}" for number, text in enumerate(texts[:at_most], start=1))


def ten_numbered(texts: Sequence[str]) -> str:
    """Lists the first ten texts as `numbered`."""
    return numbered(texts, at_most=10)


def first(texts: Sequence[str]) -> str:
    """Returns the first text; "" for an empty list."""
    return texts[0].strip() if texts else ""


def distinct(values: Sequence[str | Sequence[str]]) -> list[str]:
    """Lists every text once, in order: all correct answers, from texts and lists of texts.

    >>> distinct(["four", ["4", "four ", ""]])
    ['four', '4']
    """
    texts = [text for value in values for text in ([value] if isinstance(value, str) else value)]
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


def distinct_lines(values: Sequence[str | Sequence[str]]) -> list[str]:
    r"""Lists every text once, on one line, with single spaces (texts of DART have tabs in them).

    >>> distinct_lines(["Oslo is\tbig.", ["Oslo is big."]])
    ['Oslo is big.']
    """
    return distinct([one_line(text) for text in distinct(values)])


def as_question(question: str) -> str:
    """Ends a question with one question mark (those of Natural Questions have none).

    >>> as_question("who wrote it"), as_question("who wrote it ?")
    ('who wrote it?', 'who wrote it?')
    """
    # Exactly one here and none in the templates: the released normalizer and half of the released templates each add
    # one.
    return question.rstrip("? \t\n").lstrip() + "?" if question.strip(" ?") else ""


def answers_if_any(impossible_and_answers: tuple[bool, Sequence[str]]) -> list[str]:
    """Lists the answers, or the one word for a question without an answer (SQuAD 2.0).

    >>> answers_if_any((True, [])), answers_if_any((False, ["in May", "May"]))
    (['unanswerable'], ['in May', 'May'])
    """
    impossible, answers = impossible_and_answers
    return [UNANSWERABLE] if impossible else distinct(answers)


def answer_if_any(impossible_and_answers: tuple[bool, Sequence[str]]) -> str:
    """Returns the first of `answers_if_any`."""
    return first(answers_if_any(impossible_and_answers))


def without_end_mark(context: str) -> str:
    """Removes QuAC's mark for unanswerable questions from the end of a text.

    >>> without_end_mark("She moved to Oslo. CANNOTANSWER")
    'She moved to Oslo.'
    """
    return _QUAC_END.sub("", context).strip()


def answer_in_words(answer: str) -> str:
    """Returns the answer, with QuAC's mark for unanswerable questions as a word.

    >>> answer_in_words("CANNOTANSWER")
    'unanswerable'
    """
    return UNANSWERABLE if answer.strip() == "CANNOTANSWER" else answer.strip()


def answers_in_words(answers: Sequence[str | Sequence[str]]) -> list[str]:
    """Lists every answer once, as `answer_in_words`."""
    return distinct([answer_in_words(answer) for answer in distinct(answers)])


def triples(facts: Sequence[str]) -> str:
    """Joins WebNLG's facts.

    >>> triples(["Oslo | country | Norway", "Norway | official_language | Norwegian"])
    'Oslo, country, Norway; Norway, official language, Norwegian'
    """
    return "; ".join(re.sub(r"\s*\|\s*", ", ", fact).replace("_", " ").strip() for fact in facts)


def pairs(meaning: str) -> str:
    """Writes the attributes of E2E's restaurants as equations.

    >>> pairs("name[The Mill], area[riverside]")
    'name = The Mill, area = riverside'
    """
    return re.sub(r"\s*\[", " = ", meaning).replace("]", "").strip()


def fact_lines(facts: Sequence[str]) -> str:
    r"""Puts DART's facts on lines, without the cells that only mark a table or its title.

    >>> fact_lines(["[TABLECONTEXT] DRIVERS Ann", "Ann LAPS 87", "[TABLECONTEXT] [TITLE] Grand Prix"])
    'DRIVERS Ann\nAnn LAPS 87\nTITLE Grand Prix'
    """
    named = (_CELL.sub(lambda cell: "" if cell[1] == "TABLECONTEXT" else cell[1], fact) for fact in facts)
    return "\n".join(one_line(fact.replace(" | ", " ")) for fact in named)


def facts_in_line(facts: Sequence[str]) -> str:
    """Puts DART's facts on one line, as `fact_lines`.

    >>> facts_in_line(["Ann LAPS 87", "Ann TEAM Red"])
    'Ann LAPS 87; Ann TEAM Red'
    """
    return fact_lines(facts).replace("\n", "; ")


def with_commas(words: Sequence[str]) -> str:
    """Lists words: "a, b, c"."""
    return ", ".join(word.strip() for word in words)


def on_lines(words: Sequence[str]) -> str:
    """Lists words on lines of their own."""
    return "\n".join(word.strip() for word in words)


def lower_case(text: str) -> str:
    """Returns a text in lower case."""
    return text.strip().lower()


def without_punctuation(text: str) -> str:
    """Removes all punctuation and symbols; letters of any script, digits and white space remain.

    >>> without_punctuation('Café, "50 %"?')
    'Café 50 '
    """
    return _PUNCTUATION.sub("", text.strip())


def without_spaces(text: str) -> str:
    """Removes all spaces.

    >>> without_spaces("It is 5 pm.")
    'Itis5pm.'
    """
    return text.replace(" ", "")


def same_in_lower_case(fields: Row) -> bool:
    """Whether the text has no capitals to restore."""
    return bool(fields["lower"] == fields["text"])


def same_without_punctuation(fields: Row) -> bool:
    """Whether the text has no punctuation to restore."""
    return bool(fields["bare"] == fields["text"])


def has_placeholders(fields: Row) -> bool:
    """Whether words or digits are masked, as Gigaword's rare words are with UNK and its digits with #."""
    return any(mark in text for text in fields.values() for mark in ("UNK", "#"))
