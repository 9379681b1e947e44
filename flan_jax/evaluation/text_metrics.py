"""Metrics that compare a text with its references: exact match, words in common, ROUGE, edits.

Each returns what it measured of every row (`flan_jax.evaluation.measured`).
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from flan_jax.evaluation.measured import Groups, Measured, References, mean_of_best, mean_of_rows, require_rows
from flan_jax.evaluation.normalization import (
    answer_words,
    normalize,
    normalize_squad,
    normalize_superni,
    normalize_trivia_qa,
)
from flan_jax.evaluation.numerals import numbers
from flan_jax.evaluation.words import latin_words_or_characters, split_words

NO_ANSWER = "unanswerable"
"""The text of no answer in FLAN's and Super-NaturalInstructions' prompts; SQuAD itself has the empty text."""


def exact_match(references: References, predictions: Sequence[str]) -> Measured:
    """Share of predictions equal to a reference after `normalization.normalize`.

    >>> exact_match([["The cat."], ["-5"]], ["the cat", "5"]).scores()
    {'exact_match': 50.0}
    """
    return mean_of_best(references, predictions, exact_match=_is_same)


def _is_same(reference: str, prediction: str) -> bool:
    return normalize(reference) == normalize(prediction)


def superni_exact_match(references: References, predictions: Sequence[str]) -> Measured:
    """Share of predictions equal to a reference by Super-NaturalInstructions' rule, which ignores all punctuation.

    >>> superni_exact_match([["The cat."], ["-5"]], ["the cat", "5"]).scores()
    {'superni_exact_match': 100.0}
    """
    return mean_of_best(
        references, predictions, superni_exact_match=lambda r, p: normalize_superni(r) == normalize_superni(p)
    )


def number_match(references: References, predictions: Sequence[str]) -> Measured:
    """Share of predictions whose last number has the value of the reference; for word problems.

    A reference with other than one number is compared as by `exact_match`.

    >>> number_match([["1000"], ["0.5"], ["5"], ["no"]], ["It is $1,000.", "1/2", "3-5", "No."]).scores()
    {'number_match': 75.0}
    """
    return mean_of_best(references, predictions, number_match=_has_same_number)


def _has_same_number(reference: str, prediction: str) -> bool:
    wanted = numbers(reference)
    if len(wanted) != 1 or wanted[0].is_joined:
        return _is_same(reference, prediction)
    got = numbers(prediction)
    return bool(got) and not got[-1].is_joined and wanted[0].equals(got[-1])


def accuracy(references: References, predictions: Sequence[str]) -> Measured:
    """Share of predictions equal to a reference, character for character, white space around them apart.

    >>> accuracy([["yes"], ["no"]], ["yes", "No"]).scores()
    {'accuracy': 50.0}
    """
    return mean_of_best(references, predictions, accuracy=lambda r, p: r.strip() == p.strip())


def _word_f1(reference: str, prediction: str, *, normalized: Callable[[str], str] = normalize_squad) -> float:
    expected, got = answer_words(normalized(reference)), answer_words(normalized(prediction))
    if not expected or not got:  # SQuAD v2: an unanswerable question is right only when nothing is answered.
        return float(expected == got)
    shared = sum((Counter(expected) & Counter(got)).values())
    return 2.0 * shared / (len(expected) + len(got))


def f1(references: References, predictions: Sequence[str]) -> Measured:
    """F1 of the bags of words after `normalize_squad`, as SQuAD's.

    >>> f1([["the red cat"]], ["a red dog"]).scores()
    {'f1': 50.0}
    """
    return mean_of_best(references, predictions, f1=_word_f1)


def squad(references: References, predictions: Sequence[str]) -> Measured:
    """SQuAD's exact match and F1.

    >>> squad([["the red cat"]], ["red cat"]).scores()
    {'em': 100.0, 'f1': 100.0}
    """
    return mean_of_best(references, predictions, em=lambda r, p: normalize_squad(r) == normalize_squad(p), f1=_word_f1)


def squad_v2(references: References, predictions: Sequence[str]) -> Measured:
    """SQuAD 2's exact match and F1, also of the answerable and of the unanswerable questions alone.

    A question is unanswerable if each of its references is empty once normalized, or "unanswerable"; either one is the
    right answer to it. NaN for a kind of questions that the rows lack.

    >>> squad_v2([["the red cat"], [""]], ["cat", "unanswerable"]).scores()["no_ans_em"]
    100.0
    """
    require_rows(references, predictions)
    rows = []
    for row, prediction in zip(references, predictions, strict=True):
        # The published script drops references that are empty next to others.
        answers = [text for reference in row if (text := _without_no_answer(reference))]
        given = _without_no_answer(prediction)
        best = [
            max(float(normalize_squad(answer) == normalize_squad(given)) for answer in answers or [""]),
            max(_word_f1(answer, given) for answer in answers or [""]),
        ]
        rows.append([*best, float(bool(answers))])

    def reduce(sample: np.ndarray) -> dict[str, float]:
        has_answer = sample[:, 2] > 0
        scores: dict[str, float] = {}
        for prefix, some in (("", sample), ("has_ans_", sample[has_answer]), ("no_ans_", sample[~has_answer])):
            means = 100.0 * some[:, :2].mean(0) if len(some) else (math.nan, math.nan)
            scores |= {f"{prefix}em": float(means[0]), f"{prefix}f1": float(means[1])}
        return scores

    return Measured(rows=np.array(rows, float), reduce=reduce, means=("em", "f1"))


def _without_no_answer(text: str) -> str:
    normalized = normalize_squad(text)
    return "" if normalized in ("", NO_ANSWER) else text


def trivia_qa(references: References, predictions: Sequence[str]) -> Measured:
    """TriviaQA's exact match and F1: SQuAD's after `normalize_trivia_qa`.

    >>> trivia_qa([["Rock-and-Roll"]], ["the rock and roll"]).scores()
    {'trivia_qa_em': 100.0, 'trivia_qa_f1': 100.0}
    """
    return mean_of_best(
        references,
        predictions,
        trivia_qa_em=lambda r, p: normalize_trivia_qa(r) == normalize_trivia_qa(p),
        trivia_qa_f1=partial(_word_f1, normalized=normalize_trivia_qa),
    )


def record(references: References, predictions: Sequence[str], *, groups: Groups | None = None) -> Measured:
    """ReCoRD's exact match and F1: SQuAD's, with the rows of a group counted once (SuperGLUE).

    A query with several right answers may come as a row for each; the first of them represents all, with the references
    of all. A row without a group is its own group.

    >>> record([["Rome"], ["Roma"], ["Pisa"]], ["Roma", "Roma", "Bari"], groups=["q1", "q1", "q2"]).scores()
    {'em': 50.0, 'f1': 50.0}
    """
    require_rows(references, predictions, groups=groups)
    given = [None] * len(predictions) if groups is None else groups
    rows: dict[object, tuple[dict[str, None], str]] = {}
    for index, (row, prediction, group) in enumerate(zip(references, predictions, given, strict=True)):
        known, _ = rows.setdefault(index if group is None else group, ({}, prediction))
        known.update(dict.fromkeys(row))
    return squad([list(known) for known, _ in rows.values()], [prediction for _, prediction in rows.values()])


@cache
def _rouge_scorer(types: tuple[str, ...], tokenizer: Any) -> Any:
    from rouge_score import rouge_scorer  # Imports nltk: seconds that a start without evaluation need not spend.

    return rouge_scorer.RougeScorer(list(types), tokenizer=tokenizer)


@cache
class _AnyScript:
    """ROUGE's own tokenizer for Latin script, which it was made for, and `split_words` for other scripts."""

    def __init__(self, *, stemmed: bool):
        from rouge_score import tokenizers

        self._latin = tokenizers.DefaultTokenizer(use_stemmer=stemmed).tokenize

    def tokenize(self, text: str) -> list[str]:
        return split_words(text, latin=self._latin)


class _Characters:
    """The pieces of `rouge_l_xlingual`."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return latin_words_or_characters(text)


def _rouge(references: References, predictions: Sequence[str], names: Mapping[str, str], tokenizer: Any) -> Measured:
    """The best F-measure of each row by name; `names` maps ours to the package's."""
    require_rows(references, predictions)
    scorer = _rouge_scorer(tuple(names.values()), tokenizer)
    rows = []
    for row, prediction in zip(references, predictions, strict=True):
        if not prediction.strip() and not all(reference.strip() for reference in row):
            rows.append([1.0] * len(names))  # Nothing was asked for; the package counts no words as 0.
            continue
        scores = scorer.score_multi(list(row), prediction)
        rows.append([scores[name].fmeasure for name in names.values()])
    return mean_of_rows(tuple(names), rows)


def rouge_l(references: References, predictions: Sequence[str]) -> Measured:
    """ROUGE-L F-measure with stemming: the headline of Super-NaturalInstructions.

    >>> rouge_l([["the red cat", "a blue dog"]], ["blue dogs"]).scores()
    {'rouge_l': 80.0}
    """
    return _rouge(references, predictions, {"rouge_l": "rougeL"}, _AnyScript(stemmed=True))


def rouge_l_xlingual(references: References, predictions: Sequence[str]) -> Measured:
    """ROUGE-L F-measure for texts in any script, without stemming: Super-NaturalInstructions' cross-lingual track.

    A departure: the released script splits texts with GPT-2's vocabulary, which is not needed here. Nearly like its
    pieces, a token is a word in Latin letters, or any other single character that is not white space; case is kept.
    Scores are comparable with each other, and with published ones up to differences in truncation.

    >>> rouge_l_xlingual([["原因"]], ["原因、"]).scores()
    {'rouge_l_xlingual': 80.0}
    """
    return _rouge(references, predictions, {"rouge_l_xlingual": "rougeL"}, _Characters)


def rouge_package(references: References, predictions: Sequence[str], *, use_stemmer: bool) -> Measured:
    """ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum F-measures with the settings of the package rouge-score.

    For ROUGE-Lsum, each line is a sentence.

    >>> rouge_package([["red cats ran"]], ["a red cat ran"], use_stemmer=True).scores()["rouge_2(use_stemmer=True)"]
    80.0
    """
    types = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}
    names = {f"{name}(use_stemmer={use_stemmer})": of for name, of in types.items()}
    return _rouge(references, predictions, names, _AnyScript(stemmed=use_stemmer))


def rouge(references: References, predictions: Sequence[str]) -> Measured:
    """ROUGE-1, ROUGE-2 and ROUGE-Lsum F-measures by T5's rule, which FLAN and T0 use.

    Without stemming. ROUGE-Lsum compares sentences in any order: each line is one, and " . " ends one.

    >>> rouge([["red cats ran . dogs sat ."]], ["dogs sat . red cats ran ."]).scores()
    {'rouge_1': 100.0, 'rouge_2': 75.0, 'rouge_lsum': 100.0}
    """
    names = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_lsum": "rougeLsum"}
    sentences = [[_one_sentence_per_line(reference) for reference in row] for row in references]
    return _rouge(sentences, list(map(_one_sentence_per_line, predictions)), names, _AnyScript(stemmed=False))


def _one_sentence_per_line(text: str) -> str:
    return text.replace(" . ", " .\n")


def _edits(wanted: Sequence[str], got: Sequence[str]) -> int:
    """Levenshtein's distance of two texts, or of two lists of words."""
    previous = list(range(len(got) + 1))
    for i, expected in enumerate(wanted, start=1):
        current = [i]
        for j, given in enumerate(got, start=1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (expected != given)))
        previous = current
    return previous[-1]


def edit_similarity(references: References, predictions: Sequence[str]) -> Measured:
    """One minus the character edit distance over the longer text's length, for tasks that copy or reformat.

    >>> edit_similarity([["abcd"]], ["abed"]).scores()
    {'edit_similarity': 75.0}
    """
    return mean_of_best(
        references, predictions, edit_similarity=lambda r, p: 1.0 - _edits(r, p) / max(len(r), len(p), 1)
    )


def edit_distance(references: References, predictions: Sequence[str]) -> Measured:
    """Word edit distance by T5's rule: mean, median, lowest, highest and sum over rows. Lower is better.

    In lower case, and split at every character that is neither a letter, a digit nor "_", so that two of them in a row
    have an empty word between them. The reference with the fewest edits of a row counts.

    >>> edit_distance([["Red cats ran."], ["dogs"]], ["red cats sat.", "dogs"]).scores()["mean_edit"]
    0.5
    """
    require_rows(references, predictions)
    rows = [
        [min(_edits(_split_words(reference), _split_words(prediction)) for reference in row)]
        for row, prediction in zip(references, predictions, strict=True)
    ]
    functions: Mapping[str, Callable[[np.ndarray], Any]]
    functions = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max, "sum": np.sum}

    def reduce(sample: np.ndarray) -> dict[str, float]:
        return {f"{name}_edit": float(function(sample)) for name, function in functions.items()}

    return Measured(rows=np.array(rows, float), reduce=reduce)


def _split_words(text: str) -> list[str]:
    # T5's expression; splitting at runs of such characters would give other distances than the published ones.
    return re.split(r"[^\w]", text.lower())
