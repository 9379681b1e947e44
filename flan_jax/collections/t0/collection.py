"""T0 (Sanh et al. 2022, arXiv:2110.08207): promptsource's templates over the paper's datasets, a task per template.

Tasks and mixtures have the names of the released code and are registered on demand. Templates come from promptsource's
folder or an archive of it, which the environment variable FLAN_JAX_PROMPTSOURCE_DIR or a YAML file names. Rows come
from TFDS where it has them in the same shape (`tfds_rows`), or from the YAML file (`tasks.sources.settings`):

    collections:
      t0:
        promptsource: templates.zip
        rows:
          super_glue/rte:
            kind: jsonl
            splits: {train: rte/train.jsonl, validation: rte/val.jsonl}
            classes: {label: [entailment, not_entailment]}
        rate_rule: published   # or divided; see `prompted.rate`
        on_bad_row: skip       # for rows of TFDS

A dataset in the archive that is not in the table has tasks, too, if the file declares its rows. A template with choices
has a second task, `..._score_eval`, that ranks them. Targets end with the end of sequence, inputs do not.

Departures from the released code: a row with an empty target is dropped and counted (there it became the text
"<NO LABEL>"), and an evaluation row whose target is no choice is an error or is counted.
"""

import dataclasses
import functools
import os
from pathlib import Path

from flan_jax.collections.catalog import Collection
from flan_jax.collections.t0.prompted import Contents, RateRule, T0Settings
from flan_jax.errors import in_errors
from flan_jax.names import nearest
from flan_jax.settings import Section
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.tasks.sources.settings import parse_rows
from flan_jax.templates.promptsource_files import open_archive

ARCHIVE_VARIABLE = "FLAN_JAX_PROMPTSOURCE_DIR"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Keys:
    """The keys of the collection in a YAML file; see the module and `prompted.T0Settings`."""

    promptsource: Path | None = None
    rows: Section | None = None
    rate_rule: RateRule = T0Settings.rate_rule
    on_bad_row: OnBadRow = T0Settings.on_bad_row


def _read(section: Section) -> T0Settings:
    """Returns the settings of a YAML file; the environment variable replaces `promptsource`.

    Raises:
      UserError: An invalid setting, or rows of a dataset without templates.
      MissingFileError: No such archive.
    """
    keys = section.parse(_Keys)
    path = os.environ.get(ARCHIVE_VARIABLE) or keys.promptsource
    if path is None:
        raise section.place.error(
            "give promptsource, its folder of templates or an archive of it, or set the environment variable "
            f"{ARCHIVE_VARIABLE}."
        )
    with in_errors(section.place):
        archive = open_archive(path)
    rows = parse_rows(keys.rows)
    for dataset in rows:
        if dataset not in archive.members:
            near = nearest(dataset, archive.members)
            raise section.at("rows").place.error(f"{archive.path} has no templates for {dataset!r}.{near}")
    return T0Settings(archive=archive, rows=rows, rate_rule=keys.rate_rule, on_bad_row=keys.on_bad_row)


def _default() -> T0Settings | None:
    path = os.environ.get(ARCHIVE_VARIABLE)
    return _named(path) if path else None


# The settings are asked for with every name, and listing an archive opens it.
@functools.lru_cache(maxsize=4)
def _named(path: str) -> T0Settings:
    return T0Settings(archive=open_archive(path))


COLLECTION = Collection(name="t0", read=_read, default=_default, contents=Contents)
register, register_declared = COLLECTION.register, COLLECTION.register_declared
