"""Chain-of-thought sets (Longpre et al. 2023, arXiv:2301.13688, 3.1): a question, its rationale, and then the answer.

Nine sets are read from `<set>_train.tsv` (or `.tsv.gz`) in one folder: question, answer and rationale between tabs,
with line breaks written as `\\n`. Each is a task `cot_<set>` (`stream_<set>` for the two whose rationales are rough
notes) and, inverted, `cot_input_inversion_<set>`; the mixtures `cot` and `cot_input_inversion` contain all nine. They
are registered on demand. `flan2022` adds few-shot variants.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from flan_jax.collections import data_dirs
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import MissingFileError
from flan_jax.paths import user_path
from flan_jax.settings import Section
from flan_jax.tasks import registry
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.inverted import WithoutCopies
from flan_jax.tasks.sources.file_sources import TsvSource
from flan_jax.tasks.sources.rows import BadRow, Record
from flan_jax.templates import load
from flan_jax.templates.render import Pattern, Template
from flan_jax.vocab import Vocabulary

DATA_DIR_VARIABLE = "FLAN_JAX_COT_DIR"
CLUSTER = "chain_of_thought"
COLUMNS = ("question", "answer", "rationale")
CAP = 100_000
"""Cap on the training rows of a set in the rates of a mixture."""
EMPTY_FIELD = "an empty field"
TEMPLATES = Path(load.__file__).parent / "cot.yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CotSet:
    """One of the nine sets.

    Attributes:
      name: in the file's name.
      num_rows: of the released file.
      corpora: for hold-out.
      license: of the rows.
      are_notes: whether the rationales are rough notes ("stream") instead of explanations.
      metric: of answers; by value where they are numbers.
    """

    name: str
    num_rows: int
    corpora: tuple[str, ...]
    license: str
    are_notes: bool = False
    metric: str = "exact_match"

    def task(self, *, inverted: bool = False) -> str:
        """Returns the name of its task."""
        return ("stream_" if self.are_notes else "cot_") + ("input_inversion_" if inverted else "") + self.name


SETS = (
    CotSet(name="gsm8k", num_rows=7_473, corpora=("gsm8k",), license="MIT", metric="number_match"),
    CotSet(name="strategyqa", num_rows=2_061, corpora=("strategyqa",), license="MIT"),
    CotSet(name="creak", num_rows=6_915, corpora=("creak",), license="MIT"),
    CotSet(name="qasc", num_rows=1_084, corpora=("qasc",), license="CC BY 4.0"),
    CotSet(name="esnli", num_rows=36_174, corpora=("esnli", "snli"), license="unknown"),
    CotSet(name="ecqa", num_rows=7_112, corpora=("ecqa", "commonsense_qa"), license="CDLA-Sharing-1.0"),
    CotSet(name="sensemaking", num_rows=6_070, corpora=("sensemaking",), license="CC BY-SA 4.0"),
    CotSet(name="aqua", num_rows=2_728, corpora=("aqua",), license="Apache-2.0", are_notes=True),
    CotSet(name="qed", num_rows=5_154, corpora=("qed", "natural_questions"), license="unknown", are_notes=True),
)
MIXTURES: Mapping[str, bool] = {"cot": False, "cot_input_inversion": True}
"""Each mixture, and whether its members are the inverted tasks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """The sets that a folder contains.

    Attributes:
      readable: names of the sets with a file.
      missing: names of the other sets.
    """

    readable: tuple[str, ...]
    missing: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, init=False)
class CotSource(TsvSource):
    """The rows of a set, with its line breaks decoded."""

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows; places are "file:line"."""
        for record in super().read(split):
            if isinstance(record, BadRow):
                yield record
                continue
            row = {name: text.replace("\\n", "\n").strip() for name, text in record.row.items()}
            empty = [name for name, text in row.items() if not text]
            if empty:
                yield BadRow(EMPTY_FIELD, f"no text in {', '.join(empty)}", record.place)
            else:
                yield Record(row, record.place)


def coverage(data_dir: Path | str) -> Coverage:
    """Returns which of the nine sets a folder contains.

    Raises:
      MissingFileError: there is no such folder, or no set in it.
    """
    folder = user_path(data_dir)
    if not folder.is_dir():
        raise MissingFileError(f"No folder {folder} to read chain-of-thought sets from.")
    exists = {one.name: _file(folder, one).is_file() for one in SETS}
    if not any(exists.values()):
        expected = ", ".join(f"{name}_train.tsv" for name in exists)
        raise MissingFileError(f"{folder} contains no chain-of-thought set: expected some of {expected} (or .tsv.gz).")
    return Coverage(
        readable=tuple(name for name, is_file in exists.items() if is_file),
        missing=tuple(name for name, is_file in exists.items() if not is_file),
    )


def register(data_dir: Path | str | None = None, *, vocabulary: Vocabulary | str | None = None) -> Coverage | None:
    """Declares the tasks of all nine sets and their mixtures; the rows of a set without a file are unavailable.

    Args:
      data_dir: the folder; None takes the environment variable FLAN_JAX_COT_DIR.
      vocabulary: as in `registry.register`.

    Returns:
      The sets in the folder; None when neither the argument nor the variable names one, and nothing is declared.

    Raises:
      MissingFileError: as `coverage`.
    """
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not folder:
        return None
    covered = coverage(folder)
    registry.collection_settings()["cot"] = folder = user_path(folder)
    registry.declare_collection(
        "cot",
        names=lambda: (*MIXTURES, *(one.task(inverted=inverted) for one in SETS for inverted in (False, True))),
        define=functools.partial(_define, folder=folder, vocabulary=vocabulary),
        covering=lambda: [one.task(inverted=inverted) for one in (SETS[0], SETS[-1]) for inverted in (False, True)],
    )
    return covered


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Keys:
    """The keys of the collection in a YAML file."""

    data_dir: Path | None = None


def register_declared(settings: Section, *, vocabulary: Vocabulary) -> None:
    """Declares the collection with the settings of a YAML file's `collections: {cot: {data_dir: ...}}`.

    Raises:
      UserError, MissingFileError: an invalid setting, or no data.
    """
    declared = settings.parse(_Keys).data_dir
    folder = data_dirs.data_dir(
        declared, variable=DATA_DIR_VARIABLE, content="chain-of-thought sets", place=settings.place
    )
    register(folder, vocabulary=vocabulary)


def data_dir_in_use() -> Path | None:
    """Returns the folder in use; None if none is named."""
    named = os.environ.get(DATA_DIR_VARIABLE)
    return registry.collection_settings().get("cot") or (user_path(named) if named else None)


def records(folder: Path | str, *, inverted: bool = False) -> tuple[TemplatedTask, ...]:
    """Returns the tasks of all nine sets, whether or not their files exist."""
    return tuple(record(one, folder, inverted=inverted) for one in SETS)


def record(one: CotSet, folder: Path | str, *, inverted: bool = False) -> TemplatedTask:
    """Returns the task of a set: with ten templates (fifteen for rough notes), or inverted with eighteen.

    An inverted row whose target occurs in its input is dropped and counted.
    """
    return TemplatedTask(
        name=one.task(inverted=inverted),
        source=CotSource(files={TRAIN_SPLIT: _file(Path(folder), one)}, columns=COLUMNS),
        cluster=CLUSTER,
        templates=_templates(one, inverted=inverted),
        metrics=("rouge_l",) if inverted else (one.metric,),
        postprocessor=None if inverted else "chain_of_thought",
        license=one.license,
        corpora=one.corpora,
    )


def _templates(one: CotSet, *, inverted: bool) -> tuple[Pattern, ...]:
    sets = _template_sets()
    if inverted:
        return tuple(WithoutCopies(pattern=template) for template in sets["inverted"])
    return sets["forward"] + sets["forward_notes"] if one.are_notes else sets["forward"]


@functools.cache
def _template_sets() -> Mapping[str, tuple[Template, ...]]:
    return load.template_sets(TEMPLATES)


def _file(folder: Path, one: CotSet) -> Path:
    """Returns the set's file; the uncompressed path if there is none."""
    plain = folder / f"{one.name}_train.tsv"
    compressed = plain.with_suffix(".tsv.gz")
    return compressed if compressed.is_file() and not plain.is_file() else plain


@functools.cache
def _named() -> Mapping[str, tuple[CotSet, bool]]:
    return {one.task(inverted=inverted): (one, inverted) for one in SETS for inverted in (False, True)}


def _define(name: str, *, folder: Path, vocabulary: Vocabulary | str | None) -> bool:
    """Registers a task, or a mixture with its members."""
    if name in MIXTURES:
        members = [one.task(inverted=MIXTURES[name]) for one in SETS]
        registry.register_mixture(name, members, default_rate=ProportionalRate(maximum=CAP))
        return True
    if name not in _named():
        return False
    one, inverted = _named()[name]
    registry.register(record(one, folder, inverted=inverted), vocabulary=vocabulary)
    return True
