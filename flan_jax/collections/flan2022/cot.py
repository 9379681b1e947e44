"""Chain-of-thought sets (Longpre et al. 2023, arXiv:2301.13688, 3.1): a question, its rationale, and then the answer.

Nine sets are read from `<set>_train.tsv` (or `.tsv.gz`) in one folder: question, answer and rationale between tabs,
with line breaks written as `\\n`. Each is a task `cot_<set>` (`stream_<set>` for the two whose rationales are rough
notes) and, inverted, `cot_input_inversion_<set>`; the mixtures `cot` and `cot_input_inversion` contain all nine. They
are registered on demand. `flan2022` adds few-shot variants.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from flan_jax.collections.catalog import Collection, DataFolder, FolderSettings, Mixture, Table
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import MissingFileError
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.inverted import WithoutCopies
from flan_jax.tasks.sources.file_sources import TsvSource
from flan_jax.tasks.sources.rows import BadRow, Record
from flan_jax.templates import load
from flan_jax.templates.render import Pattern, Template

DATA = DataFolder(variable="FLAN_JAX_COT_DIR", content="chain-of-thought sets")
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
      name: In the file's name.
      num_rows: Of the released file.
      corpora: For hold-out.
      license: Of the rows.
      are_notes: Whether the rationales are rough notes ("stream") instead of explanations.
      metric: Of answers; by value where they are numbers.
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
            # Before rendering: a template with an empty rationale would train an answer without one.
            if empty:
                yield BadRow(EMPTY_FIELD, f"no text in {', '.join(empty)}", record.place)
            else:
                yield Record(row, record.place)


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


def contents(settings: FolderSettings) -> Table:
    """Returns the tasks of all nine sets and their mixtures; the rows of a set without a file are unavailable.

    Raises:
      MissingFileError: There is no such folder, or no set in it.
    """
    folder = settings.data_dir
    if folder is None or not folder.is_dir():
        raise MissingFileError(f"No folder {folder} to read chain-of-thought sets from.")
    if not any(_file(folder, one).is_file() for one in SETS):
        expected = ", ".join(f"{one.name}_train.tsv" for one in SETS)
        raise MissingFileError(f"{folder} contains no chain-of-thought set: expected some of {expected} (or .tsv.gz).")
    return Table(
        tasks={
            one.task(inverted=inverted): functools.partial(record, one, folder, inverted=inverted)
            for one in SETS
            for inverted in (False, True)
        },
        mixtures={
            name: Mixture(
                members=[one.task(inverted=inverted) for one in SETS], default_rate=ProportionalRate(maximum=CAP)
            )
            for name, inverted in MIXTURES.items()
        },
        covers=tuple(one.task(inverted=inverted) for one in (SETS[0], SETS[-1]) for inverted in (False, True)),
    )


COLLECTION = Collection(name="cot", read=DATA.read, default=DATA.default, contents=contents)
register, register_declared = COLLECTION.register, COLLECTION.register_declared
