"""T0 (Sanh et al. 2022, arXiv:2110.08207): promptsource's templates over the datasets of its table, a task each.

Tasks and mixtures have the names of the released code and are registered when they are asked for. Templates come from
promptsource's folder or an archive of it, which the environment variable FLAN_JAX_PROMPTSOURCE_DIR names, or a YAML
file; rows come from TFDS where it has them in the same shape (`tfds_rows`), or from where the file says (`declared_rows`):

    families:
      t0:
        promptsource: templates.zip
        rows:
          super_glue/rte:
            kind: jsonl
            splits: {train: rte/train.jsonl, validation: rte/val.jsonl}
            classes: {label: [entailment, not_entailment]}
        rate_rule: published   # or divided; see `prompted.rate`
        on_bad_row: skip       # for rows of TFDS

A dataset that is in the archive and not in the table gets tasks too when the file declares its rows. A template with
choices has a second task, `..._score_eval`, that ranks them. Inputs do not end with the end of sequence, targets do.

Departures from the released code: a row whose target is empty is left out and counted (there it became the text
"<NO LABEL>"), and a row of an evaluation whose target is no choice is refused or counted.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from flan_jax.collections.t0.prompted import Family, RateRule, T0Settings
from flan_jax.errors import UserError
from flan_jax.names import nearest
from flan_jax.tasks import registry
from flan_jax.tasks.declared_rows import declared_sources
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.templates.load import require_keys
from flan_jax.templates.promptsource_files import open_archive
from flan_jax.vocab import Vocabulary

FAMILY = "t0"
ARCHIVE_VARIABLE = "FLAN_JAX_PROMPTSOURCE_DIR"
SETTINGS = {"promptsource": str, "rows": dict, "rate_rule": str, "on_bad_row": str}
"""What a YAML file may say about this family, and of which type."""
_declared: T0Settings | None = None
"""What YAML files gave; kept, since the family is declared anew when the vocabulary changes."""


def register() -> None:
    """Declares the family when a file or the environment variable says where the templates are; reads none of them.

    Raises:
      MissingFileError, UserError: nothing is there, or no templates.
    """
    settings = settings_in_use()
    if settings is not None:
        family = Family(settings)
        registry.declare_family(FAMILY, names=family.names, define=family.define, covering=family.covering)


def settings_in_use() -> T0Settings | None:
    """Returns what a file declared, or the environment variable names; None when neither says where the templates are.

    Raises:
      MissingFileError, UserError: nothing is there, or no templates.
    """
    path = os.environ.get(ARCHIVE_VARIABLE)
    return _named(path) if _declared is None and path else _declared


@functools.lru_cache(maxsize=4)
def _named(path: str) -> T0Settings:
    return T0Settings(archive=open_archive(path))


def register_declared(settings: Mapping[str, Any], *, vocabulary: Vocabulary, base: Path, where: str) -> None:
    """Declares the family as the entry `families: {t0: ...}` of a YAML file says; see the module.

    Args:
      settings: `promptsource`, which gives way to the environment variable, `rows`, `rate_rule`, `on_bad_row`.
      vocabulary: of the file.
      base: the folder that relative paths start from.
      where: the entry's place, for messages.

    Raises:
      UserError: a key that is not allowed, a value of another type, or rows of a dataset that has no templates.
      MissingFileError: there is no such archive.
    """
    global _declared
    require_keys(settings, tuple(SETTINGS), where=where)
    for key, value in settings.items():
        if type(value) is not SETTINGS[key]:
            raise UserError(f"{where}.{key}: expected {SETTINGS[key].__name__}, got {value!r}.")
    for key, allowed in (("rate_rule", get_args(RateRule)), ("on_bad_row", get_args(OnBadRow))):
        if settings.get(key, allowed[0]) not in allowed:
            near = nearest(settings[key], allowed)
            raise UserError(f"{where}.{key}: got {settings[key]!r}.{near} Allowed: {', '.join(allowed)}.")
    given, overriding = settings.get("promptsource"), os.environ.get(ARCHIVE_VARIABLE)
    if not given and not overriding:
        raise UserError(
            f"{where}: give promptsource, its folder of templates or an archive of it, or set the environment variable "
            f"{ARCHIVE_VARIABLE}."
        )
    archive = open_archive(overriding or base / Path(given or "").expanduser())
    rows = declared_sources(settings.get("rows", {}), base=base, where=f"{where}.rows")
    for dataset in rows:
        if dataset not in archive.members:
            near = nearest(dataset, archive.members)
            raise UserError(f"{where}.rows: {archive.path} has no templates for {dataset!r}.{near}")
    chosen = {key: settings[key] for key in ("rate_rule", "on_bad_row") if key in settings}
    own = None if vocabulary == registry.vocabulary() else vocabulary
    _declared = T0Settings(archive=archive, rows=rows, vocabulary=own, **chosen)
    register()
