"""The metrics by name: scores of predictions against references, 0 to 100 except for correlations and `DISTANCES`.

Two kinds. A `generate` metric compares predicted texts with references, where every row has one or more references and
the best one counts. A `rank` metric judges scores of options (`flan_jax.evaluation.rank_metrics`). A task whose options
are ranked may name metrics of both kinds: for the first kind its prediction is the text of the chosen option. Texts
arrive postprocessed (`flan_jax.evaluation.postprocess`). A metric that needs more than texts declares what it `needs`
and `takes`, under these names: `options`, those of each row, and `groups`, what each row belongs to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from flan_jax.errors import UnknownNameError, UserError
from flan_jax.evaluation import class_metrics, instruction_metrics, rank_metrics, text_metrics, translation_metrics
from flan_jax.evaluation.measured import Measured
from flan_jax.evaluation.rank_metrics import NORMALIZATIONS, Normalization
from flan_jax.names import require_choice

RowFact = Literal["options", "groups"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A named metric.

    Attributes:
      measure: `measure(references, predictions)` of a `generate` metric, `measure(options, gold)` of a `rank` metric,
        where `options` are `rank_metrics.OptionScores`.
      gives: The names of its scores, the main one first; of some, not all tasks have each.
      needs: Fields that `measure` requires for each row besides texts.
      takes: Fields that `measure` also receives, for rows that have them.
      num_options: The number of options that each row must have; 0 for any.
      normalization: Of a `rank` metric, how it makes the scores of options comparable.
      lacks: A package that the metric needs and that is not installed; empty for none.
    """

    name: str
    kind: Literal["generate", "rank"]
    measure: Callable[..., Measured]
    gives: tuple[str, ...]
    needs: tuple[RowFact, ...] = ()
    takes: tuple[RowFact, ...] = ()
    num_options: int = 0
    normalization: Normalization = Normalization()
    lacks: str = ""

    def fn(self, *judged: Any, **facts: Any) -> dict[str, float]:
        """Returns the scores of predictions: `measure`, reduced."""
        return self.measure(*judged, **facts).scores()


def _texts(measure: Callable[..., Measured], *gives: str, **settings: Any) -> Metric:
    name = measure.__name__
    return Metric(name=name, kind="generate", measure=measure, gives=gives or (name,), **settings)


def _bleu(setting: str, tokenizer: translation_metrics.BleuTokenizer) -> Metric:
    name = f"bleu({setting})"
    return Metric(
        name=name,
        kind="generate",
        measure=partial(translation_metrics.bleu, tokenizer=tokenizer, name=name),
        gives=(name,),
        lacks=translation_metrics.lacks_package(tokenizer),
    )


def _chrf(name: str, *, word_order: int) -> Metric:
    measure = partial(translation_metrics.chrf, word_order=word_order, name=name)
    return Metric(name=name, kind="generate", measure=measure, gives=(name,))


def _rouge(*, use_stemmer: bool) -> Metric:
    return Metric(
        name=f"rouge(use_stemmer={use_stemmer})",
        kind="generate",
        measure=partial(text_metrics.rouge_package, use_stemmer=use_stemmer),
        gives=tuple(f"rouge_{kind}(use_stemmer={use_stemmer})" for kind in ("1", "2", "l", "lsum")),
    )


def _rank_accuracy(suffix: str, normalization: Normalization) -> Metric:
    score = f"accuracy{suffix}"
    measure = partial(rank_metrics.rank_accuracy, normalization=normalization, name=score)
    return Metric(name=f"rank_{score}", kind="rank", measure=measure, gives=(score,), normalization=normalization)


# In the order in which messages list them: texts first, from strict to lenient, then ranks.
_ALL = (
    _texts(text_metrics.exact_match),
    _texts(text_metrics.accuracy),
    _texts(text_metrics.number_match),
    _texts(text_metrics.superni_exact_match),
    _texts(text_metrics.f1),
    _texts(text_metrics.squad, "em", "f1"),
    _texts(text_metrics.squad_v2, "em", "f1", "has_ans_em", "has_ans_f1", "no_ans_em", "no_ans_f1"),
    _texts(text_metrics.trivia_qa, "trivia_qa_em", "trivia_qa_f1"),
    _texts(class_metrics.macro_f1, "macro_f1", "accuracy"),
    _texts(class_metrics.weighted_f1, "weighted_f1", "accuracy"),
    _texts(class_metrics.matthews_corrcoef, "matthews_corrcoef", "accuracy"),
    _texts(class_metrics.mean_multiclass_f1, "mean_multiclass_f1", "accuracy", needs=("options",)),
    _texts(text_metrics.rouge_l),
    _texts(text_metrics.rouge_l_xlingual),
    _texts(text_metrics.rouge, "rouge_1", "rouge_2", "rouge_lsum"),
    *(_rouge(use_stemmer=use_stemmer) for use_stemmer in (True, False)),
    _texts(translation_metrics.bleu),
    *(_bleu(f"tokenizer={name}", name) for name in translation_metrics.BLEU_PACKAGES if name != "13a"),
    *(_bleu(f"language={code}", name) for code, name in translation_metrics.BLEU_LANGUAGES.items()),
    _chrf("chrf", word_order=0),
    _chrf("chrf++", word_order=2),
    _texts(translation_metrics.gleu),
    _texts(text_metrics.edit_similarity),
    _texts(instruction_metrics.ifeval, *instruction_metrics.NAMES),
    _texts(text_metrics.edit_distance, "mean_edit", "median_edit", "min_edit", "max_edit", "sum_edit"),
    _texts(class_metrics.correlation, "pearson", "spearman"),
    _texts(class_metrics.positive_f1, "positive_f1", "accuracy", needs=("options",), num_options=2),
    _texts(class_metrics.multirc, "f1a", "em_by_question", needs=("options", "groups"), num_options=2),
    _texts(text_metrics.record, "em", "f1", takes=("groups",)),
    *(_rank_accuracy(suffix, normalization) for suffix, normalization in NORMALIZATIONS.items()),
    Metric(
        name="rank_classes",
        kind="rank",
        measure=rank_metrics.rank_classes,
        gives=("accuracy", "positive_f1", "auc_roc", "auc_pr", "mean_f1"),
    ),
)
METRICS: Mapping[str, Metric] = {one.name: one for one in _ALL}
DISTANCES = frozenset(METRICS["edit_distance"].gives)
"""Scores that are no percentages, and better the lower they are."""


def of_texts() -> str:
    """Returns the names of the metrics that score texts without further facts about rows, for messages."""
    return ", ".join(one.name for one in _ALL if one.kind == "generate" and not one.needs and "(" not in one.name)


def metric(name: str) -> Metric:
    """Returns the metric of that name.

    Raises:
      UnknownNameError: There is none of that name.
      UserError: It needs a package that is not installed.
    """
    require_choice(name, METRICS, "a metric", error=UnknownNameError)
    if METRICS[name].lacks:
        raise UserError(missing_package(name))
    return METRICS[name]


def missing_package(name: str) -> str:
    """Returns the message for a metric whose package is not installed."""
    language = "ja" if METRICS[name].lacks == translation_metrics.BLEU_PACKAGES["ja-mecab"] else "ko"
    return f'The metric {name!r} needs the package {METRICS[name].lacks}: pip install "sacrebleu[{language}]".'
