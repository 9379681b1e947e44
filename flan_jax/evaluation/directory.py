"""The files of one evaluation, and what a later evaluation may reuse of them.

evaluation.json        the tasks, and everything that decides their predictions; written first
<task>.jsonl           the predictions of a finished task, one row per example, in the order of the export
<task>.jsonl.partial   those of a task that is not finished, in the order in which they were computed
summary.json           scores by task, cluster and label; written last
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flan_jax.data.manifest import safe_name
from flan_jax.errors import DamagedFileError, UserError
from flan_jax.evaluation.prediction import Prediction, json_row, prediction_of
from flan_jax.evaluation.results import SUMMARY_NAME
from flan_jax.evaluation.task_scores import ScoredTask
from flan_jax.files import accessing, json_with_digest, read_json_with_digest, write_atomic
from flan_jax.settings import Place, from_json

RECORD_NAME = "evaluation.json"
_FIX = "Delete the directory and evaluate again."


@dataclass(frozen=True, kw_only=True)
class EvaluatedTask:
    """A task of an evaluation.

    Attributes:
      scored: What it is scored with.
      identity: The digest of everything that decides its predictions.
    """

    scored: ScoredTask
    identity: str


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """What the predictions in a directory are: the content of `evaluation.json`.

    Attributes:
      step: The step of the parameters.
      provenance: The weights, decoding, versions of packages and plan.
      tasks: The tasks in their order.
    """

    step: int
    provenance: Mapping[str, Any]
    tasks: tuple[EvaluatedTask, ...]

    def identities(self) -> dict[str, str]:
        """Returns the identity of each task by its name."""
        return {task.scored.task: task.identity for task in self.tasks}


def predictions_path(directory: Path | str, task: str) -> Path:
    """Returns the path of a task's predictions in the directory of an evaluation."""
    return Path(directory) / f"{safe_name(task)}.jsonl"


def begin(directory: Path, record: EvaluationRecord) -> None:
    """Removes what has another identity than the record, and writes the record."""
    path = directory / RECORD_NAME
    earlier = read_record(directory).identities() if path.is_file() else {}
    # Without it the directory counts as unfinished, whenever this process is killed.
    (directory / SUMMARY_NAME).unlink(missing_ok=True)
    for task, identity in record.identities().items():
        if earlier.get(task) != identity:
            predictions_path(directory, task).unlink(missing_ok=True)
    write_atomic(path, json_with_digest(asdict(record)))


def read_record(directory: Path) -> EvaluationRecord:
    """Reads `evaluation.json`.

    Raises:
      MissingFileError: There is none.
      DamagedFileError: It is not as it was written.
    """
    path = directory / RECORD_NAME
    value = read_json_with_digest(path, setting="The record of an evaluation", fix=_FIX)
    return from_json(value, EvaluationRecord, file=path)


def read_lines(lines: Iterable[bytes], path: Path, *, wanted: Collection[int] | None = None) -> dict[int, Prediction]:
    """Returns the predictions for the examples `wanted` by their numbers.

    Args:
      lines: The rows that an evaluation wrote.
      path: Their file, for messages.
      wanted: Numbers of examples in the export; None for all.

    Raises:
      DamagedFileError: A line is no prediction.
    """
    predictions = {}
    for number, line in enumerate(lines, start=1):
        place = Place(file=str(path), line=number, syntax="JSON")
        try:
            prediction = prediction_of(json_row(line, place), place)
        except UserError as error:
            raise DamagedFileError(f"{error} {_FIX}") from error
        if wanted is None or prediction.index in wanted:
            predictions[prediction.index] = prediction
    return predictions


def read_finished(directory: Path, task: str, *, wanted: Collection[int] | None = None) -> dict[int, Prediction]:
    """Returns the predictions of a finished task for the examples `wanted`, or all; {} if it is not finished."""
    path = predictions_path(directory, task)
    if not path.is_file():
        return {}
    with accessing(path, setting="The predictions", action="read"), open(path, "rb") as file:
        return read_lines(file, path, wanted=wanted)


def write_finished(directory: Path, task: str, predictions: Iterable[Prediction]) -> None:
    """Writes the predictions of a task in the order of the export."""
    rows = sorted(predictions, key=lambda prediction: prediction.index)
    write_atomic(predictions_path(directory, task), "".join(row.line() for row in rows))
