"""Saves a run's checkpoints while it trains, and restores them.

A thin layer over Orbax's `CheckpointManager` that defines which checkpoints are retained, the message of a failed
write, and what survives if the process is killed at any moment. Parameters, optimizer state, step and data position are
separate items, so that reading only the parameters is cheap; `flan_jax.checkpoint.reading` does that without a manager.
The training loop decides when to save.
"""

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, final

import absl.logging
import numpy as np

from flan_jax import files
from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.checkpoint import reading
from flan_jax.checkpoint.trees import named_leaves, nbytes, nested
from flan_jax.checkpoint.verification import write_digests
from flan_jax.errors import UserError
from flan_jax.names import one_of

_TREES = ("params", "opt_state")
_DELETED = ".deleted"
_UNFINISHED = ".orbax-checkpoint-tmp"
_OVERHEAD_BYTES = 2**20  # Names, shardings and JSON of one checkpoint.
_THREADS_TIMEOUT_SECONDS = 10.0
_DISK_ERRORS = ("No space left", "quota", "RESOURCE_EXHAUSTED", "Read-only file system", "Permission denied")


@dataclass(frozen=True, kw_only=True)
class CheckpointPolicy:
    """Which checkpoints of a run are retained.

    Attributes:
      keep: Number of latest checkpoints.
      keep_period_steps: Also every step that is a multiple of this; None for no others.
      keep_best: Also the checkpoint with the best value of this evaluation metric; None for no other.
      best_mode: "max" or "min": which value of the metric is best.
      asynchronous: Whether training continues while the files are written.
    """

    keep: PositiveInt = 3  # 0 would leave nothing to resume from.
    keep_period_steps: PositiveInt | None = None
    keep_best: str | None = None
    best_mode: Literal["max", "min"] = "max"
    asynchronous: bool = True

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """One restored checkpoint."""

    state: Any
    data_state: dict[str, Any]


@final
class Checkpoints:
    """The checkpoints of one run, open for writing. A context manager: its exit waits for the writer.

    A state is a dataclass with the trees `params` and `opt_state`; its other fields are scalars, including `step`.
    """

    def __init__(self, directory: Path, *, policy: CheckpointPolicy, metadata: Mapping[str, Any]) -> None:
        """Opens a directory, and removes what a killed process left unfinished in it.

        Args:
          directory: `<run>/checkpoints`; created if absent.
          policy: Which checkpoints to retain.
          metadata: JSON stored in every checkpoint: vocabulary digest, model config, mixture, versions.
        """
        self.directory = directory
        self.policy = policy
        self._metadata = dict(metadata)
        self._last_saved: int | None = None
        self._is_idle = True  # Nothing to wait for, no error to raise.
        if _is_primary():
            _remove_unfinished(self.directory)
        self._manager = _orbax_manager(self.directory, policy, before_commit=self._write_digests)
        absl.logging.get_absl_logger().addFilter(_is_not_reraised)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.close()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"Also: {late}")  # Never hides why the run stopped.

    def all_steps(self) -> list[int]:
        """Returns the steps on disk, ascending."""
        return reading.all_steps(self.directory)

    def latest_step(self) -> int | None:
        """Returns the step to resume from, None for a new run."""
        return reading.latest_step(self.directory)

    def save(self, state: Any, *, data_state: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> bool:
        """Saves a state under its step; waits for an earlier save that is still being written.

        Args:
          state: See the class; copied before this returns, so that its buffers may be donated.
          data_state: Position of the feed, JSON.
          metrics: Of the evaluation at this step; None or empty without one.

        Returns:
          Whether the state was saved; False if this step already is.

        Raises:
          UserError: The disk is full, the writer failed now or in an earlier save, or `keep_best` is not in the
            metrics.
        """
        import orbax.checkpoint as ocp

        self.wait()
        scalars = {f.name: getattr(state, f.name) for f in fields(state) if f.name not in _TREES}
        step = int(scalars["step"])
        # A run that is resumed and ends at once, or saves at the step it started from, has nothing new.
        if step in self.all_steps():
            return False
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        self._require_metric(metrics)
        trees = {item: named_leaves(getattr(state, item)) for item in _TREES}
        # The error comes at once and names the missing space; the writer's comes minutes later, from a thread.
        files.require_free_space(self.directory, nbytes(trees) + _OVERHEAD_BYTES, for_what=f"checkpoint {step}")
        # Orbax refuses an empty tree, which the state of plain SGD is.
        items = {item: ocp.args.StandardSave(nested(named)) for item, named in trees.items() if named}
        jsons = {
            "step": {name: np.asarray(value).item() for name, value in scalars.items()},
            "data": dict(data_state),
            "metadata": self._metadata,
        }
        json.dumps(jsons)  # Invalid JSON fails here, not in the writer's thread.
        items |= {item: ocp.args.JsonSave(value) for item, value in jsons.items()}
        # Before the call: `_write_digests` reads it in the writer's thread, which may be done first.
        self._last_saved, self._is_idle = step, False
        with self._reporting_disk_errors():
            # Forced: the training loop decides when to save, not the interval of Orbax.
            is_saved: bool = self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)
        if not self.policy.asynchronous:
            self.wait()
        return is_saved

    def _write_digests(self) -> None:
        """Completes a checkpoint that is about to get its name; called in the writer's thread."""
        if _is_primary():
            # Orbax chooses the rest of the temporary name, and there is one such directory at a time: `save` waits
            # first.
            (unfinished,) = self.directory.glob(f"{self._last_saved}{_UNFINISHED}*")
            write_digests(unfinished, except_names=reading.ORBAX_RECORDS)

    def check_for_errors(self) -> None:
        """Raises an error of the writer since the last call, without waiting for a running one.

        Cheap enough for every step.
        """
        if not self._is_idle and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
          UserError: Writing failed.
        """
        if self._is_idle:
            return
        self._is_idle = True  # Also when it fails: an error is raised once.
        with self._reporting_disk_errors():
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
        """Restores a checkpoint onto any mesh.

        Args:
          abstract_state: The state with `jax.ShapeDtypeStruct` for arrays, each with its target sharding.
          step: Which checkpoint; None selects the latest.

        Raises:
          MissingFileError: There is no checkpoint of that step.
          UserError: Names, shapes or dtypes differ from the checkpoint's.
        """
        self.wait()
        directory = reading.find(self.directory, step=step)
        assert isinstance(directory, Path)
        trees = {item: reading.read_tree(directory, item, getattr(abstract_state, item)) for item in _TREES}
        stored = reading.read_json(directory, "step")
        scalars = {f.name: getattr(abstract_state, f.name) for f in fields(abstract_state) if f.name not in _TREES}
        if set(stored) != set(scalars):
            raise UserError(
                f"The checkpoint {directory} has the counters {sorted(stored)}, expected {sorted(scalars)}."
            )
        placed = {name: _scalar_like(scalars[name], value) for name, value in stored.items()}
        return Restored(
            state=replace(abstract_state, **trees, **placed),
            data_state=reading.read_json(directory, "data"),
        )

    def _require_metric(self, metrics: Mapping[str, float]) -> None:
        name = self.policy.keep_best
        if name is not None and metrics and name not in metrics:
            raise UserError(one_of(name, sorted(metrics), "keep_best"))

    @contextlib.contextmanager
    def _reporting_disk_errors(self) -> Iterator[None]:
        """Turns the writer's disk errors into one message, and removes unfinished files."""
        try:
            yield
        except Exception as error:
            _wait_for_orbax_threads()
            if _is_primary():
                _remove_unfinished(self.directory)
            self._manager.reload()  # Orbax has forgotten the steps that it would have deleted after this save.
            if not _is_disk_error(error):
                raise
            raise UserError(
                f"Saving checkpoint {self._last_saved} to {self.directory} failed: {_reason(error)}. It has the "
                f"checkpoints {self.all_steps()}. Free some space or choose another directory; the "
                "same command resumes."
            ) from error


def _orbax_manager(directory: Path, policy: CheckpointPolicy, *, before_commit: Callable[[], None]) -> Any:
    import orbax.checkpoint as ocp

    # The manager of Orbax's version 0, behind this module alone, because that of version 1 still changes.
    policies = ocp.checkpoint_managers
    preserve: list[Any] = [policies.LatestN(policy.keep)]
    if policy.keep_period_steps is not None:
        preserve.append(policies.EveryNSteps(policy.keep_period_steps))
    if policy.keep_best is not None:
        preserve.append(
            # Steps without an evaluation are not retained because of it: they would never be deleted.
            policies.BestN(get_metric_fn=lambda m: rank_value(m, policy), n=1, keep_checkpoints_without_metrics=False)
        )
    options = ocp.CheckpointManagerOptions(
        best_fn=lambda m: rank_value(m, policy),  # Without one Orbax does not write the metrics.
        preservation_policy=policies.AnyPreservationPolicy(preserve),
        async_options=ocp.AsyncOptions(post_finalization_callback=before_commit),
        # Deleting starts with a rename, so that a process killed meanwhile leaves no partial checkpoint.
        todelete_subdir=_DELETED,
        save_root_metadata=False,
    )
    return ocp.CheckpointManager(directory, options=options)


def _is_not_reraised(record: logging.LogRecord) -> bool:
    """Filters out Orbax's tracebacks of errors in its threads, which are also raised to the caller."""
    return not (record.exc_info and "orbax" in record.pathname)


def rank_value(metrics: Mapping[str, float], policy: CheckpointPolicy) -> float:
    """Returns the metric that `keep_best` watches as a rank, higher is better; a missing metric or NaN ranks last."""
    value = metrics.get(policy.keep_best or "", math.nan)
    # NaN compares false with everything: which checkpoint is best would depend on the order of the steps.
    if math.isnan(value):
        return -math.inf
    return value if policy.best_mode == "max" else -value


def set_damaged_aside(directory: Path, *, strict: bool) -> list[str]:
    """Renames the damaged checkpoints that are newer than the newest intact one, from which the run then resumes.

    Only the run that owns the directory may call this, before it opens its `Checkpoints`.

    Args:
      directory: `<run>/checkpoints`; it need not exist.
      strict: Whether a damaged newest checkpoint is an error.

    Returns:
      A warning for each renamed checkpoint.

    Raises:
      DamagedFileError: None is intact, or with `strict` the newest is not; nothing is renamed.
    """
    newest, faults = reading.newest_intact(directory, strict=strict)
    for step in faults:
        aside = directory / f"damaged-{step}"
        if aside.exists():
            shutil.rmtree(aside)
        # Renamed, not deleted: the fault may be of a disk or a network, and pass.
        (directory / str(step)).rename(aside)
    return [
        f"Warning: the checkpoint {directory}/{step} is damaged ({fault}). It is now called damaged-{step}, and the "
        f"run resumes from step {newest}."
        for step, fault in faults.items()
    ]


def _remove_unfinished(directory: Path) -> None:
    """Removes what a writer left unfinished; only the run that owns the directory may call this."""
    _remove_deleted(directory)
    for path in directory.glob(f"*{_UNFINISHED}*"):
        shutil.rmtree(path)


def _wait_for_orbax_threads() -> None:
    """Waits for the writers of the other items after one has failed: they would write into removed folders."""
    deadline = time.monotonic() + _THREADS_TIMEOUT_SECONDS
    while time.monotonic() < deadline and any(type(t).__module__.startswith("orbax") for t in threading.enumerate()):
        time.sleep(0.01)


def _remove_deleted(directory: Path) -> None:
    if (directory / _DELETED).exists():
        shutil.rmtree(directory / _DELETED)


def _is_disk_error(error: BaseException | None) -> bool:
    while error is not None:
        # Orbax and TensorStore wrap the cause, and TensorStore's errors are texts without an errno.
        if isinstance(error, OSError) or any(text in str(error) for text in _DISK_ERRORS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: BaseException) -> str:
    """Returns a short reason: TensorStore reports a full disk in five lines of file names."""
    return os.strerror(errno.ENOSPC) if os.strerror(errno.ENOSPC) in str(error) else str(error)


def _scalar_like(abstract: Any, value: int | float) -> Any:
    import jax

    array = np.asarray(value, dtype=abstract.dtype)
    return jax.device_put(array, getattr(abstract, "sharding", None))


def _is_primary() -> bool:
    import jax

    return jax.process_index() == 0
