"""Where the numbers of a run go: JSON lines always; events for TensorBoard and Weights & Biases when asked for.

A writer is a context manager: the loop opens it, hands it every line, and closes it whatever happens. The terminal's
writers are in `console`, TensorBoard's in `tensorboard`.
"""

import abc
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO, final

from flan_jax.errors import UserError
from flan_jax.files import write_atomic

Values = Mapping[str, float | None]


class Writer(abc.ABC):
    """Takes the lines of a run. Steps never fall, but several lines of different kinds may share one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    @abc.abstractmethod
    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Takes one line.

        Args:
          step: Steps done.
          kind: "train", "evaluation", "start" (once a process) or "save".
          values: Numbers by name; None where there is no such number.
        """

    def advance(self, step: int) -> None:
        """Hears of every step, also of those without a line."""
        del step


@final
class JsonlWriter(Writer):
    """`metrics.jsonl`: one JSON object a line, `{"step": 10, "kind": "train", "loss": 2.5, ...}`.

    A run that is resumed goes back to the step of its checkpoint. Lines of later steps are then cut off, and so is a
    last line that was only half written when the process was killed: the file reads as if nothing had happened.
    """

    def __init__(self, path: Path | str, *, resumed_step: int | None = None):
        """Takes the path; the file is opened on entering.

        Args:
          path: Made with its directory when absent.
          resumed_step: The step gone on from; None when the run begins anew, which empties the file.
        """
        self._path = Path(path)
        self._resumed_step = resumed_step
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, "".join(self._lines_to_keep()))
        self._file = open(self._path, "a", encoding="utf-8")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Appends a line and flushes it; a number that is not finite becomes null, for JSON has none."""
        assert self._file is not None, "entered first"
        line: dict[str, Any] = {"step": step, "kind": kind}
        line |= {name: _json_number(value) for name, value in values.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def _lines_to_keep(self) -> list[str]:
        if self._resumed_step is None or not self._path.is_file():
            return []
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                step = json.loads(line)["step"]
            except (ValueError, TypeError, KeyError):
                continue
            if step <= self._resumed_step and line.endswith("\n"):
                kept.append(line)
        return kept


@final
class WandbWriter(Writer):
    """A run at Weights & Biases. Needs its package, which is no dependency of this one."""

    def __init__(self, *, project: str, directory: Path | str, name: str, config: Mapping[str, Any] | None = None):
        """Looks for the package; the run is begun, or gone on with, on entering.

        Args:
          project: The project there.
          directory: Where the package keeps its files.
          name: The run's name and identity: the same name goes on with the same run.
          config: Settings to show beside it.

        Raises:
          UserError: the package is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "Weights & Biases was asked for, but the package wandb is not installed. "
                "Run `pip install wandb`, or leave that writer out; metrics.jsonl is written in any case."
            ) from error
        self._wandb = wandb
        self._project, self._directory, self._name, self._config = project, str(directory), name, dict(config or {})
        self._run: Any = None

    def __enter__(self) -> Self:
        self._run = self._wandb.init(
            project=self._project,
            dir=self._directory,
            name=self._name,
            id=self._name,
            config=self._config,
            resume="allow",
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._run.finish()

    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Logs the numbers as `<kind>/<name>`."""
        self._run.log({f"{kind}/{name}": value for name, value in values.items() if value is not None}, step=step)


def _json_number(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
