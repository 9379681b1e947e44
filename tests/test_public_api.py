"""`import flan_jax` is cheap, and offers its names when they are used."""

import subprocess
import sys

import pytest

import flan_jax

HEAVY = ("jax", "tensorflow", "rich", "numpy", "gin")


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, flan_jax; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.tensorflow
def test_every_public_name_is_documented_and_found():
    for name in flan_jax.__all__:
        assert getattr(flan_jax, name).__doc__, name
        assert name in dir(flan_jax)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'trian_model'; it has ModelOptions, .*train_model"):
        flan_jax.trian_model  # noqa: B018


def test_a_recipe_is_read_as_by_the_command_line(tmp_path):
    config = flan_jax.load_recipe(
        "gin_configs/recipes/quickstart.gin", bindings=["BATCH_SIZE=8", f"MODEL_DIR={tmp_path}"]
    )
    assert isinstance(config, flan_jax.RunConfig)
    assert (config.batch_size, config.model_dir, config.data.name) == (8, tmp_path, "embedded_train")
