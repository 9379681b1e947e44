"""The metrics by name: scores of predictions against references, floats of 0 to 100.

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
from flan_jax.evaluation import class_metrics, rank_metrics, text_metrics
from flan_jax.evaluation.measured import Measured
from flan_jax.names import require_choice

RowFact = Literal["options", "groups"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A named metric.

    Attributes:
      measure: `measure(references, predictions)` of a `generate` metric, `measure(scores, gold, lengths=)` of a `rank`
        metric.
      gives: The names of its scores, the main one first; of some, not all tasks have each.
      needs: Fields that `measure` requires for each row besides texts.
      takes: Fields that `measure` also receives, for rows that have them.
      lacks: A package that the metric needs and that is not installed; empty for none.
    """

    name: str
    kind: Literal["generate", "rank"]
    measure: Callable[..., Measured]
    gives: tuple[str, ...]
    needs: tuple[RowFact, ...] = ()
    takes: tuple[RowFact, ...] = ()
    lacks: str = ""

    def fn(self, *judged: Any, **facts: Any) -> dict[str, float]:
        """Returns the scores of predictions: `measure`, reduced."""
        return self.measure(*judged, **facts).scores()


def _texts(measure: Callable[..., Measured], *gives: str) -> Metric:
    return Metric(name=measure.__name__, kind="generate", measure=measure, gives=gives or (measure.__name__,))


def _bleu(tokenizer: text_metrics.BleuTokenizer) -> Metric:
    name = f"bleu(tokenizer={tokenizer})"
    measure = partial(text_metrics.bleu, tokenizer=tokenizer)
    return Metric(
        name=name, kind="generate", measure=measure, gives=(name,), lacks=text_metrics.lacks_package(tokenizer)
    )


_ALL = (
    _texts(text_metrics.exact_match),
    _texts(text_metrics.accuracy),
    _texts(text_metrics.number_match),
    _texts(text_metrics.superni_exact_match),
    _texts(text_metrics.f1),
    _texts(text_metrics.squad, "em", "f1"),
    _texts(text_metrics.trivia_qa, "trivia_qa_em", "trivia_qa_f1"),
    _texts(class_metrics.macro_f1, "macro_f1", "accuracy"),
    _texts(text_metrics.rouge_l),
    _texts(text_metrics.rouge_l_xlingual),
    _texts(text_metrics.rouge, "rouge_1", "rouge_2", "rouge_lsum"),
    _texts(text_metrics.bleu),
    *(_bleu(tokenizer) for tokenizer in text_metrics.BLEU_PACKAGES if tokenizer != "13a"),
    _texts(text_metrics.edit_similarity),
    _texts(class_metrics.correlation, "pearson", "spearman"),
    Metric(
        name="positive_f1",
        kind="generate",
        measure=class_metrics.positive_f1,
        gives=("positive_f1", "accuracy"),
        needs=("options",),
    ),
    Metric(
        name="multirc",
        kind="generate",
        measure=class_metrics.multirc,
        gives=("f1a", "em_by_question"),
        needs=("options", "groups"),
    ),
    Metric(name="record", kind="generate", measure=text_metrics.record, gives=("em", "f1"), takes=("groups",)),
    Metric(name="rank_accuracy", kind="rank", measure=rank_metrics.rank_accuracy, gives=("accuracy",)),
    Metric(
        name="rank_classes",
        kind="rank",
        measure=rank_metrics.rank_classes,
        gives=("accuracy", "positive_f1", "auc_roc", "auc_pr", "mean_f1"),
    ),
    Metric(
        name="rank_accuracy_by_length",
        kind="rank",
        measure=rank_metrics.rank_accuracy_by_length,
        gives=("accuracy_by_length",),
    ),
)
METRICS: Mapping[str, Metric] = {one.name: one for one in _ALL}


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
    language = "ja" if "ja-" in name else "ko"
    return f'The metric {name!r} needs the package {METRICS[name].lacks}: pip install "sacrebleu[{language}]".'
