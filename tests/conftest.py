"""A strict session for all tests: eight fake CPU devices, rank promotion raises, warnings are errors."""

import os
import shutil
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("FLAN_JAX_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Compiled programs of one run of the tests, also for the processes that tests start: most runs compile the same few, which
# would be half of the suite's time. Nothing is written to the user's home. Each of several workers has its own folder,
# because JAX does not write an entry in one piece.
os.environ["FLAN_JAX_COMPILE_CACHE"] = tempfile.mkdtemp(prefix="flan_jax_tests_")
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
os.environ.pop("FLAN_JAX_SUPERNI_DIR", None)  # If set in the environment, it would register 790 tasks.
os.environ.pop("FLAN_JAX_PROMPTSOURCE_DIR", None)
os.environ.pop("FLAN_JAX_MMLU_DIR", None)
os.environ.pop("FLAN_JAX_BBH_DIR", None)

import pytest
from jaxtyping import install_import_hook

# Shapes in signatures are checked only in tests. This comes before any import of these packages.
CHECKED = (
    "acceleration",
    "attention",
    "dropout",
    "initialization",
    "layers",
    "partitioning",
    "position_bias",
    "t5.network",
)
install_import_hook(
    [
        "flan_jax.objectives",
        *(
            f"flan_jax.decoding.{m}"
            for m in ("beams", "processors", "programs", "scoring", "search", "vocabulary_axis")
        ),  # Strategies check themselves.
        "flan_jax.models.t5.model",
        *(f"flan_jax.models.{m}" for m in CHECKED),
    ],
    "beartype.beartype",
)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("there is no folder shared/data next to the checkout")
    return SHARED_DATA


def pytest_configure(config):
    from flan_jax import backend

    backend.compile_cache()


def pytest_unconfigure(config):
    shutil.rmtree(os.environ["FLAN_JAX_COMPILE_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    """Skips slow tests unless a marker requests them, and tests whose packages are not installed."""
    import importlib.util

    missing = {
        "gpu": os.environ["JAX_PLATFORMS"] != "cuda",
        "gpu_compiler": not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))),
        "tensorflow": importlib.util.find_spec("seqio") is None,
        "reference": importlib.util.find_spec("transformers") is None,
        "lm_eval": importlib.util.find_spec("lm_eval") is None,
        "libtpu": importlib.util.find_spec("libtpu") is None,
        "t5x": importlib.util.find_spec("t5x") is None,
    }
    slow_requested = "slow" in (config.option.markexpr or "")
    for item in items:
        if item.get_closest_marker("slow") and not slow_requested:
            item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))
        for marker, absent in missing.items():
            if item.get_closest_marker(marker) and absent:
                item.add_marker(pytest.mark.skip(reason=f"needs the {marker} packages"))
