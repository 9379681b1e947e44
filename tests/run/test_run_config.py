"""A run's configuration is refused when a value, or two values together, cannot be right."""

import dataclasses

import pytest

from flan_jax.checkpoint.manager import CheckpointPolicy
from flan_jax.checkpoint.starts import Start
from flan_jax.errors import UserError
from flan_jax.evaluation.suite import EvaluationPlan
from flan_jax.train.early_stopping import EarlyStopping
from tests.run.test_identity import DATA, config

PLAN = EvaluationPlan(suites={"yours": ("my_questions",)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"num_microbatches": 2.5}, "num_microbatches: expected a whole number of at least 1 or 'auto', got 2.5"),
        ({"seed": None}, "seed: expected a whole number, got None"),
        ({"use_cached_tasks": "yes"}, "use_cached_tasks: expected true or false or 'auto', got 'yes'"),
        ({"allow_leak": "squad"}, r"allow_leak: expected a list, each item a text, got 'squad'"),
        ({"start": Start(step=3)}, "there is none. Set INITIAL_CHECKPOINT_PATH"),
        (
            {"data": dataclasses.replace(DATA, vocabulary="embedded")},
            "VOCABULARY is 'embedded', which has 1599 ids, and T5C",
        ),
        ({"data": dataclasses.replace(DATA, vocabulary="bytes")}, "which has 259 ids, and T5Config.vocab_size is 32"),
        ({"early_stopping": EarlyStopping(metric="m")}, "early_stopping watches 'm', but this run evaluates nothing"),
        (
            {"checkpoints": CheckpointPolicy(keep_best="m")},
            "CheckpointPolicy.keep_best watches 'm', but this run evaluates nothing",
        ),
        (
            {"evaluation": PLAN, "checkpoints": CheckpointPolicy(keep_best="my_questions/exact_match")},
            "CheckpointPolicy.keep_best watches 'my_questions/exact_match', which is no score of an evaluation",
        ),
        (
            {"evaluation": PLAN, "early_stopping": EarlyStopping(metric="eval/label/trained/f1")},
            "early_stopping watches .* the evaluation has no suite 'trained'.* Suites: yours",
        ),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        config(**changes)
