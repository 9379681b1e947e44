"""Dialogue sets (Longpre et al. 2023, arXiv:2301.13688, 3.1): predict a turn from the turns before it, or the reverse.

`wiki_dialog` and `qrecc` are read from TFDS, or from files `wiki_dialog_<split>.jsonl` (or `.jsonl.gz`) and
`qrecc_<split>.jsonl` with the same fields, in a folder that a YAML file or FLAN_JAX_DIALOG_DIR names. Tasks have the
two names, and the same with `_input_inversion`; the mixtures are `dialog` and `dialog_input_inversion`. They are
registered on demand. `dialog_rows` builds the examples, `flan2022` adds few-shot variants.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

from flan_jax.collections.catalog import Collection, DataFolder, FolderSettings, Mixture, Table
from flan_jax.collections.flan2022.dialog_rows import Conversations, NumberedRows, PredictTurn
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import MissingFileError
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.inverted import WithoutCopies
from flan_jax.tasks.sources.file_sources import JsonlSource, TfdsSource
from flan_jax.tasks.sources.rows import Source
from flan_jax.templates import dialogue, load
from flan_jax.templates.render import Pattern

DATA = DataFolder(variable="FLAN_JAX_DIALOG_DIR", content="dialogues")
CLUSTER = "dialog"
CAP = 200_000
"""Cap on the training rows of a set in the rates of a mixture."""
INVERSION = "_input_inversion"
TEMPLATES = Path(load.__file__).parent / "dialog.yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DialogSet:
    """One of the two sets.

    Attributes:
      name: Of its task.
      tfds: In TFDS's spelling.
      splits: TFDS expressions.
      turns: The field that lists the turns.
      skipped: The number of first turns that are not part of the conversation.
      min_turn_id: Rows with a smaller "turn_id" are dropped; None for rows without that field.
      corpora: For hold-out.
      license: Of the rows.
    """

    name: str
    tfds: str
    splits: Mapping[str, str]
    turns: str
    corpora: tuple[str, ...]
    skipped: int = 0
    min_turn_id: int | None = None
    license: str

    def task(self, *, inverted: bool = False) -> str:
        """Returns the name of its task."""
        return self.name + (INVERSION if inverted else "")


SETS = (
    DialogSet(
        name="wiki_dialog",
        tfds="wiki_dialog:1.0.0",
        splits={"train": "train", "validation": "validation"},
        turns="utterances",
        corpora=("wiki_dialog",),
        skipped=1,  # A greeting that introduces the assistant.
        license="CC BY-SA 3.0",
    ),
    DialogSet(
        name="qrecc",
        tfds="q_re_cc:1.0.0",
        splits={"train": "train", "test": "test"},
        turns="context",
        corpora=("qrecc", "quac", "natural_questions"),  # Its conversations continue questions of both.
        # As in the release, which uses turn ids above 6.
        min_turn_id=7,
        license="CC BY-SA 3.0",
    ),
)
MIXTURES: Mapping[str, bool] = {"dialog": False, "dialog_input_inversion": True}
"""Each mixture, and whether its members are the inverted tasks."""


def record(
    one: DialogSet,
    folder: Path | str | None = None,
    *,
    inverted: bool = False,
    varied: bool = True,
    name: str | None = None,
    seed: int = 0,
) -> TemplatedTask:
    """Returns the task of a set.

    Args:
      one: The set.
      folder: Of JSONL files; None for TFDS.
      inverted: Whether the earlier turns are predicted from the turn.
      varied: Whether training draws the style of the dialogue.
      name: Of the task, which determines its random choices; None for the set's own.
      seed: Of the random choices.
    """
    task = name or one.task(inverted=inverted)
    return TemplatedTask(
        name=task,
        source=NumberedRows(source=_source(one, folder)),
        cluster=CLUSTER,
        templates=_templates(inverted=inverted),
        metrics=("rouge_l", "exact_match"),
        postprocessor=None if inverted else "first_line",
        normalizer=PredictTurn(
            task=task,
            turns=one.turns,
            skipped=one.skipped,
            styles=dialogue.pools() if varied and not inverted else None,
            seed=seed,
        ),
        filters=(Conversations(min_turn_id=one.min_turn_id),),
        license=one.license,
        corpora=one.corpora,
        seed=seed,
    )


def _source(one: DialogSet, folder: Path | str | None) -> Source:
    if folder is None:
        return TfdsSource(name=one.tfds, splits=one.splits)
    plain = {split: Path(folder) / f"{one.name}_{split}.jsonl" for split in one.splits}
    compressed = {split: path.with_suffix(".jsonl.gz") for split, path in plain.items()}
    files = {s: p if p.is_file() or not compressed[s].is_file() else compressed[s] for s, p in plain.items()}
    # A folder may lack the evaluation split. One without the training split is incomplete and reported as missing.
    return JsonlSource(files={s: p for s, p in files.items() if s == TRAIN_SPLIT or p.is_file()})


@functools.cache
def _templates(*, inverted: bool) -> tuple[Pattern, ...]:
    sets = load.template_sets(TEMPLATES)
    return tuple(WithoutCopies(pattern=template) for template in sets["inverted"]) if inverted else sets["forward"]


def contents(settings: FolderSettings) -> Table:
    """Returns the tasks of both sets and their mixtures; without a folder, rows come from TFDS.

    Raises:
      MissingFileError: There is no such folder.
    """
    folder = settings.data_dir
    if folder is not None and not folder.is_dir():
        raise MissingFileError(f"No folder {folder} to read dialogue sets from.")
    tasks = {
        one.task(inverted=inverted): functools.partial(record, one, folder, inverted=inverted)
        for one in SETS
        for inverted in (False, True)
    }
    mixtures = {
        name: Mixture(members=[one.task(inverted=inverted) for one in SETS], default_rate=ProportionalRate(maximum=CAP))
        for name, inverted in MIXTURES.items()
    }
    return Table(tasks=tasks, mixtures=mixtures, covers=tuple(tasks)[:2])


def _default() -> FolderSettings:
    return DATA.default() or FolderSettings()


COLLECTION = Collection(name="dialog", read=DATA.read, default=_default, contents=contents)
register, register_declared = COLLECTION.register, COLLECTION.register_declared
