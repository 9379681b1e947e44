"""T5X's names: the table names settings that exist here, its page lists it, and messages and `show gin` use it."""

import importlib
import inspect
import os
import re
from pathlib import Path

import pytest

from flan_jax import gin_config, t5x_names
from flan_jax.commands.show import show
from flan_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / t5x_names.PAGE
# The macros of T5X's own gin files, by how many of them set each.
MACROS = """
TASK_FEATURE_LENGTHS MIXTURE_OR_TASK_NAME DROPOUT_RATE TRAIN_STEPS BATCH_SIZE LOSS_NORMALIZING_FACTOR
INITIAL_CHECKPOINT_PATH USE_CACHED_TASKS MIXTURE_OR_TASK_MODULE OPTIMIZER LABEL_SMOOTHING VOCABULARY Z_LOSS MODEL
RANDOM_SEED MODEL_DIR CHECKPOINT_PATH EVAL_OUTPUT_DIR INFER_OUTPUT_DIR TRAIN_EVAL_MIXTURE_OR_TASK_NAME USE_HARDWARE_RNG
TRAIN_STEPS_RELATIVE EVAL_STEPS EVAL_PERIOD EVALUATOR_USE_MEMORY_CACHE EVALUATOR_NUM_EXAMPLES JSON_WRITE_N_RESULTS
SHUFFLE_TRAIN_EXAMPLES OUTPUT_FEATURES MODEL_OUTPUT_DIR MODEL_NAME BEAM_SIZE ACTIVATION_DTYPE LEARNING_RATE
TF_EXAMPLE_FILE_PATHS TF_EXAMPLE_FILE_TYPE FEATURE_LENGTHS
""".split()
FILE = """
from __gin__ import dynamic_registration
import __main__ as train_script
from t5x import utils
include "t5x/examples/t5/mt5/XL.gin"
RANDOM_SEED = 3
MINE = 4
train/utils.DatasetConfig:
  batch_size = %BATCH_SIZE
  num_workers = 2
train_script.train.partitioner = @partitioning.PjitPartitioner()
"""


def test_every_name_here_is_a_setting(subtests):
    texts = [path.read_text() for path in (ROOT / "gin_configs").rglob("*.gin")]
    macros = {name for text in texts for name in re.findall(r"^([A-Z_]+) = ", text, flags=re.MULTILINE)}
    modules = {path.stem: path for path in (ROOT / "flan_jax").rglob("*.py") if "collections" not in path.parts}
    for name in t5x_names.NAMES:
        with subtests.test(name.theirs):
            assert name.ours or name.note
            module, *rest = name.ours.split(".")
            if not rest:
                assert not name.ours or name.ours in macros
                continue
            dotted = ".".join(modules[module].relative_to(ROOT).with_suffix("").parts)
            configurable = getattr(importlib.import_module(dotted), rest[0])
            assert rest[1:] == [] or rest[1] in inspect.signature(configurable).parameters


def test_every_macro_of_t5x_has_an_entry_of_its_own():
    for macro in MACROS:
        found = t5x_names.lookup(macro)
        assert found is not None and found.theirs == macro, macro


def test_the_page_lists_the_table():
    lines = ["| T5X | flan_jax | |", "| --- | --- | --- |"]
    for name in t5x_names.NAMES:
        lines.append(f"| `{name.theirs}` | {f'`{name.ours}`' if name.ours else 'does not exist'} | {name.note} |")
    listed = "<!-- names -->\n" + "\n".join(lines).replace("|  |", "| |") + "\n<!-- end of names -->"
    text = PAGE.read_text()
    if os.environ.get("UPDATE_GOLDENS") == "1":
        text = re.sub(r"<!-- names -->.*<!-- end of names -->", lambda _: listed, text, flags=re.DOTALL)
        PAGE.write_text(text)
    assert listed in text


def test_a_file_of_t5x_is_translated_without_t5x(tmp_path):
    (tmp_path / "run.gin").write_text(FILE)
    rows = show("gin", from_t5x=str(tmp_path / "run.gin")).data["settings"]
    assert [(row["line"], row["t5x"], row["here"]) for row in rows] == [
        (2, "from __gin__ import dynamic_registration", None),
        (3, "import __main__ as train_script", None),
        (4, "from t5x import utils", None),
        (5, "include 't5x/examples/t5/mt5/XL.gin'", None),
        (6, "RANDOM_SEED", "SEED"),
        (7, "MINE", None),
        (9, "train/utils.DatasetConfig.batch_size", "run_config.RunConfig.batch_size"),
        (10, "train/utils.DatasetConfig.num_workers", None),
        (11, "train_script.train.partitioner", "run_config.RunConfig.mesh"),
    ]
    assert rows[3]["note"] == "include 'models/mt5/xl.gin' instead" and rows[6]["value"] == "%BATCH_SIZE"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = (", "not gin syntax"),
        (b"\xff", "not a gin file, which is UTF-8 text"),
        (b"a = " + b"[" * 10_000, "not gin syntax"),
    ],
)
def test_a_file_that_is_not_gin_is_refused(tmp_path, content, message):
    (tmp_path / "run.gin").write_bytes(content)
    with pytest.raises(UserError, match=message):
        show("gin", from_t5x=str(tmp_path / "run.gin"))


@pytest.mark.parametrize("text", ["A = (\n", "A = " + "[" * 10_000, "A = 'x\n"])
def test_a_recipe_that_is_not_gin_is_refused_with_the_file(tmp_path, text):
    (tmp_path / "run.gin").write_text(text)
    assert "run.gin: not gin syntax" in refused(str(tmp_path / "run.gin"))


def refused(*files: str, bindings: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as error:
        gin_config.parse(files, bindings)
    return str(error.value)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("RANDOM_SEED=3", "Nothing uses the macro RANDOM_SEED, .* RANDOM_SEED of T5X is SEED here"),
        ("EVAL_STEPS=3", "EVAL_STEPS of T5X is suite.EvaluationPlan.max_examples_per_task here. It counts rows"),
        ("Z_LOSS=0.1", "Z_LOSS of T5X is seq2seq.Seq2Seq.z_loss here"),
        ("USE_HARDWARE_RNG=True", "flan_jax has no USE_HARDWARE_RNG of T5X"),
        (
            "utils.DatasetConfig.batch_size=3",
            "utils.DatasetConfig.batch_size of T5X is run_config.RunConfig.batch_size",
        ),
        (
            "train/utils.DatasetConfig.pack=True",
            "DatasetConfig.pack of T5X is run_config.RunConfig.packing_strategy here",
        ),
        ("trainer.Trainer.num_microbatches=2", "is run_config.RunConfig.num_microbatches here"),
        ("partitioning.PjitPartitioner.num_partitions=2", "is sharding.MeshPlan.tensor here"),
        ("utils.CheckpointConfig.save=None", "utils.CheckpointConfig.save of T5X is run_config.RunConfig.checkpoints"),
        ("config.T5Config.scan_layers=True", "network.T5Config.scan_layers of T5X is execution.Execution.layers here"),
        ("DROPOUT_RAT=3", r"Nothing uses the macro DROPOUT_RAT, .* Did you mean 'DROPOUT_RATE'\?"),
    ],
)
def test_messages_say_what_a_setting_of_t5x_is_called_here(binding, message):
    text = refused("recipes/quickstart.gin", bindings=(binding,))
    assert re.search(message, text), text
    assert t5x_names.PAGE in text or "DROPOUT" in binding


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import t5x\n", "run.gin:1 imports t5x: it is a gin file of T5X"),
        ("A = 1\nfrom t5x import utils\n", "run.gin:2 imports t5x.utils: it is a gin file of T5X"),
        ("import seqio\n", "run.gin:1 imports seqio"),
        ("include 't5x/examples/t5/t5_1_1/small.gin'\n", "Here, include 'models/t5_1_1/small.gin' instead."),
        ("include 't5x/configs/runs/finetune.gin'\n", "Here, include 'runs/train.gin' instead, or use the verbs"),
    ],
)
def test_a_file_of_t5x_is_refused_with_the_page(tmp_path, text, message):
    (tmp_path / "run.gin").write_text(text)
    got = refused(str(tmp_path / "run.gin"))
    assert message in got and "`flan-jax show gin --from-t5x " in got and got.endswith("see docs/t5x.md.")
