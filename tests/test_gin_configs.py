"""Every shipped gin file parses; every recipe resolves completely; recipes run shrunk."""

from pathlib import Path

import pytest

from flan_jax import cli, gin_config
from flan_jax.data.manifest import Request

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "gin_configs").rglob("*.gin"))
RECIPES = [f for f in FILES if "/recipes/" in f]
MODELS = [f for f in FILES if "/models/" in f]
PARAMETERS = {  # counted by hand from systems of their sizes: V, E, H*K, F, layers
    "t5_1_1/small": 76_961_152,
    "t5_1_1/base": 247_577_856,
    "t5_1_1/large": 783_150_080,
    "t5_1_1/xl": 2_849_757_184,
    "t5_1_1/xxl": 11_135_332_352,
    "t5_1_0/small": 60_506_624,
    "t5_1_0/base": 222_903_552,
}


def test_every_file_is_looked_at():
    assert len(FILES) >= 20 and len(RECIPES) >= 5 and len(MODELS) >= 11


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_resolves_and_says_what_it_is(recipe, capsys):
    head = (ROOT / recipe).read_text().split("from __gin__")[0]
    assert f"flan-jax train --gin_file={recipe}" in head and "Hardware" in head
    assert cli.run(["train", f"--gin_file={recipe}", "--check"]) == 0
    assert "TRAIN_STEPS" in capsys.readouterr().out


@pytest.mark.parametrize("file", MODELS)
def test_a_model_file_holds_the_sizes_of_its_name(file):
    from flan_jax.models import t5
    from flan_jax.models.config import T5Config

    gin_config.parse([file], [])
    import gin

    config = gin.get_configurable(T5Config)()
    expected = PARAMETERS.get("/".join(file.removesuffix(".gin").split("/")[-2:]))
    if expected is not None:
        assert t5.count_params(t5.abstract_params(config)) == expected


@pytest.mark.parametrize("file", [f for f in FILES if "/optimizers/" in f or "/meshes/" in f])
def test_a_part_goes_into_the_quickstart(file):
    gin_config.parse(["gin_configs/recipes/quickstart.gin", file], [])
    assert gin_config.resolved_text()


def test_the_frame_names_everything_that_it_requires():
    with pytest.raises(ValueError, match="no value yet") as error:
        gin_config.parse(["gin_configs/optimizers/adafactor.gin", "gin_configs/runs/train.gin"], [])
    for macro in ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "TRAIN_STEPS", "BATCH_SIZE"):
        assert macro in str(error.value)
    assert Request.__dataclass_fields__["lengths"]
