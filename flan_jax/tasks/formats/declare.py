"""Tasks from files of a published format in one call, with the format's own templates; declared, not registered.

`registry.register_files` registers them; in a YAML file a task says `format:` in place of a source and templates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import nearest
from flan_jax.tasks.declare import Evaluation, TemplatedTask
from flan_jax.tasks.filters.rule import RowFilter
from flan_jax.tasks.formats.chat import Chat
from flan_jax.tasks.formats.instructions import Alpaca, Dolly, Prompted, SelfInstruct, Unnatural
from flan_jax.tasks.formats.preferences import Preference
from flan_jax.tasks.formats.shape import Format, FormattedSource, settings_of
from flan_jax.tasks.settings import checked
from flan_jax.tasks.sources.file_sources import Paths
from flan_jax.tasks.sources.rows import OnBadRow, Source
from flan_jax.templates.load import require_keys, require_mapping
from flan_jax.templates.render import Pattern

FORMATS: Mapping[str, type[Format]] = {
    "alpaca": Alpaca,
    "dolly": Dolly,
    "self_instruct": SelfInstruct,
    "unnatural": Unnatural,
    "prompted": Prompted,
    "chat": Chat,
    "preference": Preference,
}
RANK_METRICS = ("rank_accuracy",)


def format_task(
    name: str,
    files: Paths | Mapping[str, Paths],
    *,
    format: str | Format,
    cluster: str | None = None,
    templates: Sequence[Pattern] | None = None,
    metrics: Sequence[str] | None = None,
    evaluation: Evaluation = TemplatedTask.evaluation,
    templates_per_row: int = TemplatedTask.templates_per_row,
    filters: Sequence[RowFilter] = (),
    licence: str = "",
    max_rows: int | None = None,
    corpora: Sequence[str] = (),
    on_bad_row: OnBadRow = Source.on_bad_row,
) -> TemplatedTask:
    """Declares a task over files of a format; see `TemplatedTask` for what arguments mean.

    Args:
      name: of the task.
      files: a path or several, for the split "train"; or a mapping from splits to them. JSON lines, JSON lists, CSV,
        TSV or Parquet, `.gz` too.
      format: a name in `FORMATS`, or one of those classes with settings.
      cluster: None for the format's own.
      templates: ways of asking about the format's examples; None for its own.
      metrics: None for the format's own.
      evaluation: "rank" is for preferences, whose pairs it ranks.
      filters: applied after the format's own.
      on_bad_row: for rows that break the format or have other fields than those before them.

    Raises:
      UnknownNameError: no format of this name.
      UserError: a declaration that cannot be right.
    """
    if isinstance(format, str):
        if format not in FORMATS:
            raise UnknownNameError(f"No format {format!r}.{nearest(format, FORMATS)} Available: {', '.join(FORMATS)}.")
        format = FORMATS[format]()
    chosen = format.evaluated(evaluation) if evaluation in get_args(Evaluation) else format
    by_split = files if isinstance(files, Mapping) else {"train": files}
    return TemplatedTask(
        name=name,
        source=FormattedSource(files=by_split, format=chosen, on_bad_row=on_bad_row),
        cluster=cluster or chosen.cluster,
        templates=tuple(chosen.templates() if templates is None else templates),
        options=chosen.options if evaluation == "rank" else None,
        metrics=tuple(metrics or (RANK_METRICS if evaluation == "rank" else chosen.metrics)),
        normaliser=chosen,
        templates_per_row=templates_per_row,
        evaluation=evaluation,
        licence=licence,
        max_rows=max_rows,
        corpora=tuple(corpora),
        filters=(*chosen.filters(), *filters),
    )


def parse_format(value: object, *, where: str) -> tuple[Format, Any]:
    """Turns the value of `format` in a YAML file into a format and its policy for bad rows.

    >>> parse_format("alpaca", where="my.yaml")
    (Alpaca(seed=0), 'error')

    Args:
      value: a name in `FORMATS`, or a mapping with it as `kind`, `on_bad_row` and the format's settings.
      where: the place, for messages.

    Raises:
      UserError: an unknown kind or key, or a value that cannot be right; names the place.
    """
    fields = {"kind": value} if isinstance(value, str) else require_mapping(value, where=where)
    kind = str(fields.get("kind"))
    if kind not in FORMATS:
        raise UserError(f"{where}: unknown kind {kind!r}.{nearest(kind, FORMATS)} Allowed: {', '.join(FORMATS)}.")
    # What a task says by other keys is no setting of the format's here.
    own = tuple(name for name in settings_of(FORMATS[kind]) if name not in ("vocabulary", "rows"))
    require_keys(fields, ("kind", "on_bad_row", *own), where=where)
    settings = checked({key: fields[key] for key in own if key in fields}, FORMATS[kind], where=where)
    try:
        return FORMATS[kind](**settings), fields.get("on_bad_row", Source.on_bad_row)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
