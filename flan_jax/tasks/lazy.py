"""TensorFlow and SeqIO, imported when a task is registered or read, not before; off the accelerators, and quiet."""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

from flan_jax.errors import UserError


def import_seqio() -> ModuleType:
    """Returns SeqIO.

    Raises:
      UserError: The `tasks` extra is not installed.
    """
    return _import("seqio")


def import_tfds() -> ModuleType:
    """Returns TensorFlow Datasets.

    Raises:
      UserError: The `tasks` extra is not installed.
    """
    tfds = _import("tensorflow_datasets")
    # For a dataset that is not prepared it would make a temporary folder that nothing removes, and then ask a bucket
    # that is switched off.
    tfds.core.DatasetInfo.initialize_from_bucket = lambda self: None
    return tfds


def import_parquet() -> ModuleType:
    """Returns `pyarrow.parquet`.

    Raises:
      UserError: The `tasks` extra is not installed.
    """
    return _import("pyarrow.parquet")


def _import(name: str) -> ModuleType:
    if sys.modules.get(name) is not None:
        return sys.modules[name]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _quiet_stderr():
            if name != "pyarrow.parquet":
                _keep_off_accelerators()
            return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"Defining and exporting tasks needs {name.split('.')[0]} ({error}). "
            "Install it with: pip install 'flan_jax[tasks]'. Training from an existing export does not need it."
        ) from error


def _keep_off_accelerators() -> None:
    """Hides GPUs and TPUs from TensorFlow, which would reserve all memory of the GPUs that JAX is about to use."""
    config = importlib.import_module("tensorflow").config
    for kind in ("GPU", "TPU"):
        with contextlib.suppress(
            RuntimeError
        ):  # TensorFlow was initialized earlier, with devices of the caller's choice.
            config.set_visible_devices([], kind)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Suppresses what TensorFlow's libraries print while they load, a screen of notes that no setting turns off.

    They write to the file descriptor, so the descriptor is redirected. When loading fails, everything is shown.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(original, captured.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
