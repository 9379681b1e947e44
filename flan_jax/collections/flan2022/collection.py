"""The Flan 2022 Collection (Longpre et al. 2023, arXiv:2301.13688): five submixtures with variants of their prompts.

The mixtures, from outer to inner, with the released code's names and weights where they exist:

    flan2022                        the five submixtures at 0.40, 0.32, 0.20, 0.05 and 0.03
    flan2022_proportion_a, _b       four of them as in the scaling studies and in the release of Flan-T5
    flan2021_submix                 kinds of prompts at equal weights; also t0_, niv2_, cot_ and dialog_submix
    flan_zsopt                      one kind: zs or fs (few-shot), opt or noopt; cot and dialog with their inverted
                                    tasks at 0.3
    palmflan_flan_zs_opt            every dataset of one kind, proportional to its rows, at most the submixture's cap

`variants` defines the names of their tasks, `submixtures` the datasets. All are registered on demand. A mixture of a
submixture without a known folder is an error; the export handles a dataset that is not on this machine.

Departures: every random choice depends on seed, task and row; caps apply to measured rows; Super-NaturalInstructions
has one task per file, so that its cap is effective, and only the train list; inverted dialogues have one form.
DrRepair, CodeContests and TaskMaster are omitted, since their rows were never released.
"""

import functools
from collections.abc import Iterator, Mapping

from flan_jax.collections.catalog import Collection, Mixture
from flan_jax.collections.flan2022 import niv2, small_sets, t0_prompts
from flan_jax.collections.flan2022.submixtures import (
    COT,
    COT_INVERTED,
    DIALOG,
    DIALOG_INVERTED,
    FLAN2021,
    NIV2,
    T0,
    Datasets,
    Settings,
    Submixture,
)
from flan_jax.collections.flan2022.variants import Setting
from flan_jax.collections.t0 import collection as t0
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import MissingFileError, UserError
from flan_jax.settings import Section
from flan_jax.tasks.declare import TemplatedTask

SUBMIXTURES: tuple[Submixture, ...] = (FLAN2021, T0, NIV2, COT, DIALOG)
INVERTED: Mapping[str, Submixture] = {COT.key: COT_INVERTED, DIALOG.key: DIALOG_INVERTED}
# Of the released `mixtures.py`.
INVERSION_RATE = 0.3

MIXTURES: Mapping[str, Mapping[str, float]] = {
    # Only in the release's `run_example.py`; its `mixtures.py` has a table of other rates, which nothing reads.
    "flan2022": {"flan2021": 0.40, "t0": 0.32, "niv2": 0.20, "cot": 0.05, "dialog": 0.03},
    # Chung et al. 2022, arXiv:2210.11416, Table 23.
    "flan2022_proportion_a": {"flan2021": 52, "t0": 15, "cot": 3, "niv2": 30},
    "flan2022_proportion_b": {"flan2021": 46.0, "t0": 27.9, "cot": 1.8, "niv2": 24.2},
}
"""The submixtures of the outermost mixtures, with their weights."""


def leaf_name(submixture: Submixture, setting: Setting) -> str:
    """Returns the name of the mixture of a submixture's datasets under one kind of prompts.

    >>> leaf_name(FLAN2021, "zs_opt"), leaf_name(COT_INVERTED, "fs_opt")
    ('palmflan_flan_zs_opt', 'palmflan_cot_ii_fs_opt')
    """
    return f"palmflan_{submixture.key}_{setting}"


def setting_name(submixture: Submixture, setting: Setting) -> str:
    """Returns the name of the mixture that also contains the inverted tasks.

    >>> setting_name(FLAN2021, "fs_noopt")
    'flan_fsnoopt'
    """
    return f"{submixture.key}_{setting.replace('_', '')}"


def nested_mixtures() -> dict[str, dict[str, float]]:
    """Returns the members of every mixture of mixtures, with their weights."""
    found: dict[str, dict[str, float]] = {
        name: {f"{submixture}_submix": weight for submixture, weight in weights.items()}
        for name, weights in MIXTURES.items()
    }
    for submixture in SUBMIXTURES:
        found[f"{submixture.name}_submix"] = {setting_name(submixture, s): 1.0 for s in submixture.settings}
        for setting in submixture.settings:
            halves = {leaf_name(submixture, setting): 1.0}
            if submixture.key in INVERTED:
                halves[leaf_name(INVERTED[submixture.key], setting)] = INVERSION_RATE
            found[setting_name(submixture, setting)] = halves
    return found


def leaf_mixtures() -> dict[str, tuple[Submixture, Setting]]:
    """Returns the submixture and setting of every mixture of tasks."""
    halves = (*SUBMIXTURES, *INVERTED.values())
    return {leaf_name(half, setting): (half, setting) for half in halves for setting in half.settings}


class Contents:
    """All names of Flan 2022 under one set of settings."""

    def __init__(self, settings: Settings):
        """Stores the settings; datasets are listed when a name is requested."""
        self._datasets = Datasets(settings)

    def names(self) -> Iterator[str]:
        """Yields the names of mixtures, and those of the tasks whose datasets can be listed on this machine."""
        yield from nested_mixtures()
        yield from leaf_mixtures()
        for half in (*SUBMIXTURES, *INVERTED.values()):
            for member in self._datasets.of(half).values():
                for variant in member.variants:
                    yield variant.name(member.dataset)

    def covering(self) -> Iterator[str]:
        """Yields tasks that use the templates of no other collection."""
        small = self._datasets.of(FLAN2021)
        yield from (small[name].variants[0].name(name) for name in small_sets.NAMES)
        for half in (T0, NIV2):
            seen: list[object] = []
            for member in self._datasets.of(half).values():
                for variant in member.variants if half is NIV2 else member.variants[:1]:
                    kind = (variant, half is NIV2 or member.declare(variant).templates)
                    if kind not in seen:
                        seen.append(kind)
                        yield variant.name(member.dataset)

    def find(self, name: str) -> TemplatedTask | Mixture | None:
        """Returns the declaration of a name; None for an unknown name.

        Raises:
          UserError: A mixture of a submixture without datasets on this machine.
        """
        if name in _nested():
            self._require_members(name)
            return Mixture(members=list(_nested()[name].items()))
        if name in _leaves():
            self._require_members(name)
            half, setting = _leaves()[name]
            tasks = [task for member in self._datasets.of(half).values() for task in member.tasks(setting)]
            return Mixture(members=tasks, default_rate=ProportionalRate(maximum=half.cap), notes=self._notes(half))
        dataset = name.rpartition("_template_")[0]
        for half in (*SUBMIXTURES, *INVERTED.values()) if dataset else ():
            member = self._datasets.of(half).get(dataset)
            for variant in member.variants if member else ():
                if member and variant.name(dataset) == name:
                    return member.declare(variant)
        return None

    def _require_members(self, name: str) -> None:
        """Rejects a mixture with submixtures whose data have no known location, and names all of them."""
        empty = {half.name: half.fix for half in _halves(name) if not self._datasets.of(half)}
        if empty:
            ways = " ".join(f"{submixture}: {fix}" for submixture, fix in empty.items())
            raise UserError(
                f"The mixture {name!r} has no member of {', '.join(empty)} on this machine. {ways} "
                "Or mix the others yourself."
            )

    def _notes(self, half: Submixture) -> tuple[str, ...]:
        """Returns which tasks of a published list are missing: nothing else would report them."""
        folder, settings = self._datasets.superni_dir(), t0.COLLECTION.settings()
        if half is NIV2 and folder is not None:
            return niv2.notes(folder)
        return t0_prompts.notes(settings) if half is T0 and settings is not None else ()


def _halves(name: str) -> list[Submixture]:
    """Returns the submixtures, and halves of them, that a mixture contains."""
    if name in _leaves():
        return [_leaves()[name][0]]
    return list(dict.fromkeys(half for member in _nested()[name] for half in _halves(member)))


@functools.cache
def _nested() -> dict[str, dict[str, float]]:
    return nested_mixtures()


@functools.cache
def _leaves() -> dict[str, tuple[Submixture, Setting]]:
    return leaf_mixtures()


def _read(section: Section) -> Settings:
    """Returns the settings of a YAML file.

    Raises:
      UserError: An invalid setting.
      MissingFileError: No such folder.
    """
    settings = section.parse(Settings)
    if settings.superni_dir is not None and not settings.superni_dir.is_dir():
        place = section.at("superni_dir").place
        raise MissingFileError(f"{place}: no folder {settings.superni_dir} to read Super-NaturalInstructions from.")
    return settings


COLLECTION = Collection(name="flan2022", read=_read, default=Settings, contents=Contents)
register, register_declared = COLLECTION.register, COLLECTION.register_declared
