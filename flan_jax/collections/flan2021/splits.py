"""The training and held-out datasets of FLAN 2021's experiments (Wei et al. 2021, arXiv:2109.01652, 2.2 and 4).

Datasets and names only. A split with a released name has the released members, including those drawn at random.
"""

import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flan_jax.collections.flan2021.names import NUM_TEMPLATES, TEMPLATE_COUNTS

Unit = Literal["cluster", "dataset"]

CLUSTERS: Mapping[str, tuple[str, ...]] = {
    "summarization": (
        "aeslc", "cnn_dailymail", "gigaword", "multi_news", "newsroom", "samsum", "xsum", "ag_news_subset",
        "opinion_abstracts_rotten_tomatoes", "opinion_abstracts_idebate", "wiki_lingua_english_en",
    ),
    "structure_to_text": ("web_nlg_en", "common_gen", "e2e_nlg", "dart"),
    "reading_comprehension": ("squad_v1", "squad_v2", "drop", "multirc", "openbookqa", "bool_q"),
    "open_domain_qa": ("trivia_qa", "natural_questions", "arc_challenge", "arc_easy"),
    "paraphrase": ("glue_mrpc", "glue_qqp", "paws_wiki", "stsb"),
    "sentiment": ("imdb_reviews", "sentiment140", "yelp_polarity_reviews", "sst2"),
    "text_formatting": ("true_case", "fix_punct", "word_segment"),
    "common_sense": ("copa", "hellaswag", "story_cloze", "piqa"),
    "translation": (
        "para_crawl_enes", "wmt14_enfr", "wmt16_translate_deen", "wmt16_translate_tren", "wmt16_translate_csen",
        "wmt16_translate_fien", "wmt16_translate_roen", "wmt16_translate_ruen",
    ),
    "coreference": ("definite_pronoun_resolution", "winogrande", "wsc"),
    "entailment": (
        "anli_r1", "anli_r2", "anli_r3", "cb", "rte", "mnli_matched", "mnli_mismatched", "qnli", "wnli", "snli",
    ),
    "math": ("math_dataset",),
    "conversational_qa": ("quac", "coqa"),
    "word_disambiguation": ("wic",),
    "linguistic_acceptability": ("cola",),
    "question_classification": ("trec",),
    "read_comp_and_common_sense": ("record", "cosmos_qa"),
}  # fmt: skip
"""The 69 training datasets by cluster. Splits are numbered in this order."""
CLUSTER_OF: Mapping[str, str] = {dataset: cluster for cluster, members in CLUSTERS.items() for dataset in members}

# Section 2.2 of the paper: entailment and paraphrase overlap, and some datasets need both reading and common sense.
NEIGHBORS: Mapping[str, tuple[str, ...]] = {
    "reading_comprehension": ("read_comp_and_common_sense",),
    "common_sense": ("read_comp_and_common_sense",),
    "read_comp_and_common_sense": ("reading_comprehension", "common_sense"),
    "paraphrase": ("entailment",),
    "entailment": ("paraphrase",),
}
"""Clusters that are excluded from training while a similar cluster is held out."""
COLLAPSED: Mapping[str, tuple[str, ...]] = {
    "opinion_abstracts": ("opinion_abstracts_rotten_tomatoes", "opinion_abstracts_idebate"),
    "squad": ("squad_v1", "squad_v2"),
    "arc": ("arc_challenge", "arc_easy"),
    "anli": ("anli_r1", "anli_r2", "anli_r3"),
    "mnli": ("mnli_matched", "mnli_mismatched"),
}
"""Datasets that stay on the same side of an intra-cluster split."""
SUPERGLUE = ("bool_q", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")

NUM_INTRA_CLUSTER_SPLITS = 10
SUPERGLUE_TRAIN_DATASETS = tuple(range(5, 56, 5))
# Seven: the released code lists paraphrase as an eighth, which none of its splits reaches.
DIVERSITY_TRAIN_CLUSTERS = (
    "summarization", "translation", "reading_comprehension", "sentiment", "structure_to_text", "coreference",
    "conversational_qa",
)  # fmt: skip
DIVERSITY_TEST_CLUSTERS = ("open_domain_qa", "common_sense", "entailment")
DIVERSITY_LIMIT = 15
DATASETS_PER_CLUSTER = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Datasets for training and for evaluation.

    Attributes:
      pattern: Of its name, with "{n}" for the number of templates and "{shot}" for the suffix for exemplars.
      train: Sorted.
      test: Sorted.
      unit: The unit of the hold-out: clusters, or datasets whose clusters may be trained on; None holds nothing out.
      template_counts: The released numbers of templates.
    """

    pattern: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    unit: Unit | None
    template_counts: tuple[int, ...]

    def name(self, *, num_templates: int, shot_suffix: str) -> str:
        """Returns the name for a number of templates and of exemplars; a mixture's also ends in _train or _eval."""
        return self.pattern.format(n=num_templates, shot=shot_suffix)


def _split(
    pattern: str,
    train: Iterable[str],
    test: Iterable[str],
    *,
    unit: Unit | None,
    template_counts: tuple[int, ...] = (NUM_TEMPLATES,),
) -> Split:
    """Returns a split in which a dataset of both sides is only tested, unless nothing is held out."""
    tested = set(test)
    trained = set(train) if unit is None else set(train) - tested
    assert trained and tested, pattern
    return Split(
        pattern=pattern,
        train=tuple(sorted(trained)),
        test=tuple(sorted(tested)),
        unit=unit,
        template_counts=template_counts,
    )


def inter_cluster() -> Iterator[Split]:
    """Yields the splits that hold one cluster out each."""
    for index, (held_out, test) in enumerate(CLUSTERS.items()):
        away = (held_out, *NEIGHBORS.get(held_out, ()))
        train = (dataset for cluster, members in CLUSTERS.items() if cluster not in away for dataset in members)
        yield _split(f"flan_inter_cluster_split_{index}_{{n}}templates{{shot}}", train, test, unit="cluster")


def units(cluster: str) -> tuple[tuple[str, ...], ...]:
    """Returns the units that intra-cluster splits hold out: single datasets first, then groups by name.

    >>> units("open_domain_qa")
    (('trivia_qa',), ('natural_questions',), ('arc_challenge', 'arc_easy'))
    """
    groups = {name: members for name, members in sorted(COLLAPSED.items()) if CLUSTER_OF[members[0]] == cluster}
    grouped = {dataset for members in groups.values() for dataset in members}
    alone = [(dataset,) for dataset in CLUSTERS[cluster] if dataset not in grouped]
    # The seeded permutations of `intra_cluster` refer to this order.
    return (*alone, *groups.values())


def intra_cluster() -> Iterator[Split]:
    """Yields ten splits that hold out one unit of every cluster that has several."""
    for index in range(NUM_INTRA_CLUSTER_SPLITS):
        train: list[str] = []
        test: list[str] = []
        for number, cluster in enumerate(CLUSTERS):
            available = units(cluster)
            # NumPy's generator, not `draws`: it reproduces the released splits.
            turn = np.random.RandomState(seed=number).permutation(len(available))[index % len(available)]
            for position, unit in enumerate(available):
                (test if len(available) > 1 and position == turn else train).extend(unit)
        yield _split(f"flan_intra_cluster_split_{index}_{{n}}templates{{shot}}", train, test, unit="dataset")


def all_overlap() -> Iterator[Split]:
    """Yields the split that trains on everything and tests everything."""
    yield _split("flan_all_overlap_{n}templates{shot}", CLUSTER_OF, CLUSTER_OF, unit=None)


def superglue() -> Iterator[Split]:
    """Yields the splits that hold SuperGLUE's datasets out: with all others in training, and with 5 to 55 of them."""
    others = [dataset for dataset in CLUSTER_OF if dataset not in SUPERGLUE]
    pattern = "flan_superglue_split_{n}templates{shot}"
    yield _split(pattern, others, SUPERGLUE, unit="dataset", template_counts=TEMPLATE_COUNTS)
    shuffled = list(CLUSTER_OF)
    random.Random(42).shuffle(shuffled)  # The released order.
    # Removed after shuffling, as in the release: the order of the others depends on it.
    drawn = [dataset for dataset in shuffled if dataset not in SUPERGLUE]
    for count in SUPERGLUE_TRAIN_DATASETS:
        pattern = f"flan_superglue_split{{shot}}_{{n}}templates_{count}train_tasks"
        yield _split(pattern, drawn[:count], SUPERGLUE, unit="dataset")


def diversity() -> Iterator[Split]:
    """Yields the splits with growing numbers of training clusters, each also limited to 15 datasets."""
    test = _members(DIVERSITY_TEST_CLUSTERS)
    for count in range(1, len(DIVERSITY_TRAIN_CLUSTERS) + 1):
        taken = [members for name, members in CLUSTERS.items() if name in DIVERSITY_TRAIN_CLUSTERS[:count]]
        # One dataset of each cluster after the other, so that the limit of 15 reaches all clusters.
        in_turns = [members[turn] for turn in range(max(map(len, taken))) for members in taken if turn < len(members)]
        pattern = f"flan_diversity_split{count}_{{n}}templates"
        limited = f"{pattern}_{DIVERSITY_LIMIT}task_limit"
        for words, train in ((pattern, in_turns), (limited, in_turns[:DIVERSITY_LIMIT])):
            yield _split(words + "{shot}", train, test, unit="cluster", template_counts=TEMPLATE_COUNTS)


def datasets_per_cluster() -> Iterator[Split]:
    """Yields the splits that train on the first few datasets of all seven training clusters of `diversity`."""
    test = _members(DIVERSITY_TEST_CLUSTERS)
    for count in DATASETS_PER_CLUSTER:
        # In the released code these clusters come from the last round of the loop before.
        train = [dataset for cluster in DIVERSITY_TRAIN_CLUSTERS for dataset in CLUSTERS[cluster][:count]]
        pattern = f"flan_inter_split_{{n}}templates_{count}tpc{{shot}}"
        yield _split(pattern, train, test, unit="cluster", template_counts=TEMPLATE_COUNTS)


KINDS: tuple[Callable[[], Iterator[Split]], ...] = (
    inter_cluster, intra_cluster, all_overlap, superglue, diversity, datasets_per_cluster,
)  # fmt: skip


@functools.cache
def splits() -> Mapping[str, Split]:
    """Returns all splits by their patterns."""
    return {split.pattern: split for kind in KINDS for split in kind()}


def _members(clusters: Iterable[str]) -> list[str]:
    return [dataset for cluster in clusters for dataset in CLUSTERS[cluster]]
