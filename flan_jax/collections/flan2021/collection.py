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
from typing import Any

from flan_jax.collections.flan2021 import mixtures
from flan_jax.collections.flan2021.mixtures import CAP, EVERYTHING, mixture_names, released_names
from flan_jax.collections.flan2021.names import NUM_TEMPLATES, TaskName, parse, train_name
from flan_jax.collections.flan2021.table import DATASETS
from flan_jax.collections.flan2021.variants import Format, Settings, Variants
from flan_jax.data.rates import ProportionalRate
from flan_jax.names import nearest
from flan_jax.settings import Section
from flan_jax.tasks import registry
from flan_jax.tasks.declare import TRAIN_SPLIT
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.tasks.sources.settings import parse_rows
from flan_jax.templates.load import template_sets
from flan_jax.templates.render import Template
from flan_jax.vocab import Vocabulary

NAME = "flan2021"
TEMPLATES = Path(__file__).parents[2] / "templates" / NAME


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Keys:
    """The keys of the collection in a YAML file; see the module and `variants.Settings`."""

    rows: Mapping[str, Any] = dataclasses.field(default_factory=dict)
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


def settings_in_use() -> Settings:
    """Returns the settings of all YAML files, which stay when another vocabulary is used."""
    settings: Settings = registry.collection_settings().get(NAME, Settings())
    return settings


def register() -> None:
    """Declares the collection; reads no template and registers no task before one is requested."""
    collection = Contents(settings_in_use())
    registry.declare_collection(NAME, names=collection.names, define=collection.define, covering=collection.covering)


def register_declared(settings: Section, *, vocabulary: Vocabulary) -> None:
    """Declares the collection with the settings of a YAML file's `collections: {flan2021: ...}`; see the module.

    Args:
      settings: unchecked. Rows are added to those of an earlier file; other keys replace the earlier ones.
      vocabulary: of the file.

    Raises:
      UserError: an invalid setting, or rows of an unknown dataset.
    """
    keys = settings.parse(_Keys)
    sources = parse_rows(keys.rows, settings.at("rows"))
    for name in sources:
        if name not in DATASETS:
            raise settings.at("rows").error(f"FLAN 2021 has no dataset {name!r}.{nearest(name, DATASETS)}")
    given = {key: getattr(keys, key) for key in settings.values if key != "rows"}
    own = None if vocabulary == registry.vocabulary() else vocabulary
    before = settings_in_use()
    registry.collection_settings()[NAME] = dataclasses.replace(
        before, sources={**before.sources, **sources}, vocabulary=own, **given
    )
    register()


class Contents:
    """All names of FLAN 2021 under one set of settings."""

    def __init__(self, settings: Settings):
        """Stores the settings; tables and templates are read when a name is requested."""
        self._settings = settings
        self._variants: dict[str, Variants] = {}

    def names(self) -> Iterator[str]:
        """Yields the names in the released code; `define` knows others of the same forms, too."""
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

    def define(self, name: str) -> bool:
        """Registers the task or the mixture of a name, with its members; returns False for an unknown name.

        Raises:
          UserError: a task that would rank options under an inverted template.
        """
        parsed = parse(name)
        if parsed is not None and parsed.dataset in DATASETS and self._of(parsed.dataset).has(parsed):
            declared = self._of(parsed.dataset).declared(parsed)
            registry.register(declared, vocabulary=self._settings.vocabulary)
            return True
        if name == EVERYTHING:
            registry.register_mixture(name, mixtures.everything(), default_rate=ProportionalRate(maximum=CAP))
            return True
        mixture = mixture_names().get(name)
        if mixture is None:
            return False
        registry.register_mixture(
            name,
            mixture.members,
            default_rate=mixture.default_rate,
            hold_out=mixture.hold_out(lambda dataset: DATASETS[dataset].corpora),
        )
        return True

    def _of(self, dataset: str) -> Variants:
        if dataset not in self._variants:
            record = DATASETS[dataset]
            chosen = templates()[record.template_set]
            self._variants[dataset] = Variants(record, templates=chosen, settings=self._settings)
        return self._variants[dataset]
