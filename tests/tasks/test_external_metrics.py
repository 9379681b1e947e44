"""The metric functions of external tasks give what SeqIO's own evaluator gives for the same predictions."""

import numpy as np
import pytest

from flan_jax.tasks.external import ExternalTask
from flan_jax.tasks.external_metrics import measure
from tests.tasks.test_external import LENGTHS, add, bytes_features

pytestmark = pytest.mark.tensorflow
TEXTS = (("ab", "c"), ("b", "de"), ("x", "f"))


@pytest.fixture
def seqio(registries):
    import seqio

    return seqio


def numbered(text, *, example, is_target):
    """Postprocesses with the example, as tasks with several references do."""
    inputs = example["inputs_pretokenized"].decode()
    return {"text": text.strip().upper(), "of": inputs, "target": is_target}


def share_right(targets, predictions):
    assert all(target["target"] and not given["target"] for target, given in zip(targets, predictions, strict=True))
    right = [t["text"] == p["text"] and t["of"] == p["of"] for t, p in zip(targets, predictions, strict=True)]
    return {"share": np.float32(np.mean(right)), "wrong": len(right) - sum(right)}


def of_scores(targets, scores):
    raise AssertionError("not run")


def histogram(targets, predictions):
    return {"lengths": [len(p["text"]) for p in predictions]}


def test_targets_and_predictions_pass_the_tasks_postprocessor_with_their_example(seqio):
    task = add(seqio, texts=TEXTS, postprocess_fn=numbered, metric_fns=[share_right, of_scores, histogram])
    scores = measure(
        ExternalTask(seqio_task=task),
        "validation",
        lengths=LENGTHS,
        generated={0: "C", 2: " f ", 1: "xx"},
        are_ids=False,
    )
    assert scores.metrics == {"share": pytest.approx(2 / 3), "wrong": 1.0}
    assert scores.skipped == ("of_scores needs scores of the targets", "lengths is no number")


def test_scores_equal_those_of_seqios_evaluator(seqio):
    task = add(seqio, texts=TEXTS, postprocess_fn=numbered, metric_fns=[share_right])
    predicted = ["c", "de", "zz"]
    examples = [example for _, example in ExternalTask(seqio_task=task).examples("validation", lengths=LENGTHS)]
    vocabulary = task.output_features["targets"].vocabulary
    empty = seqio.metrics.LegacyMetric.empty(share_right, numbered)
    tokens = [vocabulary.encode(text) for text in predicted]
    output = np.array([ids + [0] * (4 - len(ids)) for ids in tokens])
    wanted = empty.from_model_output(examples, output, task.output_features).compute()
    ids = {row: " ".join(map(str, one)) for row, one in enumerate(tokens)}
    for generated, are_ids in ((dict(enumerate(predicted)), False), (ids, True)):
        theirs = ExternalTask(seqio_task=task)
        got = measure(theirs, "validation", lengths=LENGTHS, generated=generated, are_ids=are_ids)
        assert got.metrics == wanted


def test_a_metric_that_fails_is_the_users_error_with_the_task(seqio):
    def broken(targets, predictions):
        return {"x": 1 / 0}

    task = add(seqio, texts=TEXTS, metric_fns=[broken])
    with pytest.raises(ValueError, match="Task 'theirs', split 'validation': its own metrics fail: ZeroDivisionError"):
        measure(ExternalTask(seqio_task=task), "validation", lengths=LENGTHS, generated={0: "c"}, are_ids=False)


def test_rows_that_the_task_no_longer_has_are_named(seqio):
    task = add(seqio, texts=TEXTS, metric_fns=[share_right], postprocess_fn=numbered)
    with pytest.raises(ValueError, match="has no row 7 any more: its source changed"):
        measure(ExternalTask(seqio_task=task), "validation", lengths=LENGTHS, generated={0: "c", 7: "d"}, are_ids=False)


def test_a_task_without_a_postprocessor_compares_texts(seqio):
    def accuracy(targets, predictions):
        return {"accuracy": float(targets == predictions)}

    task = add(seqio, texts=TEXTS, metric_fns=[accuracy], features=bytes_features(seqio))
    theirs = ExternalTask(seqio_task=task)
    for given, wanted in ((["c", "de", "f"], 1.0), (["c", "de", "g"], 0.0)):
        got = measure(theirs, "validation", lengths=LENGTHS, generated=dict(enumerate(given)), are_ids=False)
        assert got.metrics == {"accuracy": wanted}
