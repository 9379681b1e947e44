"""The tasks of a FLAN 2021 dataset (arXiv:2109.01652): for generation, ranking and training, zero-shot and few-shot.

From a name (`names`) and a dataset's record to a declaration; `collection` registers it.
"""

import dataclasses
import functools
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from flan_jax.collections.flan2021.names import ENDINGS, NUM_TEMPLATES, SHOTS, TEMPLATE_COUNTS, TaskName
from flan_jax.collections.flan2021.records import FlanDataset
from flan_jax.collections.flan2021.windows import MAX_TRAIN_ROWS, PartOf, WindowedTfdsSource
from flan_jax.errors import UserError
from flan_jax.tasks.declare import TRAIN_SPLIT, Evaluation, FewShot, TemplatedTask
from flan_jax.tasks.sources.rows import OnBadRow, Source
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.templates.render import Template

WITH_EXEMPLARS = ("generate", "rank", "train")
"""The purposes that were also released with exemplars."""
MAX_PROMPT_TOKENS = 960  # 1,024, minus 64 for the separators between exemplars.
OPTION_PLACEHOLDERS = ("{options_}", "{options_str}")
RANK_METRICS = ("rank_accuracy",)
TEST_ONLY_CLUSTER = "coreference"  # Of WSC273, which no split of the paper contains.

Format = Literal["plain", "flan"]
PLAIN = FewShotFormat(name="plain")
FLAN = FewShotFormat(
    name="flan", input_prefix="0 ", target_prefix="1 ", delimiter=" X ", separator=" X ", suffix=" FLAN"
)
FORMATS: Mapping[str, FewShotFormat] = {"plain": PLAIN, "flan": FLAN}
"""The formats of prompts, zero-shot and few-shot: without marks, or with the marks of the paper's own model."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The user's settings of the collection.

    Attributes:
      sources: Of datasets that are not read from TFDS, with rows in TFDS's shape.
      format: A name in `FORMATS`.
      on_bad_row: For rows of TFDS.
      seed: Of the exemplars.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    format: Format = "plain"
    on_bad_row: OnBadRow = "error"
    seed: int = 0


class Variants:
    """The tasks of one dataset; sources and templates are shared among them."""

    def __init__(self, dataset: FlanDataset, *, templates: tuple[Template, ...], settings: Settings):
        """Stores what all of them share.

        Args:
          dataset: Its record.
          templates: Its ten templates.
          settings: Of the collection.
        """
        assert len(templates) == NUM_TEMPLATES, (dataset.name, len(templates))
        self.dataset, self.templates, self._settings = dataset, templates, settings
        self._made: dict[Hashable, tuple[Template, ...]] = {}

    @functools.cached_property
    def source(self) -> Source:
        """The rows: TFDS's in the paper's windows, or the user's, of which the first 30,000 are for training."""
        declared = self._settings.sources.get(self.dataset.name)
        if declared is not None:
            limits = {TRAIN_SPLIT: MAX_TRAIN_ROWS}
            return PartOf(
                source=declared, selected=tuple(declared.splits), limits=limits, on_bad_row=declared.on_bad_row
            )
        return WindowedTfdsSource(
            name=self.dataset.tfds, splits=self.dataset.splits, on_bad_row=self._settings.on_bad_row
        )

    def names(self) -> Iterator[TaskName]:
        """Yields the names in the released code, except those that cannot be tasks; see `has` and `declared`."""
        numbers: dict[str, tuple[int | None, ...]] = {"train": TEMPLATE_COUNTS, "all_prompts": (None,)}
        for purpose in ENDINGS:
            for number in numbers.get(purpose, range(NUM_TEMPLATES)):
                for shot in SHOTS if purpose in WITH_EXEMPLARS else ("zero",):
                    name = TaskName(dataset=self.dataset.name, purpose=purpose, number=number, shot=shot)
                    if self.has(name) and not (name.is_rank and self._is_inverted(name)):
                        yield name

    def has(self, name: TaskName) -> bool:
        """Whether a name is that of a task of this dataset, or of one that `declared` rejects with the reason."""
        numbers = TEMPLATE_COUNTS if name.purpose == "train" else (None, *range(NUM_TEMPLATES))
        if name.number not in numbers or (name.is_rank and not self.dataset.is_classification):
            return False
        # Training, exemplars and inverted templates, which are never evaluated, all need training rows.
        takes_training_rows = name.template is None or name.shot != "zero" or self._is_inverted(name)
        return TRAIN_SPLIT in self.source.splits or not takes_training_rows

    def declared(self, name: TaskName) -> TemplatedTask:
        """Returns the declaration of a task.

        Raises:
          UserError: A task that would rank options under an inverted template.
        """
        if name.is_rank and self._is_inverted(name):
            forward = ", ".join(str(i) for i, template in enumerate(self.templates) if template.direction == "forward")
            raise UserError(
                f"Task {str(name)!r}: {self.templates[name.number or 0]} of {self.dataset.name} is inverted. Its "
                f"target is none of the options, so there is nothing to rank. Rank a forward one: {forward}."
            )
        dataset = self.dataset
        return TemplatedTask(
            name=str(name),
            source=self._source_of(name),
            cluster=dataset.cluster or TEST_ONLY_CLUSTER,
            templates=self._templates_of(name),
            options=dataset.options,
            metrics=RANK_METRICS if name.is_rank else dataset.metrics,
            normalizer=dataset.normalizer,
            references=dataset.references,
            evaluation=_evaluation(name),
            license=dataset.license,
            corpora=dataset.corpora,
            few_shot=self._few_shot(name),
            group=dataset.group,
            seed=self._settings.seed,
        )

    def _is_inverted(self, name: TaskName) -> bool:
        """Whether its only template is inverted."""
        return name.template is not None and self.templates[name.template].direction == "inverted"

    def _source_of(self, name: TaskName) -> Source:
        """Returns the rows of a task; one whose only template is inverted has training rows only."""
        if not self._is_inverted(name):
            return self.source
        return PartOf(source=self.source, selected=(TRAIN_SPLIT,), on_bad_row=self.source.on_bad_row)

    def _templates_of(self, name: TaskName) -> tuple[Template, ...]:
        hides_options = name.purpose in ("rank_no_options", "rank_flan_no_options")
        # Exemplars and query are formatted together.
        form = self._format(name) if name.shot == "zero" else PLAIN
        # Thousands of tasks share a few hundred template sets.
        key = (name.template, name.number, hides_options, form.name)
        if key not in self._made:
            chosen = self.templates[: name.number] if name.template is None else (self.templates[name.template],)
            self._made[key] = tuple(_changed(template, hides_options=hides_options, form=form) for template in chosen)
        return self._made[key]

    def _format(self, name: TaskName) -> FewShotFormat:
        # The released code formats both kinds without options alike, though one is for models without FLAN's marks.
        return PLAIN if name.purpose == "rank_no_options" else FORMATS[self._settings.format]

    def _few_shot(self, name: TaskName) -> FewShot | None:
        if name.shot == "zero":
            return None
        return _few_shot(SHOTS[name.shot], self._format(name).name)


def _evaluation(name: TaskName) -> Evaluation:
    return "rank" if name.is_rank else "generate"


@functools.cache
def _few_shot(num_exemplars: int, form: str) -> FewShot:
    return FewShot(num_exemplars=num_exemplars, formats=(FORMATS[form],), max_tokens=MAX_PROMPT_TOKENS)


def _changed(template: Template, *, hides_options: bool, form: FewShotFormat) -> Template:
    """Returns a template without its options, or between the marks of a format; the same object if nothing changes."""
    inputs = without_options(template.inputs) if hides_options else template.inputs
    # The marks contain no braces, so that they can enclose a pattern like a text.
    inputs = form.join([], inputs)
    return template if inputs == template.inputs else dataclasses.replace(template, inputs=inputs)


def without_options(pattern: str) -> str:
    r"""Removes the list of options from a pattern, and the white space at its ends.

    >>> without_options("{premise} Does it follow that {hypothesis}?\n\n{options_}")
    '{premise} Does it follow that {hypothesis}?'
    """
    for placeholder in OPTION_PLACEHOLDERS:
        pattern = pattern.replace(placeholder, "")
    return pattern.strip()
