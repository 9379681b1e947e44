"""The datasets of T0 (Sanh et al. 2022, arXiv:2110.08207) as in its released code, for training and evaluation.

Names are Hugging Face's with the subset after a slash.
"""

from dataclasses import dataclass

MAX_ROWS = 500_000
"""The templates of a larger training set share the rate of this many rows; each one of a smaller set has its size."""
SCORE_EVAL = "_score_eval"
"""Suffix of the tasks that rank the choices of a prompt."""
ANLI, ANLI_ROUNDS = "anli", ("r1", "r2", "r3")
"""Its rounds are splits, each with tasks of its own."""

HELD_OUT_CLUSTERS = ("NLI", "coreference", "story_completion", "word_sense_disambiguation")
HELD_OUT_CORPORA = ("anli", "cb", "rte", "wsc", "winogrande", "copa", "hellaswag", "story_cloze", "wic")
"""The evaluation clusters of plain T0, held out from `t0_train`; COPA too, listed as question answering."""
ALLOWED_LEAKS = {
    "t0+_train": ("hellaswag", "story_completion"),
    "t0++_train": ("hellaswag", "story_completion", "wsc", "coreference", "copa", "wic", "word_sense_disambiguation"),
}
"""Evaluation datasets that the larger mixtures train on: results on them are not held out."""

TOO_LONG_OR_BROKEN = ("gigaword_summarize_",)
"""Of 24 tasks that are excluded from every mixture, the one whose dataset is in this table; promptsource removed it."""
WITHOUT_TEMPLATES = ("jigsaw_toxicity_pred",)
"""Listed, but without templates in promptsource."""
NOT_SCORED = (
    "paws/labeled_final", "adversarial_qa/dbidaf", "adversarial_qa/dbert", "duorc/ParaphraseRC", "dream",
    "amazon_polarity", "app_reviews", "imdb", "wiki_bio", "gigaword", "multi_news", "samsum", "dbpedia_14", "trec",
)  # fmt: skip
"""Training datasets that are not used to select a checkpoint: 14 that did not matter."""
FAILED_TO_CACHE = ("wiki_hop/original",)
"""Datasets whose 17 score-eval tasks could not be cached and were not used to select a checkpoint, either;
amazon_polarity and dbpedia_14 are among those above."""


@dataclass(frozen=True, kw_only=True)
class T0Dataset:
    """A row of the table.

    Attributes:
      name: With its subset, "super_glue/rte".
      cluster: The authors' type of task.
      train_group: "BASE", "GPT_EVAL" (evaluation datasets of GPT-3) or "SGLUE"; "" if it is not for training.
      eval_group: "BASE" or "BIAS_FAIRNESS"; "" if it is not for evaluation.
      train_size: Rows of its training split; 0 where none is listed.
    """

    name: str
    cluster: str
    train_group: str = ""
    eval_group: str = ""
    train_size: int = 0

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpora that its rows were made from."""
        if self.name in _CORPORA:
            return _CORPORA[self.name]
        dataset, _, subset = self.name.partition("/")
        return _CORPORA.get(dataset) or ((subset if dataset in ("glue", "super_glue") else dataset).lower(),)

    @property
    def rounds(self) -> tuple[str | None, ...]:
        """Its rounds, each a task; (None,) for all datasets except ANLI."""
        return ANLI_ROUNDS if self.name == ANLI else (None,)


_CORPORA = {
    "super_glue/wsc.fixed": ("wsc",),
    "ai2_arc": ("arc",),
    "kilt_tasks/hotpotqa": ("hotpotqa",),
    "adversarial_qa": ("adversarial_qa", "squad"),  # Questions about SQuAD's passages.
    "squad_v2": ("squad",),
    "cos_e": ("cos_e", "commonsense_qa"),
    "rotten_tomatoes": ("rotten_tomatoes", "sst2"),  # The sentences that SST parsed.
    "yelp_review_full": ("yelp",),
    "dbpedia_14": ("dbpedia",),
}

DATASETS = {
    name: T0Dataset(name=name, cluster=cluster, train_group=train, eval_group=evaluation, train_size=size)
    for name, cluster, train, evaluation, size in (
        ("crows_pairs", "bias_and_fairness", "", "BIAS_FAIRNESS", 0),
        ("jigsaw_toxicity_pred", "bias_and_fairness", "", "BIAS_FAIRNESS", 0),
        ("super_glue/axg", "bias_and_fairness", "", "BIAS_FAIRNESS", 0),
        ("wino_bias/type1_anti", "bias_and_fairness", "", "BIAS_FAIRNESS", 0),
        ("wino_bias/type2_anti", "bias_and_fairness", "", "BIAS_FAIRNESS", 0),
        ("wino_bias/type1_pro", "bias_and_fairness", "", "BIAS_FAIRNESS", 0),
        ("wino_bias/type2_pro", "bias_and_fairness", "", "BIAS_FAIRNESS", 0),
        ("super_glue/wsc.fixed", "coreference", "SGLUE", "BASE", 554),
        ("winogrande/winogrande_xl", "coreference", "", "BASE", 40_398),
        ("super_glue/cb", "NLI", "", "BASE", 250),
        ("super_glue/rte", "NLI", "", "BASE", 2_490),
        ("anli", "NLI", "", "BASE", 162_865),
        ("glue/mrpc", "paraphrase", "BASE", "", 3_668),
        ("glue/qqp", "paraphrase", "BASE", "", 363_846),
        ("paws/labeled_final", "paraphrase", "BASE", "", 49_401),
        ("ai2_arc/ARC-Challenge", "QA_closed_book", "GPT_EVAL", "", 1_119),
        ("ai2_arc/ARC-Easy", "QA_closed_book", "GPT_EVAL", "", 2_251),
        ("kilt_tasks/hotpotqa", "QA_closed_book", "BASE", "", 88_869),
        ("trivia_qa/unfiltered", "QA_closed_book", "GPT_EVAL", "", 87_622),
        ("web_questions", "QA_closed_book", "GPT_EVAL", "", 3_778),
        ("wiki_qa", "QA_closed_book", "BASE", "", 20_360),
        ("adversarial_qa/dbidaf", "QA_extractive", "BASE", "", 10_000),
        ("adversarial_qa/dbert", "QA_extractive", "BASE", "", 10_000),
        ("adversarial_qa/droberta", "QA_extractive", "BASE", "", 10_000),
        ("duorc/SelfRC", "QA_extractive", "BASE", "", 60_721),
        ("duorc/ParaphraseRC", "QA_extractive", "BASE", "", 69_524),
        ("ropes", "QA_extractive", "BASE", "", 10_924),
        ("squad_v2", "QA_extractive", "GPT_EVAL", "", 130_319),
        ("super_glue/record", "QA_extractive", "SGLUE", "", 100_730),
        ("quoref", "QA_extractive", "BASE", "", 19_399),
        ("cos_e/v1.11", "QA_multiple_choice", "BASE", "", 9_741),
        ("cosmos_qa", "QA_multiple_choice", "BASE", "", 25_262),
        ("dream", "QA_multiple_choice", "BASE", "", 6_116),
        ("openbookqa/main", "QA_multiple_choice", "GPT_EVAL", "", 4_957),
        ("qasc", "QA_multiple_choice", "BASE", "", 8_134),
        ("quail", "QA_multiple_choice", "BASE", "", 10_246),
        ("quarel", "QA_multiple_choice", "BASE", "", 1_941),
        ("quartz", "QA_multiple_choice", "BASE", "", 2_696),
        ("race/high", "QA_multiple_choice", "GPT_EVAL", "", 62_445),
        ("race/middle", "QA_multiple_choice", "GPT_EVAL", "", 25_421),
        ("sciq", "QA_multiple_choice", "BASE", "", 11_679),
        ("social_i_qa", "QA_multiple_choice", "BASE", "", 33_410),
        ("super_glue/boolq", "QA_multiple_choice", "SGLUE", "", 9_427),
        ("super_glue/copa", "QA_multiple_choice", "SGLUE", "BASE", 400),
        ("super_glue/multirc", "QA_multiple_choice", "SGLUE", "", 27_243),
        ("wiki_hop/original", "QA_multiple_choice", "BASE", "", 43_738),
        ("wiqa", "QA_multiple_choice", "BASE", "", 29_808),
        ("piqa", "QA_multiple_choice", "GPT_EVAL", "", 16_113),
        ("amazon_polarity", "sentiment", "BASE", "", 3_600_000),
        ("app_reviews", "sentiment", "BASE", "", 288_065),
        ("imdb", "sentiment", "BASE", "", 25_000),
        ("rotten_tomatoes", "sentiment", "BASE", "", 8_530),
        ("yelp_review_full", "sentiment", "BASE", "", 650_000),
        ("story_cloze/2016", "story_completion", "", "BASE", 0),
        ("hellaswag", "story_completion", "GPT_EVAL", "BASE", 39_905),
        ("common_gen", "structure_to_text", "BASE", "", 67_389),
        ("wiki_bio", "structure_to_text", "BASE", "", 582_659),
        ("cnn_dailymail/3.0.0", "summarization", "BASE", "", 287_113),
        ("gigaword", "summarization", "BASE", "", 3_803_957),
        ("multi_news", "summarization", "BASE", "", 44_972),
        ("samsum", "summarization", "BASE", "", 14_732),
        ("xsum", "summarization", "BASE", "", 204_045),
        ("ag_news", "topic_classification", "BASE", "", 120_000),
        ("dbpedia_14", "topic_classification", "BASE", "", 560_000),
        ("trec", "topic_classification", "BASE", "", 5_452),
        ("super_glue/wic", "word_sense_disambiguation", "SGLUE", "BASE", 5_428),
    )
}  # fmt: skip
"""By name, in the order of the authors' list."""
