"""FLAN 2021 (Wei et al. 2021, arXiv:2109.01652): 70 TFDS datasets, ten templates for each, and the published splits.

Tasks and mixtures have the names of the released code (`names`, `mixtures`) and are registered on demand. Rows come
from datasets that TFDS has prepared on disk, or from a YAML file, in TFDS's shape:

    collections:
      flan2021:
        rows:
          rte:
            kind: jsonl
            splits: {train: rte/train.jsonl, validation: rte/val.jsonl}
            classes: {label: [entailment, not_entailment]}
        format: flan       # the marks of the paper's own model around prompts; the default is plain
        on_bad_row: skip   # for rows of TFDS
        seed: 1            # of exemplars

Departures from the released code: each row is rendered under one template and none is lost (there, rows were batched by
the number of templates, and the last incomplete batch was dropped); options are ranked under forward templates only; an
inverted template is used in training, never in evaluation. The baselines that continue a text (`continuations_...`) are
omitted.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from flan_jax.collections.catalog import Collection, Mixture
from flan_jax.collections.flan2021 import mixtures
from flan_jax.collections.flan2021.mixtures import CAP, EVERYTHING, cluster_mixtures, mixture_names, released_names
from flan_jax.collections.flan2021.names import NUM_TEMPLATES, TaskName, parse, train_name
from flan_jax.collections.flan2021.splits import CLUSTERS
from flan_jax.collections.flan2021.table import DATASETS
from flan_jax.collections.flan2021.variants import Format, Settings, Variants
from flan_jax.data.rates import ProportionalRate
from flan_jax.names import nearest
from flan_jax.settings import Section
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.tasks.sources.settings import parse_rows
from flan_jax.templates.load import template_sets
from flan_jax.templates.render import Template

TEMPLATES = Path(__file__).parents[2] / "templates" / "flan2021"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Keys:
    """The keys of the collection in a YAML file; see the module and `variants.Settings`."""

    rows: Section | None = None
    format: Format = Settings.format
    on_bad_row: OnBadRow = Settings.on_bad_row
    seed: int = Settings.seed


@functools.cache
def templates() -> Mapping[str, tuple[Template, ...]]:
    """Returns the template sets of all files."""
    found: dict[str, tuple[Template, ...]] = {}
    for path in sorted(TEMPLATES.glob("*.yaml")):
        sets = template_sets(path)
        assert sets.keys().isdisjoint(found), path
        found |= sets
    return found


class Contents:
    """All names of FLAN 2021 under one set of settings."""

    def __init__(self, settings: Settings):
        """Stores the settings; tables and templates are read when a name is requested."""
        self._settings = settings
        self._variants: dict[str, Variants] = {}

    def names(self) -> Iterator[str]:
        """Yields the names in the released code; `find` knows others of the same forms, too."""
        for dataset in DATASETS:
            yield from map(str, self._of(dataset).names())
        yield EVERYTHING
        yield from released_names()

    def covering(self) -> Iterator[str]:
        """Yields tasks that together use every template."""
        for name in DATASETS:
            every = train_name(name, num_templates=NUM_TEMPLATES, shot="zero")
            single = [TaskName(dataset=name, purpose="generate", number=i) for i in range(NUM_TEMPLATES)]
            variants = self._of(name)
            # A user's rows may be for evaluation only.
            yield from [every] if TRAIN_SPLIT in variants.source.splits else map(str, filter(variants.has, single))

    def find(self, name: str) -> TemplatedTask | Mixture | None:
        """Returns the declaration of a name; None for an unknown name.

        Raises:
          UserError: A task that would rank options under an inverted template.
        """
        parsed = parse(name)
        if parsed is not None and parsed.dataset in DATASETS and self._of(parsed.dataset).has(parsed):
            return self._of(parsed.dataset).declared(parsed)
        if name == EVERYTHING:
            return Mixture(members=mixtures.everything(), default_rate=ProportionalRate(maximum=CAP))
        if name in cluster_mixtures():
            return Mixture(members=self._by_template(*cluster_mixtures()[name]), default_rate=1.0)
        mixture = mixture_names().get(name)
        if mixture is None:
            return None
        return Mixture(
            members=mixture.members,
            default_rate=mixture.default_rate,
            hold_out=mixture.hold_out(lambda dataset: DATASETS[dataset].corpora),
        )

    def _by_template(self, cluster: str, shot: str) -> list[str]:
        """Returns the evaluation tasks of a cluster: of each dataset one per forward template, ranked if possible."""
        names = (
            TaskName(
                dataset=name, purpose="rank" if DATASETS[name].is_classification else "generate", number=i, shot=shot
            )
            for name in CLUSTERS[cluster]
            for i, template in enumerate(templates()[DATASETS[name].template_set])
            if template.direction == "forward"
        )
        return [str(name) for name in names if self._of(name.dataset).has(name)]

    def _of(self, dataset: str) -> Variants:
        if dataset not in self._variants:
            record = DATASETS[dataset]
            chosen = templates()[record.template_set]
            self._variants[dataset] = Variants(record, templates=chosen, settings=self._settings)
        return self._variants[dataset]


def _read(section: Section) -> Settings:
    """Returns the settings of a YAML file; rows are added to those of an earlier file, other keys replace them.

    Raises:
      UserError: An invalid setting, or rows of an unknown dataset.
    """
    keys = section.parse(_Keys)
    sources = parse_rows(keys.rows)
    for name in sources:
        if name not in DATASETS:
            raise section.at("rows").place.error(f"FLAN 2021 has no dataset {name!r}.{nearest(name, DATASETS)}")
    before = COLLECTION.settings() or Settings()
    given = {key: getattr(keys, key) for key in section.values if key != "rows"}
    return dataclasses.replace(before, sources={**before.sources, **sources}, **given)


COLLECTION = Collection(name="flan2021", read=_read, default=Settings, contents=Contents)
register, register_declared = COLLECTION.register, COLLECTION.register_declared
