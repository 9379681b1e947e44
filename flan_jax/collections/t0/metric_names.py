"""The metrics of T0's tasks: those of GLUE and SuperGLUE for their datasets, for others those that a template names."""

from collections.abc import Mapping

from flan_jax.templates.promptsource import PromptTemplate

GLUE: Mapping[str, tuple[str, ...]] = {
    "glue/stsb": ("correlation",),
    "super_glue/cb": ("macro_f1",),
    "super_glue/record": ("record",),
}
"""T5's choice for the benchmarks; accuracy for the others, including WSC and MultiRC as in the released code."""
POSITIVE_F1 = ("glue/mrpc", "glue/qqp")

NAMED: Mapping[str, str] = {
    "BLEU": "bleu(tokenizer=intl)",  # T5's tokenizer, as in the released code.
    "ROUGE": "rouge",
    "Squad": "squad",
    "Span Squad": "squad",
    "Trivia QA": "trivia_qa",
    "Accuracy": "accuracy",
    "Sequence Accuracy": "accuracy",
    "Pearson Correlation": "correlation",
    "Spearman Correlation": "correlation",
    "COQA F1": "f1",
    "Edit Distance": "edit_similarity",
    "Other": "accuracy",
}
"""Promptsource's names and this package's. Others need more than a text (AUC, MultiRC, ranks) and become accuracy."""


def metrics_of(dataset: str, template: PromptTemplate) -> tuple[str, ...]:
    """Returns the metrics of generated answers."""
    if dataset in POSITIVE_F1:
        # The positive class is the second of two; other templates of these datasets have no classes.
        return ("positive_f1",) if len(template.fixed_choices or ()) == 2 else ("accuracy",)
    if dataset.partition("/")[0] in ("glue", "super_glue"):
        return GLUE.get(dataset, ("accuracy",))
    return tuple(dict.fromkeys(NAMED.get(name, "accuracy") for name in template.metadata.metrics)) or ("accuracy",)


def rank_metrics_of(template: PromptTemplate) -> tuple[str, ...]:
    """Returns the metric of ranked choices: per class where they are the same for every row."""
    return ("rank_classes",) if template.fixed_choices else ("rank_accuracy",)
