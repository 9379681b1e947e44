"""Weights through the command line: a trained run is converted to every format and used again."""

import json
import shutil

import numpy as np
import pytest

from flan_jax import cli
from flan_jax.checkpoint import formats
from flan_jax.checkpoint.digest import leaves_digest
from tests.integration.conftest import arguments

FORMATS = ("flan_jax", "t5x", "hf")
ROWS = (
    "Which colour is a ripe lemon?",
    "Give a word that means the opposite of loud.",
    "In which city?\n{braces}\tand tabs",
)


@pytest.fixture(scope="module")
def run_dir(export_dir, tmp_path_factory):
    """A run of six steps with a large learning rate, so that its predictions differ from those of other weights."""
    path = tmp_path_factory.mktemp("weights") / "run"
    common = [f"EXPORT_DIR={export_dir}", f"MODEL_DIR={path}", "TRAIN_STEPS=6", "run_config.RunConfig.evaluation=None"]
    assert cli.run(arguments(*common)) == 0
    return path


@pytest.fixture(scope="module")
def converted(run_dir, tmp_path_factory):
    """The run in every format."""
    path = tmp_path_factory.mktemp("converted")
    for format in FORMATS:
        assert cli.run(["convert", f"--from={run_dir}", f"--to={path / format}", f"--format={format}"]) == 0
    return path


def shown(path, capsys):
    capsys.readouterr()
    assert cli.run(["show", "checkpoint", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def digest_after(capsys, *bindings):
    capsys.readouterr()
    assert cli.run(arguments(*bindings, "run_config.RunConfig.evaluation=None")) == 0
    out = capsys.readouterr().out
    return out.split("params_digest ")[1].split()[0], out


@pytest.mark.parametrize("format", FORMATS)
def test_show_tells_the_same_network_and_digest_in_every_format(run_dir, converted, format, capsys):
    own, other = shown(run_dir, capsys), shown(converted / format, capsys)
    same = ("params_digest", "parameters", "arrays", "family", "dtypes", "bytes")
    assert {key: own[key] for key in same} == {key: other[key] for key in same}
    assert other["format"] == format
    assert other["step"] == (None if format == "hf" else 6)
    assert other["optimizer_arrays"] == (0 if format == "hf" else own["optimizer_arrays"])
    table = "\n".join(["show", "checkpoint", str(converted / format)])
    assert cli.run(table.split("\n")) == 0
    assert own["params_digest"] in capsys.readouterr().out


@pytest.mark.parametrize("format", FORMATS)
def test_inference_gives_the_same_text_from_every_format(run_dir, converted, format, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"inputs": row}) + "\n" for row in ROWS))
    common = [f"--input={source}", "--task_feature_lengths={'inputs': 128, 'targets': 16}", "--batch_size=8"]
    assert cli.run(["infer", str(run_dir), f"--output={tmp_path / 'own.jsonl'}", *common]) == 0
    spelled = ["--vocabulary=embedded"] if format == "t5x" else []
    assert cli.run(["infer", str(converted / format), f"--output={tmp_path / 'other.jsonl'}", *common, *spelled]) == 0
    assert (tmp_path / "own.jsonl").read_text() == (tmp_path / "other.jsonl").read_text()


def test_evaluation_gives_the_same_scores_from_a_folder_of_hugging_faces(run_dir, converted, export_dir, tmp_path):
    scores = []
    for path in (run_dir, converted / "hf"):
        copy = tmp_path / path.name
        shutil.copytree(path, copy)
        done = cli.run(
            ["evaluate", str(copy), "--mixture_or_task_name=embedded_held_out", f"--export_dir={export_dir}",
             "--task_feature_lengths={'inputs': 128, 'targets': 16}", "--max_examples_per_task=8",
             "--vocabulary=embedded", "--batch_size=8"]
        )  # fmt: skip
        assert done == 0
        (summary,) = copy.glob("eval/embedded_held_out-validation/*/summary.json")
        scores.append([task["metrics"] for task in json.loads(summary.read_text())["tasks"]])
    assert scores[0] == scores[1]


def test_a_run_starts_alike_from_a_run_and_from_a_folder_of_hugging_faces(
    run_dir, converted, export_dir, tmp_path, capsys
):
    common = [f"EXPORT_DIR={export_dir}", "TRAIN_STEPS=2"]
    first, second = (
        digest_after(capsys, *common, f"MODEL_DIR={tmp_path / path.name}", f"INITIAL_CHECKPOINT_PATH={path}")
        for path in (run_dir, converted / "hf")
    )
    assert first[0] == second[0] != leaves_digest(formats.open_weights(run_dir).params)
    assert f"all 29 parameters restored from {converted / 'hf'}" in second[1]


def test_an_optimizer_resumes_alike_from_this_project_and_from_t5x(run_dir, converted, export_dir, tmp_path, capsys):
    common = [f"EXPORT_DIR={export_dir}", "TRAIN_STEPS=8", "Start.restore=params_and_optimizer"]
    digests, lines = [], []
    for path in (converted / "flan_jax", converted / "t5x"):
        digest, out = digest_after(
            capsys, *common, f"MODEL_DIR={tmp_path / path.name}", f"INITIAL_CHECKPOINT_PATH={path}"
        )
        digests.append(digest)
        lines.append([line for line in out.splitlines() if line.startswith("Ended at step 8")])
    assert len({*digests}) == 1 and all(lines)
    # Killed and started again, it resumes as any run.
    again, out = digest_after(
        capsys, *common, f"MODEL_DIR={tmp_path / 't5x'}", f"INITIAL_CHECKPOINT_PATH={converted / 't5x'}"
    )
    assert again == digests[0] and "resum" in out


def test_a_partial_start_tells_every_leaf(converted, export_dir, tmp_path, capsys):
    _, out = digest_after(
        capsys,
        f"EXPORT_DIR={export_dir}",
        "TRAIN_STEPS=1",
        f"MODEL_DIR={tmp_path / 'run'}",
        f"INITIAL_CHECKPOINT_PATH={converted / 'hf'}",
        "T5Config.num_decoder_layers=2",
        "Start.rules=[('decoder/layers_1/(.*)', r'decoder/layers_0/\\1'), ('decoder/logits_dense/kernel', None)]",
    )
    lines = [line.split() for line in out.splitlines() if line.startswith("  ") and line.split()[1].isdecimal()]
    weights = formats.open_weights(tmp_path / "run")
    # Every parameter of the run, and the unused one of the checkpoint.
    assert sum(int(line[1]) for line in lines) == len(weights.params) + 1
    assert ["decoder/logits_dense/kernel", "1", "16", "x", "1600", "initialized"] in lines
    assert any(line[-1] == "used" and line[0] == "decoder/logits_dense/kernel" for line in lines)
    copied = weights.params["decoder/layers_1/mlp/wo/kernel"].whole()
    assert np.abs(copied - weights.params["decoder/layers_0/mlp/wo/kernel"].whole()).max() < 0.1


def test_the_whole_state_of_a_finished_run_is_not_gone_on_with(converted, export_dir, tmp_path, capfd):
    status = cli.run(
        arguments(f"EXPORT_DIR={export_dir}", "TRAIN_STEPS=6", f"MODEL_DIR={tmp_path / 'run'}",
                  f"INITIAL_CHECKPOINT_PATH={converted / 't5x'}", "Start.restore=params_and_optimizer")
    )  # fmt: skip
    assert status == 2
    assert "is at step 6, and TRAIN_STEPS is 6" in capfd.readouterr().err


def refused(capfd, command, *parts):
    capfd.readouterr()
    assert cli.run(command) == 2
    printed = capfd.readouterr().err
    for part in parts:
        assert part in printed
    assert printed.startswith("flan-jax: ") and "Traceback" not in printed


def test_what_cannot_be_converted_is_refused_and_leaves_nothing(converted, tmp_path, capfd):
    to = tmp_path / "out"
    absent = ["convert", f"--from={tmp_path / 'absent'}", f"--to={to}"]
    refused(capfd, [*absent, "--format=hf"], "There is no checkpoint at", "absent")
    complete = ["convert", f"--from={converted / 'hf'}", f"--to={to}"]
    refused(capfd, [*complete, "--format=safetensors"], "format must be one of flan_jax, t5x, hf; got 'safetensors'")
    refused(capfd, [*complete, "--format=hf", "--dtype=int8"], "dtype must be one of float32, bfloat16; got 'int8'")
    truncated = tmp_path / "cut"
    shutil.copytree(converted / "hf", truncated)
    data = (truncated / "model.safetensors").read_bytes()
    (truncated / "model.safetensors").write_bytes(data[:-1000])
    refused(
        capfd,
        ["convert", f"--from={truncated}", f"--to={to}", "--format=t5x"],
        "model.safetensors is not an intact safetensors file",
    )
    half = tmp_path / "half"
    shutil.copytree(converted / "flan_jax", half)
    next(half.glob("checkpoints/*/_CHECKPOINT_METADATA")).unlink()
    refused(capfd, ["convert", f"--from={half}", f"--to={to}", "--format=hf"], "No checkpoint in")
    lost = tmp_path / "lost"
    shutil.copytree(converted / "t5x", lost)
    next(lost.glob("*/target.encoder.layers_0.mlp.wo.kernel/0.0")).unlink()
    refused(capfd, ["convert", f"--from={lost}", f"--to={to}", "--format=hf"], "encoder/layers_0/mlp/wo/kernel", "0.0")
    assert not to.exists()


def test_a_checkpoint_of_another_family_does_not_start_a_run(converted, export_dir, tmp_path, capfd):
    command = arguments(f"EXPORT_DIR={export_dir}", "TRAIN_STEPS=1", f"MODEL_DIR={tmp_path / 'run'}",
                        f"INITIAL_CHECKPOINT_PATH={converted / 't5x'}",
                        "T5Config.mlp_activations=('relu',)", "T5Config.logits_via_embedding=True")  # fmt: skip
    refused(
        capfd,
        command,
        "does not fit the model",
        "T5 1.0",
        "It looks like",
        "T5 1.1",
        "decoder/logits_dense/kernel: got",
    )


def test_weights_without_a_vocabulary_ask_for_one(converted, tmp_path, capfd):
    refused(capfd, ["infer", str(converted / "t5x")], "has weights without a vocabulary. Give --vocabulary")
