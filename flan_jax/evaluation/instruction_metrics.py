"""IFEval's accuracies: the share of prompts all of whose instructions are followed, and that of instructions.

The reference of a row is no text to compare with: it is the JSON text of `Instructions`, which the format `ifeval`
makes of IFEval's rows. A strict accuracy judges the response as it is, a loose one accepts it without its first or last
line, or without asterisks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flan_jax.errors import UserError
from flan_jax.evaluation.instruction_verifiers import RELATIONS, VERIFIERS, arguments_of
from flan_jax.evaluation.measured import Measured, References, require_rows
from flan_jax.names import nearest, shortened

NAMES = (
    "prompt_level_strict_acc",
    "prompt_level_loose_acc",
    "inst_level_strict_acc",
    "inst_level_loose_acc",
)


@dataclass(frozen=True)
class Instruction:
    """One instruction: its id in IFEval, and its arguments by name."""

    id: str
    arguments: Mapping[str, Any]

    def is_followed(self, response: str) -> bool:
        """Returns whether a response follows it; a blank one follows none."""
        return bool(response.strip()) and VERIFIERS[self.id](response, **self.arguments)


def instructions_of(row: Mapping[str, Any]) -> tuple[Instruction, ...]:
    """Returns the instructions of a row of IFEval.

    >>> instructions_of({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})
    (Instruction(id='punctuation:no_comma', arguments={}),)

    Args:
      row: `instruction_id_list`, and as many mappings in `kwargs`; arguments that are null are absent.

    Raises:
      UserError: An id is unknown, or an argument is missing or has a value of another type.
    """
    ids, kwargs = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(ids, list) or not ids or not isinstance(kwargs, list) or len(ids) != len(kwargs):
        raise UserError(
            "instruction_id_list and kwargs must be lists of one length, with an instruction or more; got "
            f"{shortened(ids)} and {shortened(kwargs)}."
        )
    return tuple(_instruction(one, given) for one, given in zip(ids, kwargs, strict=True))


def _instruction(name: Any, given: Any) -> Instruction:
    if not isinstance(name, str) or name not in VERIFIERS:
        raise UserError(
            f"There is no verifier of the instruction {name!r}.{nearest(str(name), VERIFIERS)} Verified are "
            f"{', '.join(VERIFIERS)}."
        )
    wanted = arguments_of(name)
    # The released rows list every argument of every kind with each instruction, and null where it has none.
    present = {key: value for key, value in (given or {}).items() if value is not None}
    wrong = [key for key in wanted if not _is_valid(key, present.get(key))]
    if wrong:
        raise UserError(
            f"The instruction {name!r} needs {', '.join(wanted)}; got {shortened(present)}. Wrong or missing: "
            f"{', '.join(wrong)}."
        )
    return Instruction(name, {key: present[key] for key in wanted})


def _is_valid(key: str, value: Any) -> bool:
    if key in ("keywords", "forbidden_words"):
        return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)
    if key.endswith("relation"):
        return value in RELATIONS
    if key.startswith("num_") or key.endswith("frequency") or key == "nth_paragraph":
        return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) >= 0
    return isinstance(value, str) and bool(value.strip())


def ifeval(references: References, predictions: Sequence[str]) -> Measured:
    """Measures responses by the instructions of their prompts.

    >>> rule = '{"instruction_id_list": ["punctuation:no_comma", "detectable_format:title"], "kwargs": [{}, {}]}'
    >>> scores = ifeval([[rule], [rule]], ["<<Joy>> Sing!", "Joy, sing!"]).scores()
    >>> scores["prompt_level_strict_acc"], scores["inst_level_strict_acc"]
    (50.0, 50.0)
    """
    require_rows(references, predictions)
    rows = []
    for index, (row, response) in enumerate(zip(references, predictions, strict=True)):
        instructions = _parsed(row[0], index)
        strict = [one.is_followed(response) for one in instructions]
        loose = [any(map(one.is_followed, _variants(response))) for one in instructions]
        # Sums and not shares of instructions: the published accuracy counts each instruction of all prompts once.
        rows.append([all(strict), all(loose), sum(strict), sum(loose), len(instructions)])

    def reduce(sample: np.ndarray) -> dict[str, float]:
        means, (strict, loose, count) = 100.0 * sample[:, :2].mean(0), sample[:, 2:].sum(0)
        values = (*means, 100.0 * strict / count, 100.0 * loose / count)
        return dict(zip(NAMES, map(float, values), strict=True))

    return Measured(rows=np.array(rows, float), reduce=reduce, means=NAMES[:2])


def _parsed(reference: str, index: int) -> tuple[Instruction, ...]:
    try:
        row = json.loads(reference)
        return instructions_of(row if isinstance(row, dict) else {})
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"Row {index}: the metric 'ifeval' reads instructions as JSON from the reference, got "
            f"{shortened(reference)} ({error}) Declare the task with format: ifeval."
        ) from error


def _variants(response: str) -> list[str]:
    """The response without its first and last lines, and all of these without asterisks."""
    # Models begin with "Sure, here is ..." and end with an offer, neither of which a prompt forbids.
    lines = response.split("\n")
    some = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*some, *(text.replace("*", "") for text in some)]
