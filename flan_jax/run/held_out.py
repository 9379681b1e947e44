"""Checks that a run does not train on what its suite "held_out" evaluates.

`data.holdout` defines leaks. Reads task metadata from export manifests, so it does not need TensorFlow.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax.collections import suites
from flan_jax.data.holdout import HoldOut, in_words, leaks, parted, record, ways
from flan_jax.data.manifest import MixtureManifest
from flan_jax.data.source import ExportedTask
from flan_jax.errors import UserError
from flan_jax.evaluation.suite import HELD_OUT, EvaluationPlan


def require_held_out(
    training: Iterable[ExportedTask],
    plan: EvaluationPlan | None,
    evaluated: Mapping[str, Sequence[ExportedTask]],
    *,
    mixture: MixtureManifest,
    allow_leak: Sequence[str],
) -> dict[str, Any] | None:
    """Refuses to train on a held-out task, its cluster, its corpora or its exemplars.

    Of tasks that the training mixture's own definition holds out by name, the clusters may be trained on.

    Args:
      training: The exported tasks of the training mixture.
      plan: The evaluation; only the suite "held_out" counts.
      evaluated: The exported tasks of what is evaluated, by the name of the mixture or task.
      mixture: The manifest of the training mixture; leaks that its definition allows by name are allowed here.
      allow_leak: The names of training tasks, clusters or corpora whose leak is allowed.

    Returns:
      For `run.json`: the names that are held out and the leaks that are allowed; None when nothing is held out.

    Raises:
      UserError: There is a leak that is not allowed.
    """
    members = suites.members_of(plan.suites, split=plan.split) if plan else []
    names = tuple(one.name for one in members if one.label == HELD_OUT)
    accepted = HoldOut(tasks=names, allow_leak=tuple(allow_leak))
    if not accepted.tasks:
        return None
    by_name, facts_of_held_out = set(mixture.hold_out.get("tasks", ())), []
    for name in accepted.tasks:
        for task in evaluated[name]:
            facts = task.manifest.metadata.facts(task.manifest.task)
            facts_of_held_out.append(facts.of_any_cluster if by_name & {name, facts.task} else facts)
    facts_of_training = [task.manifest.metadata.facts(task.manifest.task) for task in training]
    leaking = leaks(facts_of_training, tasks=list(dict.fromkeys(facts_of_held_out)))
    refused, allowed = parted(leaking, allow_leak=(*allow_leak, *mixture.hold_out.get("allow_leak", ())))
    if refused:
        raise UserError(
            f"{mixture.request.name!r} trains on what the suite {HELD_OUT!r} ({', '.join(accepted.tasks)}) holds out: "
            f"{in_words(refused)}. Train on a mixture without these tasks, evaluate them under another label, or "
            f"allow the leak by name: run_config.RunConfig.allow_leak = {ways(refused)}; run.json records it."
        )
    return record(accepted, allowed=allowed)
