"""The two directions of a task as tasks of their own, so that the weight of each is visible in a mixture.

An inverted task has the inverted templates alone, is only trained on, and leaves out pairs whose target stands in the
input: there would be nothing to learn but to copy. Leaving inversion out costs held-out tasks much and held-in ones
nothing (Flan 2022, arXiv 2301.13688, section 3.3).
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

STANDS_IN_INPUT = "target stands in the input"


@dataclass(frozen=True, kw_only=True)
class TrainOnly(DerivedSource):
    """The split "train" of another source."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.source.require_split(TRAIN_SPLIT)

    @property
    def splits(self) -> Collection[str]:
        """One name."""
        return (TRAIN_SPLIT,)


@dataclass(frozen=True, kw_only=True)
class WithoutCopies(Pattern):
    """A template that leaves out rows whose target stands, word for word, in the input."""

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
        """Whether the template brings options of its own."""
        return self.pattern.gives_options

    @property
    def fields(self) -> tuple[str, ...]:
        """The template's fields."""
        return self.pattern.fields

    @property
    def identity(self) -> list[Any]:
        """The template's, and that copies are left out."""
        return [*self.pattern.identity, STANDS_IN_INPUT]

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
          NotApplicable: the target stands in the input, or as the template has it.
        """
        rendered = self.pattern.render(row, options=options, references=references, block=block)
        if stands_in(rendered.targets, rendered.inputs):
            raise NotApplicable(STANDS_IN_INPUT)
        return rendered


def stands_in(target: str, text: str) -> bool:
    """Returns whether the words of one text stand in another, next to each other; case and punctuation do not matter.

    >>> stands_in("The cat sat.", "Then the cat sat down"), stands_in("cat", "concatenate"), stands_in("?", "Is it?")
    (True, False, False)
    """
    words = words_of(target)
    return bool(words) and f" {' '.join(words)} " in f" {' '.join(words_of(text))} "


def inverted(task: TemplatedTask) -> TemplatedTask:
    """Returns the inverted templates of a task as a task `<name>_inverted`, with the split "train" alone.

    Raises:
      UserError: none of its templates is inverted.
      UnknownNameError: it has no split "train".
    """
    templates = [WithoutCopies(pattern=template) for template in task.templates if template.direction == "inverted"]
    if not templates:
        raise UserError(
            f"Task {task.name!r} has no inverted template, so there is no inverted task of it. Give one of its "
            "templates direction='inverted'."
        )
    return dataclasses.replace(
        task,
        name=f"{task.name}_inverted",
        source=TrainOnly(source=task.source, on_bad_row=task.source.on_bad_row),
        templates=tuple(templates),
        templates_per_row=min(task.templates_per_row, len(templates)),
        # Never evaluated: the target of an inverted template is no answer that could be ranked or judged.
        evaluation="generate",
        metrics=TemplatedTask.metrics,
        postprocessor=None,
        references=None,
        group=None,
    )


def forward(task: TemplatedTask) -> TemplatedTask:
    """Returns the forward templates of a task as a task `<name>_forward`, which is evaluated as the task is.

    Raises:
      UserError: all its templates are inverted.
    """
    templates = tuple(template for template in task.templates if template.direction == "forward")
    if not templates:
        raise UserError(f"Task {task.name!r} has inverted templates only, so there is no forward task of it.")
    return dataclasses.replace(
        task,
        name=f"{task.name}_forward",
        templates=templates,
        templates_per_row=min(task.templates_per_row, len(templates)),
    )
