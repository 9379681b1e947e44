"""Verifiers of instructions that code can check: the 25 kinds of IFEval (Zhou et al. 2023, arXiv 2311.07911).

Each follows the published rule for one `instruction_id` and takes the response and that id's arguments, as the rows of
IFEval name them. Two rules need a model in the released code, and have rules of their own here: where a sentence ends
(`count_sentences`), and the language of a text (`flan_jax.evaluation.languages`).
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from flan_jax.evaluation.languages import language_of

Verifier = Callable[..., bool]

CONSTRAINED_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
RELATIONS = ("less than", "at least")

# Abbreviations that a full stop belongs to: always; unless the next word has a capital; and before a number.
_TITLE = re.compile(r"(?:\b(?i:mr|mrs|ms|dr|prof|st|capt|lt|gen|vs|e\.g|i\.e)|\b[A-HJ-Z])$")  # "I" is a word.
_SHORTENED = re.compile(r"\b(?:etc|inc|ltd|co|jr|sr|u\.s|[ap]\.m)$", flags=re.IGNORECASE)
_NUMBERED = re.compile(r"\b(?:no|nr|fig|pp?)$", flags=re.IGNORECASE)
_LONGEST_ABBREVIATION = 8  # Characters to look at before a full stop; a long text is not read again for each.
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)|[。！？؟।]+")
_WORD = re.compile(r"\w+")


def count_words(text: str) -> int:
    """Returns the number of runs of letters, digits and "_".

    >>> count_words("It's a well-known fact.")
    6
    """
    return len(_WORD.findall(text))


def count_sentences(text: str) -> int:
    """Returns the number of sentences: a full stop ends one unless it follows an abbreviation or an initial.

    A departure: the released code asks NLTK's model of English sentences, which is a download of its own.

    >>> count_sentences("Dr. J. Smith came at 5 p.m. today. Really?! Yes: 3.5 of them")
    3
    """
    count, start = 0, 0
    for end in _SENTENCE_END.finditer(text):
        if end[0].startswith(".") and not end[0].startswith("..") and _is_abbreviated(text, end):
            continue
        count += bool(text[start : end.start()].strip())
        start = end.end()
    return count + bool(text[start:].strip())


def _is_abbreviated(text: str, stop: re.Match[str]) -> bool:
    before, after = text[max(0, stop.start() - _LONGEST_ABBREVIATION) : stop.start()], text[stop.end() :][:8].lstrip()
    if _TITLE.search(before):
        return True
    if _SHORTENED.search(before):
        return bool(after) and not after[0].isupper()
    return bool(_NUMBERED.search(before)) and after[:1].isdigit()


def _holds(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == RELATIONS[0] else count >= threshold


def _contains(pattern: str, response: str) -> int:
    """The number of matches in any case. The released code takes keywords as patterns, which "c++" is not."""
    return len(re.findall(pattern, response, flags=re.IGNORECASE))


def _keywords(response: str, *, keywords: Sequence[str]) -> bool:
    return all(_contains(re.escape(keyword), response) for keyword in keywords)


def _keyword_frequency(response: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return _holds(_contains(re.escape(keyword.strip()), response), relation, frequency)


def _forbidden_words(response: str, *, forbidden_words: Sequence[str]) -> bool:
    return not any(_contains(rf"\b{re.escape(word)}\b", response) for word in forbidden_words)


def _letter_frequency(response: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _holds(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _response_language(response: str, *, language: str) -> bool:
    return language_of(response) in (language, "")  # Not known is followed, as in the released code.


def _number_sentences(response: str, *, num_sentences: int, relation: str) -> bool:
    return _holds(count_sentences(response), relation, num_sentences)


def _number_paragraphs(response: str, *, num_paragraphs: int) -> bool:
    paragraphs = [part.strip() for part in re.split(r"\s?\*\*\*\s?", response)]
    # A mark at the start or at the end separates nothing; two in a row are an empty paragraph.
    return all(paragraphs[1:-1]) and sum(map(bool, paragraphs)) == num_paragraphs


def _number_words(response: str, *, num_words: int, relation: str) -> bool:
    return _holds(count_words(response), relation, num_words)


# Unlike `number_paragraphs`, whose mark is "***", this kind separates paragraphs by a blank line, as its prompts say.
def _nth_paragraph_first_word(response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = [paragraph.strip() for paragraph in response.split("\n\n")]
    count = sum(map(bool, paragraphs))
    if count != num_paragraphs or not 1 <= nth_paragraph <= count or not paragraphs[nth_paragraph - 1]:
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split("[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.lower()


def _number_placeholders(response: str, *, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


def _postscript(response: str, *, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    patterns = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    pattern = patterns.get(marker, r"\s*" + re.escape(marker.lower()) + r".*$")
    return bool(re.search(pattern, response.lower(), flags=re.MULTILINE))


def _number_bullet_lists(response: str, *, num_bullets: int) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", response, flags=re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", response, flags=re.MULTILINE)) == num_bullets


def _constrained_response(response: str) -> bool:
    return any(allowed in response for allowed in CONSTRAINED_RESPONSES)


def _number_highlighted_sections(response: str, *, num_highlights: int) -> bool:
    # Both patterns match **bold**, which therefore can count twice, as published.
    single = [text for text in re.findall(r"\*[^\n\*]*\*", response) if text.strip("*").strip()]
    double = [text for text in re.findall(r"\*\*[^\n\*]*\*\*", response) if text.strip("*").strip()]
    return len(single) + len(double) >= num_highlights


def _multiple_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", response)) >= num_sections


def _json_format(response: str) -> bool:
    text = response.strip()
    for opening in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(opening)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(response: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", response))


def _two_responses(response: str) -> bool:
    parts = [part.strip() for part in response.split("******")]
    answers = list(filter(None, parts))
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def _repeat_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end_checker(response: str, *, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_word_frequency(response: str, *, capital_frequency: int, capital_relation: str) -> bool:
    return _holds(sum(word.isupper() for word in _tokenize(response)), capital_relation, capital_frequency)


def _tokenize(text: str) -> list[str]:
    words: list[str] = _word_tokenizer().tokenize(text)
    return words


@cache
def _word_tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer  # Comes with rouge-score; splits "DON'T" in two words.

    return NLTKWordTokenizer()


def _english_capital(response: str) -> bool:
    return response.isupper() and language_of(response) in ("en", "")


def _english_lowercase(response: str) -> bool:
    return response.islower() and language_of(response) in ("en", "")


def _no_comma(response: str) -> bool:
    return "," not in response


def _quotation(response: str) -> bool:
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


VERIFIERS: Mapping[str, Verifier] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": _number_words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
}


def arguments_of(instruction_id: str) -> tuple[str, ...]:
    """Returns the names of the arguments of an instruction, all of which are required."""
    return tuple(inspect.signature(VERIFIERS[instruction_id]).parameters)[1:]
