"""The files of one evaluation, and what a later evaluation may reuse of them.

evaluation.json        the tasks, and everything that decides their predictions; written first
<task>.jsonl           the predictions of a finished task, one row per example, in the order of the export
<task>.jsonl.partial   those of a task that is not finished, in the order in which they were computed
summary.json           scores by task, cluster and label; written last
"""

from collections.abc import Iterable, Iterator, Mapping
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
FORMAT_VERSION = 1
_FIX = "Delete the directory and evaluate again."


@dataclass(frozen=True, kw_only=True)
class EvaluatedTask:
    """A task of an evaluation.

    Attributes:
      scored: What it is scored with.
      identity: The digest of everything that decides its predictions.
      num_exported: The number of examples in the export.
      num_examples: The number of those that are evaluated; `examples.select` chooses them.
    """

    scored: ScoredTask
    identity: str
    num_exported: int
    num_examples: int


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """What the predictions in a directory are: the content of `evaluation.json`.

    Attributes:
      step: The step of the parameters.
      provenance: The weights, decoding, versions of packages and plan.
      tasks: The tasks in their order.
      format_version: The version of this record and of the rows.
    """

    step: int
    provenance: Mapping[str, Any]
    tasks: tuple[EvaluatedTask, ...]
    format_version: int = FORMAT_VERSION

    def identities(self) -> dict[str, str]:
        """Returns the identity of each task by its name."""
        return {task.scored.task: task.identity for task in self.tasks}


def predictions_path(directory: Path | str, task: str) -> Path:
    """Returns the path of a task's predictions in the directory of an evaluation."""
    return Path(directory) / f"{safe_name(task)}.jsonl"


def begin(directory: Path, record: EvaluationRecord) -> None:
    """Removes what has another identity than the record, and writes the record."""
    earlier = read_record(directory)
    reusable = earlier.identities() if earlier else {}
    # Without it the directory counts as unfinished, whenever this process is killed.
    (directory / SUMMARY_NAME).unlink(missing_ok=True)
    for task, identity in record.identities().items():
        if reusable.get(task) != identity:
            predictions_path(directory, task).unlink(missing_ok=True)
    write_atomic(directory / RECORD_NAME, json_with_digest(asdict(record)))


def read_record(directory: Path) -> EvaluationRecord | None:
    """Reads `evaluation.json`; None if there is none, or one of another version.

    Raises:
      DamagedFileError: It is not as it was written.
    """
    path = directory / RECORD_NAME
    if not path.is_file():
        return None
    value = read_json_with_digest(path, setting="The record of an evaluation", fix=_FIX)
    return from_json(value, EvaluationRecord, file=path) if value["format_version"] == FORMAT_VERSION else None


def read_rows(lines: Iterable[bytes], path: Path) -> Iterator[Prediction]:
    """Yields the predictions that an evaluation wrote.

    Args:
      lines: The rows.
      path: Their file, for messages.

    Raises:
      DamagedFileError: A line is no prediction.
    """
    for number, line in enumerate(lines, start=1):
        place = Place(file=str(path), line=number, syntax="JSON")
        try:
            yield prediction_of(json_row(line, place), place)
        except UserError as error:
            raise DamagedFileError(f"{error} {_FIX}") from error


def read_finished(directory: Path, task: str) -> list[Prediction]:
    """Returns the predictions of a finished task; [] if it is not finished."""
    path = predictions_path(directory, task)
    if not path.is_file():
        return []
    with accessing(path, setting="The predictions", action="read"), open(path, "rb") as file:
        return list(read_rows(file, path))


def write_finished(directory: Path, task: str, predictions: Iterable[Prediction]) -> None:
    """Writes the predictions of a task in the order of the export."""
    rows = sorted(predictions, key=lambda prediction: prediction.index)
    write_atomic(predictions_path(directory, task), "".join(row.line() for row in rows))
