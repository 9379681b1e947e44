import dataclasses
import json

import pytest

from flan_jax.train.early_stopping import EarlyStopping, Memory


def _stops_after(stopping, values):
    memory = Memory()
    for step, value in enumerate(values, start=1):
        memory = stopping.update(memory, step=step, metrics={"score": value})
        if stopping.is_over(memory):
            return step, memory
    return None, memory


def test_a_run_ends_after_patience_evaluations_without_an_improvement():
    stopping = EarlyStopping(metric="score", patience_evaluations=2)
    assert _stops_after(stopping, [1.0, 3.0, 2.0, 3.0, 9.0]) == (4, Memory(value=3.0, step=2, evaluations_since=2))


def test_an_improvement_resets_the_patience():
    assert _stops_after(EarlyStopping(metric="score", patience_evaluations=2), [1.0, 0.0, 2.0, 0.0, 3.0])[0] is None


def test_min_prefers_small_values():
    assert _stops_after(EarlyStopping(metric="score", mode="min", patience_evaluations=1), [3.0, 2.0, 2.5])[0] == 3


def test_a_change_within_min_delta_is_no_improvement():
    stopping = EarlyStopping(metric="score", patience_evaluations=2, min_delta=0.5)
    assert _stops_after(stopping, [1.0, 1.4, 1.5]) == (3, Memory(value=1.0, step=1, evaluations_since=2))


def test_a_value_that_is_not_finite_is_no_improvement():
    stopping = EarlyStopping(metric="score", patience_evaluations=2)
    assert _stops_after(stopping, [float("nan"), float("inf")])[0] == 2


def test_the_memory_survives_json():
    memory = Memory(value=1.5, step=7, evaluations_since=2)
    assert Memory(**json.loads(json.dumps(dataclasses.asdict(memory)))) == memory


def test_a_metric_that_is_not_evaluated_is_refused_with_the_nearest():
    with pytest.raises(
        KeyError, match="watches 'acuracy', which the evaluation does not have. Did you mean 'accuracy'"
    ):
        EarlyStopping(metric="acuracy").update(Memory(), step=1, metrics={"accuracy": 1.0, "f1": 2.0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "best"}, "mode: expected one of max, min, got 'best'"),
        ({"patience_evaluations": 0}, "patience_evaluations: expected a whole number of at least 1, got 0"),
        ({"min_delta": -1.0}, "min_delta: expected a number of at least 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(metric="score", **arguments)
