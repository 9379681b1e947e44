"""Writers of a run's metrics: the interface, JSON lines, and TensorBoard events.

A writer is a context manager: the loop opens it, passes it every line, and always closes it. The writer for the
terminal is in `console`.
"""

import abc
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO, final

from flan_jax.files import accessing, write_atomic

Values = Mapping[str, float | None]


class Writer(abc.ABC):
    """Receives the lines of a run. Steps never decrease, but lines of different kinds may share one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    @abc.abstractmethod
    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Writes one line.

        Args:
          step: The number of steps done.
          kind: "train", "evaluation", "start" (once per process) or "save".
          values: Numbers by name; None where a number is undefined.
        """

    def advance(self, step: int) -> None:
        """Is called at every step, also at those without a line."""
        del step


@final
class JsonlWriter(Writer):
    """`metrics.jsonl`: one JSON object per line, `{"step": 10, "kind": "train", "loss": 2.5, ...}`.

    A resumed run returns to the step of its checkpoint. Lines of later steps are then removed, and so is a truncated
    last line of a killed process: the file is that of an uninterrupted run.
    """

    def __init__(self, path: Path | str, *, resumed_step: int | None = None):
        """Stores the settings; the file is opened on entering.

        Args:
          path: Created with its directory when absent.
          resumed_step: The step that the run was resumed at; None for a new run, which empties the file.
        """
        self._path = Path(path)
        self._resumed_step = resumed_step
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Rewritten by renaming: a process killed here leaves the old file, never a part of the history.
        write_atomic(self._path, "".join(self._retained_lines()))
        self._file = open(self._path, "a", encoding="utf-8")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Appends a line and flushes the file; a number that is not finite becomes null, because JSON has none."""
        assert self._file is not None, "entered first"
        line: dict[str, Any] = {"step": step, "kind": kind}
        line |= {name: _json_number(value) for name, value in values.items()}
        with accessing(self._path, setting="The metrics", action="written"):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()

    def _retained_lines(self) -> list[str]:
        if self._resumed_step is None or not self._path.is_file():
            return []
        retained = []
        for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                step = json.loads(line)["step"]
            # A line that a killed process left unfinished, or that somebody wrote into the file.
            except (ValueError, TypeError, KeyError):
                continue
            if step <= self._resumed_step and line.endswith("\n"):
                retained.append(line)
        return retained


@final
class TensorBoardWriter(Writer):
    """Scalars `<kind>/<name>`, in one event file per process. A resumed run hides the steps that it repeats."""

    def __init__(self, directory: Path | str, *, resumed_step: int = 0):
        """Stores the settings; the file is opened on entering.

        Args:
          directory: Created when absent.
          resumed_step: The step that the run was resumed at; TensorBoard then ignores later steps of earlier files.
        """
        self._directory = Path(directory)
        self._resumed_step = resumed_step
        self._events: Any = None

    def __enter__(self) -> Self:
        from tensorboardX import SummaryWriter  # Takes a quarter of a second, and few runs use it.

        # Purging hides the step itself too, so it begins after the last one that remains valid.
        self._events = SummaryWriter(str(self._directory), purge_step=self._resumed_step + 1)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Adds one event per number and flushes the file."""
        for name, value in values.items():
            if value is not None:
                self._events.add_scalar(f"{kind}/{name}", value, step)
        self._events.flush()


def _json_number(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
