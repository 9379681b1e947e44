"""The inverted templates of a task as a task of their own, so that a mixture can weight the directions.

An inverted task has only the inverted templates, has only the split "train", and leaves out pairs whose target is part
of the input: they teach nothing but copying. Without inversion held-out tasks score much lower and held-in ones the
same (Flan 2022, arXiv 2301.13688, section 3.3).
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flan_jax.errors import UserError
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.filters.rule import words_of
from flan_jax.tasks.sources.rows import DerivedSource
from flan_jax.templates.render import Direction, NotApplicable, Pattern, Rendered

TARGET_IN_INPUT = "target is part of the input"


@dataclass(frozen=True, kw_only=True)
class TrainOnly(DerivedSource):
    """The split "train" of another source."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.source.require_split(TRAIN_SPLIT)

    @property
    def splits(self) -> Collection[str]:
        """Only "train"."""
        return (TRAIN_SPLIT,)


@dataclass(frozen=True, kw_only=True)
class WithoutCopies(Pattern):
    """A template that leaves out rows whose target is, word for word, part of the input."""

    pattern: Pattern
    direction: Direction = field(init=False)
    name: str | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", self.pattern.direction)
        object.__setattr__(self, "name", self.pattern.name)

    @property
    def shows_options(self) -> bool:
        """Whether the template's inputs list the options."""
        return self.pattern.shows_options

    @property
    def gives_options(self) -> bool:
        """Whether the template has options of its own."""
        return self.pattern.gives_options

    @property
    def fields(self) -> tuple[str, ...]:
        """The template's fields."""
        return self.pattern.fields

    @property
    def identity(self) -> list[Any]:
        """The template's, marked as leaving out copies."""
        return [*self.pattern.identity, TARGET_IN_INPUT]

    def prompt(self, row: Mapping[str, Any], *, options: Sequence[str] = ()) -> str:
        """Returns the template's, whatever the target."""
        return self.pattern.prompt(row, options=options)

    def render(
        self,
        row: Mapping[str, Any],
        *,
        options: Sequence[str] = (),
        references: Sequence[str] = (),
        block: str | None = None,
    ) -> Rendered:
        """Fills the template in; see `Template.render`.

        Raises:
          NotApplicable: The target is part of the input, or the template leaves the row out.
        """
        rendered = self.pattern.render(row, options=options, references=references, block=block)
        if is_part_of(rendered.targets, rendered.inputs):
            raise NotApplicable(TARGET_IN_INPUT)
        return rendered


def is_part_of(target: str, text: str) -> bool:
    """Returns whether the words of one text occur in another in sequence, whatever their case and punctuation.

    >>> is_part_of("The cat sat.", "Then the cat sat down"), is_part_of("cat", "concatenate"), is_part_of("?", "Is it?")
    (True, False, False)
    """
    words = words_of(target)
    return bool(words) and f" {' '.join(words)} " in f" {' '.join(words_of(text))} "


def inverted_name(name: str) -> str:
    """Returns the name of the inverted task of a task."""
    return f"{name}_inverted"


def inverted(task: TemplatedTask) -> TemplatedTask:
    """Returns the inverted templates of a task as a task `<name>_inverted`, with the split "train" alone.

    Raises:
      UserError: None of its templates is inverted.
      UnknownNameError: It has no split "train".
    """
    templates = [WithoutCopies(pattern=template) for template in task.templates if template.direction == "inverted"]
    if not templates:
        raise UserError(
            f"Task {task.name!r} has no inverted template, so it has no inverted task. Set direction='inverted' on "
            "one of its templates."
        )
    return dataclasses.replace(
        task,
        name=inverted_name(task.name),
        source=TrainOnly(source=task.source, on_bad_row=task.source.on_bad_row),
        templates=tuple(templates),
        templates_per_row=min(task.templates_per_row, len(templates)),
        # Never evaluated: the target of an inverted template is not an answer to rank or score.
        evaluation="generate",
        metrics=TemplatedTask.metrics,
        postprocessor=None,
        references=None,
        group=None,
    )
