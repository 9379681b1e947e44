"""Words of texts in any script, for metrics that count words.

In scripts that write no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every character counts as
one, as in the multilingual question answering sets; dictionaries of words would be needed otherwise.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable

_SPACELESS_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao.
    (0x1000, 0x109F),  # Burmese.
    (0x1780, 0x17FF),  # Khmer.
    (0x3005, 0x3007),
    (0x3040, 0x312F),  # Hiragana, katakana, bopomofo.
    (0x31F0, 0x31FF),
    (0x3400, 0x9FFF),  # Chinese characters.
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),
    (0x20000, 0x3FFFF),
)
HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
KANA = re.compile("[\u3040-\u30ff]")
_LETTERS = "".join(f"{chr(first)}-{chr(last)}" for first, last in _SPACELESS_RANGES)
# The last ranges hold no marks, and tens of thousands of characters.
_MARKS = "".join(
    chr(c)
    for first, last in _SPACELESS_RANGES[:6]
    for c in range(first, last + 1)
    if unicodedata.category(chr(c)) in ("Mn", "Mc")
)
_SPACELESS = re.compile(f"[{_LETTERS}][{_MARKS}]*")
# Letters beyond Latin. ROUGE's own tokenizer drops them all.
_BEYOND_LATIN = re.compile("[\u0370-\u1dff\u1f00-\u1fff\u2c00-\u2c5f\u2c80-\ua71f\ua800-\uab2f\uab70-\U0010ffff]")
_LATIN_WORD_OR_CHARACTER = re.compile(r"[0-9A-Za-z\u00c0-\u024f\u1e00-\u1eff]+|\S")
_JOINERS = dict.fromkeys((0x200C, 0x200D))


def with_spaces(text: str) -> str:
    """Returns a text with spaces around each character of a script that writes none.

    >>> with_spaces("北京 is big").split()
    ['北', '京', 'is', 'big']
    """
    return text if text.isascii() else _SPACELESS.sub(r" \g<0> ", text)


def spaceless(text: str) -> list[str]:
    """Returns the characters of scripts that write no spaces."""
    return [] if text.isascii() else _SPACELESS.findall(text)


def split_words(text: str, *, latin: Callable[[str], list[str]]) -> list[str]:
    """Returns the words of a text, those of a script other than Latin in lower case and composed.

    Args:
      text: A text in any scripts.
      latin: Splits a text in Latin script into words; receives a text without any other script as it is.

    >>> split_words("Кошки спят, said 老师.", latin=lambda text: text.split())
    ['кошки', 'спят', ',', 'said', '老', '师', '.']
    """
    if not _BEYOND_LATIN.search(text):
        found = latin(text)
    else:
        # Without variants of width, as T5's vocabularies write predictions.
        plain = unicodedata.normalize("NFKC", text).translate(_JOINERS)
        runs = [
            (is_other, "".join(run))
            for piece in with_spaces(plain).split()
            for is_other, run in itertools.groupby(piece, key=_is_beyond_latin)
        ]
        found = [word for is_other, run in runs for word in ([run.lower()] if is_other else latin(run))]
    # Accented letters and symbols alone, such as "->": equal texts would have nothing in common.
    return found or [c for c in text if not c.isspace()]


def latin_words_or_characters(text: str) -> list[str]:
    """Returns the words in Latin letters, and each other character that is not white space; case stays.

    >>> latin_words_or_characters("原因, Cat")
    ['原', '因', ',', 'Cat']
    """
    return _LATIN_WORD_OR_CHARACTER.findall(unicodedata.normalize("NFC", text))


def _is_beyond_latin(character: str) -> bool:
    return bool(_BEYOND_LATIN.match(character)) and unicodedata.category(character)[0] in "LMN"
