"""A row of a file of predictions: an example, the prediction of a model, and what scoring needs to know of both.

Evaluations write such rows, and scores are computed from them alone: a file that is read back has the scores that the
evaluation had. All texts but `input` and `generated` are as they are compared, after the task's postprocessor.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flan_jax.errors import UserError
from flan_jax.evaluation.rank_metrics import OptionScores
from flan_jax.names import shortened
from flan_jax.settings import Place, parse


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One of several predictions for an example: a sample, or a hypothesis of a beam search.

    Attributes:
      prediction: The answer.
      generated: The text that the answer was extracted from; None if it is the same.
      score: The sum of the log-probabilities of its tokens.
      score_per_token: That sum divided by the number of tokens, the end of sequence included.
      truncated: Whether it reached the decoding length without ending.
    """

    prediction: str
    generated: str | None = None
    score: float
    score_per_token: float
    truncated: bool = False

    def as_json(self) -> dict[str, Any]:
        """Returns the fields that differ from their defaults."""
        return _without_defaults(self)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An example with its prediction. The fields are those of a row, which leaves out what has its default.

    Attributes:
      task: The name of the task.
      split: Its split.
      index: The number of the example in the export.
      row: The number of its row in the source; -1 if unknown.
      template: The number of its template; -1 if unknown.
      input: The text that the model read.
      references: All right answers, at least one.
      prediction: The answer: of several predictions the first, of ranked options the one with the highest score.
      generated: The text that the answer was extracted from; None if it is the same.
      truncated: Whether the prediction reached the decoding length without ending.
      predictions: All samples or hypotheses, the best or first one first; empty for a single prediction.
      options: The answers to choose from.
      gold: The numbers of the right options.
      scores: The sum of the log-probabilities of each option's tokens; None where that is not a finite number.
      eos_scores: The part of the end of sequence in `scores`.
      tokens: The number of tokens of each option, with the end of sequence.
      bytes: The number of UTF-8 bytes of each option's text.
      unconditional_scores: As `scores`, after empty inputs; empty unless a metric needs them.
      unconditional_eos_scores: The part of the end of sequence.
      group: The group of the row, for metrics over groups of rows.
      metrics: The row's own score by each metric that is a mean of rows, 0 to 100.
    """

    task: str = ""
    split: str = ""
    index: int
    row: int = -1
    template: int = -1
    input: str = ""
    references: tuple[str, ...]
    prediction: str
    generated: str | None = None
    truncated: bool = False
    predictions: tuple[Alternative, ...] = ()
    options: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()
    scores: tuple[float | None, ...] = ()
    eos_scores: tuple[float | None, ...] = ()
    tokens: tuple[int, ...] = ()
    bytes: tuple[int, ...] = ()
    unconditional_scores: tuple[float | None, ...] = ()
    unconditional_eos_scores: tuple[float | None, ...] = ()
    group: str | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def option_scores(self) -> OptionScores:
        """Returns what metrics of rankings read; a score that is not finite is NaN."""
        values: dict[str, Any] = {
            name: tuple(math.nan if value is None else value for value in getattr(self, name)) for name in OPTION_SCORES
        }
        return OptionScores(**values)

    def line(self) -> str:
        """Returns the row as a line of JSON, with its line break."""
        row = _without_defaults(self) | {"predictions": [one.as_json() for one in self.predictions]}
        return json.dumps({k: v for k, v in row.items() if v not in ([], {})}, ensure_ascii=False) + "\n"


OPTION_SCORES = tuple(field.name for field in dataclasses.fields(OptionScores))
"""The fields of a row that `OptionScores` has too; the first is `scores`."""


def prediction_of(row: Mapping[str, Any], place: Place) -> Prediction:
    """Returns a row of a file as a prediction.

    Args:
      row: The fields of `Prediction`.
      place: The position of the row, for messages.

    Raises:
      UserError: A field is missing, unknown, or has a value of another type; there are no references; the parts of a
        ranking do not fit together.
    """
    read: Prediction = parse(dict(row), Prediction, place)
    if not read.references:
        raise UserError(f"{place}: references must list at least one text.")
    if read.scores and not (read.gold and all(0 <= number < len(read.scores) for number in read.gold)):
        raise UserError(
            f"{place}: gold must list numbers of options, 0 to {len(read.scores) - 1} for these scores; "
            f"got {list(read.gold)}."
        )
    for name in ("options", *OPTION_SCORES[1:]):
        if read.scores and getattr(read, name) and len(getattr(read, name)) != len(read.scores):
            raise UserError(f"{place}: {len(getattr(read, name))} {name} for {len(read.scores)} scores.")
    return read


def json_row(line: bytes, place: Place) -> Mapping[str, Any]:
    """Returns a line of JSON as an object.

    Raises:
      UserError: It is something else.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected an object, got {shortened(row)}.")
    return row


def _without_defaults(value: Prediction | Alternative) -> dict[str, Any]:
    """Returns the fields that differ from their defaults."""
    return {
        field.name: getattr(value, field.name)
        for field in dataclasses.fields(value)
        if field.default is dataclasses.MISSING or getattr(value, field.name) != field.default
    }
