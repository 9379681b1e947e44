"""Held out means held out, through the command line."""

import json

import pytest

from flan_jax import cli
from tests.integration.conftest import arguments

pytestmark = pytest.mark.tensorflow


def test_a_run_that_trains_on_held_out_data_is_refused_unless_allowed_by_name(export_dir, tmp_path, capfd):
    args = arguments(
        "TRAIN_STEPS=1", f"MODEL_DIR={tmp_path}/run", f"EXPORT_DIR={export_dir}",
        "suite.EvaluationPlan.suites={'held_out': ('embedded_validation',)}",
        "suite.EvaluationPlan.max_examples_per_task=1",
    )  # fmt: skip
    assert cli.run(args) == 2
    printed = capfd.readouterr().err
    assert "'embedded_train' trains on what the suite 'held_out' (embedded_validation) holds out" in printed
    assert "is itself held out" in printed and "Traceback" not in printed and not (tmp_path / "run").exists()
    allowed = printed.partition("run_config.RunConfig.allow_leak = ")[2].partition(";")[0]
    assert cli.run([*args, f"--gin.run_config.RunConfig.allow_leak={allowed}"]) == 0
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["hold_out"]
    assert recorded["tasks"] == ["embedded_validation"] and recorded["allow_leak"] and len(recorded["allowed"]) >= 20
