"""TensorFlow and SeqIO, imported when a task is registered or read, not before; kept off the accelerators."""

import contextlib
import importlib
import os
from types import ModuleType


def import_seqio() -> ModuleType:
    """Returns SeqIO.

    Raises:
      ValueError: the `tasks` extra is not installed.
    """
    return _import("seqio")


def import_tfds() -> ModuleType:
    """Returns TensorFlow Datasets.

    Raises:
      ValueError: the `tasks` extra is not installed.
    """
    return _import("tensorflow_datasets")


def import_parquet() -> ModuleType:
    """Returns `pyarrow.parquet`.

    Raises:
      ValueError: the `tasks` extra is not installed.
    """
    return _import("pyarrow.parquet")


def _import(name: str) -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        module = importlib.import_module(name)
        if name != "pyarrow.parquet":
            _keep_off_accelerators()
    except ImportError as error:
        raise ValueError(
            f"Defining and exporting tasks needs {name.split('.')[0]} ({error}). "
            "Install it with: pip install 'flan_jax[tasks]'. Training from an existing export does not need it."
        ) from error
    return module


def _keep_off_accelerators() -> None:
    """TensorFlow would take all memory of the GPUs that JAX is about to use."""
    config = importlib.import_module("tensorflow").config
    for kind in ("GPU", "TPU"):
        with contextlib.suppress(RuntimeError):  # It has started already; whoever started it chose its devices.
            config.set_visible_devices([], kind)
