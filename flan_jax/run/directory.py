"""The files of a run directory: `config.gin`, `run.json`, and the paths of what other modules write there."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.checkpoint import reading
from flan_jax.errors import DamagedFileError, MissingFileError, UserError
from flan_jax.evaluation import results
from flan_jax.files import accessing, json_with_digest, read_json_with_digest, write_atomic
from flan_jax.locks import locked
from flan_jax.run.identity import METADATA_KEY, refuse_other_run

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
          DamagedFileError: The file is not as it was written.
        """
        with accessing(self.run_file, setting="The run", action="read"):
            if not self.run_file.is_file():
                raise MissingFileError(
                    f"{self.path} holds no run (no run.json): give the MODEL_DIR of a `flan-jax train`."
                )
        fix = "Run its `flan-jax train` command again, which writes it anew from the recipe and the checkpoints."
        return read_json_with_digest(self.run_file, setting="The run's record", fix=fix)

    def locked(self) -> contextlib.AbstractContextManager[str]:
        """Holds the directory for this process, without what killed ones left; yields a note about a killed owner.

        Raises:
          UserError: Another process trains in it.
        """
        leftovers = (".*", f"{self.evaluations.name}/**/.*")
        return locked(self.path / ".lock", what=f"The run directory {self.path}", leftovers=leftovers)

    def last_metrics(self) -> dict[str, Any] | None:
        """Returns the last complete training line of `metrics.jsonl`, or None."""
        last = None
        for line in self.metrics_file.read_text(errors="replace").splitlines() if self.metrics_file.is_file() else ():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            last = record if isinstance(record, dict) and record.get("kind") == "train" else last
        return last

    def last_evaluation(self) -> results.SuiteResult | None:
        """Returns the evaluation of the latest step that finished and that this version reads, or None."""
        steps = (path for path in self.evaluations.glob("*") if path.name.isdecimal())
        summaries = map(results.read_summary, sorted(steps, key=lambda path: int(path.name), reverse=True))
        return next((summary for summary in summaries if summary is not None), None)

    def open(self, record: Mapping[str, Any], *, config: str | None) -> None:
        """Creates the directory, or checks that it belongs to this run.

        Args:
          record: The content of `run.json`; its `identity` decides whether an existing run is the same.
          config: The resolved gin configuration; None when the run was not configured with gin.

        Raises:
          UserError: The directory holds a run with a different recipe; the message names the differing fields.
        """
        stored = self._identity()
        if stored is not None:
            refuse_other_run(stored, record["identity"], where=self.path)
        with accessing(self.path, setting="MODEL_DIR", action="written"):
            self.path.mkdir(parents=True, exist_ok=True)
        if config is not None:
            write_atomic(self.config_file, config)
        write_atomic(self.run_file, json_with_digest({"format_version": FORMAT_VERSION, **record}))

    def _identity(self) -> dict[str, Any] | None:
        """Returns the run identity: of `run.json`, or of the newest readable checkpoint; None without either."""
        with contextlib.suppress(MissingFileError, DamagedFileError):
            identity: dict[str, Any] = self.read()["identity"]
            return identity
        for step in reversed(reading.all_steps(self.checkpoints)):
            with contextlib.suppress(UserError, ValueError, KeyError):
                identity = reading.read_json(self.checkpoints / str(step), "metadata")[METADATA_KEY]
                return identity
        return None
