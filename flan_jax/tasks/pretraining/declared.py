"""What a YAML file says about pretraining: tasks of plain text, and the share of a member in a mixture; parsed.

The schema is `user_files`', by example.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flan_jax.data.rates import ShareUnit, StatedShare
from flan_jax.errors import UserError
from flan_jax.tasks.pretraining.span_corruption import Noise
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.settings import checked
from flan_jax.tasks.sources.rows import Source
from flan_jax.templates.load import require_keys, require_mapping

AS_THEY_ARE = ("field", "objective", "stand", "chunks_together", "passes", "seed", "cluster", "licence")
NOISE_KEYS = {"noise_density": "density", "mean_span": "mean_span"}
TASK_KEYS = ("source", "splits", *AS_THEY_ARE, *NOISE_KEYS, "lengths", "corpora")
SHARE_KEYS = ("member", "share", "of")


@dataclass(frozen=True, kw_only=True)
class UserShare:
    """A member's share of a mixture, as it was written down: `share` of the mixture's `of`."""

    member: str
    share: float
    of: ShareUnit


def pretraining_task(
    name: str,
    value: object,
    *,
    source: Callable[[object, object], Source],
    texts: Callable[[object], tuple[str, ...]],
    where: str,
) -> PretrainingTask:
    """Returns the task that an entry of `pretraining` declares.

    Args:
      name: of the task.
      value: the entry.
      source: from what is said of the source and of its splits to the source.
      texts: from a text or a list of them to texts.
      where: the place, for messages.

    Raises:
      UserError: an unknown key, or a declaration that cannot be right.
    """
    fields = require_mapping(value, where=where)
    require_keys(fields, TASK_KEYS, where=where, needed=("source", "splits"))
    given = checked({key: fields[key] for key in AS_THEY_ARE if key in fields}, PretrainingTask, where=where)
    if "corpora" in fields:
        given["corpora"] = texts(fields["corpora"])
    if "lengths" in fields:
        given["lengths"] = require_mapping(fields["lengths"], where=f"{where}.lengths")
    rows = source(fields["source"], fields["splits"])
    noises = {new: fields[key] for key, new in NOISE_KEYS.items() if key in fields}
    try:
        noise = Noise(**checked(noises, Noise, where=where))
        return PretrainingTask(name=name, source=rows, noise=noise, **given)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def share_of(fields: Mapping[str, Any], *, where: str) -> UserShare | None:
    """Returns the share that a mixture's entry states; None when it states none.

    Raises:
      UserError: an unknown or missing key, or a number or unit that cannot be.
    """
    if "share" not in fields:
        return None
    where = f"{where}.share"
    said = require_mapping(fields["share"], where=where)
    require_keys(said, SHARE_KEYS, where=where, needed=SHARE_KEYS)
    if not isinstance(said["member"], str) or not isinstance(said["share"], (int, float)):
        raise UserError(
            f"{where}: expected a member's name and a number, as in {{member: wiki, share: 0.05, of: tokens}}."
        )
    try:
        StatedShare(said["share"], unit=said["of"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return UserShare(member=said["member"], share=float(said["share"]), of=said["of"])
