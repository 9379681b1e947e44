"""The loop with a step in NumPy and a feed that counts: every test reads the order of events."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax.train.early_stopping import EarlyStopping
from flan_jax.train.loop import Cadence, Hooks, run
from flan_jax.train.state import StepMetrics, TrainState, new_state
from flan_jax.train.step import make_train_step
from flan_jax.train.writers import JsonlWriter, Writer


class _Feed:
    def __init__(self, last=10**9):
        self.drawn, self.last = 0, last

    def __next__(self):
        if self.drawn == self.last:
            raise StopIteration
        self.drawn += 1
        return {"encoder_input_tokens": np.full((1, 4), self.drawn)}, {"examples": 2, "input_tokens": 3}

    def state(self):
        return {"drawn": self.drawn}

    def restore(self, state):
        self.drawn = state["drawn"]


class _Killed(Exception):
    pass


class _World:
    """What survives a killed process: the events, and the last save."""

    def __init__(self, tmp_path):
        self.path, self.events, self.saved = tmp_path / "metrics.jsonl", [], None

    def run(self, cadence, *, die_at=None, feed=None, scores=lambda step: float(step), skips=(), **arguments):
        def step_fn(state, batch):
            if int(state.step) + 1 == die_at:
                raise _Killed
            drawn = int(batch["encoder_input_tokens"][0, 0])
            self.events.append(("step", int(state.step) + 1, drawn))
            metrics = StepMetrics(
                sums={"loss": np.float64(drawn)},
                weight=np.float64(1.0 + drawn % 2),
                values={},
                skipped=np.bool_(int(state.step) + 1 in skips),
                bad_tensors=np.int32(0),
                first_bad_tensor=np.int32(-1),
            )
            return state.replace(step=state.step + 1), metrics

        def evaluate_hook(step, state):
            assert int(state.step) == step
            self.events.append(("evaluate", step))
            return {"score": scores(step), "table": object()}

        def save_hook(step, state, position, metrics):
            self.events.append(("save", step, position["feed"]["drawn"], metrics.get("score")))
            self.saved = step, json.loads(json.dumps(position))

        step, position = self.saved or (0, None)
        state = TrainState(step=np.int32(step), params={"w": np.zeros(1)}, opt_state=())
        return run(
            state,
            step_fn=step_fn,
            feed=feed or _Feed(),
            place_batch=lambda batch: batch,
            cadence=cadence,
            hooks=Hooks(evaluate=evaluate_hook, save=save_hook, check=arguments.pop("check", None)),
            writers=[
                JsonlWriter(self.path, resumed_step=step if self.saved else None),
                *arguments.pop("writers", ()),
            ],
            position=position,
            print_line=lambda text: None,
            **arguments,
        )

    def lines(self):
        """The lines without measured times."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        compared = ("step", "kind", "loss", "score", "examples", "tokens")
        return [{name: line[name] for name in compared if name in line} for line in lines if line["kind"] != "start"]


@pytest.fixture
def world(tmp_path):
    return _World(tmp_path)


CADENCE = Cadence(total_steps=5, log_every_steps=2, evaluate_every_steps=2, save_every_steps=2, evaluate_at_start=True)


def test_order_is_evaluate_save_draw_step(world):
    finished = world.run(CADENCE)
    assert world.events == [
        ("evaluate", 0),
        ("step", 1, 1),
        ("step", 2, 2),
        ("evaluate", 2),
        ("save", 2, 2, 2.0),  # after two batches, with the score of this step
        ("step", 3, 3),
        ("step", 4, 4),
        ("evaluate", 4),
        ("save", 4, 4, 4.0),
        ("step", 5, 5),
        ("evaluate", 5),
        ("save", 5, 5, 5.0),
    ]
    assert (finished.step, int(finished.state.step), finished.reason) == (5, 5, "all steps")
    assert finished.metrics["score"] == 5.0


def test_lines_record_steps_evaluations_and_saves(world):
    world.run(CADENCE)
    assert world.lines() == [
        {"step": 0, "kind": "evaluation", "score": 0.0},
        {"step": 2, "kind": "train", "loss": 1.0, "examples": 4, "tokens": 6},
        {"step": 2, "kind": "evaluation", "score": 2.0},
        {"step": 2, "kind": "save"},
        {"step": 4, "kind": "train", "loss": 7 / 3, "examples": 8, "tokens": 12},
        {"step": 4, "kind": "evaluation", "score": 4.0},
        {"step": 4, "kind": "save"},
        {"step": 5, "kind": "train", "loss": 2.5, "examples": 10, "tokens": 15},
        {"step": 5, "kind": "evaluation", "score": 5.0},
        {"step": 5, "kind": "save"},
    ]


@pytest.mark.parametrize("die_at", range(1, 12))
def test_a_run_killed_anywhere_resumes_as_if_it_had_not_been(tmp_path, die_at):
    cadence = Cadence(total_steps=11, log_every_steps=2, evaluate_every_steps=4, save_every_steps=3)
    uninterrupted, killed = _World(tmp_path / "whole"), _World(tmp_path / "killed")
    uninterrupted.run(cadence)
    with pytest.raises(_Killed):
        killed.run(cadence, die_at=die_at)
    saved_step = killed.saved[0] if killed.saved else 0
    before = len(killed.events)
    killed.run(cadence)
    start = uninterrupted.events.index(("step", saved_step + 1, saved_step + 1))
    assert killed.events[before:] == uninterrupted.events[start:]
    assert killed.lines() == uninterrupted.lines()


def test_a_finished_run_started_again_does_nothing(world):
    world.run(CADENCE)
    before, lines = list(world.events), world.lines()
    assert world.run(CADENCE).reason == "all steps"
    assert (world.events, world.lines()) == (before, lines)


def test_a_run_may_be_lengthened(world):
    world.run(Cadence(total_steps=2))
    world.run(Cadence(total_steps=3))
    assert [event for event in world.events if event[0] == "step"] == [("step", n, n) for n in (1, 2, 3)]


def test_without_periods_only_the_end_is_evaluated_and_saved(world):
    world.run(Cadence(total_steps=3))
    assert [event for event in world.events if event[0] != "step"] == [("evaluate", 3), ("save", 3, 3, 3.0)]


def test_a_save_without_an_evaluation_has_no_metrics(world):
    world.run(Cadence(total_steps=4, save_every_steps=3))
    assert [event for event in world.events if event[0] == "save"] == [("save", 3, 3, None), ("save", 4, 4, 4.0)]


@pytest.mark.parametrize(("stopped_at", "follows"), [(3, ("step", 4, 4)), (4, ("evaluate", 4))])
def test_a_stop_request_saves_without_evaluating_and_the_next_start_evaluates(world, stopped_at, follows):
    cadence = Cadence(total_steps=9, evaluate_every_steps=2)
    finished = world.run(cadence, stop=lambda: ("step", stopped_at, stopped_at) in world.events)
    assert (finished.step, finished.reason) == (stopped_at, "stop requested")
    assert world.events[-2:] == [("step", stopped_at, stopped_at), ("save", stopped_at, stopped_at, None)]
    before = len(world.events)
    world.run(cadence)
    assert world.events[before] == follows


def test_early_stopping_ends_the_run_for_good(world):
    scores = {2: 1.0, 4: 3.0, 6: 2.0, 8: 2.0, 10: 9.0}
    cadence = Cadence(total_steps=10, evaluate_every_steps=2, save_every_steps=5)
    stopping = EarlyStopping(metric="score", patience_evaluations=2)
    finished = world.run(cadence, scores=scores.get, early_stopping=stopping)
    assert (finished.step, finished.reason) == (8, "early stopping")
    assert (finished.best.step, finished.best.value) == (4, 3.0)
    assert world.events[-1] == ("save", 8, 8, 2.0)
    before = list(world.events)
    assert world.run(cadence, scores=scores.get, early_stopping=stopping).reason == "early stopping"
    assert world.events == before


def test_patience_survives_a_resume(world):
    scores = {2: 3.0, 4: 1.0, 6: 1.0}
    cadence = Cadence(total_steps=10, evaluate_every_steps=2, save_every_steps=2)
    stopping = EarlyStopping(metric="score", patience_evaluations=2)
    with pytest.raises(_Killed):
        world.run(cadence, scores=scores.get, early_stopping=stopping, die_at=5)
    assert world.run(cadence, scores=scores.get, early_stopping=stopping).step == 6


def test_the_check_runs_at_every_boundary_and_its_error_ends_the_run(world):
    calls = []

    def check():
        calls.append(len(world.events))
        if len(calls) == 3:
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        world.run(Cadence(total_steps=9), check=check)
    assert calls == [0, 1, 2]


def test_writers_are_closed_whatever_happens(world):
    class Recorder(Writer):
        closed = False

        def write(self, step, *, kind, values):
            pass

        def __exit__(self, *exception):
            self.closed = True

    writer = Recorder()
    with pytest.raises(_Killed):
        world.run(CADENCE, die_at=1, writers=[writer])
    assert writer.closed


def test_a_compiled_step_that_donates_its_state_computes_the_same():
    optimizer = optax.sgd(0.1)

    def objective(apply, params, batch, rng):
        return jnp.sum(params["w"] * batch["encoder_input_tokens"][0]), jnp.ones(()), {}

    step = make_train_step(objective, lambda *_: None, optimizer, seed=0)
    finished = run(
        new_state({"w": jnp.ones(4)}, optimizer=optimizer),
        step_fn=jax.jit(step, donate_argnums=0),
        feed=_Feed(),
        place_batch=jax.device_put,
        cadence=Cadence(total_steps=3),
        hooks=Hooks(),
        writers=[],
        print_line=lambda text: None,
    )
    np.testing.assert_allclose(finished.state.params["w"], 1.0 - 0.1 * (1 + 2 + 3), rtol=1e-6)


def test_no_state_is_saved_while_steps_are_skipped_and_the_last_update_is_not_lost(world):
    finished = world.run(CADENCE, skips=(2, 5))
    # Step 2 was skipped; the state after step 5 is that of step 4, which is saved already.
    assert [event[1] for event in world.events if event[0] == "save"] == [4]
    assert finished.step == 5 and finished.saved_step == 4


def test_a_run_whose_steps_were_all_skipped_ends_with_an_error_and_saves_nothing(world):
    with pytest.raises(ValueError, match="reached step 5, but every step was skipped: there is nothing to save"):
        world.run(CADENCE, skips=range(1, 6))
    assert world.saved is None


def test_a_stop_while_steps_are_skipped_saves_what_was_learned_before(world):
    cadence = Cadence(total_steps=5)
    finished = world.run(cadence, skips=(3,), stop=lambda: ("step", 3, 3) in world.events)
    assert finished.reason == "stop requested" and finished.saved_step == 3 and world.saved[0] == 3
    again = _World(world.path.parent)
    assert again.run(cadence, skips=(1, 2), stop=lambda: ("step", 2, 2) in again.events).saved_step is None


def test_a_feed_that_ends_is_an_error_with_the_step(world):
    with pytest.raises(RuntimeError, match="The feed ended at step 3"):
        world.run(CADENCE, feed=_Feed(last=3))


def test_a_position_of_another_version_is_refused(world):
    world.saved = 2, {"version": 99, "feed": {"drawn": 2}}
    with pytest.raises(ValueError, match="position has version 99; this program reads version 1. Resume with"):
        world.run(CADENCE)


@pytest.mark.parametrize("name", ["total_steps", "log_every_steps", "evaluate_every_steps", "max_skipped_steps"])
def test_a_cadence_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"Cadence.{name}: expected a whole number of at least 1, got 0"):
        Cadence(**{"total_steps": 5, name: 0})
