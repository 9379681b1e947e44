"""The files of a run directory: `config.gin`, `run.json`, and the paths of what other modules write there."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.errors import MissingFileError
from flan_jax.files import accessing, write_atomic
from flan_jax.run.identity import refuse_other_run

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """The paths inside one run directory."""

    path: Path

    @property
    def run_file(self) -> Path:
        """`run.json`: the run identity, versions, devices, vocabulary and mixture."""
        return self.path / "run.json"

    @property
    def config_file(self) -> Path:
        """The resolved gin configuration."""
        return self.path / "config.gin"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One directory per saved step."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """One directory per evaluated step."""
        return self.path / "eval"

    def read(self) -> dict[str, Any]:
        """Returns the content of `run.json`.

        Raises:
          MissingFileError: The directory holds no run.
        """
        with accessing(self.run_file, setting="The run", action="read"):
            if not self.run_file.is_file():
                raise MissingFileError(
                    f"{self.path} holds no run (no run.json): give the MODEL_DIR of a `flan-jax train`."
                )
            text = self.run_file.read_text()
        content: dict[str, Any] = json.loads(text)
        return content

    def last_metrics(self) -> dict[str, Any] | None:
        """Returns the last complete training line of `metrics.jsonl`, or None."""
        last = None
        for line in self.metrics_file.read_text().splitlines() if self.metrics_file.is_file() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            last = record if record.get("kind") == "train" else last
        return last

    def last_evaluation(self) -> dict[str, Any] | None:
        """Returns the `summary.json` of the latest step whose evaluation finished, or None."""
        finished = [path for path in self.evaluations.glob("*/summary.json") if path.parent.name.isdecimal()]
        latest = max(finished, key=lambda path: int(path.parent.name), default=None)
        return None if latest is None else json.loads(latest.read_text())

    def open(self, record: Mapping[str, Any], *, config: str | None) -> None:
        """Creates the directory, or checks that it belongs to this run.

        Args:
          record: The content of `run.json`; its `identity` decides whether an existing run is the same.
          config: The resolved gin configuration; None when the run was not configured with gin.

        Raises:
          UserError: The directory holds a run with a different recipe; the message names the differing fields.
        """
        text = json.dumps({"format_version": FORMAT_VERSION, **record}, indent=1, sort_keys=True) + "\n"
        if self.run_file.is_file():  # Compared as JSON, in which a tuple is a list.
            refuse_other_run(self.read()["identity"], json.loads(text)["identity"], where=self.path)
        with accessing(self.path, setting="MODEL_DIR", action="written"):
            self.path.mkdir(parents=True, exist_ok=True)
        if config is not None:
            write_atomic(self.config_file, config)
        write_atomic(self.run_file, text)
