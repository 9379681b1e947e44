"""The tasks and mixtures of T0, by the names of its released code.

`table` lists the datasets and the mixtures that they belong to.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from flan_jax.collections.catalog import Mixture
from flan_jax.collections.t0.metric_names import metrics_of, rank_metrics_of
from flan_jax.collections.t0.table import (
    ALLOWED_LEAKS,
    DATASETS,
    FAILED_TO_CACHE,
    HELD_OUT_CLUSTERS,
    HELD_OUT_CORPORA,
    MAX_ROWS,
    NOT_SCORED,
    SCORE_EVAL,
    TOO_LONG_OR_BROKEN,
    WITHOUT_TEMPLATES,
    T0Dataset,
)
from flan_jax.collections.t0.tfds_rows import declared_rows, usual_rows
from flan_jax.data.holdout import HoldOut, with_origins
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import UserError
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.rows import OnBadRow, Source
from flan_jax.templates.promptsource import PromptTemplate
from flan_jax.templates.promptsource_files import PromptArchive

UNLISTED_CLUSTER = "unlisted"

RateRule = Literal["published", "divided"]

TRAIN_MIXTURES: Mapping[str, tuple[str, ...]] = {
    "t0_train": ("BASE",),
    "t0+_train": ("BASE", "GPT_EVAL"),
    "t0++_train": ("BASE", "GPT_EVAL", "SGLUE"),
    "t0_train_one_og_prompt": ("BASE",),
    "t0_train_all_og_prompts": ("BASE",),
}
"""The groups of training datasets of each mixture."""
EVAL_MIXTURES = ("t0_eval_score_eval", "t0_train_score_eval", "bias_fairness_eval_score_eval")


class Prompt(NamedTuple):
    """A template of a dataset, of ANLI in one of its rounds, and the name of its task."""

    dataset: T0Dataset
    template: PromptTemplate
    round: str | None
    task: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class T0Settings:
    """The settings of the collection.

    Attributes:
      archive: The templates.
      rows: Declared sources, by dataset.
      rate_rule: See `rate`.
      on_bad_row: Of rows that were not declared.
    """

    archive: PromptArchive
    rows: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    rate_rule: RateRule = "published"
    on_bad_row: OnBadRow = "error"


def task_name(dataset: str, template: str, *, round_: str | None = None) -> str:
    """Returns the name of a template's task; runs of characters that SeqIO disallows become an underscore.

    >>> task_name("super_glue/copa", "C1 or C2? premise, so/because…")
    'super_glue_copa_C1_or_C2_premise_so_because_'
    >>> task_name("anli", "GPT-3 style", round_="r2")
    'anli_GPT_3_style_r2'
    """
    name = re.sub(r"[^\w.]+", "_", f"{dataset.replace('/', '_')}_{template}")
    return name if round_ is None else f"{name}_{round_}"


def rate(train_size: int, num_templates: int, *, rule: RateRule = "published") -> float:
    """Returns the rate of each template of a dataset.

    "published" is the released code's: the full size up to 500,000 rows; beyond that, 500,000 divided among the
    templates, so that a dataset just below the limit has more weight than one above it. "divided" divides in both
    cases.

    >>> [rate(n, 9) for n in (3_803_957, 287_113)], [round(rate(n, 9, rule="divided")) for n in (3_803_957, 287_113)]
    ([55555, 287113], [55556, 31901])
    """
    if rule == "divided":
        return min(train_size, MAX_ROWS) / num_templates
    return MAX_ROWS // num_templates if train_size > MAX_ROWS else train_size


class Contents:
    """All names of T0 under one set of settings."""

    def __init__(self, settings: T0Settings):
        """Stores the settings; templates are read when a name is requested."""
        self._settings = settings
        self._prompts: dict[str, tuple[Prompt, ...]] = {}
        unlisted = {
            name: T0Dataset(name=name, cluster=UNLISTED_CLUSTER) for name in settings.rows if name not in DATASETS
        }
        self._datasets = {
            name: dataset for name, dataset in {**DATASETS, **unlisted}.items() if name in settings.archive.members
        }

    def prompts(self, dataset: str) -> tuple[Prompt, ...]:
        """Returns the templates of a dataset by name; ANLI's once per round."""
        if dataset not in self._prompts:
            entry = self._datasets[dataset]
            self._prompts[dataset] = tuple(
                Prompt(entry, template, which, task_name(dataset, template.name, round_=which))
                for which in entry.rounds
                for template in self._settings.archive.templates(dataset)
            )
        return self._prompts[dataset]

    def names(self) -> Iterator[str]:
        """Yields the names of all tasks, and of the mixtures for which the archive has all templates."""
        for prompt in self._all():
            yield prompt.task
            if prompt.template.gives_options:
                yield prompt.task + SCORE_EVAL
        yield from (name for name in (*TRAIN_MIXTURES, *EVAL_MIXTURES) if not self._lacking(name))

    def covering(self) -> Iterator[str]:
        """Yields one task per template."""
        # ANLI's rounds share their templates.
        return (prompt.task for prompt in self._all() if prompt.round in (None, "r1"))

    def find(self, name: str) -> TemplatedTask | Mixture | None:
        """Returns the declaration of a name; None for an unknown name.

        Raises:
          UserError: A mixture for which the archive lacks templates.
        """
        if name in TRAIN_MIXTURES or name in EVAL_MIXTURES:
            lacking = self._lacking(name)
            if lacking:
                raise UserError(
                    f"Mixture {name!r} contains {', '.join(lacking)}, for which {self._settings.archive.path} has no "
                    "templates. Name a complete archive of promptsource, or declare a mixture of your own."
                )
            return Mixture(members=list(self.members(name).items()), hold_out=_hold_out(name))
        prompt = self._found(name.removesuffix(SCORE_EVAL))
        if prompt is None or (name.endswith(SCORE_EVAL) and not prompt.template.gives_options):
            return None
        return self.declared(prompt, name=name)

    def declared(self, prompt: Prompt, *, name: str) -> TemplatedTask:
        """Returns the record of a template's task, which ranks its choices if the name ends so."""
        dataset, template, which, _ = prompt
        rows = self._settings.rows.get(dataset.name)
        if rows is not None:
            source, normalizer = declared_rows(dataset.name, rows, round_=which), None
        else:
            source, normalizer = usual_rows(dataset.name, round_=which, on_bad_row=self._settings.on_bad_row)
        is_rank = name.endswith(SCORE_EVAL)
        return TemplatedTask(
            name=name,
            source=source,
            cluster=dataset.cluster,
            templates=(template,),
            metrics=rank_metrics_of(template) if is_rank else metrics_of(dataset.name, template),
            normalizer=normalizer,
            evaluation="rank" if is_rank else "generate",
            corpora=dataset.corpora,
            # T0's output features have no end of sequence on inputs.
            ends_inputs=False,
        )

    def members(self, mixture: str) -> dict[str, float | ProportionalRate]:
        """Returns the tasks of a mixture with their rates."""
        if mixture in EVAL_MIXTURES:
            capped = ProportionalRate(maximum=MAX_ROWS)
            return {prompt.task + SCORE_EVAL: capped for prompt in self._all() if _is_scored(prompt, mixture)}
        found: dict[str, float | ProportionalRate] = {}
        for name, dataset in self._datasets.items():
            if dataset.train_group in TRAIN_MIXTURES[mixture]:
                prompts = self.prompts(name)
                # Divided by all templates, also those that the mixture leaves out, as in the released code.
                share = rate(dataset.train_size, len(prompts), rule=self._settings.rate_rule)
                found.update((prompt.task, share) for prompt in _kept(prompts, mixture))
        return found

    def _all(self) -> Iterator[Prompt]:
        for dataset in self._datasets:
            yield from self.prompts(dataset)

    def _found(self, task: str) -> Prompt | None:
        # Reads only the templates of datasets that the name begins with.
        of = [name for name in self._datasets if task.startswith(task_name(name, ""))]
        return next((prompt for name in of for prompt in self.prompts(name) if prompt.task == task), None)

    def _lacking(self, mixture: str) -> list[str]:
        """Returns the datasets of a mixture for which the archive has no templates."""
        groups = TRAIN_MIXTURES.get(mixture, ())
        kind = {"t0_eval_score_eval": "BASE", "bias_fairness_eval_score_eval": "BIAS_FAIRNESS"}.get(mixture)
        groups = ("BASE",) if mixture == "t0_train_score_eval" else groups
        included = [d for d in DATASETS.values() if d.train_group in groups or (kind and d.eval_group == kind)]
        return [d.name for d in included if d.name not in self._datasets and d.name not in WITHOUT_TEMPLATES]


def _kept(prompts: Iterable[Prompt], mixture: str) -> list[Prompt]:
    """Returns the templates of a dataset that a mixture trains on."""
    original = [prompt for prompt in prompts if prompt.template.metadata.original_task]
    of = {"t0_train_one_og_prompt": original[:1], "t0_train_all_og_prompts": original}.get(mixture, prompts)
    return [prompt for prompt in of if prompt.task not in TOO_LONG_OR_BROKEN]


def _is_scored(prompt: Prompt, mixture: str) -> bool:
    """Whether an evaluation mixture ranks the choices of a template."""
    dataset, template = prompt.dataset, prompt.template
    if not template.gives_options or prompt.task in TOO_LONG_OR_BROKEN:
        return False
    if mixture == "bias_fairness_eval_score_eval":
        return dataset.eval_group == "BIAS_FAIRNESS"
    # The paper evaluates only templates that ask the dataset's own question.
    if not template.metadata.original_task:
        return False
    if mixture == "t0_eval_score_eval":
        return dataset.eval_group == "BASE"
    return dataset.train_group == "BASE" and dataset.name not in (*NOT_SCORED, *FAILED_TO_CACHE)


def _hold_out(mixture: str) -> HoldOut | None:
    if mixture not in TRAIN_MIXTURES:
        return None
    known = with_origins(ALLOWED_LEAKS.get(mixture, ()))
    return HoldOut(clusters=HELD_OUT_CLUSTERS, corpora=HELD_OUT_CORPORA, allow_leak=known)
