"""Instruction files: Self-Instruct, Unnatural Instructions, Alpaca's and Dolly's shapes, and prompts with completions.

Each is a `shape.Format`: it knows the fields of its rows and turns them into examples with `instruction`, `input`
("" when there is none) and `output`, which the forms of `templates/self_instruct.yaml` put into words. What is left out
of generated data is up to rules: `filters.settings.self_instruct_filters`. Raw generations are read by `generated`.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from flan_jax.draws import Draws
from flan_jax.errors import UserError
from flan_jax.names import shortened
from flan_jax.tasks.formats.generations import instances_of
from flan_jax.tasks.formats.shape import Format, Shape, Unusable, items, text
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates import load
from flan_jax.templates.forms import Case, DrawnForm
from flan_jax.templates.render import Pattern, Template

TEMPLATES = Path(load.__file__).parent / "self_instruct.yaml"
INPUT_MARKER = "{INPUT}"
END_MARKS = ("<|endoftext|>", "</s>")


@dataclass(frozen=True, kw_only=True)
class Alpaca(Format):
    """Rows with an instruction, an input and an output, as Stanford Alpaca's (and Self-Instruct's generated ones).

    >>> list(Alpaca()({"instruction": "Add.", "input": "2, 3", "output": "5"}))
    [{'instruction': 'Add.', 'input': '2, 3', 'output': '5'}]

    Attributes:
      seed: draws each row's form.
    """

    shapes: ClassVar = (Shape(("instruction", "output"), ("input",)),)
    seed: int = 0

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns the one example."""
        given, output = text(row, "input", needed=False), text(row, "output", needed=False)
        return ({"instruction": text(row, "instruction"), "input": given, "output": output},)

    def templates(self) -> tuple[Pattern, ...]:
        """Returns seven forms with an input and six without, of which each row draws one."""
        return (forms("input", seed=self.seed),)


@dataclass(frozen=True, kw_only=True)
class Dolly(Format):
    """Rows with an instruction, a context, a response and a category, as databricks-dolly-15k's.

    Attributes:
      seed: draws each row's form.
    """

    shapes: ClassVar = (Shape(("instruction", "response"), ("context", "category")),)
    seed: int = 0

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns the one example; its category stays, for rules to look at."""
        example = {
            "instruction": text(row, "instruction"),
            "input": text(row, "context", needed=False),
            "output": text(row, "response", needed=False),
            "category": text(row, "category", needed=False),
        }
        return (example,)

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the forms of `Alpaca`."""
        return (forms("input", seed=self.seed),)


@dataclass(frozen=True, kw_only=True)
class SelfInstruct(Format):
    """Self-Instruct's files (Wang et al. 2022, arXiv:2212.10560): tasks with instances, as the seeds and the evaluation.

    Also rows that are one instance each, and raw generations (`raw_instances`). An instance is an example.

    Attributes:
      seed: draws each row's form, and whose labels are stripped.
      strip_labels: the chance that an input whose only label stands before everything else ("Email: ...") loses it, and
        that its blank lines become line breaks; 0.5 in the original's training texts. 0 is for evaluation.
    """

    shapes: ClassVar = (
        Shape(("instruction", "instances"), ("id", "name", "is_classification", "motivation_app")),
        Shape(("instruction", "raw_instances"), ("is_classification", "instance_metadata", "instruction_metadata")),
        Shape(("instruction", "output"), ("input",)),
    )
    seed: int = 0
    strip_labels: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.strip_labels <= 1:
            raise UserError(f"strip_labels is a chance from 0 to 1; got {self.strip_labels}.")

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns an example for each instance."""
        instruction = text(row, "instruction")
        for given, output in self._instances(row):
            draws = Draws(self.seed, "label", instruction, given)
            stripped = without_label(given) if draws.unit() < self.strip_labels else given
            yield {"instruction": instruction, "input": stripped, "output": output}

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the forms of `Alpaca`."""
        return (forms("input", seed=self.seed),)

    def _instances(self, row: Row) -> Iterable[tuple[str, str]]:
        if row.get("raw_instances") is not None:
            return instances_of(text(row, "raw_instances"), was_cut=_was_cut(row.get("instance_metadata")))
        instances = items(row, "instances") if row.get("instances") is not None else [row]
        return [(text(i, "input", needed=False), text(i, "output", needed=False)) for i in instances]


@dataclass(frozen=True, kw_only=True)
class Unnatural(Format):
    """Unnatural Instructions (Honovich et al. 2022, arXiv:2212.09689): core and full files alike.

    An instance is an example, and so is a reformulation. Where a reformulated instruction has `{INPUT}`, the input goes
    there and the example has no other.

    Attributes:
      seed: draws each row's form.
      reformulations: whether those of the full file are examples.
      constraints: whether the instructions of the core show what an answer has to be like, where that is said.
    """

    shapes: ClassVar = (Shape(("instruction", "instances"), ("id", "reformulations")),)
    seed: int = 0
    reformulations: bool = True
    constraints: bool = True

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns an example for each instance and reformulation."""
        instruction = text(row, "instruction")
        for instance in items(row, "instances"):
            constraints = text(instance, "constraints", needed=False) if self.constraints else ""
            yield {
                "instruction": instruction,
                "input": text(instance, "input", needed=False),
                "output": text(instance, "output", needed=False),
                "constraints": "" if constraints.rstrip(".").lower() == "none" else constraints,
            }
        if self.reformulations and row.get("reformulations"):
            for instance in items(row, "reformulations"):
                asked, given = text(instance, "instruction"), text(instance, "input", needed=False)
                if INPUT_MARKER in asked:
                    asked, given = asked.replace(INPUT_MARKER, given), ""
                output = text(instance, "output", needed=False)
                yield {"instruction": asked, "input": given, "output": output, "constraints": ""}

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the forms of `Alpaca`, and three for rows with constraints."""
        return (forms("constraints", "input", seed=self.seed),)


@dataclass(frozen=True, kw_only=True)
class Prompted(Format):
    """Rows with a prompt and a completion, taken as they are but for a mark of the end, as fine-tuning files have it."""

    shapes: ClassVar = (Shape(("prompt", "completion")),)

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns the one example."""
        completion = text(row, "completion", needed=False)
        for mark in END_MARKS:
            completion = completion.removesuffix(mark).strip()
        return ({"prompt": text(row, "prompt"), "completion": completion},)

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the rows' own words."""
        return (Template(inputs="{prompt}", targets="{completion}", name="as it is"),)


def forms(*fields: str, seed: int) -> DrawnForm:
    """Returns the forms of `instructions.yaml`: for rows with each of the fields in turn, then for those with none."""
    sets = _sets()
    cases = [Case(fields=(field,), templates=sets[f"with_{field}"]) for field in fields]
    return DrawnForm(cases=(*cases, Case(fields=(), templates=sets["without_input"])), seed=seed)


def without_label(given: str) -> str:
    r"""Returns an input without its one label, and with line breaks for blank lines, as half of Self-Instruct's have it.

    >>> without_label("Email: Dear all,\n\nI am ill.")
    'Dear all,\nI am ill.'
    >>> without_label("Name: Ann\nAge: 7")
    'Name: Ann\nAge: 7'
    """
    labels = set(re.findall(r"(\w+):", given))
    if len(labels) == 1:
        given = given.split(":", 1)[1].strip()
    return given.replace("\n\n", "\n")


@functools.cache
def _sets() -> Mapping[str, tuple[Template, ...]]:
    return load.template_sets(TEMPLATES)


def _was_cut(metadata: object) -> bool:
    """Whether generation stopped at its limit, as the metadata of Self-Instruct's generations say."""
    if metadata is None:
        return False
    found = metadata
    try:
        return found["response"]["choices"][0]["finish_reason"] == "length"  # type: ignore[index]
    except (KeyError, IndexError, TypeError) as error:
        raise Unusable(
            "unknown metadata",
            "instance_metadata must hold response.choices[0].finish_reason, which says whether generation was cut; got "
            f"{shortened(metadata)}",
        ) from error
