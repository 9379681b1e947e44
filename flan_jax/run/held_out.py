"""Held out means held out: what a run trains on is compared with every suite that it calls so. No verb itself.

What a leak is, is `data.holdout`'s; the facts come from the manifests of the exports, so nothing here needs TensorFlow.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax.data.holdout import HoldOut, in_words, leaks, parted, record, ways
from flan_jax.data.manifest import MixtureManifest
from flan_jax.data.source import ExportedTask, open_members
from flan_jax.errors import UserError
from flan_jax.evaluation.suite import HELD_OUT, EvaluationPlan


def require_held_out(
    training: Iterable[ExportedTask],
    plan: EvaluationPlan | None,
    evaluated: Mapping[str, MixtureManifest],
    *,
    mixture: MixtureManifest,
    export_dir: Path | str,
    allow_leak: Sequence[str],
) -> dict[str, Any] | None:
    """Refuses to train on what gives away a held-out task: itself, its cluster, its corpora, its exemplars.

    Args:
      training: the exported tasks of the mixture.
      plan: what is evaluated; only suites labelled "held_out" count.
      evaluated: the exports of what is evaluated, by name.
      mixture: the training mixture's manifest; leaks that its definition allows by name are allowed here.
      export_dir: where exports lie.
      allow_leak: names of training tasks, clusters or corpora whose leak is accepted.

    Returns:
      What the run writes down: the names held out, and the leaks that were allowed; None when nothing is held out.

    Raises:
      UserError: a leak that nobody allowed.
    """
    accepted = HoldOut(tasks=tuple(plan.suites.get(HELD_OUT, ())) if plan else (), allow_leak=tuple(allow_leak))
    if not accepted.tasks:
        return None
    tasks = {
        t.manifest.task: t.manifest for n in accepted.tasks for t in open_members(evaluated[n], export_dir=export_dir)
    }
    found = leaks((task.manifest.facts for task in training), tasks=[manifest.facts for manifest in tasks.values()])
    refused, allowed = parted(found, allow_leak=(*allow_leak, *mixture.hold_out.get("allow_leak", ())))
    if refused:
        raise UserError(
            f"{mixture.request.name!r} trains on what the suite {HELD_OUT!r} ({', '.join(accepted.tasks)}) holds out: "
            f"{in_words(refused)}. Train on a mixture without these tasks, evaluate them under another label, or "
            f"accept the leak by name: run_config.RunConfig.allow_leak = {ways(refused)}; it is then written down in run.json."
        )
    return record(accepted, allowed=allowed)
