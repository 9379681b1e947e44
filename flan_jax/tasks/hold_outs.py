"""A mixture that gives away what it holds out is refused when it is defined, before any data are read.

What a leak is, is `data.holdout`'s; here it is asked of declarations.
"""

from collections.abc import Sequence
from typing import Any

from flan_jax.data.holdout import Facts, HoldOut, in_words, leaks, parted, record, ways
from flan_jax.errors import UserError
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.pretraining.task import PretrainingTask

FOREIGN = "foreign"


def facts(name: str, task: TemplatedTask | PretrainingTask | None) -> Facts:
    """Returns what hold-out goes by of a declared task, or of a task that was registered with plain SeqIO (None)."""
    if task is None:
        return Facts(task=name, cluster=FOREIGN)
    return Facts(task=name, cluster=task.cluster, corpora=task.corpora, exemplar_corpora=exemplar_corpora(task))


def exemplar_corpora(task: TemplatedTask | PretrainingTask) -> tuple[str, ...]:
    """Returns the corpora that the solved examples in a task's prompts come from; () when it shows none."""
    if isinstance(task, PretrainingTask) or task.few_shot is None:
        return ()
    return (task.few_shot.pool or task).corpora


def require_held_out(
    mixture: str, *, hold_out: HoldOut, members: Sequence[Facts], held_out: Sequence[Facts]
) -> dict[str, Any]:
    """Refuses a mixture whose members give away what it holds out.

    Args:
      mixture: its name.
      hold_out: what it holds out.
      members: its tasks.
      held_out: the tasks that `hold_out` names.

    Returns:
      The hold-out with the leaks that it allows, for the manifest.

    Raises:
      UserError: a leak that `allow_leak` does not name.
    """
    refused, allowed = parted(leaks(members, hold_out=hold_out, tasks=held_out), allow_leak=hold_out.allow_leak)
    if refused:
        raise UserError(
            f"Mixture {mixture!r} trains on what it holds out: {in_words(refused)}. Leave these tasks out, or accept "
            f"the leak by name: allow_leak={ways(refused)}."
        )
    return record(hold_out, allowed=allowed)
