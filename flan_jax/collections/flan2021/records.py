"""The record of a FLAN 2021 dataset; `collection.CHOICES` and `collection.TEXTS` list them."""

from collections.abc import Mapping
from dataclasses import dataclass

from flan_jax.tasks.declare import Normalizer


@dataclass(frozen=True, kw_only=True)
class FlanDataset:
    """One of the 70 dataset configurations (Wei et al. 2021, arXiv:2109.01652).

    Attributes:
      name: in the paper's code.
      cluster: the skill it tests; "" for WSC273, which is only a test.
      tfds: dataset, configuration and version in TFDS's spelling.
      splits: TFDS expressions for "train", "validation", "test".
      corpora: the corpora that its rows come from, in lower case, for hold-out.
      normalizer: from TFDS's row to the fields of the templates.
      template_set: name of its ten templates.
      options: the answers to choose from, or the field that lists them; None for free text.
      metrics: of generated answers.
      rank_metrics: of ranked options.
      postprocessor: of generated answers.
      references: the field that lists all correct answers.
      group: the field that groups rows, for metrics over groups.
      license: of the rows, "unknown" where none is stated.
      size: rows of the training split before the limit of 30,000, rounded down to tens; None when there is none.
    """

    name: str
    cluster: str
    tfds: str
    splits: Mapping[str, str]
    corpora: tuple[str, ...]
    normalizer: Normalizer
    template_set: str
    options: tuple[str, ...] | str | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    rank_metrics: tuple[str, ...] = ("rank_accuracy",)
    postprocessor: str | None = None
    references: str | None = None
    group: str | None = None
    license: str = "unknown"
    size: int | None = None

    @property
    def is_classification(self) -> bool:
        """Whether it has options to rank."""
        return self.options is not None
