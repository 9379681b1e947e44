"""The tasks of a SeqIO mixture, and their rates once their examples are counted.

The arithmetic is SeqIO's (a mixture at rate w gives its member w x r / sum of r, two paths add up), with two
differences: a member that lacks the split is reported instead of skipped silently, and rate functions see the exported
counts.
"""

import dataclasses
import functools
import logging
from collections.abc import Collection, Mapping
from typing import Any

from flan_jax.data.manifest import NO_SPLIT, OnMissingSplit
from flan_jax.data.rates import Counted, Members, flatten
from flan_jax.errors import UserError
from flan_jax.names import grouped
from flan_jax.tasks import lazy
from flan_jax.tasks.exporting.shares import is_stated, stated_rates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """The tasks of a mixture for one split.

    Attributes:
      tasks: SeqIO tasks to export, by name, sorted.
      skipped: Tasks left out, with the reason.
    """

    tasks: Mapping[str, Any]
    skipped: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """A member's rate, and the cap of the function that computed it."""

    rate: float
    cap: float | None


def select(provider: Any, split: str, *, on_missing_split: OnMissingSplit) -> Selection:
    """Returns the tasks of a mixture, or of a single task, that have a split.

    Raises:
      UserError: Tasks lack the split, depending on `on_missing_split`.
    """
    tasks, skipped = {}, {}
    for task in tasks_of(provider):
        splits = sorted(task.splits)
        if split in splits:
            tasks[task.name] = task
        else:
            skipped[task.name] = f"{NO_SPLIT} {split!r}, only {', '.join(splits)}"
    if (not tasks and on_missing_split != "empty") or (skipped and on_missing_split == "error"):
        what = "none of its tasks has" if not tasks else "not all of its tasks have"
        raise UserError(
            f"{provider.name!r} cannot be exported for split {split!r}: {what} it. Choose another split, or add it to "
            "the tasks' sources." + "".join(f"\n  {line}" for line in grouped(skipped, noun="task"))
        )
    return Selection(tasks=tasks, skipped=skipped)


def tasks_of(provider: Any) -> list[Any]:
    """Returns the tasks of a mixture, sorted by name; of a task, the task itself."""
    return [provider] if isinstance(provider, lazy.import_seqio().Task) else provider.tasks


def zero_rate(provider: Any) -> set[str]:
    """Returns the names of tasks whose rate is the number 0 wherever they occur: they need not be exported."""
    reached: dict[str, bool] = {}

    def walk(member: Any, name: str, rate: float) -> None:
        if not hasattr(member, "rate_per_task_name"):
            reached[name] = reached.get(name, False) or rate != 0
            return
        for inner, given in member.rate_per_task_name.items():
            # A function's rate is known once examples are counted.
            walk(member._task_map[inner], inner, rate if callable(given) else rate * given)

    if hasattr(provider, "rate_per_task_name"):
        walk(provider, provider.name, 1.0)
    return {name for name, drawn in reached.items() if not drawn}


def rates(
    provider: Any,
    *,
    counts: Mapping[str, int],
    absent: Collection[str] = (),
    mean_tokens: Mapping[str, float] | None = None,
) -> dict[str, Rate]:
    """Returns the flattened rate of each counted task, those above 0 only.

    Args:
      provider: A SeqIO mixture or task.
      counts: Exported examples by task; a task without a count counts as in SeqIO: in the sum of a nested mixture when
        its rate is a number, and nowhere else.
      absent: Tasks whose rows are not available, ignored as if they were not members.
      mean_tokens: Mean tokens of an example of each counted task, for shares that are stated in tokens; None when they
        were not measured.

    Raises:
      UserError: A rate below 0, no rate above 0, a function as the rate of a nested mixture, or a share of tokens that
        were not measured.
    """
    if not hasattr(provider, "rate_per_task_name"):
        return {provider.name: Rate(rate=1.0, cap=None)}
    caps: dict[str, float] = {}
    nested = _nested(provider, counts, caps, absent, mean_tokens)
    if not nested:
        raise UserError(f"The mixture {provider.name!r} has no member with a rate above 0.")
    flat = flatten(nested)
    return {name: Rate(rate=rate, cap=caps.get(name)) for name, rate in sorted(flat.items()) if name in counts}


def _nested(
    mixture: Any,
    counts: Mapping[str, int],
    caps: dict[str, float],
    absent: Collection[str],
    mean_tokens: Mapping[str, float] | None,
) -> Members:
    """The mixture as numbers: pairs of a task's name, or a nested mixture, and a rate above 0."""
    if is_stated(mixture):
        inner = {
            name: _nested(member, counts, caps, absent, mean_tokens)
            if hasattr(member, "rate_per_task_name")
            else [(name, 1.0)]
            for name, member in mixture._task_map.items()
        }
        return stated_rates(mixture, inner, counted=counts, mean_tokens=mean_tokens)
    members: list[tuple[Any, float]] = []
    for name, rate in mixture.rate_per_task_name.items():
        if name in absent:
            continue
        member = mixture._task_map[name]  # No public accessor; pyproject bounds SeqIO below its next minor version.
        if hasattr(member, "rate_per_task_name"):
            if callable(rate):
                raise UserError(
                    f"The rate of the mixture {name!r} inside {mixture.name!r} is a function; SeqIO allows a number "
                    "only, because a function is given a task."
                )
            item: Any = _nested(member, counts, caps, absent, mean_tokens)
            value = float(rate) if item else 0.0
        else:
            value, item = _task_rate(rate, member, counts), name
            cap = _cap(rate)
            if cap is not None:
                caps[name] = cap
        if value < 0:
            raise UserError(f"The rate of {name!r} in the mixture {mixture.name!r} is {value}: it must not be below 0.")
        if value > 0:
            members.append((item, value))
        elif name in counts:
            logging.getLogger(__name__).warning("%s has rate 0 in %s: left out.", name, mixture.name)
    return members


def _task_rate(rate: Any, task: Any, counts: Mapping[str, int]) -> float:
    if not callable(rate):
        return float(rate)
    return float(rate(Counted(task, counts[task.name]))) if task.name in counts else 0.0


def _cap(rate: Any) -> float | None:
    """The cap of a rate function: ours, or SeqIO's `mixing_rate_num_examples` under `functools.partial`."""
    settings = rate.keywords if isinstance(rate, functools.partial) else vars(rate) if hasattr(rate, "__dict__") else {}
    cap = settings.get("maximum") if callable(rate) else None
    return None if cap is None else float(cap)
