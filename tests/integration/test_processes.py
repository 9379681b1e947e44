"""Several processes on one machine, over loopback, are one run: the same losses, one checkpoint, one output, one end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flan_jax import processes
from flan_jax.checkpoint import reading
from tests.integration.conftest import INSTRUMENTED, arguments, train_lines
from tests.waiting import HANGS_SECONDS, wait_for

pytestmark = pytest.mark.tensorflow

STEPS = 60


def recipe(export_dir: Path, model_dir: Path, *bindings: str) -> list[str]:
    return arguments(
        f"TRAIN_STEPS={STEPS}",
        f"MODEL_DIR={model_dir}",
        f"EXPORT_DIR={export_dir}",
        "CHECKPOINT_PERIOD=30",
        "suite.EvaluationPlan.suites={'held_out': ('embedded_held_out',)}",
        "suite.EvaluationPlan.max_examples_per_task=3",
        "suite.EvaluationPlan.batch_size=8",
        "loop.Cadence.evaluate_at_start=False",
        *bindings,
    )


NO_EVALUATION = "run_config.RunConfig.evaluation=None"  # Several processes share no compiled programs.


def begin(
    command: list[str],
    *,
    count: int,
    devices: int = 1,
    only: tuple[int, ...] | None = None,
    extra: dict[int, list[str]] | None = None,
    environment: dict[int, dict[str, str]] | None = None,
) -> list[subprocess.Popen]:
    """Starts the processes of one run, each with its own devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for index in range(count) if only is None else only:
        flags = [f"--coordinator_address={address}", f"--process_count={count}", f"--process_index={index}"]
        variables = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        started.append(
            subprocess.Popen(
                [
                    sys.executable,
                    INSTRUMENTED,
                    *command,
                    *(flags if count > 1 else []),
                    *(extra or {}).get(index, []),
                ],
                env=variables | (environment or {}).get(index, {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def end(started: list[subprocess.Popen], *, status: int = 0) -> list[tuple[str, str]]:
    """Returns standard output and error of the processes; fails when one hangs or ends with another status."""
    deadline = time.monotonic() + HANGS_SECONDS
    try:
        outputs = [process.communicate(timeout=deadline - time.monotonic()) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [status] * len(started), outputs
    return outputs


def losses(model_dir: Path) -> list[float]:
    return [line["loss"] for line in train_lines(model_dir)]


def read_by(notes: Path) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in notes.read_text().splitlines()]
    return [(task, number) for task, numbers in rows for number in numbers]


@pytest.fixture(scope="module")
def single(export_dir, tmp_path_factory) -> Path:
    """The run in one process with two devices."""
    path = tmp_path_factory.mktemp("whole") / "run"
    end(begin(recipe(export_dir, path), count=1, devices=2))
    return path


def same_run(model_dir: Path, single: Path) -> None:
    """The lines of two runs are equal, up to rounding; counts are equal exactly."""
    assert losses(model_dir) == pytest.approx(losses(single), abs=1e-5)
    for name in ("step", "examples", "tokens"):
        assert [line[name] for line in train_lines(model_dir)] == [line[name] for line in train_lines(single)]
    ours, theirs = (json.loads((run / "eval" / f"{STEPS}" / "summary.json").read_text()) for run in (model_dir, single))
    assert ours["tasks"] == theirs["tasks"] and len(ours["tasks"]) > 2


def same_params(model_dir: Path, single: Path) -> None:
    import jax
    import numpy as np
    from jax.sharding import SingleDeviceSharding

    from flan_jax.checkpoint import formats

    ours, theirs = (formats.open_weights(run).params for run in (model_dir, single))
    assert ours.keys() == theirs.keys() and SingleDeviceSharding(jax.devices()[0])
    for name in ours:
        np.testing.assert_allclose(ours[name].whole(), theirs[name].whole(), rtol=0, atol=1e-4, err_msg=name)


def test_two_processes_are_one_run_and_each_reads_only_its_rows(export_dir, single, tmp_path):
    notes = [tmp_path / f"notes{index}" for index in range(2)]
    started = begin(
        recipe(export_dir, tmp_path / "run", NO_EVALUATION),
        count=2,
        environment={index: {"NOTES": str(notes[index])} for index in range(2)},
    )
    (first, _), (second, _) = end(started)
    assert f"Ended at step {STEPS} (all steps).\n  params_digest" in first
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == []
    assert losses(tmp_path / "run") == pytest.approx(losses(single), abs=1e-5)
    same_params(tmp_path / "run", single)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["devices"]["processes"] == 2
    ours, others = (read_by(path) for path in notes)
    assert ours and others and not set(ours) & set(others)


def test_a_run_resumes_with_any_number_of_processes_and_equal_evaluations(export_dir, single, tmp_path):
    """Two processes, one of which is stopped; then one that is killed; then two again, to the end with its evaluation."""
    run = tmp_path / "run"
    stall = {"STALLS_AT": "30", "RELEASE": str(tmp_path / "release")}
    started = begin(recipe(export_dir, run, "CHECKPOINT_PERIOD=None"), count=2, environment={0: stall, 1: stall})
    wait_for_line(started[0], "step 10/")
    started[1].send_signal(signal.SIGTERM)
    (tmp_path / "release").touch()
    (first, _), _ = end(started, status=128 + signal.SIGTERM)
    assert "(stop requested)" in first
    (stopped,) = reading.all_steps(run / "checkpoints")
    assert 10 <= stopped < STEPS
    stall = {"STALLS_AT": "12", "RELEASE": str(tmp_path / "never")}
    (alone,) = begin(recipe(export_dir, run, "CHECKPOINT_PERIOD=1"), count=1, devices=2, environment={0: stall})
    wait_for(lambda: alone.poll() is not None or (reading.latest_step(run / "checkpoints") or 0) > stopped)
    alone.kill()
    alone.communicate()
    assert stopped < (reading.latest_step(run / "checkpoints") or 0) < STEPS
    (first, _), _ = end(begin(recipe(export_dir, run), count=2))
    assert "resumed at step" in first
    same_run(run, single)
    same_params(run, single)


def wait_for_line(process: subprocess.Popen, beginning: str) -> None:
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"no line {beginning!r}: {process.communicate()}")


def test_processes_that_disagree_stop_before_the_first_step(export_dir, tmp_path):
    started = begin(
        recipe(export_dir, tmp_path / "run"),
        count=2,
        extra={1: ["--gin.SEED=3", "--gin.loop.Cadence.log_every_steps=7"]},
        environment={1: {"JAX_SAYS": "0.1"}},
    )
    for _, error in end(started, status=2):
        assert "The processes of this run disagree; nothing was trained:" in error
        assert "  process 1: cadence.log_every_steps is 7, in process 0 it is 10\n" in error
        assert "  process 1: seed is 3, in process 0 it is 0\n" in error
        assert "  process 1: versions.jax is '0.1', in process 0 it is '" in error
        assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("kind", "status", "text"), [("user", 2, "pyhton"), ("defect", 1, "KeyError: 'pyhton'")])
def test_a_failure_in_one_process_ends_the_other(export_dir, tmp_path, kind, status, text):
    fails = {1: {"FAILS_AT": "20", "FAILS_AS": kind}}
    (_, first), (_, second) = end(
        begin(recipe(export_dir, tmp_path / "run", NO_EVALUATION), count=2, environment=fails), status=status
    )
    assert f"flan-jax: process 1 stopped: {text}" in first
    assert second.count(text) == 1
    assert ("Traceback" in second) == (kind == "defect")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_with_one_message_and_status_2(export_dir, tmp_path, killed):
    stall = {"STALLS_AT": "20", "RELEASE": str(tmp_path / "never")}
    started = begin(recipe(export_dir, tmp_path / "run", NO_EVALUATION), count=2, environment={0: stall, 1: stall})
    wait_for_line(started[0], "step 10/")
    started[killed].kill()
    started[killed].communicate()
    ((_, error),) = end([started[1 - killed]], status=2)
    what = ("process 0 cannot be reached", "process 1 is silent")[killed]
    lines = [line for line in error.splitlines() if not line.startswith("[Gloo]")]
    assert len(lines) == 1 and lines[0].startswith(f"flan-jax: {what}: it was killed, or its machine or the network")
    assert processes.HEARTBEAT_SECONDS + 5 < 20


def test_a_process_waits_for_the_others_for_the_configured_time(export_dir, tmp_path):
    patience = "launch.join.patience_seconds=2.0"
    ((_, error),) = end(begin(recipe(export_dir, tmp_path / "run", patience), count=2, only=(0,)), status=2)
    assert "did not all connect within 2 s. Check that each was started" in error


@pytest.mark.slow  # Last run: 2026-11-21, the three slow tests of this file together 3 minutes.
def test_four_killed_processes_are_resumed_by_two(export_dir, single, tmp_path):
    run = tmp_path / "run"
    stall = {"STALLS_AT": "20", "RELEASE": str(tmp_path / "never")}
    command = recipe(export_dir, run, "CHECKPOINT_PERIOD=3")
    started = begin(command, count=4, environment=dict.fromkeys(range(4), stall))
    wait_for(lambda: any(p.poll() is not None for p in started) or reading.latest_step(run / "checkpoints"))
    for process in started:
        process.kill()
        process.communicate()
    assert 3 <= (reading.latest_step(run / "checkpoints") or 0) < STEPS
    end(begin(recipe(export_dir, run), count=2))
    same_run(run, single)
    same_params(run, single)


@pytest.mark.slow
def test_four_processes_with_half_of_the_model_each(export_dir, tmp_path):
    """Each half of the rows is read by two of them."""
    sharded = ["sharding.MeshPlan.fsdp=2", "sharding.MeshPlan.tensor=2"]
    end(begin(recipe(export_dir, tmp_path / "whole", *sharded), count=1, devices=4))
    notes = [tmp_path / f"notes{index}" for index in range(4)]
    environment = {index: {"NOTES": str(notes[index])} for index in range(4)}
    end(
        begin(
            recipe(export_dir, tmp_path / "run", *sharded, NO_EVALUATION),
            count=4,
            environment=environment,
        )
    )
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    for name in ("step", "examples", "tokens"):
        ours, theirs = (train_lines(tmp_path / path) for path in ("run", "whole"))
        assert [line[name] for line in ours] == [line[name] for line in theirs]
    same_params(tmp_path / "run", tmp_path / "whole")
    read = [set(read_by(path)) for path in notes]
    assert not read[0] & read[2] and len(read[0] & read[1]) > 100 and len(read[2] & read[3]) > 100


@pytest.mark.slow
def test_two_processes_evaluate_and_infer_the_same_as_one(single, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"inputs": f"What is {n}?"}) + "\n" for n in range(20)))
    commands = {
        count: [
            ["evaluate", str(single), "--max_examples_per_task=2", "--batch_size=8", "--show_predictions=1"],
            ["infer", str(single), f"--input={rows}", f"--output={tmp_path}/by{count}.jsonl", "--batch_size=8"],
        ]
        for count in (1, 2)
    }
    summaries = []
    for count, (evaluate, infer) in commands.items():
        outputs = end(begin(evaluate, count=count, devices=3 - count))
        assert "Written to" in outputs[0][0]
        assert all("Written" not in other for other, _ in outputs[1:])
        summaries.append(json.loads((single / "eval" / f"{STEPS}" / "summary.json").read_text())["tasks"])
        end(begin(infer, count=count, devices=3 - count))
    assert summaries[0] == summaries[1]
    assert (tmp_path / "by1.jsonl").read_text() == (tmp_path / "by2.jsonl").read_text()
    for _, error in end(begin(["infer", str(single)], count=2), status=2):
        assert "2 processes cannot share one standard input: give --input=FILE" in error
