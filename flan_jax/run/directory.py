"""What a run leaves behind, and how a later command finds it again: `config.gin`, `run.json`, and the names beside them.

Knows names and JSON only; checkpoints, metrics and evaluations are written by those whose work they are.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import differing_fields, write_atomic

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """The places inside one run's directory."""

    path: Path

    @property
    def run_file(self) -> Path:
        """Versions, devices, model, vocabulary, mixture: the run's identity and provenance."""
        return self.path / "run.json"

    @property
    def config_file(self) -> Path:
        """The resolved gin configuration."""
        return self.path / "config.gin"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder a saved step."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """One folder an evaluated step."""
        return self.path / "eval"

    def read(self) -> dict[str, Any]:
        """Returns the content of `run.json`.

        Raises:
          MissingFileError: the directory holds no run.
        """
        if not self.run_file.is_file():
            raise MissingFileError(f"{self.path} holds no run (no run.json): give the MODEL_DIR of a `flan-jax train`.")
        return json.loads(self.run_file.read_text())

    def last_metrics(self) -> dict[str, Any] | None:
        """Returns the last training line of `metrics.jsonl` that is whole, None when there is none."""
        found = None
        for line in self.metrics_file.read_text().splitlines() if self.metrics_file.is_file() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            found = record if record.get("kind") == "train" else found
        return found

    def last_evaluation(self) -> dict[str, Any] | None:
        """Returns the `summary.json` of the latest step that was evaluated to the end, None when there is none."""
        finished = [path for path in self.evaluations.glob("*/summary.json") if path.parent.name.isdecimal()]
        latest = max(finished, key=lambda path: int(path.parent.name), default=None)
        return None if latest is None else json.loads(latest.read_text())

    def open(self, run: Mapping[str, Any], *, config: str) -> bool:
        """Starts the directory, or checks that it belongs to this very run.

        Args:
          run: the run's record; its `identity` holds what makes two starts the same run.
          config: the resolved gin configuration.

        Returns:
          Whether an earlier start of the same run was found.

        Raises:
          UserError: the directory holds a run of another recipe; the fields that differ are named.
        """
        found = self.run_file.is_file()
        record = json.dumps({"format_version": FORMAT_VERSION, **run}, indent=1, sort_keys=True) + "\n"
        if found:  # Compared as JSON, in which a tuple is a list.
            refuse_other_recipe(self.read()["identity"], json.loads(record)["identity"], place=self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self.config_file, config)
        write_atomic(self.run_file, record)
        return found


def refuse_other_recipe(found: Mapping[str, Any], wanted: Mapping[str, Any], *, place: Path) -> None:
    """Compares two runs' identities, field by field down to the leaves.

    Raises:
      UserError: some field differs; each one is named with both values.
    """
    differing = list(differing_fields(found, wanted))
    if differing:
        lines = "\n".join(f"  {name}: there {there!r}, now {now!r}" for name, there, now in differing)
        raise UserError(
            f"{place} holds a run of another recipe:\n{lines}\n"
            "Choose another MODEL_DIR, or give back the values of that run (its config.gin holds them)."
        )
