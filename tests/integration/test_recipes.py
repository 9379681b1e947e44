"""The shipped recipes, each run for one step with smaller sizes and everything else unchanged."""

import json

import pytest

from flan_jax import cli
from tests.integration.conftest import train_lines
from tests.tasks.superni_synthetic import synthetic_folder

pytestmark = pytest.mark.tensorflow

SHRUNK = [
    "config.T5Config.emb_dim=16",
    "config.T5Config.mlp_dim=16",
    "config.T5Config.num_heads=2",
    "config.T5Config.head_dim=8",
    "config.T5Config.num_encoder_layers=1",
    "config.T5Config.num_decoder_layers=1",
    "loop.Cadence.log_every_steps=1",
    "suite.EvaluationPlan.max_examples_per_task=2",
    "suite.EvaluationPlan.max_decode_length=4",
    "suite.EvaluationPlan.batch_size=8",
]


def run_shrunk(recipe, tmp_path, *bindings, export_dir=None):
    directories = [f"MODEL_DIR={tmp_path}/run", f"EXPORT_DIR={export_dir or tmp_path / 'exports'}"]
    given = [f"--gin.{binding}" for binding in [*SHRUNK, *directories, *bindings]]
    assert cli.run(["train", f"--gin_file=gin_configs/recipes/{recipe}.gin", *given]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert train_lines(tmp_path / "run")[-1]["loss"] > 0
    return record, json.loads(next((tmp_path / "run" / "eval").glob("*/summary.json")).read_text())


@pytest.fixture(scope="module")
def superni(tmp_path_factory):
    """Synthetic tasks in the published layout, and one export for all recipes."""
    return synthetic_folder(tmp_path_factory.mktemp("superni") / "tasks"), tmp_path_factory.mktemp("exports")


@pytest.mark.parametrize("recipe", ["superni_tiny", "superni_small", "superni_base"])
def test_super_natural_instructions(recipe, superni, tmp_path, monkeypatch):
    """With the embedded vocabulary in place of T5's."""
    folder, export_dir = superni
    monkeypatch.setenv("FLAN_JAX_SUPERNI_DIR", str(folder))
    bindings = ["TRAIN_STEPS=1", "VOCABULARY=embedded", "TASK_FEATURE_LENGTHS={'inputs': 256, 'targets': 32}"]
    record, summary = run_shrunk(recipe, tmp_path, *bindings, export_dir=export_dir)
    assert {member["task"] for member in record["mixture"]["members"]} == {
        "superni_task001_sorting",
        "superni_task002_naming_things",
    }
    assert record["identity"]["model"]["vocab_size"] == 32128
    assert record["identity"]["model"]["dtype"] == ("float32" if recipe == "superni_tiny" else "bfloat16")
    assert {task["main_metric"] for task in summary["tasks"]} == {"superni_exact_match", "rouge_l"}
    assert summary["means"]["rouge_l"]["num_tasks"] == len(summary["tasks"])


@pytest.mark.shared_data
def test_a_collection_of_several_families(shared_data, tmp_path):
    """On its own rows: 650 tasks are exported, mixed with plain text, and the held-out cluster is ranked."""
    record, summary = run_shrunk("collections_tiny", tmp_path, "TRAIN_STEPS=1")
    members = {member["task"]: member["rate"] for member in record["mixture"]["members"]}
    assert {"cola_10templates", "cot_gsm8k", "alpaca", "services", "wikipedia"} < members.keys() and len(members) == 650
    assert sorted(record["mixture"]["skipped"]) == ["cot_esnli", "stream_qed"]
    labels = {task["task"]: task["label"] for task in summary["tasks"]}
    assert labels["rte_type_0_scoring_eval"] == labels["super_glue_rte_GPT_3_style_score_eval"] == "held_out"
    assert record["hold_out"]["allowed"] == [] and record["mixture"]["hold_out"]["clusters"] == ["entailment", "NLI"]


def test_rows_of_ones_own(tmp_path):
    record, summary = run_shrunk("jsonl", tmp_path, "TRAIN_STEPS=1")
    assert record["mixture"]["members"][0]["examples"] == 20
    assert [task["main_metric"] for task in summary["tasks"]] == ["exact_match"]
