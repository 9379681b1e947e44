"""The record of a FLAN 2021 dataset, and its constructor from a row of `table`."""

from collections.abc import Mapping
from dataclasses import dataclass

from flan_jax.collections.flan2021.normalizers import ClassOfTexts, OneOfOptions
from flan_jax.collections.flan2021.splits import CLUSTER_OF
from flan_jax.tasks.declare import Normalizer

SPLITS = ("train", "validation", "test")
Windows = tuple[str, str, str]
"""TFDS expressions for `SPLITS`; "" for a split that does not exist."""


@dataclass(frozen=True, kw_only=True)
class FlanDataset:
    """One of the 70 dataset configurations (Wei et al. 2021, arXiv:2109.01652).

    Attributes:
      name: In the paper's code.
      cluster: The skill it tests; "" for WSC273, which is only a test.
      tfds: Dataset, configuration and version in TFDS's spelling.
      splits: TFDS expressions for "train", "validation", "test".
      corpora: The corpora that its rows come from, in lower case, for hold-out.
      normalizer: From TFDS's row to the fields of the templates.
      template_set: Name of its ten templates.
      options: The answers to choose from, or the field that lists them; None for free text.
      metrics: Of generated answers.
      references: The field that lists all correct answers.
      group: The field that groups rows, for metrics over groups.
      license: Of the rows, "unknown" where none is stated.
      size: Rows of the training split before the limit of 30,000, rounded down to tens; None when there is none.
    """

    name: str
    cluster: str
    tfds: str
    splits: Mapping[str, str]
    corpora: tuple[str, ...]
    normalizer: Normalizer
    template_set: str
    options: tuple[str, ...] | str | None
    metrics: tuple[str, ...]
    references: str | None
    group: str | None
    license: str
    size: int | None

    @property
    def is_classification(self) -> bool:
        """Whether it has options to rank."""
        return self.options is not None


def row(
    name: str,
    tfds: str,
    windows: Windows,
    size: int | None,
    normalizer: Normalizer,
    *,
    license: str = "unknown",
    corpus: str | None = None,
    templates: str | None = None,
    options: tuple[str, ...] | str | None = None,
    metric: str = "accuracy",
    references: str | None = None,
    group: str | None = None,
) -> FlanDataset:
    """Returns the record of a row of the table; positional arguments are its columns.

    Args:
      name: Of the dataset; also of its corpus and its templates, unless those are given.
      tfds: Dataset, configuration and version in TFDS's spelling.
      windows: The splits.
      size: Rows of the training split.
      normalizer: From TFDS's row to the fields of the templates.
      options: None for those that the normalizer knows, or none.
    """
    if options is None and isinstance(normalizer, ClassOfTexts):
        # A mapping may name several labels alike (`table.POLARITIES`), so that its options have to be given.
        assert isinstance(normalizer.answers, tuple), name
        options = normalizer.answers
    if options is None and isinstance(normalizer, OneOfOptions):
        options = "options"
    return FlanDataset(
        name=name,
        cluster=CLUSTER_OF.get(name, ""),
        tfds=tfds,
        splits={
            split: window for split, window in zip(("train", "validation", "test"), windows, strict=True) if window
        },
        corpora=(corpus or name,),
        normalizer=normalizer,
        template_set=templates or name,
        options=options,
        metrics=(metric,),
        references=references,
        group=group,
        license=license,
        size=size,
    )
