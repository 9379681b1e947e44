"""Scores of predictions against references: pure functions that return floats of 0 to 100, looked up by name.

Two kinds. A `generate` metric compares predicted texts with references: `fn(references, predictions)`, where every
row has one or more references and the best one counts. A `rank` metric judges scores of options:
`fn(scores, gold, lengths=)`, see `flan_jax.evaluation.rank_metrics`. A task whose options are ranked may name metrics
of both kinds: for the first kind its prediction is the text of the chosen option. Texts arrive postprocessed
(`flan_jax.evaluation.postprocess`). A metric that needs more than texts declares what it `needs` and `takes`, under
these names: `options`, those of each row, and `groups`, what each row belongs to.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np

from flan_jax.errors import UnknownNameError, UserError
from flan_jax.evaluation import rank_metrics
from flan_jax.names import nearest

RowFact = Literal["options", "groups"]
References = Sequence[Sequence[str]]
Options = Sequence[Sequence[str]]
Groups = Sequence[str | None]
_LATIN_WORD_OR_CHARACTER = re.compile(r"[0-9A-Za-z\u00c0-\u024f\u1e00-\u1eff]+|\S")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TRIVIA_QA_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A named metric. `fn` returns one or several scores by name; the first of them is the metric's main score.

    Attributes:
      needs: What `fn` requires for each row besides texts.
      takes: What `fn` also receives, for rows that have it.
    """

    name: str
    kind: Literal["generate", "rank"]
    fn: Callable[..., dict[str, float]]
    needs: tuple[RowFact, ...] = ()
    takes: tuple[RowFact, ...] = ()


def normalize(text: str) -> str:
    """Lower-cases, removes ASCII punctuation and collapses white space; articles stay (Super-NaturalInstructions).

    >>> normalize(" The  cat, sat! ")
    'the cat sat'
    """
    return " ".join(text.lower().translate(_WITHOUT_PUNCTUATION).split())


def normalize_answer(text: str) -> str:
    """As `normalize`, and removes the articles a, an, the (SQuAD).

    >>> normalize_answer("The  cat, sat!")
    'cat sat'
    """
    return _without_articles(text.lower().translate(_WITHOUT_PUNCTUATION))


def normalize_trivia_qa(text: str) -> str:
    """As `normalize_answer`, with a space for each punctuation mark, typographic quotes among them (TriviaQA).

    >>> normalize_trivia_qa("The Rock‘n’Roll era!")
    'rock n roll era'
    """
    return _without_articles(text.lower().translate(_TRIVIA_QA_PUNCTUATION))


def _without_articles(text: str) -> str:
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _mean_of_best(references: References, predictions: Sequence[str], score: Callable[[str, str], float]) -> float:
    """Mean over rows of the best `score(reference, prediction)` of 0 to 1, times 100."""
    _check(references, predictions)
    best = [max(score(r, p) for r in row) for row, p in zip(references, predictions, strict=True)]
    return 100.0 * float(np.mean(best))


def _check(references: References, predictions: Sequence[str], **facts: Sequence[Any] | None) -> None:
    given = {"predictions": predictions, **{name: fact for name, fact in facts.items() if fact is not None}}
    for name, values in given.items():
        assert len(references) == len(values), f"{len(values)} {name} for {len(references)} rows"
    assert predictions, "There are no predictions to score."
    for index, row in enumerate(references):
        if isinstance(row, str) or not row:
            raise UserError(f"Row {index} must have a list of one or more references, got {row!r}.")


def exact_match(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions equal to a reference after `normalize`.

    >>> exact_match([["The cat."], ["a dog"]], ["the cat", "dog"])
    {'exact_match': 50.0}
    """
    return {"exact_match": _mean_of_best(references, predictions, lambda r, p: normalize(r) == normalize(p))}


def accuracy(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions equal to a reference, character for character, white space around them apart.

    >>> accuracy([["yes"], ["no"]], ["yes", "No"])
    {'accuracy': 50.0}
    """
    return {"accuracy": _mean_of_best(references, predictions, lambda r, p: r.strip() == p.strip())}


def _token_f1(reference: str, prediction: str, *, normalized: Callable[[str], str] = normalize_answer) -> float:
    expected, got = normalized(reference).split(), normalized(prediction).split()
    if not expected or not got:  # SQuAD v2: an unanswerable question is right only when nothing is answered.
        return float(expected == got)
    shared = sum((Counter(expected) & Counter(got)).values())
    return 2.0 * shared / (len(expected) + len(got))


def f1(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """F1 of the bags of words after `normalize_answer`, as SQuAD's.

    >>> f1([["the red cat"]], ["a red dog"])
    {'f1': 50.0}
    """
    return {"f1": _mean_of_best(references, predictions, _token_f1)}


def squad(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """SQuAD's exact match and F1.

    >>> squad([["the red cat"]], ["red cat"])
    {'em': 100.0, 'f1': 100.0}
    """
    return _em_and_f1(references, predictions, normalize_answer)


def trivia_qa(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """TriviaQA's exact match and F1: SQuAD's after `normalize_trivia_qa`.

    >>> trivia_qa([["Rock-and-Roll"]], ["the rock and roll"])
    {'em': 100.0, 'f1': 100.0}
    """
    return _em_and_f1(references, predictions, normalize_trivia_qa)


def record(references: References, predictions: Sequence[str], *, groups: Groups | None = None) -> dict[str, float]:
    """ReCoRD's exact match and F1: SQuAD's, with the rows of a group counted once (SuperGLUE).

    A query with several right answers may come as a row for each; the first of them represents all, with the references
    of all. A row without a group stands by itself.

    >>> record([["Rome"], ["Roma"], ["Pisa"]], ["Roma", "Roma", "Bari"], groups=["q1", "q1", "q2"])
    {'em': 50.0, 'f1': 50.0}
    """
    _check(references, predictions, groups=groups)
    given = [None] * len(predictions) if groups is None else groups
    rows: dict[object, tuple[dict[str, None], str]] = {}
    for index, (row, prediction, group) in enumerate(zip(references, predictions, given, strict=True)):
        known, _ = rows.setdefault(index if group is None else group, ({}, prediction))
        known.update(dict.fromkeys(row))
    return squad([list(known) for known, _ in rows.values()], [prediction for _, prediction in rows.values()])


def _em_and_f1(
    references: References, predictions: Sequence[str], normalized: Callable[[str], str]
) -> dict[str, float]:
    return {
        "em": _mean_of_best(references, predictions, lambda r, p: normalized(r) == normalized(p)),
        "f1": _mean_of_best(references, predictions, partial(_token_f1, normalized=normalized)),
    }


def macro_f1(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Mean F1 over the classes that occur among the references (one reference a row), and accuracy.

    >>> macro_f1([["a"], ["a"], ["b"]], ["a", "c", "d"])["macro_f1"]  # 2/3 for a, 0 for b
    33.33333333333333
    """
    _check(references, predictions)
    expected, got = [row[0].strip() for row in references], [p.strip() for p in predictions]
    scores = []
    for label in sorted(set(expected)):
        true_positives = sum(w == g == label for w, g in zip(expected, got, strict=True))
        scores.append(2.0 * true_positives / (expected.count(label) + got.count(label)))
    return {"macro_f1": 100.0 * float(np.mean(scores)), **accuracy(references, predictions)}


def positive_f1(references: References, predictions: Sequence[str], *, options: Options) -> dict[str, float]:
    """F1 of the positive class, the second of a row's two options, and accuracy (MRPC and QQP in GLUE).

    A prediction that is neither option counts as the wrong one of them, so that it harms precision where the answer was
    no, as T5's metric has it.

    >>> positive_f1([["yes"], ["yes"], ["no"]], ["yes", "yes", "maybe"], options=[["no", "yes"]] * 3)["positive_f1"]
    80.0
    """
    expected, got = _positive(references, predictions, options)
    return {"positive_f1": _binary_f1(expected, got), "accuracy": 100.0 * float(np.mean(expected == got))}


def multirc(
    references: References, predictions: Sequence[str], *, options: Options, groups: Groups
) -> dict[str, float]:
    """MultiRC's F1 over all answers (F1a), and the share of questions all of whose answers are judged right.

    A row is one candidate answer, and its second option means that the answer is right; a group is a question
    (SuperGLUE, arXiv 1905.00537, section 3.2).

    >>> rows = {"options": [["no", "yes"]] * 3, "groups": ["q1", "q1", "q2"]}
    >>> multirc([["yes"], ["no"], ["yes"]], ["yes", "yes", "yes"], **rows)
    {'f1a': 80.0, 'em': 50.0}
    """
    expected, got = _positive(references, predictions, options)
    _check(references, predictions, groups=groups)
    right: dict[str, bool] = {}
    for index, (group, is_right) in enumerate(zip(groups, expected == got, strict=True)):
        if group is None:
            raise UserError(f"Row {index} belongs to no group; MultiRC is judged by question. Give the task a group.")
        right[group] = right.get(group, True) and bool(is_right)
    return {"f1a": _binary_f1(expected, got), "em": 100.0 * float(np.mean(list(right.values())))}


def _positive(references: References, predictions: Sequence[str], options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Whether the second option is right, and whether it was given; what is no option becomes the wrong one."""
    _check(references, predictions, options=options)
    expected, got = [], []
    for index, (row, prediction, pair) in enumerate(zip(references, predictions, options, strict=True)):
        right, given = row[0].strip(), prediction.strip()
        if len(set(pair)) != 2 or len(pair) != 2 or right not in pair:
            raise UserError(
                f"Row {index} must have two options with the right one, {right!r}, among them, got {list(pair)}."
            )
        expected.append(right == pair[1])
        got.append(given == pair[1] if given in pair else not expected[-1])
    return np.array(expected), np.array(got)


def _binary_f1(expected: np.ndarray, got: np.ndarray) -> float:
    return rank_metrics.class_f1(expected, got, np.ones(len(expected)), label=1)


@cache
def _rouge_scorer(types: tuple[str, ...], tokenizer: Any = None) -> Any:
    from rouge_score import rouge_scorer  # Imports nltk: seconds that a start without evaluation need not spend.

    return rouge_scorer.RougeScorer(list(types), use_stemmer=True, tokenizer=tokenizer)


def _rouge(
    references: References, predictions: Sequence[str], types: tuple[str, ...], tokenizer: Any = None
) -> list[float]:
    _check(references, predictions)
    scorer = _rouge_scorer(types, tokenizer)
    rows = [scorer.score_multi(list(row), p) for row, p in zip(references, predictions, strict=True)]
    return [100.0 * float(np.mean([row[name].fmeasure for row in rows])) for name in types]


def rouge_l(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L F-measure with stemming: the headline of Super-NaturalInstructions.

    >>> rouge_l([["the red cat", "a blue dog"]], ["blue dogs"])
    {'rouge_l': 80.0}
    """
    return {"rouge_l": _rouge(references, predictions, ("rougeL",))[0]}


class _AnyScript:
    """The tokenizer for `rouge_score`, whose own drops everything except a-z and digits."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return _LATIN_WORD_OR_CHARACTER.findall(unicodedata.normalize("NFC", text))


def rouge_l_xlingual(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L F-measure for texts in any script, without stemming: Super-NaturalInstructions' cross-lingual track.

    A departure: the released script splits texts with GPT-2's vocabulary, which is not needed here. As its pieces
    nearly are, a token is a word in Latin letters, and by itself every other character that is not white space; case
    stays.
    Scores are comparable with each other, and with published ones up to differences in truncation.

    >>> rouge_l_xlingual([["原因"]], ["原因、"])
    {'rouge_l_xlingual': 80.0}
    """
    return {"rouge_l_xlingual": _rouge(references, predictions, ("rougeL",), _AnyScript)[0]}


def rouge(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-Lsum F-measures with stemming; sentences stand on lines of their own.

    >>> rouge([["red cat"]], ["red dog"])
    {'rouge_1': 50.0, 'rouge_2': 0.0, 'rouge_lsum': 50.0}
    """
    names = ("rouge_1", "rouge_2", "rouge_lsum")
    return dict(zip(names, _rouge(references, predictions, ("rouge1", "rouge2", "rougeLsum")), strict=True))


def bleu(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU of sacreBLEU (13a tokenization, mixed case).

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
    for i, expected in enumerate(reference, start=1):
        current = [i]
        for j, got in enumerate(prediction, start=1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (expected != got)))
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
        return 0.0  # A value that is not a number scores as zero, as T5's STS-B postprocessing does with its -1.
    return value if np.isfinite(value) else 0.0


def correlation(references: References, predictions: Sequence[str]) -> dict[str, float]:
    """Pearson's and Spearman's correlation of numbers written as text (STS-B); 0 when either side is constant.

    >>> correlation([["1"], ["2"], ["4"]], ["1", "2", "4"])
    {'pearson': 100.0, 'spearman': 100.0}
    """
    _check(references, predictions)
    expected = np.array([_as_number(row[0]) for row in references])
    got = np.array([_as_number(p) for p in predictions])

    def pearson(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - a.mean(), b - b.mean()
        norm = float(np.sqrt((a @ a) * (b @ b)))
        return 100.0 * round(float(a @ b) / norm, 12) if norm else 0.0

    return {"pearson": pearson(expected, got), "spearman": pearson(_mean_ranks(expected), _mean_ranks(got))}


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


_GENERATE = (
    exact_match, accuracy, f1, squad, trivia_qa, macro_f1, rouge_l, rouge_l_xlingual, rouge, bleu, edit_similarity,
    correlation,
)  # fmt: skip
_OF_ROWS = (
    Metric(name="positive_f1", kind="generate", fn=positive_f1, needs=("options",)),
    Metric(name="multirc", kind="generate", fn=multirc, needs=("options", "groups")),
    Metric(name="record", kind="generate", fn=record, takes=("groups",)),
)
_RANK = (rank_metrics.rank_accuracy, rank_metrics.rank_classes, rank_metrics.rank_accuracy_by_length)

METRICS: Mapping[str, Metric] = {
    **{fn.__name__: Metric(name=fn.__name__, kind="generate", fn=fn) for fn in _GENERATE},
    **{metric.name: metric for metric in _OF_ROWS},
    **{fn.__name__: Metric(name=fn.__name__, kind="rank", fn=fn) for fn in _RANK},
}


def metric(name: str) -> Metric:
    """Returns the metric of that name.

    Raises:
      UnknownNameError: there is none of that name.
    """
    if name not in METRICS:
        raise UnknownNameError(f"Unknown metric {name!r}.{nearest(name, METRICS)} Available: {', '.join(METRICS)}.")
    return METRICS[name]
