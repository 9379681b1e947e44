"""Instruction files: Self-Instruct, Unnatural Instructions, Alpaca, Dolly, IFEval, and prompts with completions.

Each is a `shape.Format`: it knows the fields of its rows and turns them into examples with `instruction`, `input` (""
for none) and `output`, which the forms in `templates/self_instruct.yaml` render. Generated data are filtered by
`filters.settings.self_instruct_filters`. `generations` reads raw generations.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flan_jax.draws import Draws
from flan_jax.errors import UserError
from flan_jax.evaluation.instruction_metrics import instructions_of
from flan_jax.names import shortened
from flan_jax.tasks.formats.generations import instances_of
from flan_jax.tasks.formats.shape import Format, Shape, items, text
from flan_jax.tasks.sources.rows import Row, Unusable
from flan_jax.templates import load
from flan_jax.templates.forms import Case, DrawnForm
from flan_jax.templates.render import Pattern, Template

TEMPLATES = Path(load.__file__).parent / "self_instruct.yaml"
INPUT_MARKER = "{INPUT}"
END_MARKS = ("<|endoftext|>", "</s>")


@dataclass(frozen=True, kw_only=True)
class Alpaca(Format):
    """Rows with an instruction, an input and an output, as in Stanford Alpaca and in Self-Instruct's generated data.

    >>> list(Alpaca()({"instruction": "Add.", "input": "2, 3", "output": "5"}))
    [{'instruction': 'Add.', 'input': '2, 3', 'output': '5'}]

    Attributes:
      seed: Draws each row's form.
    """

    shapes: ClassVar = (Shape(("instruction", "output"), ("input",)),)
    seed: int = 0

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns one example."""
        given, output = text(row, "input", required=False), text(row, "output", required=False)
        return ({"instruction": text(row, "instruction"), "input": given, "output": output},)

    def templates(self) -> tuple[Pattern, ...]:
        """Returns seven forms with an input and six without; each row draws one."""
        return (forms("input", seed=self.seed),)


@dataclass(frozen=True, kw_only=True)
class Dolly(Format):
    """Rows with an instruction, a context, a response and a category, as in databricks-dolly-15k.

    Attributes:
      seed: Draws each row's form.
    """

    shapes: ClassVar = (Shape(("instruction", "response"), ("context", "category")),)
    seed: int = 0

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns one example, with its category for filter rules."""
        example = {
            "instruction": text(row, "instruction"),
            "input": text(row, "context", required=False),
            "output": text(row, "response", required=False),
            "category": text(row, "category", required=False),
        }
        return (example,)

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the forms of `Alpaca`."""
        return (forms("input", seed=self.seed),)


@dataclass(frozen=True, kw_only=True)
class SelfInstruct(Format):
    """Files of Self-Instruct (Wang et al. 2022, arXiv:2212.10560): tasks with instances, like the seed tasks.

    Rows with one instance each, and raw generations (`raw_instances`), are read too. Each instance is an example.

    Attributes:
      seed: Draws each row's form, and which labels are removed.
      strip_labels: The probability that an input loses its only label ("Email: ..."), and that its blank lines become
        line breaks; 0.5 in the original's training texts. Use 0 for evaluation.
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
            raise UserError(f"strip_labels must be a probability from 0 to 1; got {self.strip_labels}.")

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns one example per instance."""
        instruction = text(row, "instruction")
        for given, output in self._instances(row):
            # By content, so that filters and the order of rows do not change which labels are removed.
            draws = Draws(self.seed, "label", instruction, given)
            stripped = without_label(given) if draws.unit() < self.strip_labels else given
            yield {"instruction": instruction, "input": stripped, "output": output}

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the forms of `Alpaca`."""
        return (forms("input", seed=self.seed),)

    def _instances(self, row: Row) -> Iterable[tuple[str, str]]:
        if row.get("raw_instances") is not None:
            return instances_of(text(row, "raw_instances"), is_truncated=_is_truncated(row.get("instance_metadata")))
        instances = items(row, "instances") if row.get("instances") is not None else [row]
        return [(text(i, "input", required=False), text(i, "output", required=False)) for i in instances]


@dataclass(frozen=True, kw_only=True)
class Unnatural(Format):
    """Core and full files of Unnatural Instructions (Honovich et al. 2022, arXiv:2212.09689).

    Instances and reformulations are examples. The input of a reformulated instruction replaces its `{INPUT}`.

    Attributes:
      seed: Draws each row's form.
      reformulations: Whether the reformulations in the full file are examples.
      constraints: Whether the instructions of the core show the constraints on an answer.
    """

    shapes: ClassVar = (Shape(("instruction", "instances"), ("id", "reformulations")),)
    seed: int = 0
    reformulations: bool = True
    constraints: bool = True

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns one example per instance and reformulation."""
        instruction = text(row, "instruction")
        for instance in items(row, "instances"):
            constraints = text(instance, "constraints", required=False) if self.constraints else ""
            yield {
                "instruction": instruction,
                "input": text(instance, "input", required=False),
                "output": text(instance, "output", required=False),
                # The files write "None." where there are none.
                "constraints": "" if constraints.rstrip(".").lower() == "none" else constraints,
            }
        if self.reformulations and row.get("reformulations"):
            for instance in items(row, "reformulations"):
                reworded, given = text(instance, "instruction"), text(instance, "input", required=False)
                if INPUT_MARKER in reworded:
                    # The input is part of the instruction then, and must not be shown twice.
                    reworded, given = reworded.replace(INPUT_MARKER, given), ""
                output = text(instance, "output", required=False)
                yield {"instruction": reworded, "input": given, "output": output, "constraints": ""}

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the forms of `Alpaca`, and three for rows with constraints."""
        return (forms("constraints", "input", seed=self.seed),)


@dataclass(frozen=True, kw_only=True)
class Prompted(Format):
    """Rows with a prompt and a completion, copied without an end mark, as in files for fine-tuning."""

    shapes: ClassVar = (Shape(("prompt", "completion")),)

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns one example."""
        completion = text(row, "completion", required=False)
        for mark in END_MARKS:
            completion = completion.removesuffix(mark).strip()
        return ({"prompt": text(row, "prompt"), "completion": completion},)

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the template that copies prompt and completion."""
        return (Template(inputs="{prompt}", targets="{completion}", name="as it is"),)


@dataclass(frozen=True, kw_only=True)
class IFEval(Format):
    """Prompts with instructions that code can check, as in IFEval (Zhou et al. 2023, arXiv:2311.07911).

    The target is no text to learn: it is the JSON text of the instructions, which the metric `ifeval` verifies.

    >>> row = {"prompt": "Sing without a comma.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    >>> list(IFEval()(row))[0]["instructions"]
    '{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}'
    """

    shapes: ClassVar = (Shape(("prompt", "instruction_id_list", "kwargs"), ("key",)),)
    cluster: ClassVar = "instruction_following"
    metrics: ClassVar = ("ifeval",)

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns one example."""
        try:
            instructions = instructions_of(row)
        except UserError as error:
            raise Unusable("not verifiable", str(error).removesuffix(".")) from error
        listed = {
            "instruction_id_list": [one.id for one in instructions],
            "kwargs": [dict(one.arguments) for one in instructions],
        }
        return ({"prompt": text(row, "prompt"), "instructions": json.dumps(listed, ensure_ascii=False)},)

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the template that copies the prompt."""
        return (Template(inputs="{prompt}", targets="{instructions}", name="as it is"),)


def forms(*fields: str, seed: int) -> DrawnForm:
    """Returns the forms of `self_instruct.yaml`: for rows with each of the fields in turn, then for those with none."""
    sets = _sets()
    cases = [Case(fields=(field,), templates=sets[f"with_{field}"]) for field in fields]
    return DrawnForm(cases=(*cases, Case(fields=(), templates=sets["without_input"])), seed=seed)


def without_label(given: str) -> str:
    r"""Returns an input without its only label and without blank lines, as in half of Self-Instruct's training texts.

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


def _is_truncated(metadata: object) -> bool:
    """Whether generation stopped at its limit, according to the metadata of Self-Instruct's generations."""
    if metadata is None:
        return False
    response: Any = metadata
    try:
        return bool(response["response"]["choices"][0]["finish_reason"] == "length")
    except (KeyError, IndexError, TypeError) as error:
        raise Unusable(
            "unknown metadata",
            "instance_metadata must hold response.choices[0].finish_reason, which shows whether generation was "
            f"truncated; got {shortened(metadata)}",
        ) from error
