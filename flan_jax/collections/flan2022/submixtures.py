"""The datasets of each submixture of Flan 2022, and the task of each variant (arXiv:2301.13688, 3.1 and 3.2).

The datasets of a submixture come from its own collection: FLAN 2021's from TFDS or a user's files, those of chain of
thought, dialogue, Super-NaturalInstructions and T0 from their folders. `collection` defines the mixtures.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flan_jax.collections.catalog import FolderSettings
from flan_jax.collections.flan2021 import collection as flan2021
from flan_jax.collections.flan2021 import variants as flan2021_variants
from flan_jax.collections.flan2021.names import NUM_TEMPLATES, TaskName
from flan_jax.collections.flan2021.records import FlanDataset
from flan_jax.collections.flan2021.table import DATASETS
from flan_jax.collections.flan2021.windows import WindowedTfdsSource
from flan_jax.collections.flan2022 import cot, dialog, niv2, small_sets, t0_prompts
from flan_jax.collections.flan2022.variants import SETTINGS, Setting, Variant, variants, varied
from flan_jax.collections.natural_instructions import collection as natural_instructions
from flan_jax.collections.t0 import collection as t0
from flan_jax.collections.t0.prompted import T0Settings
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask

_FIRST = re.compile(r"^(\w+)\[:\d+\]$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submixture:
    """One of the five sources, or the inverted half of one.

    Attributes:
      name: For messages.
      key: In the names of its mixtures.
      cap: On the training rows of a task in its rate.
      settings: Its kinds of prompts; not all have prompts without options.
      fix: How to make its data available.
    """

    name: str
    key: str
    cap: int
    settings: tuple[Setting, ...] = SETTINGS
    fix: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A dataset of a submixture.

    Attributes:
      dataset: The prefix of the names of its tasks.
      variants: Of the dataset.
      declare: Returns the task of a variant.
    """

    dataset: str
    variants: tuple[Variant, ...]
    declare: Callable[[Variant], TemplatedTask]

    def tasks(self, setting: Setting) -> list[str]:
        """Returns the names of its tasks for a mixture of one kind of prompts."""
        return [variant.name(self.dataset) for variant in self.variants if variant.setting == setting]


WITH_OPTIONS: tuple[Setting, ...] = ("zs_opt", "fs_opt")
_COT = "Name the folder of its files: FLAN_JAX_COT_DIR, or collections: {cot: {data_dir: ...}} in a YAML file."
# Caps of arXiv:2210.11416, Table 23, and of the released `mixtures.py`.
FLAN2021 = Submixture(name="flan2021", key="flan", cap=30_000)
T0 = Submixture(
    name="t0",
    key="t0",
    cap=20_000,
    fix=f"Name promptsource's templates: {t0.ARCHIVE_VARIABLE}, or collections: {{t0: {{promptsource: ...}}}} in a "
    "YAML file.",
)
NIV2 = Submixture(
    name="niv2",
    key="niv2",
    cap=5_000,
    settings=WITH_OPTIONS,
    fix="Name the folder of Super-NaturalInstructions: FLAN_JAX_SUPERNI_DIR, or collections: "
    "{flan2022: {superni_dir: ...}} in a YAML file.",
)
COT = Submixture(name="cot", key="cot", cap=cot.CAP, settings=WITH_OPTIONS, fix=_COT)
COT_INVERTED = Submixture(name="cot", key="cot_ii", cap=cot.CAP, settings=WITH_OPTIONS, fix=_COT)
DIALOG = Submixture(name="dialog", key="dialog", cap=dialog.CAP, settings=WITH_OPTIONS)
DIALOG_INVERTED = Submixture(name="dialog", key="dialog_ii", cap=dialog.CAP, settings=WITH_OPTIONS)


def uncapped(splits: Mapping[str, str]) -> dict[str, str]:
    """Extends a training window of first rows to all rows except those that another split takes from the end.

    FLAN 2021 takes at most 30,000; here the limit is in the mixture's rate. Windows of another form, such as those of
    several tasks over one split, are unchanged.

    >>> uncapped({"train": "train[:30000]", "validation": "train[-200:]", "test": "test"})["train"]
    'train[:-200]'
    >>> uncapped({"train": "train[:30000]", "validation": "validation[:200]", "test": "test"})["train"]
    'train'
    >>> uncapped({"train": "train[:30000]", "validation": "train[30000:30200]", "test": "train[-3000:]"})["train"]
    'train[:30000]'
    """
    window = _FIRST.match(splits[TRAIN_SPLIT])
    if window is None:
        return dict(splits)
    taken = [e for name, e in splits.items() if name != TRAIN_SPLIT and e.partition("[")[0] == window[1]]
    last = [re.fullmatch(rf"{window[1]}\[-(\d+):\]", expression) for expression in taken]
    if not taken:
        return {**splits, TRAIN_SPLIT: window[1]}
    if len(last) > 1 or last[0] is None:
        return dict(splits)
    return {**splits, TRAIN_SPLIT: f"{window[1]}[:-{last[0][1]}]"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The user's settings of the collection, keys of a YAML file.

    Attributes:
      superni_dir: The folder of Super-NaturalInstructions, unless the environment variable names one.
      seed: Of all random choices.
    """

    superni_dir: Path | None = None
    seed: int = 0


class Datasets:
    """The datasets of all submixtures, listed on demand and cached while their folders are the same."""

    def __init__(self, settings: Settings):
        """Stores the user's settings."""
        self._settings = settings
        self._cached: dict[str, tuple[object, Mapping[str, Member]]] = {}

    def of(self, submixture: Submixture) -> Mapping[str, Member]:
        """Returns the datasets of a submixture by name; {} if its folder is unknown.

        Raises:
          MissingFileError, UserError: The folder cannot be read.
        """
        origin = self._origin(submixture)
        if submixture.key not in self._cached or self._cached[submixture.key][0] != origin:
            members = _FINDERS[submixture.key](origin, seed=self._settings.seed)
            self._cached[submixture.key] = origin, {member.dataset: member for member in members}
        return self._cached[submixture.key][1]

    def superni_dir(self) -> Path | None:
        """Returns the folder of Super-NaturalInstructions; None if none is named."""
        return natural_instructions.DATA.named() or self._settings.superni_dir

    def _origin(self, submixture: Submixture) -> Any:
        """Returns what the datasets of a submixture depend on: settings of their collection, or a folder."""
        if submixture is FLAN2021:
            return flan2021.COLLECTION.settings()
        if submixture is T0:
            return t0.COLLECTION.settings()
        if submixture is NIV2:
            return self.superni_dir()
        return (cot if submixture.name == COT.name else dialog).COLLECTION.settings()


def _plain(bases: Iterable[TemplatedTask], *, has_no_options: bool, seed: int) -> Iterator[Member]:
    """Yields datasets whose variants differ only in templates, options and examples."""
    for base in bases:
        varies = any(template.shows_options for template in base.templates)
        yield Member(
            dataset=base.name,
            variants=variants(varies=varies, has_no_options=has_no_options),
            declare=functools.partial(varied, dataclasses.replace(base, seed=seed), dataset=base.name),
        )


def _flan2021(settings: flan2021_variants.Settings, *, seed: int) -> Iterator[Member]:
    """Yields FLAN 2021's 70 datasets except WSC273, which has no training rows, and two small sets: 71."""
    # Flan 2022 has no marks around prompts, whatever the user chose for FLAN 2021.
    plain = dataclasses.replace(settings, format="plain")
    bases = [_flan2021_base(d, plain) for d in DATASETS.values() if TRAIN_SPLIT in d.splits]
    yield from _plain((*bases, *small_sets.records()), has_no_options=True, seed=seed)


def _flan2021_base(dataset: FlanDataset, settings: flan2021_variants.Settings) -> TemplatedTask:
    made = flan2021_variants.Variants(dataset, templates=flan2021.templates()[dataset.template_set], settings=settings)
    base = made.declared(TaskName(dataset=dataset.name, purpose="train", number=NUM_TEMPLATES))
    whole = settings.sources.get(dataset.name) or WindowedTfdsSource(
        name=dataset.tfds, splits=uncapped(dataset.splits), on_bad_row=settings.on_bad_row
    )
    return dataclasses.replace(base, name=dataset.name, source=whole)


def _t0(settings: T0Settings | None, *, seed: int) -> Iterator[Member]:
    """Yields T0's prompts over datasets that FLAN 2021 lacks."""
    if settings is not None:
        yield from _plain(t0_prompts.records(settings), has_no_options=True, seed=seed)


def _niv2(folder: Path | None, *, seed: int) -> Iterator[Member]:
    """Yields the training tasks of Super-NaturalInstructions."""
    for name, file in ({} if folder is None else niv2.members(folder)).items():
        declare = functools.partial(niv2.record, name, file, seed=seed)
        yield Member(dataset=name, variants=niv2.VARIANTS, declare=declare)


def _cot(settings: FolderSettings | None, *, inverted: bool, seed: int) -> Iterator[Member]:
    """Yields the nine chain-of-thought sets."""
    if settings is not None:
        assert settings.data_dir is not None
        bases = (cot.record(one, settings.data_dir, inverted=inverted) for one in cot.SETS)
        yield from _plain(bases, has_no_options=False, seed=seed)


def _dialog(settings: FolderSettings, *, inverted: bool, seed: int) -> Iterator[Member]:
    """Yields the two dialogue sets. Inverted dialogues have the fixed form, whatever the name suggests."""
    for one in dialog.SETS:
        dataset = one.task(inverted=inverted)

        # Bound as defaults, because the loop's variables have changed when it is called.
        def declare(variant: Variant, one: dialog.DialogSet = one, dataset: str = dataset) -> TemplatedTask:
            name = variant.name(dataset)
            base = dialog.record(one, settings.data_dir, inverted=inverted, varied=variant.varies, name=name, seed=seed)
            return varied(base, variant, dataset=dataset)

        yield Member(dataset=dataset, variants=variants(varies=True, has_no_options=False), declare=declare)


_FINDERS: Mapping[str, Callable[..., Iterator[Member]]] = {
    FLAN2021.key: _flan2021,
    T0.key: _t0,
    NIV2.key: _niv2,
    COT.key: functools.partial(_cot, inverted=False),
    COT_INVERTED.key: functools.partial(_cot, inverted=True),
    DIALOG.key: functools.partial(_dialog, inverted=False),
    DIALOG_INVERTED.key: functools.partial(_dialog, inverted=True),
}
