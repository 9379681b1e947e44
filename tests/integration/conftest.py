"""One export of the embedded suite for all integration tests, and shrunk runs on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flan_jax.data.manifest import Request
from flan_jax.errors import as_user_error
from flan_jax.run import export_process
from flan_jax.run.export_process import ensure_exports
from flan_jax.tasks.exporting.child import ExportFailed

INSTRUMENTED = str(Path(__file__).with_name("instrumented.py"))
QUICKSTART = "gin_configs/recipes/quickstart.gin"
LENGTHS = {"inputs": 128, "targets": 16}
TINY = [
    "config.T5Config.emb_dim=16",
    "config.T5Config.mlp_dim=16",
    "config.T5Config.num_heads=2",
    "config.T5Config.head_dim=8",
    "config.T5Config.num_encoder_layers=1",
    "config.T5Config.num_decoder_layers=1",
    "BATCH_SIZE=8",
    "loop.Cadence.log_every_steps=10",
    "WARMUP_STEPS=0",
    f"TASK_FEATURE_LENGTHS={LENGTHS}",
]


def arguments(*bindings: str, recipe: str = QUICKSTART, tiny: bool = True) -> list[str]:
    """The command line of a shrunk recipe."""
    return [
        "train",
        f"--gin_file={recipe}",
        *(f"--gin.{binding}" for binding in ([*TINY] if tiny else []) + [*bindings]),
    ]


def train_lines(model_dir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def in_process(args: list[str], **environment: str) -> subprocess.CompletedProcess:
    """Runs the command line in a process of its own, on one device."""
    variables = {**os.environ, "XLA_FLAGS": "", **environment}
    return subprocess.run([sys.executable, "-m", "flan_jax", *args], env=variables, capture_output=True, text=True)


class _ThisProcess:
    """Answers the orders of an export process, whose child each would be."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ask(self, order, *, work):
        try:
            return export_process.answer(json.loads(json.dumps(order)))
        except Exception as error:
            refusal = as_user_error(error)
            if refusal is None:
                raise
            raise ExportFailed(str(refusal)) from error


@pytest.fixture
def exporting_here(monkeypatch):
    """Exports in this process, with empty registries each time: a process of its own loads TensorFlow for 7 seconds."""
    import seqio

    from flan_jax.tasks import registration

    def start():
        monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
        monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", {})
        monkeypatch.setattr(registration, "state", registration.State())
        return _ThisProcess()

    monkeypatch.setattr(export_process, "start", start)


@pytest.fixture(scope="session")
def export_dir(tmp_path_factory) -> Path:
    """The embedded suite, exported by one process: each one loads TensorFlow, which takes 8 seconds of a core."""
    path = tmp_path_factory.mktemp("exports")
    splits = {"embedded_train": "train", "embedded_validation": "validation", "embedded_held_out": "validation"}
    requests = [
        Request(name=name, split=split, lengths=LENGTHS, vocabulary="embedded") for name, split in splits.items()
    ]
    ensure_exports(requests, export_dir=path)
    return path
