"""Every shipped gin file parses; every recipe resolves completely; recipes run shrunk."""

import math
from pathlib import Path

import gin
import pytest

from flan_jax import gin_config
from flan_jax.data.manifest import Request
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.families import FAMILIES, config_of_gin_file
from flan_jax.models.t5.parameters import parameter_shapes
from flan_jax.run.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "gin_configs").rglob("*.gin"))
RECIPES = [f for f in FILES if "/recipes/" in f]
MODELS = [f for f in FILES if "/models/" in f]
PARAMETERS = {  # As transformers counts them for models of the published configs.
    "t5_1_0/small": 60_506_624,
    "t5_1_0/base": 222_903_552,
    "t5_1_0/large": 737_668_096,
    "t5_1_0/3b": 2_851_598_336,
    "t5_1_0/11b": 11_307_321_344,
    **{
        f"{family}/{size}": count
        for family in ("t5_1_1", "lm_adapted", "flan_t5")
        for size, count in {
            "small": 76_961_152,
            "base": 247_577_856,
            "large": 783_150_080,
            "xl": 2_849_757_184,
            "xxl": 11_135_332_352,
        }.items()
    },
    "mt5/small": 300_176_768,
    "mt5/base": 582_401_280,
    "mt5/large": 1_229_581_312,
    "mt5/xl": 3_742_619_648,
    "mt5/xxl": 12_921_057_280,
    "umt5/small": 306_601_984,
    "umt5/base": 592_043_520,
    "umt5/xl": 3_768_356_864,
    "umt5/xxl": 12_972_531_712,
    "byt5/small": 299_637_760,
    "byt5/base": 581_653_248,
    "byt5/large": 1_228_183_552,
    "byt5/xl": 3_737_801_728,
    "byt5/xxl": 12_906_899_328,
    "ul2/20b": 19_459_613_696,
    "flan_ul2/20b": 19_459_613_696,
    # Sizes of this project: summed by hand from V, E, H*K, F and layers.
    "t5_1_1/micro": 402_432,
    "t5_1_1/tiny": 4_310_016,
}


def test_no_file_is_missing_from_these_tests():
    assert len(FILES) == 57 and len(RECIPES) == 10 and len(MODELS) == len(PARAMETERS) == 38


def test_a_recipe_resolves_and_states_its_command_and_hardware(subtests):
    for recipe in RECIPES:
        with subtests.test(recipe):
            head = (ROOT / recipe).read_text().split("from __gin__")[0]
            assert f"flan-jax train --gin_file={recipe}" in head and "Hardware" in head
            gin_config.parse([recipe], [])  # `--check` would need its data and its vocabulary.
            gin_config.configured(RunConfig, {}, verb="train")()


def model_of(file: str) -> T5Config:
    gin_config.parse([file], [])
    return gin.get_configurable(T5Config)()


def test_a_model_file_has_the_parameter_count_of_its_name(subtests):
    for file in MODELS:
        with subtests.test(file):
            shapes = parameter_shapes(model_of(file))
            assert (
                sum(map(math.prod, shapes.values())) == PARAMETERS["/".join(file.removesuffix(".gin").split("/")[-2:])]
            )


def test_a_model_file_read_as_data_is_the_network_that_gin_makes_of_it(subtests):
    for file in MODELS:
        with subtests.test(file):
            assert config_of_gin_file(file) == model_of(file)


def test_every_model_file_is_of_a_family_and_size():
    published = {family.gin_file(size) for family in FAMILIES for size in family.sizes}
    ours = {f"gin_configs/models/t5_1_1/{size}.gin" for size in ("micro", "tiny")}
    assert {*MODELS} == published | ours


def test_optimizers_and_meshes_combine_with_the_quickstart(subtests):
    for file in [f for f in FILES if "/optimizers/" in f or "/meshes/" in f]:
        with subtests.test(file):
            gin_config.parse(["gin_configs/recipes/quickstart.gin", file], [])
            assert gin_config.resolved_text()


def test_missing_macros_are_named():
    with pytest.raises(ValueError, match="no value yet") as error:
        gin_config.parse(["gin_configs/optimizers/adafactor.gin", "gin_configs/runs/train.gin"], [])
    for macro in ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "TRAIN_STEPS", "BATCH_SIZE"):
        assert macro in str(error.value)
    assert Request.__dataclass_fields__["lengths"]
