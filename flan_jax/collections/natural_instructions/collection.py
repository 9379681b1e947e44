"""Super-NaturalInstructions (Wang et al. 2022, arXiv:2204.07705): one SeqIO task per file, encoded as for Tk-Instruct.

The names of tasks are `superni_` and the task's own name. Mixtures are the lists of the English track (`superni_train`,
`superni_test`), those of the cross-lingual track where the folder has them (`superni_xlingual_train`,
`superni_xlingual_test`), `superni_test_sample` (five test tasks of different categories, for a quick evaluation; a
checkpoint selected by it has seen test data) and `superni_train_disjoint`: the train list without tasks that share a
corpus with a test task under another spelling, of which the published list has some. A task of a train list has the
split "train", one of a test list "test", and none has both: no mixture can train on what is held out.

`task_files` reads the files, `selection` selects tasks, `instances` builds rows and `templates.superni` prompts.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.collections.catalog import DataFolder, Mixture, replace
from flan_jax.collections.natural_instructions.corpora import corpora
from flan_jax.collections.natural_instructions.instances import Encode, Split, SuperNISource
from flan_jax.collections.natural_instructions.selection import XLINGUAL, Coverage, LabelRule, lists_of, select
from flan_jax.collections.natural_instructions.task_files import TaskFile, task_files
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import UnknownNameError, UserError, in_errors
from flan_jax.names import require_choice
from flan_jax.paths import user_path
from flan_jax.settings import Section
from flan_jax.tasks import registry
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.templates.render import Template
from flan_jax.templates.superni import HEADLINE, TK_INSTRUCT, Encoding
from flan_jax.vocab import Vocabulary

DATA = DataFolder(
    variable="FLAN_JAX_SUPERNI_DIR",
    content="Super-NaturalInstructions",
    command="git clone https://github.com/allenai/natural-instructions",
)
SPLITS: tuple[Split, ...] = ("train", "test")
TEMPLATE = Template(inputs="{prompt}", targets="{target}", name="super-natural-instructions")
SAMPLE_CATEGORIES = (
    "Textual Entailment",
    "Title Generation",
    "Coreference Resolution",
    "Question Rewriting",
    "Data to Text",
)
# The first metric of a category in the paper's tables (section 5.2 and the released script) is exact match if its
# answers are labels. ROUGE-L, which is reported for all tasks, is first for the others.
EXACT_MATCH_CATEGORIES = frozenset(
    {
        "Textual Entailment",
        "Cause Effect Classification",
        "Coreference Resolution",
        "Dialogue Act Recognition",
        "Answerability Classification",
        "Word Analogy",
    }
)
# The encodings of the paper's Table 5, and the Tk-Instruct training mode, which draws one of them for each instance.
_ENCODING_NAMES = (
    "definition", "positive", "definition_positive", "definition_positive_negative", "definition_positive_explained",
)  # fmt: skip
ENCODINGS: Mapping[str, tuple[Encoding, ...]] = {
    **{name: (encoding,) for name, encoding in zip(_ENCODING_NAMES, TK_INSTRUCT, strict=True)},
    "tk_instruct": TK_INSTRUCT,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the tasks of a folder are registered.

    Attributes:
      max_source_tokens: The budget of a prompt; TASK_FEATURE_LENGTHS' inputs should be the same.
      encoding: A name in `ENCODINGS`. "tk_instruct" draws one of five for each training instance; test instances then
        have the headline encoding.
      max_instances: Cap of a task, in training and in testing.
      passes: How often each training instance is used, each time with an encoding and a target of its own.
      split: The split of all tasks of a folder without lists.
      licenses: Allowed and denied patterns for "Instance License".
      sources: The same for "Source": denying "synthetic" leaves out programmatically generated tasks.
      on_bad_row: "skip" drops and counts instances that break the schema.
      seed: Draws training instances beyond the cap, encodings, and targets among several outputs.
      prefix: Of the names, so that several encodings can be registered together.
    """

    max_source_tokens: PositiveInt = 1024
    encoding: str = "definition_positive"
    max_instances: PositiveInt = 100
    passes: PositiveInt = 1
    split: Split | None = None
    licenses: LabelRule = LabelRule()
    sources: LabelRule = LabelRule()
    on_bad_row: OnBadRow = "error"
    seed: int = 0
    prefix: str = "superni"

    def __post_init__(self) -> None:
        check_fields(self)
        require_choice(self.encoding, ENCODINGS, "encoding", error=UnknownNameError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Keys(Settings):
    """The keys of the collection in a YAML file."""

    data_dir: Path | None = None


def register(
    data_dir: Path | str | None = None,
    settings: Settings = Settings(),
    *,
    vocabulary: Vocabulary | str | None = None,
) -> dict[str, Coverage]:
    """Registers every readable task of the train and test lists, and their mixtures; replaces those of an earlier call.

    Args:
      data_dir: A folder in a layout of `task_files`; None takes the environment variable FLAN_JAX_SUPERNI_DIR.
      settings: Of all tasks.
      vocabulary: As in `registry.register`; it also counts the tokens of prompts.

    Returns:
      The coverage of each list; {} when neither the argument nor the variable names a folder.

    Raises:
      MissingFileError, UserError: As `task_files.task_files` and `selection.lists_of`; also if no task is left.
    """
    folder = user_path(data_dir) if data_dir else DATA.named()
    if folder is None:
        return {}
    used = registry.vocabulary(vocabulary)
    files = task_files(folder)
    lists = lists_of(folder, split=settings.split, names=files)
    found = select(files, lists, licenses=settings.licenses, sources=settings.sources)
    tasks = _tasks(found, files, settings, used)
    if not tasks:
        why = [note for which in found if which.endswith(SPLITS) for note in found[which].notes(which, folder=folder)]
        raise UserError(f"No task of Super-NaturalInstructions is left. {' '.join(why) or 'Its lists are empty.'}")
    mixtures = _mixtures(found, files, folder=folder, settings=settings)
    replace(f"natural_instructions as {settings.prefix}", tasks, mixtures, vocabulary=used)
    return found


def register_declared(settings: Section, *, vocabulary: Vocabulary) -> None:
    """Registers the collection with the settings of a YAML file's `collections: {natural_instructions: ...}`.

    Raises:
      UserError, MissingFileError, UnknownNameError: An invalid setting, or as `register`.
    """
    keys = settings.parse(_Keys)
    folder = DATA.of(keys.data_dir, settings.place)
    with in_errors(settings.place):
        register(folder, keys, vocabulary=vocabulary)


def seqio_name(task: str, *, prefix: str) -> str:
    """Returns the registered name of a task; SeqIO allows fewer characters than some files have.

    >>> seqio_name("task140_detoxifying-lms_classification_style", prefix="superni")
    'superni_task140_detoxifying_lms_classification_style'
    """
    return f"{prefix}_{re.sub(r'[^0-9A-Za-z_.:#]', '_', task)}"


def _tasks(
    found: Mapping[str, Coverage], files: Mapping[str, TaskFile], settings: Settings, vocabulary: Vocabulary
) -> tuple[TemplatedTask, ...]:
    tasks = []
    for split in SPLITS:
        for name in _in_either_track(found, split):
            of_xlingual = split == "test" and name not in found["test"].readable
            # The released script scores that track with a tokenizer for all scripts.
            rouge = "rouge_l_xlingual" if of_xlingual else "rouge_l"
            tasks.append(_declared(files[name], split, settings, vocabulary=vocabulary, rouge=rouge))
    return tuple(tasks)


def _in_either_track(found: Mapping[str, Coverage], split: Split) -> list[str]:
    tracks = [found[which].readable for which in (split, XLINGUAL + split) if which in found]
    return list(dict.fromkeys(name for readable in tracks for name in readable))


def _declared(file: TaskFile, split: Split, settings: Settings, *, vocabulary: Vocabulary, rouge: str) -> TemplatedTask:
    encodings = ENCODINGS[settings.encoding]
    is_drawn = len(encodings) > 1 and split == "test"
    exact = "superni_exact_match"
    metrics = (exact, rouge) if file.category in EXACT_MATCH_CATEGORIES else (rouge, exact)
    return TemplatedTask(
        name=seqio_name(file.name, prefix=settings.prefix),
        source=SuperNISource(
            task=file,
            split=split,
            max_instances=settings.max_instances,
            seed=settings.seed,
            on_bad_row=settings.on_bad_row,
        ),
        cluster=file.category.lower().replace(" ", "_"),
        templates=(TEMPLATE,),
        metrics=metrics,
        # One per task, whose prompters it caches.
        normalizer=Encode(
            encodings=(HEADLINE,) if is_drawn else encodings,
            vocabulary=vocabulary,
            max_source_tokens=settings.max_source_tokens,
            seed=settings.seed,
            passes=settings.passes if split == "train" else 1,
        ),
        references="references",
        license=file.license,
        corpora=corpora(file.sources),
    )


def _mixtures(
    found: Mapping[str, Coverage], files: Mapping[str, TaskFile], *, folder: Path | str, settings: Settings
) -> dict[str, Mixture]:
    train, test = found["train"].readable, found["test"].readable
    members: dict[str, Sequence[str]] = {
        **{which: found[which].readable for which in found if which.endswith(SPLITS)},
        "train_disjoint": _disjoint(train, test, files) if test else (),
        "test_sample": _sample(test, files, avoid=found["dev"].listed),
    }
    return {
        f"{settings.prefix}_{which}": Mixture(
            members=[seqio_name(task, prefix=settings.prefix) for task in tasks],
            # Test tasks weigh the same, as in the paper's averages over tasks.
            default_rate=ProportionalRate(maximum=settings.max_instances) if "train" in which else 1.0,
            notes=found[which].notes(which, folder=folder) if which in found else (),
        )
        for which, tasks in members.items()
        if tasks
    }


def _disjoint(train: Collection[str], test: Collection[str], files: Mapping[str, TaskFile]) -> list[str]:
    """Returns the training tasks that share neither category nor corpus with a readable test task."""
    categories = {files[name].category for name in test}
    held_out = {corpus for name in test for corpus in corpora(files[name].sources)}
    return [
        name
        for name in train
        if files[name].category not in categories and held_out.isdisjoint(corpora(files[name].sources))
    ]


def _sample(test: Collection[str], files: Mapping[str, TaskFile], *, avoid: Collection[str]) -> list[str]:
    """Returns the first test task of each sample category that is no development task."""
    of_category = {
        category: [name for name in test if files[name].category == category and name not in avoid]
        for category in SAMPLE_CATEGORIES
    }
    return [names[0] for names in of_category.values() if names]
