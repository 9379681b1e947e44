"""Scores of predictions against references: pure functions that return floats of 0 to 100, looked up by name.

Two kinds. A `generate` metric compares predicted texts with references: `fn(references, predictions)`, where every
row has one or more references and the best one counts. A `rank` metric judges scores of options:
`fn(scores, gold, lengths=)`, see `flan_jax.evaluation.rank_metrics`. A task whose options are ranked may name metrics
of both kinds: for the first kind its prediction is the text of the chosen option. Texts arrive postprocessed
(`flan_jax.evaluation.postprocess`).
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from flan_jax.evaluation import rank_metrics
from flan_jax.names import nearest

References = Sequence[Sequence[str]]
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A named metric. `fn` returns one or several scores by name; the first of them is the metric's main score."""

    name: str
    kind: Literal["generate", "rank"]
    fn: Callable[..., dict[str, float]]


def normalise(text: str) -> str:
    """Lower-cases, removes ASCII punctuation and collapses white space; articles stay (Super-NaturalInstructions).

    >>> normalise(" The  cat, sat! ")
    'the cat sat'
    """
    return " ".join(text.lower().translate(_WITHOUT_PUNCTUATION).split())


def normalise_answer(text: str) -> str:
    """As `normalise`, and removes the articles a, an, the (SQuAD).

    >>> normalise_answer("The  cat, sat!")
    'cat sat'
    """
    without_articles = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_WITHOUT_PUNCTUATION))
    return " ".join(without_articles.split())


def _mean_of_best(references: References, predictions: Sequence[str], score: Callable[[str, str], float]) -> float:
    """Mean over rows of the best `score(reference, prediction)` of 0 to 1, times 100."""
    _check(references, predictions)
    best = [max(score(r, p) for r in row) for row, p in zip(references, predictions, strict=True)]
    return 100.0 * float(np.mean(best))


def _check(references: References, predictions: Sequence[str]) -> None:
    if len(references) != len(predictions):
        raise ValueError(f"Got {len(predictions)} predictions for {len(references)} rows; there must be one for each.")
    if not predictions:
        raise ValueError("There are no predictions to score.")
    for index, row in enumerate(references):
        if isinstance(row, str) or not row:
            raise ValueError(f"Row {index} must have a list of one or more references, got {row!r}.")


def exact_match(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions equal to a reference after `normalise`.

    >>> exact_match([["The cat."], ["a dog"]], ["the cat", "dog"])
    {'exact_match': 50.0}
    """
    return {"exact_match": _mean_of_best(references, predictions, lambda r, p: normalise(r) == normalise(p))}


def accuracy(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions equal to a reference, character for character, white space around them apart.

    >>> accuracy([["yes"], ["no"]], ["yes", "No"])
    {'accuracy': 50.0}
    """
    return {"accuracy": _mean_of_best(references, predictions, lambda r, p: r.strip() == p.strip())}


def _token_f1(reference: str, prediction: str) -> float:
    wanted, got = normalise_answer(reference).split(), normalise_answer(prediction).split()
    if not wanted or not got:  # SQuAD v2: an unanswerable question is right only when nothing is answered.
        return float(wanted == got)
    shared = sum((Counter(wanted) & Counter(got)).values())
    return 2.0 * shared / (len(wanted) + len(got))


def f1(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """F1 of the bags of words after `normalise_answer`, as SQuAD's.

    >>> f1([["the red cat"]], ["a red dog"])
    {'f1': 50.0}
    """
    return {"f1": _mean_of_best(references, predictions, _token_f1)}


def squad(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """SQuAD's exact match and F1, which TriviaQA shares.

    >>> squad([["the red cat"]], ["red cat"])
    {'em': 100.0, 'f1': 100.0}
    """
    em = _mean_of_best(references, predictions, lambda r, p: normalise_answer(r) == normalise_answer(p))
    return {"em": em, **f1(references, predictions)}


def macro_f1(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Mean F1 over the classes that occur among the references (one reference a row), and accuracy.

    >>> macro_f1([["a"], ["a"], ["b"]], ["a", "c", "d"])["macro_f1"]  # 2/3 for a, 0 for b
    33.33333333333333
    """
    _check(references, predictions)
    wanted, got = [row[0].strip() for row in references], [p.strip() for p in predictions]
    scores = []
    for label in sorted(set(wanted)):
        true_positives = sum(w == g == label for w, g in zip(wanted, got, strict=True))
        scores.append(2.0 * true_positives / (wanted.count(label) + got.count(label)))
    return {"macro_f1": 100.0 * float(np.mean(scores)), **accuracy(references, predictions)}


@cache
def _rouge_scorer(types: tuple[str, ...]) -> Any:
    from rouge_score import rouge_scorer  # Imports nltk: seconds that a start without evaluation need not spend.

    return rouge_scorer.RougeScorer(list(types), use_stemmer=True)


def _rouge(references: References, predictions: Sequence[str], types: tuple[str, ...]) -> list[float]:
    _check(references, predictions)
    scorer = _rouge_scorer(types)
    rows = [scorer.score_multi(list(row), p) for row, p in zip(references, predictions, strict=True)]
    return [100.0 * float(np.mean([row[name].fmeasure for row in rows])) for name in types]


def rouge_l(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L F-measure with stemming: the headline of Super-NaturalInstructions.

    >>> rouge_l([["the red cat", "a blue dog"]], ["blue dogs"])
    {'rouge_l': 80.0}
    """
    return {"rouge_l": _rouge(references, predictions, ("rougeL",))[0]}


def rouge(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-Lsum F-measures with stemming; sentences stand on lines of their own.

    >>> rouge([["red cat"]], ["red dog"])
    {'rouge_1': 50.0, 'rouge_2': 0.0, 'rouge_lsum': 50.0}
    """
    names = ("rouge_1", "rouge_2", "rouge_lsum")
    return dict(zip(names, _rouge(references, predictions, ("rouge1", "rouge2", "rougeLsum")), strict=True))


def bleu(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU of sacreBLEU (13a tokenisation, mixed case).

    >>> round(bleu([["the cat sat on the mat"]], ["the cat sat on the mat"])["bleu"], 6)
    100.0
    """
    _check(references, predictions)
    import sacrebleu

    # sacreBLEU wants one list for each reference number; rows with fewer references leave theirs empty.
    most = max(len(row) for row in references)
    streams: Any = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
    return {"bleu": float(sacrebleu.corpus_bleu(list(predictions), streams).score)}


def _edit_similarity(reference: str, prediction: str) -> float:
    previous = list(range(len(prediction) + 1))
    for i, wanted in enumerate(reference, start=1):
        current = [i]
        for j, got in enumerate(prediction, start=1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (wanted != got)))
        previous = current
    return 1.0 - previous[-1] / max(len(reference), len(prediction), 1)


def edit_similarity(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """One minus the character edit distance over the longer text's length, for tasks that copy or reformat.

    >>> edit_similarity([["abcd"]], ["abed"])
    {'edit_similarity': 75.0}
    """
    return {"edit_similarity": _mean_of_best(references, predictions, _edit_similarity)}


def _as_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0  # What is no number scores as zero, as T5's STS-B postprocessing does with its -1.
    return value if np.isfinite(value) else 0.0


def correlation(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Pearson's and Spearman's correlation of numbers written as text (STS-B); 0 when either side is constant.

    >>> correlation([["1"], ["2"], ["4"]], ["1", "2", "4"])
    {'pearson': 100.0, 'spearman': 100.0}
    """
    _check(references, predictions)
    wanted = np.array([_as_number(row[0]) for row in references])
    got = np.array([_as_number(p) for p in predictions])

    def pearson(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - a.mean(), b - b.mean()
        norm = float(np.sqrt((a @ a) * (b @ b)))
        return 100.0 * round(float(a @ b) / norm, 12) if norm else 0.0

    return {"pearson": pearson(wanted, got), "spearman": pearson(_mean_ranks(wanted), _mean_ranks(got))}


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


_GENERATE = (
    exact_match, accuracy, f1, squad, macro_f1, rouge_l, rouge, bleu, edit_similarity, correlation,
)  # fmt: skip
_RANK = (rank_metrics.rank_accuracy, rank_metrics.rank_classes, rank_metrics.rank_accuracy_by_length)

METRICS: Mapping[str, Metric] = {
    **{fn.__name__: Metric(name=fn.__name__, kind="generate", fn=fn) for fn in _GENERATE},
    **{fn.__name__: Metric(name=fn.__name__, kind="rank", fn=fn) for fn in _RANK},
}


def metric(name: str) -> Metric:
    """Returns the metric of that name.

    Raises:
      KeyError: there is none of that name.
    """
    if name not in METRICS:
        raise KeyError(f"Unknown metric {name!r}.{nearest(name, METRICS)} Available: {', '.join(METRICS)}.")
    return METRICS[name]
