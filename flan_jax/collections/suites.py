"""Evaluation suites by name: the published sets of evaluation tasks, each with its split and its aggregation.

    flan2021/entailment             a cluster of FLAN 2021: options ranked, or answers generated, under each template
    flan2021/entailment/five_shot   the same after five exemplars
    t0/held_out                     T0's evaluation datasets, ranked under each prompt
    superni/default                 Super-NaturalInstructions' English test tasks; superni/xlingual the other track's
    mmlu, mmlu/five_shot, mmlu/cot, bbh, bbh/three_shot, bbh/cot, bbh/cot_three_shot, embedded

A suite is the name of a mixture with what its score depends on; its tasks have their own metrics.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.collections.flan2021.mixtures import cluster_mixture
from flan_jax.collections.flan2021.names import parse
from flan_jax.collections.flan2021.splits import CLUSTER_OF, CLUSTERS
from flan_jax.collections.t0.table import DATASETS as T0_DATASETS
from flan_jax.collections.t0.table import SCORE_EVAL
from flan_jax.data.manifest import Request
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import nearest

GroupOf = Callable[[str, str], str]
"""(name of a task, its cluster) -> its group, `cluster/dataset`."""


def by_task(task: str, cluster: str) -> str:
    """Returns the group of a task that is a dataset of its own.

    >>> by_task("mmlu_virology", "other")
    'other/mmlu_virology'
    """
    return f"{cluster}/{task}"


def flan2021_dataset(task: str, cluster: str) -> str:
    """Returns the group of a task of FLAN 2021, one per template.

    >>> flan2021_dataset("rte_type_3_scoring_eval", "entailment")
    'entailment/rte'
    """
    name = parse(task)
    assert name is not None, task
    return f"{CLUSTER_OF.get(name.dataset, cluster)}/{name.dataset}"


def t0_dataset(task: str, cluster: str) -> str:
    """Returns the group of a task of T0, one per prompt; the rounds of ANLI are groups of one dataset.

    >>> t0_dataset("anli_GPT_3_style_r2_score_eval", "NLI"), t0_dataset("super_glue_rte_must_be_true_score_eval", "NLI")
    ('anli/r2', 'super_glue_rte')
    """
    del cluster
    prefixes = (name.replace("/", "_") for name in T0_DATASETS)
    dataset = max((prefix for prefix in prefixes if task.startswith(f"{prefix}_")), key=len, default=task)
    of_round = re.search(r"_(r[123])$", task.removesuffix(SCORE_EVAL)) if dataset == "anli" else None
    return f"{dataset}/{of_round[1]}" if of_round else dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """A set of tasks and the settings of its score.

    Attributes:
      mixture: The name of its mixture.
      split: The split that is scored.
      aggregation: A name in `evaluation.aggregation.AGGREGATIONS`.
      collection: The collection that defines the mixture.
      needs: What that collection needs on this machine; "" for nothing.
      max_decode_length: Tokens of a prediction; None for the export's target length.
      group_of: The group of each task.
    """

    mixture: str
    split: str
    aggregation: str
    collection: str
    needs: str = ""
    max_decode_length: int | None = None
    group_of: GroupOf = by_task


_TFDS = (
    "the extra tasks, and rows prepared by TFDS (--tfds_data_dir) or listed in a YAML file (collections: {%s: rows})"
)
_FOLDER = "the released folder: %s, or collections: {%s: {data_dir: ...}} in a YAML file"
_SUPERNI = Suite(
    mixture="superni_test",
    split="test",
    aggregation="superni",
    collection="natural_instructions",
    needs=_FOLDER % ("FLAN_JAX_SUPERNI_DIR", "natural_instructions"),
    max_decode_length=128,  # As the released evaluation.
)
_MMLU = Suite(
    mixture="mmlu",
    split="test",
    aggregation="mmlu",
    collection="mmlu",
    needs=_FOLDER % ("FLAN_JAX_MMLU_DIR", "mmlu"),
)
_BBH = Suite(
    mixture="bbh",
    split="test",
    aggregation="bbh",
    collection="bbh",
    needs=_FOLDER % ("FLAN_JAX_BBH_DIR", "bbh"),
    max_decode_length=32,
)
_CHAIN_TOKENS = 512  # Chains of thought.


def _flan2021(cluster: str, shot: str) -> Suite:
    return Suite(
        mixture=cluster_mixture(cluster, shot=shot),
        split="test",  # Validation rows where the test labels are not public, as in the released code.
        aggregation="flan2021",
        collection="flan2021",
        needs=_TFDS % "flan2021",
        group_of=flan2021_dataset,
    )


# Names have a slash, which no name in SeqIO's registry has, so that a plan may list suites, mixtures and tasks.
SUITES: Mapping[str, Suite] = {
    **{f"flan2021/{cluster}": _flan2021(cluster, "zero") for cluster in CLUSTERS},
    **{f"flan2021/{cluster}/five_shot": _flan2021(cluster, "five") for cluster in CLUSTERS},
    "t0/held_out": Suite(
        mixture=f"t0_eval{SCORE_EVAL}",
        split="validation",
        aggregation="t0",
        collection="t0",
        needs="promptsource's templates: FLAN_JAX_PROMPTSOURCE_DIR; and " + _TFDS % "t0",
        group_of=t0_dataset,
    ),
    "superni/default": _SUPERNI,
    "superni/xlingual": dataclasses.replace(_SUPERNI, mixture="superni_xlingual_test"),
    "mmlu/direct": _MMLU,
    "mmlu/five_shot": dataclasses.replace(_MMLU, mixture="mmlu_five_shot"),
    "mmlu/cot": dataclasses.replace(_MMLU, mixture="mmlu_cot", max_decode_length=_CHAIN_TOKENS),
    "bbh/direct": _BBH,
    "bbh/three_shot": dataclasses.replace(_BBH, mixture="bbh_three_shot"),
    "bbh/cot": dataclasses.replace(_BBH, mixture="bbh_cot", max_decode_length=_CHAIN_TOKENS),
    "bbh/cot_three_shot": dataclasses.replace(_BBH, mixture="bbh_cot_three_shot", max_decode_length=_CHAIN_TOKENS),
    "embedded/held_out": Suite(
        mixture="embedded_held_out", split="validation", aggregation="macro", collection="embedded"
    ),
}
"""By name."""


def suite(name: str) -> Suite:
    """Returns the suite of that name.

    Raises:
      UnknownNameError: There is none of that name.
    """
    if name not in SUITES:
        raise UnknownNameError(f"There is no suite {name!r}.{nearest(name, SUITES)} `flan-jax show suites` lists them.")
    return SUITES[name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A mixture or task of an evaluation.

    Attributes:
      label: The label of its tasks in reports.
      name: The mixture or task.
      split: The split to export.
      suite: The suite that it is; None for a mixture or task that was named itself.
    """

    label: str
    name: str
    split: str
    suite: Suite | None = None

    def request(self, base: Request) -> Request:
        """Returns the request of its export; `base` has the lengths, the vocabulary and the module."""
        request = dataclasses.replace(base, name=self.name, split=self.split)
        # References are compared whole, and options are never truncated, whatever targets a run was trained with.
        return request if self.suite is None else dataclasses.replace(request, max_truncated_targets=1.0)


def members_of(suites: Mapping[str, Sequence[str]], *, split: str) -> list[Member]:
    """Returns what an evaluation covers, with suites replaced by their mixtures.

    Args:
      suites: Label -> names of mixtures, tasks or suites.
      split: The split of mixtures and tasks; a suite has its own.

    Raises:
      UserError: A mixture is listed with two splits.
    """
    members = [
        Member(label=label, name=SUITES[name].mixture, split=SUITES[name].split, suite=SUITES[name])
        if name in SUITES
        else Member(label=label, name=name, split=split)
        for label, names in suites.items()
        for name in names
    ]
    split_of: dict[str, str] = {}
    for one in members:
        if split_of.setdefault(one.name, one.split) != one.split:
            raise UserError(
                f"The evaluation lists {one.name!r} with the splits {split_of[one.name]!r} and {one.split!r}: a suite "
                "brings its own. Evaluate them apart."
            )
    return members


def with_needs(error: UserError, members: Sequence[Member]) -> UserError:
    """Returns an error about missing tasks or rows, with what the suites among an evaluation's members need."""
    needs = [
        f"The suite {name!r} needs {one.suite.needs}."
        for one in members
        if one.suite is not None and one.suite.needs
        for name in SUITES
        if SUITES[name] is one.suite
    ]
    return UserError(" ".join([str(error), *needs])) if needs else error


def describe(pattern: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Describes suites.

    Args:
      pattern: A part of the names, or a pattern with `*`; None for all.

    Returns:
      The suites as JSON, with the tasks that have no rows on this machine; and one line for each thing that they need.
    """
    from flan_jax.tasks import registry

    anywhere = "*" if pattern is None else pattern if "*" in pattern else f"*{pattern}*"
    described, notes = [], dict[str, str]()
    for name, one in SUITES.items():
        if not fnmatch.fnmatchcase(name, anywhere):
            continue
        missing: dict[str, str] = {}
        try:
            tasks = [registry.of_seqio(task) for task in registry.mixture_or_task(one.mixture).tasks]
        except UnknownNameError:
            tasks, missing = [], {one.mixture: f"The collection {one.collection!r} has no data on this machine."}
        except UserError as error:
            tasks, missing = [], {one.mixture: str(error)}
        for task in tasks:
            absent = None if one.split in task.splits else f"no split {one.split!r}"
            source = task.missing_source(one.split) if absent is None else None
            if absent or source:
                missing[task.name] = absent or (source.reason if source else "")
        described.append(
            {
                "name": name,
                "tasks": len(tasks),
                "available": len(tasks) - len(missing) if tasks else 0,
                "split": one.split,
                "aggregation": one.aggregation,
                "max_decode_length": one.max_decode_length,
                "mixture": one.mixture,
                "needs": one.needs if missing else "",
                "missing": missing,
            }
        )
        for reason in list(missing.values())[:1]:
            notes.setdefault(one.needs, f"{name}: {reason} It needs {one.needs}.")
    return described, list(notes.values())
