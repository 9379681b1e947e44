"""The mixtures of FLAN 2021: a training and an evaluation mixture per split, and one of all training tasks.

    flan_inter_cluster_split_10_10templates_train            all training tasks while entailment is held out
    flan_inter_cluster_split_10_10templates_eval             entailment
    flan_intra_cluster_split_0_10templates_five_shot_train   one dataset of each cluster held out, with examples
    flan2021                                                 all 69 datasets, ten templates, zero-shot
    flan2021_entailment_by_template_five_shot                a cluster in evaluation, a task per dataset and template

`splits` defines the sides. Rates are the paper's (arXiv:2109.01652, 2.1): proportional to the training rows of a
dataset, capped at 3,000; in evaluation, to its rows.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from flan_jax.collections.flan2021.names import NUM_TEMPLATES, SHOTS, TEMPLATE_COUNTS, shot_suffix, train_name
from flan_jax.collections.flan2021.splits import CLUSTER_OF, CLUSTERS, Split, splits
from flan_jax.data.holdout import HoldOut, with_origins
from flan_jax.data.rates import ProportionalRate

# Section 2.1 of the paper. All but ten of the datasets have more rows, and so equal rates.
CAP = 3_000
EVERYTHING = "flan2021"
Side = Literal["train", "eval"]

SHARED_CORPORA = (
    "cnn_dailymail",  # ReCoRD's passages.
    "e2e_nlg",  # DART has some of its rows,
    "web_nlg",  # and of these.
    "mrpc",  # STS-B, too.
    "para_crawl",  # Text formatting is made from its Danish part; translation has its Spanish part.
    "squad",  # QNLI's questions.
    "winograd_schemas",  # WNLI and WSC.
    "wmt16",  # Six language pairs.
)
"""Corpora of several datasets. The published splits train on one such dataset while another is held out. These mixtures
are the published ones and do the same; their manifests list these leaks."""

Corpora = Callable[[str], tuple[str, ...]]
"""A dataset's name -> the corpora it was made from."""


@dataclass(frozen=True, kw_only=True)
class MixtureName:
    """A mixture, as its name specifies it.

    Attributes:
      split: Defines the two sides.
      side: Whose tasks it contains.
      num_templates: Of each task, the first ones.
      shot: The number of exemplars, a name in `SHOTS`.
    """

    split: Split
    side: Side
    num_templates: int
    shot: str

    def __str__(self) -> str:
        return f"{self.split.name(num_templates=self.num_templates, shot_suffix=shot_suffix(self.shot))}_{self.side}"

    @property
    def members(self) -> list[str]:
        """Names of its tasks, sorted."""
        datasets = self.split.train if self.side == "train" else self.split.test
        return [train_name(name, num_templates=self.num_templates, shot=self.shot) for name in datasets]

    @property
    def default_rate(self) -> ProportionalRate:
        """The paper's rate."""
        return ProportionalRate(maximum=CAP if self.side == "train" else None)

    def hold_out(self, corpora_of: Corpora) -> HoldOut | None:
        """Returns what a training mixture must not leak; None for one that holds nothing out.

        Where datasets are held out instead of clusters, clusters of both sides are accepted leaks.
        """
        if self.side == "eval" or self.split.unit is None:
            return None
        trained, tested = (
            {corpus for name in side for corpus in with_origins(corpora_of(name))}
            for side in (self.split.train, self.split.test)
        )
        clusters = tuple(sorted({CLUSTER_OF[name] for name in self.split.test}))
        trained_clusters = {CLUSTER_OF[name] for name in self.split.train}
        accepted = [c for c in clusters if c in trained_clusters] if self.split.unit == "dataset" else []
        accepted += [corpus for corpus in SHARED_CORPORA if corpus in trained & tested]
        return HoldOut(clusters=clusters, corpora=tuple(sorted(tested)), allow_leak=tuple(accepted))


@functools.cache
def mixture_names() -> Mapping[str, MixtureName]:
    """Returns the mixtures by name, including numbers of templates that were not released."""
    every = (
        MixtureName(split=split, side=side, num_templates=num_templates, shot=shot)
        for split in splits().values()
        for num_templates in TEMPLATE_COUNTS
        for shot in SHOTS
        for side in ("train", "eval")
    )
    return {str(name): name for name in every}


def released_names() -> Iterator[str]:
    """Yields the names that the released code has."""
    for name, mixture in mixture_names().items():
        if mixture.num_templates in mixture.split.template_counts:
            yield name


_BY_TEMPLATE = "_by_template"


def cluster_mixture(cluster: str, *, shot: str) -> str:
    """Returns the name of the mixture of a cluster's evaluation tasks.

    >>> cluster_mixture("math", shot="five")
    'flan2021_math_by_template_five_shot'
    """
    return f"{EVERYTHING}_{cluster}{_BY_TEMPLATE}{shot_suffix(shot)}"


@functools.cache
def cluster_mixtures() -> Mapping[str, tuple[str, str]]:
    """Returns (cluster, number of exemplars) of each of these mixtures, by name."""
    return {cluster_mixture(cluster, shot=shot): (cluster, shot) for cluster in CLUSTERS for shot in SHOTS}


def everything() -> list[str]:
    """Returns the tasks of the mixture `flan2021`."""
    return [train_name(name, num_templates=NUM_TEMPLATES, shot="zero") for name in sorted(CLUSTER_OF)]
