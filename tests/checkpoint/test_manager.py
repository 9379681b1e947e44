import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flan_jax.checkpoint import reading
from flan_jax.checkpoint.digest import leaves_digest, params_digest
from flan_jax.checkpoint.manager import CheckpointPolicy, Checkpoints, set_damaged_aside
from flan_jax.checkpoint.orbax_arrays import open_arrays
from tests.waiting import wait_for


@struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: optax.OptState
    skipped_steps: jax.Array


OPTIMIZER = optax.chain(optax.clip(1.0), optax.adam(0.1))
META = {"vocabulary_digest": "abc", "model": {"emb_dim": 4}}


def state_at(step):
    params = {"encoder": {"kernel": jnp.arange(32.0).reshape(8, 4) + step}, "scale": jnp.full((4,), step, jnp.bfloat16)}
    return State(jnp.int32(step), params, OPTIMIZER.init(params), jnp.int32(2))


def mesh(*shape):
    devices, axis_types = jax.devices()[: int(np.prod(shape))], (AxisType.Auto,) * len(shape)
    return jax.make_mesh(shape, ("data", "model")[: len(shape)], axis_types=axis_types, devices=devices)


def sharded(state, on, spec):
    """The state's arrays, or their shapes, laid out on a mesh: matrices by `spec`, the rest on every device."""

    def place(leaf):
        sharding = NamedSharding(on, PartitionSpec(*spec) if leaf.ndim == 2 else PartitionSpec())
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(place, state)


def abstract(state):
    return jax.eval_shape(lambda: state)


@pytest.fixture
def open_run(tmp_path):
    opened = []

    def opener(**policy):
        opened.append(Checkpoints(tmp_path / "checkpoints", policy=CheckpointPolicy(**policy), metadata=META))
        return opened[-1]

    yield opener
    for checkpoints in opened:
        checkpoints.close()


def assert_same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(("shape", "spec"), [((1,), ("data",)), ((4, 2), ("data", "model")), ((2,), (None, "data"))])
def test_a_state_saved_on_eight_devices_comes_back_on_another_mesh(open_run, shape, spec):
    run, state = open_run(), state_at(7)
    data_state = {"version": 1, "streams": [[3, 4]]}
    assert run.save(sharded(state, mesh(8), ("data",)), data_state=data_state, metrics={"a": 1})
    wanted = sharded(abstract(state), mesh(*shape), spec)
    restored = run.restore(wanted)
    assert_same(restored.state, state)
    assert restored.state.params["encoder"]["kernel"].sharding == wanted.params["encoder"]["kernel"].sharding
    assert restored.state.step.sharding == wanted.step.sharding
    assert restored.data_state == data_state
    assert reading.read_json(run.directory / "7", "metadata") == META
    assert reading.read_json(run.directory / "7", "metrics") == {"a": 1.0}


def test_buffers_may_be_donated_while_the_writer_works(open_run):
    run, state = open_run(), sharded(state_at(3), mesh(8), ("data",))
    wanted = jax.tree.map(np.array, state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    run.save(state, data_state={})
    for _ in range(3):
        state = overwrite(state)
    jax.block_until_ready(state)
    assert_same(run.restore(abstract(state)).state, wanted)


def test_parameters_alone_are_read_from_a_run_its_folder_or_one_checkpoint(open_run, tmp_path):
    with open_run() as run:
        for step in (1, 2):
            run.save(state_at(step), data_state={})
    wanted = state_at(2).params
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "2"):
        assert_same(reading.read_tree(reading.find(path), "params", abstract(wanted)), wanted)
    first = reading.find(tmp_path, step=1)
    assert_same(reading.read_tree(first, "params", abstract(wanted)), state_at(1).params)
    assert leaves_digest(open_arrays(first / "params")) == params_digest(state_at(1).params)


def test_an_optimizer_without_state_is_saved_and_restored(open_run):
    run, state = open_run(), dataclasses.replace(state_at(1), opt_state=optax.sgd(0.1).init({}))
    run.save(state, data_state={})
    assert_same(run.restore(abstract(state)).state, state)


def test_the_latest_and_every_multiple_of_the_period_are_retained(open_run):
    run = open_run(keep=2, keep_period_steps=10)
    for step in (5, 10, 15, 20, 25, 30, 35):
        run.save(state_at(step), data_state={})
    run.wait()
    assert run.all_steps() == [10, 20, 30, 35]
    assert run.latest_step() == 35
    assert sorted(p.name for p in run.directory.iterdir()) == ["10", "20", "30", "35"]


@pytest.mark.parametrize(("mode", "best"), [("max", 3), ("min", 5)])
def test_the_best_is_retained_with_the_latest_also_after_a_restart(open_run, mode, best):
    values = {1: 0.5, 2: float("nan"), 3: 0.9, 4: None, 5: 0.1, 6: 0.3, 7: 0.2}
    run = open_run(keep=1, keep_best="eval/mean", best_mode=mode)
    for step, value in values.items():
        metrics = None if value is None else {"eval/mean": value, "other": 1.0}
        run.save(state_at(step), data_state={}, metrics=metrics)
        if step == 5:
            run.close()
            run = open_run(keep=1, keep_best="eval/mean", best_mode=mode)
    run.wait()
    assert run.all_steps() == [best, 7]
    assert reading.read_json(run.directory / str(best), "metrics") == {"eval/mean": values[best], "other": 1.0}


def test_a_step_that_is_saved_already_is_left_as_it_is(open_run):
    run = open_run()
    assert run.save(state_at(1), data_state={"first": True})
    assert not run.save(state_at(1), data_state={"first": False})
    assert run.restore(abstract(state_at(1))).data_state == {"first": True}


def test_synchronous_saves_are_on_disk_when_save_returns(open_run):
    run = open_run(asynchronous=False)
    run.save(state_at(1), data_state={})
    assert run.all_steps() == [1]


def test_a_restart_removes_what_was_half_written_and_half_deleted(open_run):
    with open_run() as run:
        run.save(state_at(1), data_state={})
    half_written = run.directory / "2.orbax-checkpoint-tmp"
    cut_short, half_deleted = run.directory / "3", run.directory / ".deleted" / "0"
    for place in (half_written, cut_short, half_deleted):
        (place / "params").mkdir(parents=True)
    (run.directory / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"The newest checkpoint, .*/3, is damaged: .* is missing"):
        set_damaged_aside(run.directory, strict=True)
    (warning,) = set_damaged_aside(run.directory, strict=False)
    assert "checkpoints/3 is damaged" in warning and "now called damaged-3, and the run resumes from step 1" in warning
    run = open_run()
    assert sorted(p.name for p in run.directory.iterdir()) == ["1", "damaged-3", "notes.txt"]
    for step in (2, 3):
        assert run.save(state_at(step), data_state={})
    run.wait()
    assert run.all_steps() == [1, 2, 3]


KILLED = """
import sys, jax.numpy as jnp
from pathlib import Path
from types import SimpleNamespace
from dataclasses import dataclass
from typing import Any
from flan_jax.checkpoint.manager import CheckpointPolicy, Checkpoints
@dataclass
class State:
    step: Any
    params: Any
    opt_state: Any
with Checkpoints(Path(sys.argv[1]), policy=CheckpointPolicy(keep=2), metadata={}) as run:
    start = run.latest_step() or 0
    for step in range(start + 1, start + 10_000):
        params = {"w": jnp.full((256, 256), step, jnp.float32)}
        run.save(State(step, params, {"mu": jnp.ones(8)}), data_state={"s": step})
        print(step, flush=True)
"""


def test_a_process_killed_at_any_moment_leaves_complete_checkpoints(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    reached = 0
    for delay_seconds in (0.0, 0.013, 0.041):
        process = subprocess.Popen([sys.executable, script, tmp_path / "c"], stdout=subprocess.PIPE, text=True)
        for _ in range(4):
            line = process.stdout.readline()
        time.sleep(delay_seconds)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        last = int((rest.split() or [line])[-1]) if rest.strip() else int(line)
        steps = reading.all_steps(tmp_path / "c")
        assert steps and steps[-1] >= last - 1 > reached  # At most the save under way is lost.
        for step in steps:
            stored = open_arrays(reading.find(tmp_path / "c", step=step) / "params")
            assert (stored["w"].whole() == step).all()
            assert reading.read_json(tmp_path / "c" / str(step), "data") == {"s": step}
        reached = steps[-1]


def fill_disk(monkeypatch, *, after_steps, error=None):
    """From now on the writer's thread finds no room."""
    from orbax.checkpoint import JsonCheckpointHandler

    original = JsonCheckpointHandler._save_fn

    async def write(self, item, directory):
        if item.get("step", 0) > after_steps:
            raise error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await original(self, item, directory)

    monkeypatch.setattr(JsonCheckpointHandler, "_save_fn", write)


@pytest.mark.parametrize("notice", ["wait", "save", "close", "check_for_errors"])
def test_the_writers_errors_surface_and_the_last_good_checkpoint_stays(open_run, monkeypatch, notice):
    run = open_run(keep=1)
    run.save(state_at(1), data_state={})
    run.wait()
    with monkeypatch.context() as patched:
        fill_disk(patched, after_steps=1)
        run.save(state_at(2), data_state={})
        with pytest.raises(
            ValueError, match=r"Saving checkpoint 2 to .* failed: .*No space left.*It has the checkpoints \[1\]"
        ):
            if notice == "check_for_errors":
                wait_for(run.check_for_errors)  # Returns nothing until it raises.
            elif notice == "save":
                run.save(state_at(3), data_state={})
            else:
                getattr(run, notice)()
    assert [p.name for p in run.directory.iterdir()] == ["1"]
    if notice != "close":
        assert run.save(state_at(4), data_state={})  # Room was made.
        run.wait()
        assert run.all_steps() == [4]


def test_nothing_is_printed_except_the_message_of_a_failed_save(tmp_path):
    code = KILLED + textwrap.dedent("""
        async def full(self, item, directory):
            raise OSError(28, "No space left on device")
        from orbax.checkpoint import JsonCheckpointHandler
        JsonCheckpointHandler._save_fn = full
        run = Checkpoints(Path(sys.argv[1], "full"), policy=CheckpointPolicy(), metadata={})
        run.save(State(1, {"w": jnp.ones(4)}, {}), data_state={})
        try:
            run.close()
        except ValueError as error:
            print(str(error).split(" to ")[0])
    """)
    command = [sys.executable, "-c", code.replace("10_000", "2"), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1\nSaving checkpoint 1\n"
    assert done.stderr == ""


def test_a_late_error_of_the_writer_does_not_hide_what_stopped_the_run(open_run, monkeypatch):
    fill_disk(monkeypatch, after_steps=1)
    with pytest.raises(RuntimeError, match="the cause") as caught, open_run() as run:
        run.save(state_at(2), data_state={})
        raise RuntimeError("the cause")
    assert "Saving checkpoint 2" in caught.value.__notes__[0]


def test_leaving_the_with_statement_waits_for_the_writer_and_reports_its_error(open_run, monkeypatch):
    with open_run() as run:
        run.save(state_at(1), data_state={})
    assert run.all_steps() == [1]
    fill_disk(monkeypatch, after_steps=1)
    with pytest.raises(ValueError, match="Saving checkpoint 2"), open_run() as run:
        run.save(state_at(2), data_state={})


def test_other_errors_of_the_writer_are_raised_unchanged(open_run, monkeypatch):
    run = open_run()
    fill_disk(monkeypatch, after_steps=0, error=RuntimeError("a defect"))
    run.save(state_at(1), data_state={})
    with pytest.raises(RuntimeError, match="a defect"):
        run.wait()


def test_a_position_that_is_no_json_is_refused_at_once(open_run):
    with pytest.raises(TypeError, match="not JSON serializable"):
        open_run().save(state_at(1), data_state={"a": {1, 2}})


def test_a_full_disk_is_reported_before_anything_is_written(open_run, monkeypatch):
    run = open_run()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(ValueError, match="No room on disk for checkpoint 1: it needs 1 MiB"):
        run.save(state_at(1), data_state={})
    assert list(run.directory.iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused_by_name_and_shape(open_run):
    run, state = open_run(), state_at(1)
    run.save(state, data_state={})
    params = {"encoder": {"kernel": jnp.zeros((8, 5))}, "scale": jnp.zeros(4), "bias": jnp.zeros(2)}
    with pytest.raises(ValueError) as caught:
        run.restore(abstract(dataclasses.replace(state, params=params)))
    message = str(caught.value)
    assert "1, item 'params' does not fit this model" in message
    assert "encoder/kernel: got float32[8,4], expected float32[8,5]" in message
    assert "scale: got bfloat16[4], expected float32[4]" in message
    assert "bias: missing, expected float32[2]" in message
    with pytest.raises(ValueError, match="item 'opt_state'.*\n *1/0/count: got int32.*, which the model does not have"):
        run.restore(abstract(dataclasses.replace(state, opt_state=optax.sgd(0.1).init({}))))


def test_a_long_list_of_differences_is_truncated(open_run):
    run = open_run()
    run.save(state_at(1), data_state={})
    run.wait()
    wanted = abstract({f"layer_{i}": jnp.zeros(1) for i in range(30)})
    with pytest.raises(ValueError, match="(?s)layer_25: missing.*\n *and 12 more") as caught:
        reading.read_tree(reading.find(run.directory), "params", wanted)
    assert "layer_26" not in str(caught.value)


def test_a_state_with_other_counters_is_refused(open_run):
    @struct.dataclass
    class Bare:
        step: jax.Array
        params: dict
        opt_state: optax.OptState

    run, state = open_run(), state_at(1)
    run.save(state, data_state={})
    with pytest.raises(ValueError, match=r"counters \['skipped_steps', 'step'\], expected \['step'\]"):
        run.restore(abstract(Bare(state.step, state.params, state.opt_state)))


def test_a_keep_best_that_is_not_a_metric_is_refused(open_run):
    run = open_run(keep_best="eval/meen")
    with pytest.raises(
        ValueError, match="keep_best must be one of eval/mean, loss; got 'eval/meen'. Did you mean 'eval/mean'"
    ):
        run.save(state_at(1), data_state={}, metrics={"eval/mean": 1, "loss": 2})
    assert run.save(state_at(1), data_state={}, metrics={})


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"keep": 0}, "keep: expected .*got 0"),
        ({"keep_period_steps": 0}, "keep_period_steps: expected .*got 0"),
        ({"best_mode": "highest"}, "best_mode: expected one of max, min, got 'highest'"),
    ],
)
def test_impossible_policies_are_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        CheckpointPolicy(**policy)


def test_absent_checkpoints_are_named(open_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="No checkpoint in .*elsewhere. Give a run's directory"):
        reading.find(tmp_path / "elsewhere")
    run = open_run()
    assert run.latest_step() is None
    with pytest.raises(FileNotFoundError, match="No checkpoint in"):
        run.restore(abstract(state_at(1)))
    run.save(state_at(1), data_state={})
    with pytest.raises(FileNotFoundError, match=r"No checkpoint of step 2 in .*Available steps: \[1\]"):
        run.restore(abstract(state_at(1)), step=2)
    with pytest.raises(FileNotFoundError, match="has no 'nothing'"):
        reading.read_json(run.directory / "1", "nothing")


def test_orbax_version_1_reads_the_parameters(open_run):
    from orbax.checkpoint import v1

    with open_run() as run:
        run.save(state_at(1), data_state={})
    wanted = sharded(abstract(state_at(1).params), mesh(1), ())
    loaded = v1.load(run.directory / "1", wanted, checkpointable_name="params")
    assert params_digest(loaded) == params_digest(state_at(1).params)


def test_reading_needs_no_tensorflow(open_run, tmp_path):
    with open_run() as run:
        run.save(state_at(1), data_state={})
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        sys.modules["tensorflow"] = None
        from flan_jax.checkpoint import manager, reading
        from flan_jax.checkpoint.digest import leaves_digest
        from flan_jax.checkpoint.orbax_arrays import open_arrays
        print(leaves_digest(open_arrays(reading.find(Path(sys.argv[1])) / "params")))
    """)
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == params_digest(state_at(1).params)
    assert done.stderr == ""


def test_json_items_are_plain_files(open_run):
    with open_run() as run:
        run.save(state_at(12), data_state={"streams": [[1, 2]]})
    assert json.loads((run.directory / "12" / "step" / "metadata").read_text()) == {"step": 12, "skipped_steps": 2}
