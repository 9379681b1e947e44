"""Mistakes of users: one message with the location and the fix, status 2, and nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest

from flan_jax import cli
from tests.integration.conftest import LENGTHS, arguments

pytestmark = pytest.mark.tensorflow

YAML = """
tasks:
  mine:
    cluster: mine
    license: CC0
    source: jsonl
    splits: {{train: rows.jsonl, validation: empty.jsonl}}
    metrics: [exact_match]
    templates:
      - {{inputs: "{inputs}", targets: "{targets}"}}
"""


WATCHING = """
from __gin__ import dynamic_registration
from flan_jax.checkpoint import manager

include 'gin_configs/recipes/quickstart.gin'
manager.CheckpointPolicy.keep_best = "eval/task/embedded_hoby/accuracy"
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's task in a YAML file, and the command line that trains on it."""
    monkeypatch.chdir(tmp_path)

    def write(rows, *, inputs="Where is {city}?", targets="{country}", **bindings):
        Path("rows.jsonl").write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
        Path("empty.jsonl").write_text("")
        Path("mine.yaml").write_text(YAML.format(inputs=inputs, targets=targets))
        given = {"MIXTURE_OR_TASK_NAME": "mine", "MIXTURE_OR_TASK_MODULE": "mine.yaml", "TRAIN_STEPS": 1, "MODEL_DIR": "run",
                 "run_config.RunConfig.evaluation": None, **bindings}  # fmt: skip
        return arguments(*(f"{name}={value}" for name, value in given.items()))

    return write


def refused(args, capfd, *parts):
    """Runs a command line that must be refused in one message with all the parts."""
    capfd.readouterr()
    assert cli.run(args) == 2
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    message = printed[printed.index("flan-jax: ") :]
    for part in parts:
        assert part in message, message
    return message


ROWS = [{"city": f"town {n}", "country": f"land {n}"} for n in range(8)]


def test_a_run_refuses_what_its_export_process_refuses(mine, capfd):
    """One of the errors that tests/tasks/exporting raises in process: each export process loads TensorFlow."""
    rows = [*ROWS[:2], {"city": "x"}]
    refused(mine(rows), capfd, "rows.jsonl:3: the row lacks the field 'country'")
    assert not Path("run").exists()
    assert not list(Path("exports/mixtures").glob("*.json"))  # A run must not mistake anything for an export.


@pytest.mark.usefixtures("exporting_here")
def test_check_looks_up_names_vocabulary_and_watched_scores_and_reads_no_row(mine, capfd):
    run = [*mine([{"city": "Lima"}]), "--check"]  # The row lacks its target.
    assert cli.run(run) == 0 and not Path("run").exists() and not Path("exports").exists()
    for changes, part in [
        (["--gin.MIXTURE_OR_TASK_NAME=mien"], "Unknown task or mixture 'mien'. Did you mean 'mine'"),
        (["--gin.MIXTURE_OR_TASK_MODULE=mien.yaml"], "mien.yaml"),
        (["--gin.VOCABULARY=None", "--gin.config.T5Config.vocab_size=100"], "vocab_size is 100"),
    ]:
        refused([*run, *changes], capfd, part)
    Path("watch.gin").write_text(WATCHING)
    args = ["train", "--gin_file=watch.gin", "--gin.MODEL_DIR=run", "--gin.EXPORT_DIR=exports"]
    # Also by the run itself, before anything is exported.
    for check in (["--check"], []):
        refused(
            [*args, *check], capfd, "keep_best watches 'eval/task/embedded_hoby/accuracy'", "'eval/task/embedded_hobby"
        )
    assert not list(Path("exports").rglob("*.array_record"))


@pytest.mark.usefixtures("exporting_here")
def test_bad_rows_are_skipped_and_counted_on_request(mine, capfd):
    args = mine([*ROWS, "{not json"])
    text = Path("mine.yaml").read_text().replace("source: jsonl", "source: {kind: jsonl, on_bad_row: skip}")
    Path("mine.yaml").write_text(text)
    assert cli.run(args) == 0
    (manifest,) = Path("exports/tasks").glob("*/train/manifest.json")
    content = json.loads(manifest.read_text())
    assert (content["num_examples"], sum(content["dropped"].values())) == (8, 1)


@pytest.mark.usefixtures("exporting_here")
def test_unknown_names(mine, capfd):
    refused(mine(ROWS, MIXTURE_OR_TASK_NAME="mien"), capfd, "'mien'", "Did you mean 'mine'?")
    refused([*mine(ROWS), "--gin.TRAIN_STEP=3"], capfd, "TRAIN_STEP", "Did you mean 'TRAIN_STEPS'?")
    refused([*mine(ROWS), "--gin.run_config.RunConfig.sede=3"], capfd, "sede", "Did you mean 'seed'?")
    refused([*mine(ROWS), "--gin.MIXTURE_OR_TASK_MODULE=mnie.yaml"], capfd, "mnie.yaml", "Did you mean 'mine.yaml'?")


@pytest.mark.usefixtures("exporting_here")
def test_an_export_that_does_not_fit_is_refused_with_what_differs(export_dir, tmp_path, capfd):
    common = [f"EXPORT_DIR={export_dir}", f"MODEL_DIR={tmp_path}/run", "TRAIN_STEPS=1", "run_config.RunConfig.evaluation=None",
              "USE_CACHED_TASKS=True"]  # fmt: skip
    refused(arguments(*common, "TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}"), capfd,
            "lengths.inputs: got 128, expected 64")  # fmt: skip
    refused(arguments(*common, "VOCABULARY=bytes"), capfd, "vocabulary: got 'embedded', expected 'bytes'")
    refused(arguments(*common, "MIXTURE_OR_TASK_NAME=embedded_trian"), capfd, "Did you mean 'embedded_train'?")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("exporting_here")
def test_another_template_version_is_refused(mine, capfd):
    assert cli.run(mine(ROWS)) == 0
    args = mine(ROWS, inputs="In which country is {city}?", USE_CACHED_TASKS=True, MODEL_DIR="other")
    refused(args, capfd, "mine.yaml has changed", "flan-jax export")
    assert not Path("other").exists()
    # After a new export, the run that was trained with the other template has another identity.
    refused(
        mine(ROWS, inputs="In which country is {city}?"), capfd, "run with a different recipe", "mixture.fingerprint"
    )


def test_a_run_directory_of_another_recipe(export_dir, tmp_path, capfd):
    common = [
        f"EXPORT_DIR={export_dir}",
        f"MODEL_DIR={tmp_path}/run",
        "TRAIN_STEPS=1",
        "run_config.RunConfig.evaluation=None",
    ]
    assert cli.run(arguments(*common)) == 0
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))
    refused(arguments(*common, "LEARNING_RATE=0.5"), capfd, "run with a different recipe", "learning_rate.0: stored 0.02, now 0.5",
            "MODEL_DIR")  # fmt: skip
    refused(
        arguments(*common, "SEED=1", "T5Config.mlp_dim=32"),
        capfd,
        "model.mlp_dim: stored 16, now 32",
        "feed.seed: stored 0, now 1",
    )
    assert before == sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))


def test_a_checkpoint_copied_from_another_run(export_dir, tmp_path, capfd):
    common = [f"EXPORT_DIR={export_dir}", "run_config.RunConfig.evaluation=None"]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    args = arguments(*common, f"MODEL_DIR={ours}", "TRAIN_STEPS=2")
    assert cli.run(args) == 0
    assert cli.run(arguments(*common, f"MODEL_DIR={theirs}", "TRAIN_STEPS=2", "SEED=1")) == 0
    shutil.rmtree(ours / "checkpoints" / "2")
    shutil.copytree(theirs / "checkpoints" / "2", ours / "checkpoints" / "2")
    refused(args, capfd, "checkpoints/2 belongs to a run with a different recipe", "feed.seed: stored 1, now 0")
    shutil.rmtree(ours / "checkpoints" / "2")
    assert cli.run(args) == 0


@pytest.mark.usefixtures("exporting_here")
def test_a_checkpoint_of_another_vocabulary(export_dir, tmp_path, mine, capfd):
    assert cli.run(arguments(f"EXPORT_DIR={export_dir}", f"MODEL_DIR={tmp_path}/first", "TRAIN_STEPS=1",
                             "run_config.RunConfig.evaluation=None")) == 0  # fmt: skip
    args = mine(ROWS, VOCABULARY="bytes", INITIAL_CHECKPOINT_PATH=f"{tmp_path}/first")
    refused(args, capfd, "first", "vocabulary_digest")


@pytest.mark.parametrize(
    ("bindings", "parts"),
    [
        (["BATCH_SIZE=12"], ["12 rows does not divide over the mesh", "8 or 16"]),
        (["run_config.RunConfig.num_microbatches=3"], ["8 rows cannot be split into 3 microbatches"]),
        (["MeshPlan.platform=gpu"], ["MeshPlan.platform is 'gpu'", "JAX sees 8 cpu devices", "flan_jax[cuda]"]),
        (["T5Config.dtype=float16"], ["float16", "65,504", "bfloat16"]),
        (["T5Config.vocab_size=100"], ["vocab_size is 100", "at least"]),
    ],
    ids=["a batch that does not divide", "microbatches that do not", "no accelerator", "float16", "too few embeddings"],
)
def test_a_machine_or_model_that_does_not_fit(export_dir, tmp_path, capfd, bindings, parts):
    args = arguments(
        f"EXPORT_DIR={export_dir}", f"MODEL_DIR={tmp_path}/run", "TRAIN_STEPS=1", "run_config.RunConfig.evaluation=None"
    )
    refused([*args, *(f"--gin.{b}" for b in bindings)], capfd, *parts)
    assert not (tmp_path / "run").exists()


def test_no_room_on_disk(export_dir, tmp_path, capfd, monkeypatch):
    class Full:
        total = used = free = 10_000

    monkeypatch.setattr("shutil.disk_usage", lambda place: Full)
    args = arguments(
        f"EXPORT_DIR={export_dir}", f"MODEL_DIR={tmp_path}/run", "TRAIN_STEPS=1", "run_config.RunConfig.evaluation=None"
    )
    refused(args, capfd, "No room on disk for checkpoint 1", "Free some space")
    assert not list((tmp_path / "run" / "checkpoints").glob("1*"))


def test_show_infer_and_evaluate_name_what_is_missing(tmp_path, capfd):
    refused(["show", "run", str(tmp_path)], capfd, "holds no run")
    for verb in ("infer", "evaluate"):
        refused(
            [verb, str(tmp_path)],
            capfd,
            "is not a checkpoint of a supported format: it holds nothing",
            "Supported are a run",
        )
    refused(["show", "rnu", str(tmp_path)], capfd, "'rnu'", "Did you mean 'run'?")
    assert LENGTHS
