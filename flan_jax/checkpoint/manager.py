"""Saving a run while it goes on, and coming back to where it was.

A thin face of Orbax's `CheckpointManager`: what is kept, what a failed write says, and what survives a process killed
at any moment. Parameters, optimiser state, step and data position are separate items, so that reading the parameters
alone is cheap; `flan_jax.checkpoint.reading` does that without a manager. When to save is left to the training loop.
"""

import contextlib
import errno
import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self, final

import absl.logging
import numpy as np

from flan_jax import files
from flan_jax.checkpoint import reading
from flan_jax.checkpoint.trees import named_leaves, nbytes, nested
from flan_jax.errors import UserError
from flan_jax.names import nearest

_TREES = ("params", "opt_state")
_DELETED = ".deleted"
_OVERHEAD_BYTES = 2**20  # Names, shardings and JSON of one checkpoint.
_STRAGGLERS_SECONDS = 10.0
_DISK_TROUBLE = ("No space left", "quota", "RESOURCE_EXHAUSTED", "Read-only file system", "Permission denied")


@dataclass(frozen=True, kw_only=True)
class CheckpointPolicy:
    """Which checkpoints of a run stay on disk.

    Attributes:
      keep: how many of the latest.
      keep_period_steps: besides, every step that this divides; None keeps no others.
      keep_best: besides, the one with the best value of this evaluation metric; None keeps none for that.
      best_mode: "max" or "min": which value of the metric is best.
      asynchronous: training goes on while the files are written.
    """

    keep: int = 3
    keep_period_steps: int | None = None
    keep_best: str | None = None
    best_mode: reading.BestMode = "max"
    asynchronous: bool = True

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise UserError(f"keep must be at least 1, or there is nothing to resume from; got {self.keep}.")
        if self.keep_period_steps is not None and self.keep_period_steps < 1:
            raise UserError(f"keep_period_steps must be at least 1, or None; got {self.keep_period_steps}.")
        if self.best_mode not in ("max", "min"):
            raise UserError(f"best_mode must be 'max' or 'min'; got {self.best_mode!r}.")


@dataclass(frozen=True, kw_only=True)
class Restored:
    """One checkpoint, read whole."""

    step: int
    state: Any
    data_state: dict[str, Any]
    metadata: dict[str, Any]
    metrics: dict[str, float]


@final
class Checkpoints:
    """The checkpoints of one run, open for writing. Use it in a `with` statement: leaving waits for the writer.

    A state is a dataclass with the trees `params` and `opt_state`; its other fields are scalars, `step` among them.
    """

    def __init__(self, directory: Any, *, policy: CheckpointPolicy, metadata: Mapping[str, Any]) -> None:
        """Opens a directory, and removes what a killed process left half-written in it.

        Args:
          directory: `<run>/checkpoints`; made when absent.
          policy: what to keep.
          metadata: JSON that goes into every checkpoint: vocabulary digest, model config, mixture, versions.
        """
        self.directory = reading.as_path(directory)
        self.policy = policy
        self._metadata = dict(metadata)
        self._last_saved: int | None = None
        self._is_settled = True  # Nothing to wait for, no error to raise.
        if _is_primary():
            _remove_unfinished(self.directory)
        self._manager = _orbax_manager(self.directory, policy)
        absl.logging.get_absl_logger().addFilter(_is_not_reraised)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.close()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"Besides, {late}")  # Never hides what made the run stop.

    def all_steps(self) -> list[int]:
        """Returns the steps on disk, ascending."""
        return reading.all_steps(self.directory)

    def latest_step(self) -> int | None:
        """Returns the step to resume from, None in a new run."""
        return reading.latest_step(self.directory)

    def best_step(self) -> int | None:
        """Returns the step with the best value of the policy's metric, None when there is none."""
        return reading.best_step(self.directory, metric=self.policy.keep_best or "", mode=self.policy.best_mode)

    def save(self, state: Any, *, data_state: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> bool:
        """Saves a state under its step; waits for an earlier save that is still being written.

        Args:
          state: as the class says; copied before this returns, so that its buffers may be donated.
          data_state: position of the feed, JSON.
          metrics: of the evaluation at this step; None or empty when there was none.

        Returns:
          False when this step is saved already.

        Raises:
          UserError: no room, the writer failed now or at an earlier save, or the metrics lack the one to keep by.
        """
        import orbax.checkpoint as ocp

        self.wait()
        scalars = {f.name: getattr(state, f.name) for f in fields(state) if f.name not in _TREES}
        step = int(scalars["step"])
        if step in self.all_steps():
            return False
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        self._require_metric(metrics)
        trees = {item: named_leaves(getattr(state, item)) for item in _TREES}
        if "://" not in str(self.directory):
            files.require_free_space(self.directory, nbytes(trees) + _OVERHEAD_BYTES, for_what=f"checkpoint {step}")
        items = {item: ocp.args.StandardSave(nested(named)) for item, named in trees.items() if named}
        jsons = {
            "step": {name: np.asarray(value).item() for name, value in scalars.items()},
            "data": dict(data_state),
            "metadata": self._metadata,
        }
        json.dumps(jsons)  # What is no JSON fails here, not in the writer's thread.
        items |= {item: ocp.args.JsonSave(value) for item, value in jsons.items()}
        self._last_saved, self._is_settled = step, False
        with self._explaining():
            return self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)

    def check_for_errors(self) -> None:
        """Raises what the writer met since the last call, without waiting for a writer at work. Cheap at every step."""
        if not self._is_settled and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
          UserError: it could not be written.
        """
        if self._is_settled:
            return
        self._is_settled = True  # Also when it fails: an error is raised once.
        with self._explaining():
            self._manager.wait_until_finished()
        if _is_primary():
            _remove_deleted(self.directory)

    def close(self) -> None:
        """Waits for the last save and releases the writer's threads."""
        try:
            self.wait()
        finally:
            self._manager.close()
            absl.logging.get_absl_logger().removeFilter(_is_not_reraised)

    def restore(self, abstract_state: Any, *, step: int | None = None) -> Restored:
        """Reads a checkpoint onto any mesh.

        Args:
          abstract_state: the state with `jax.ShapeDtypeStruct` for arrays, each with the sharding wanted.
          step: which one; None takes the latest.

        Raises:
          MissingFileError: there is none of that step.
          UserError: names, shapes or dtypes differ from the checkpoint's.
        """
        self.wait()
        place = reading.find(self.directory, step=step)
        trees = {item: reading.read_tree(place, item, getattr(abstract_state, item)) for item in _TREES}
        stored = reading.read_json(place, "step")
        scalars = {f.name: getattr(abstract_state, f.name) for f in fields(abstract_state) if f.name not in _TREES}
        if set(stored) != set(scalars):
            raise UserError(f"The checkpoint {place} has the counters {sorted(stored)}, wanted {sorted(scalars)}.")
        placed = {name: _scalar_like(scalars[name], value) for name, value in stored.items()}
        return Restored(
            step=stored["step"],
            state=replace(abstract_state, **trees, **placed),
            data_state=reading.read_json(place, "data"),
            metadata=reading.read_json(place, "metadata"),
            metrics=reading.read_json(place, "metrics"),
        )

    def _require_metric(self, metrics: Mapping[str, float]) -> None:
        name = self.policy.keep_best
        if name is not None and metrics and name not in metrics:
            raise UserError(
                f"keep_best is {name!r}, which the evaluation does not give.{nearest(name, metrics)} "
                f"It gives: {', '.join(sorted(metrics))}."
            )

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turns the writer's troubles with the disk into one message, and leaves nothing half-written."""
        try:
            yield
        except Exception as error:
            _wait_for_orbax_threads()
            if _is_primary():
                _remove_unfinished(self.directory)
            self._manager.reload()  # Orbax has forgotten the steps that it would have deleted after this save.
            if not _is_disk_trouble(error):
                raise
            raise UserError(
                f"Saving checkpoint {self._last_saved} to {self.directory} failed: {_reason(error)}. The checkpoints "
                f"there are {self.all_steps()}. Make room or choose another directory; the same command resumes."
            ) from error


def _orbax_manager(directory: Any, policy: CheckpointPolicy) -> Any:
    import orbax.checkpoint as ocp

    policies = ocp.checkpoint_managers
    preserve: list[Any] = [policies.LatestN(policy.keep)]
    if policy.keep_period_steps is not None:
        preserve.append(policies.EveryNSteps(policy.keep_period_steps))
    if policy.keep_best is not None:
        preserve.append(
            policies.BestN(get_metric_fn=lambda m: _rank_value(m, policy), n=1, keep_checkpoints_without_metrics=False)
        )
    options = ocp.CheckpointManagerOptions(
        best_fn=lambda m: _rank_value(m, policy),  # Without one Orbax does not write the metrics.
        preservation_policy=policies.AnyPreservationPolicy(preserve),
        enable_async_checkpointing=policy.asynchronous,
        todelete_subdir=_DELETED,  # A rename: a process killed while deleting leaves no half of a checkpoint.
        save_root_metadata=False,
    )
    return ocp.CheckpointManager(directory, options=options)


def _is_not_reraised(record: logging.LogRecord) -> bool:
    """Drops Orbax's tracebacks of errors in its threads: the same errors are raised to the caller."""
    return not (record.exc_info and "orbax" in record.pathname)


def _rank_value(metrics: Mapping[str, float], policy: CheckpointPolicy) -> float:
    """Higher is better; what has no such metric, or one that is not a number, comes last."""
    value = metrics.get(policy.keep_best or "", math.nan)
    if math.isnan(value):
        return -math.inf
    return value if policy.best_mode == "max" else -value


def _remove_unfinished(directory: Any) -> None:
    """Removes what a writer left unfinished, and sets aside what bears a step's name but is no whole checkpoint.

    Only the run that owns the directory may call this.
    """
    _remove_deleted(directory)
    for place in list(directory.iterdir()) if directory.is_dir() else []:
        step, _, suffix = place.name.partition(".")
        if step.isdecimal() and suffix.startswith("orbax-checkpoint-tmp"):
            place.rmtree()
        elif place.name.isdecimal() and not reading.is_whole(place):  # A copy that was cut short, not ours to delete.
            aside = directory / f"incomplete-{place.name}"
            if aside.exists():
                aside.rmtree()
            place.rename(aside)


def _wait_for_orbax_threads() -> None:
    """Lets the writers of the other items end after one has failed: they would write into what is removed."""
    deadline = time.monotonic() + _STRAGGLERS_SECONDS
    while time.monotonic() < deadline and any(type(t).__module__.startswith("orbax") for t in threading.enumerate()):
        time.sleep(0.01)


def _remove_deleted(directory: Any) -> None:
    if (directory / _DELETED).exists():
        (directory / _DELETED).rmtree()


def _is_disk_trouble(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) or any(words in str(error) for words in _DISK_TROUBLE):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: BaseException) -> str:
    """TensorStore tells a full disk in five lines of file names."""
    return os.strerror(errno.ENOSPC) if os.strerror(errno.ENOSPC) in str(error) else str(error)


def _scalar_like(abstract: Any, value: int | float) -> Any:
    import jax

    array = np.asarray(value, dtype=abstract.dtype)
    return jax.device_put(array, getattr(abstract, "sharding", None))


def _is_primary() -> bool:
    import jax

    return jax.process_index() == 0
