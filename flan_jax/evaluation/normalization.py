"""Normalization of answers: texts without the differences that a rule ignores."""

import re
import string
import unicodedata

from flan_jax.evaluation.words import with_spaces

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TRIVIA_QA_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))
# Typographic variants of ASCII's characters; full-width forms as Chinese and Japanese texts have them.
_VARIANTS = str.maketrans(
    {"‘": "'", "’": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "…": "..."}
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63", "-")
    | {chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}
)
# After two letters a mark ends a word; after a digit or a single letter it may be a sign of its own: 5!, n!
_AFTER_A_WORD = re.compile(r"(?<=[^\W\d_]{2})[.,;:!?،؛؟]+(?=\s|$)")
_AT_THE_END = re.compile(r"(?<=[^\s.])[.,;:。।]$")
_ENCLOSED = re.compile(r"""(["'`])([^"'`]+)\1|\(([^()]+)\)""")


def normalize(text: str) -> str:
    """Returns a text in lower case without the punctuation of sentences; signs, points and operators stay.

    White space is collapsed, and quotation marks or brackets around the whole text are removed.

    >>> normalize(" The  cat, sat! ")
    'the cat sat'
    >>> normalize("−3.14%."), normalize("C++"), normalize("(a+b)")
    ('-3.14%', 'c++', 'a+b')
    """
    plain = " ".join(unicodedata.normalize("NFC", text).translate(_VARIANTS).lower().split())
    plain = _AT_THE_END.sub("", _AFTER_A_WORD.sub("", plain))
    enclosed = _ENCLOSED.fullmatch(plain)
    if enclosed:
        plain = _AT_THE_END.sub("", _AFTER_A_WORD.sub("", (enclosed[2] or enclosed[3]).strip()))
    return plain


def normalize_superni(text: str) -> str:
    """Lower-cases, removes ASCII punctuation and collapses white space; articles stay (Super-NaturalInstructions).

    Answers that differ in a sign or a decimal point become equal; the published scores count them so.

    >>> normalize_superni(" The  cat, sat! "), normalize_superni("-3.14")
    ('the cat sat', '314')
    """
    return " ".join(text.lower().translate(_WITHOUT_PUNCTUATION).split())


def normalize_squad(text: str) -> str:
    """As `normalize_superni`, and removes the articles a, an, the (SQuAD).

    In scripts other than Latin, for which SQuAD states no rule, also their punctuation.

    >>> normalize_squad("The  cat, sat!"), normalize_squad("北京。")
    ('cat sat', '北京')
    """
    return _without_articles(_without_other_punctuation(text.lower().translate(_WITHOUT_PUNCTUATION)))


def normalize_trivia_qa(text: str) -> str:
    """As `normalize_squad`, with a space for each punctuation mark, typographic quotes among them (TriviaQA).

    >>> normalize_trivia_qa("The Rock‘n’Roll era!")
    'rock n roll era'
    """
    return _without_articles(_without_other_punctuation(text.lower().translate(_TRIVIA_QA_PUNCTUATION)))


def answer_words(normalized: str) -> list[str]:
    """Returns the words of a normalized answer; characters where a script writes no spaces.

    >>> answer_words("red cat"), answer_words("北京")
    (['red', 'cat'], ['北', '京'])
    """
    return with_spaces(normalized).split()


def _without_articles(text: str) -> str:
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _without_other_punctuation(text: str) -> str:
    # General punctuation (dashes, curly quotes) stays: SQuAD's rule leaves it, also in English.
    if text.isascii():
        return text
    return "".join(
        c
        for c in text
        if not (ord(c) >= 0x0370 and not 0x2000 <= ord(c) < 0x2070 and unicodedata.category(c)[0] == "P")
    )
