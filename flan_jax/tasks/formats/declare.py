"""Tasks over files in one call: of a published format with its own templates, or of JSON lines with given ones.

They are declared here, not registered; `registry.register_files` and `registry.register_jsonl` register them. In a YAML
file, a task with `format:` needs no source and no templates.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

from flan_jax.errors import UnknownNameError
from flan_jax.names import require_choice
from flan_jax.settings import Section, choose_kind, parse
from flan_jax.tasks.declare import Evaluation, Normalizer, TemplatedTask
from flan_jax.tasks.filters.rule import RowFilter
from flan_jax.tasks.formats.chat import Chat
from flan_jax.tasks.formats.instructions import Alpaca, Dolly, IFEval, Prompted, SelfInstruct, Unnatural
from flan_jax.tasks.formats.preferences import Preference
from flan_jax.tasks.formats.shape import Format, FormattedSource
from flan_jax.tasks.sources.file_sources import JsonlSource, Paths
from flan_jax.tasks.sources.rows import OnBadRow, Source
from flan_jax.templates.render import Pattern, Template

FORMATS: Mapping[str, type[Format]] = {
    "alpaca": Alpaca,
    "dolly": Dolly,
    "self_instruct": SelfInstruct,
    "unnatural": Unnatural,
    "prompted": Prompted,
    "chat": Chat,
    "preference": Preference,
    "ifeval": IFEval,
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
    license: str = "",
    max_rows: int | None = None,
    corpora: Sequence[str] = (),
    on_bad_row: OnBadRow = Source.on_bad_row,
) -> TemplatedTask:
    """Declares a task over files of a format; see `TemplatedTask` for the other arguments.

    Args:
      name: Of the task.
      files: A path or several, for the split "train"; or a mapping from splits to them. JSON lines, JSON lists, CSV,
        TSV or Parquet, `.gz` too.
      format: A name in `FORMATS`, or an instance of one of those classes.
      cluster: None for the format's own.
      templates: For the format's examples; None for its own.
      metrics: None for the format's own.
      evaluation: "rank" ranks the pairs of preferences.
      filters: Applied after the format's own.
      on_bad_row: For rows that break the format or have other fields than the rows before.

    Raises:
      UnknownNameError: No format of this name.
      UserError: An invalid declaration.
    """
    if isinstance(format, str):
        require_choice(format, FORMATS, "format", error=UnknownNameError)
        format = FORMATS[format]()
    # An unknown kind of evaluation is refused by `TemplatedTask` below, which lists them.
    chosen = format.evaluated(evaluation) if evaluation in get_args(Evaluation) else format
    by_split = files if isinstance(files, Mapping) else {"train": files}
    return TemplatedTask(
        name=name,
        source=FormattedSource(files=by_split, format=chosen, on_bad_row=on_bad_row),
        cluster=cluster or chosen.cluster,
        templates=tuple(chosen.templates() if templates is None else templates),
        options=chosen.options if evaluation == "rank" else None,
        metrics=tuple(metrics or (RANK_METRICS if evaluation == "rank" else chosen.metrics)),
        normalizer=chosen,
        templates_per_row=templates_per_row,
        evaluation=evaluation,
        license=license,
        max_rows=max_rows,
        corpora=tuple(corpora),
        filters=(*chosen.filters(), *filters),
    )


def jsonl_task(
    name: str,
    files: Paths | Mapping[str, Paths],
    *,
    inputs: str | Sequence[str],
    targets: str,
    cluster: str = "user",
    options: Sequence[str] | str | None = None,
    metrics: Sequence[str] = TemplatedTask.metrics,
    evaluation: Evaluation = TemplatedTask.evaluation,
    references: str | None = None,
    normalizer: Normalizer | None = None,
    on_bad_row: OnBadRow = JsonlSource.on_bad_row,
) -> TemplatedTask:
    """Declares a task over the rows of JSONL files; see `TemplatedTask` for the other arguments.

    Args:
      name: Of the task.
      files: A path or several, for the split "train"; or a mapping from splits to them.
      inputs: Pattern of the model's input; or several, for one template each with the same targets.
      targets: Pattern of the target.
    """
    return TemplatedTask(
        name=name,
        source=JsonlSource(files=files if isinstance(files, Mapping) else {"train": files}, on_bad_row=on_bad_row),
        cluster=cluster,
        templates=tuple(
            Template(inputs=pattern, targets=targets) for pattern in ((inputs,) if isinstance(inputs, str) else inputs)
        ),
        options=options if options is None or isinstance(options, str) else tuple(options),
        metrics=tuple(metrics),
        evaluation=evaluation,
        references=references,
        normalizer=normalizer,
    )


def parse_format(section: Section) -> tuple[Format, OnBadRow]:
    """Returns the format that a YAML file names, and its policy for bad rows.

    >>> from flan_jax.settings import Place
    >>> parse_format(Section(values="alpaca", place=Place(file="my.yaml")))
    (Alpaca(seed=0), 'error')

    Args:
      section: A name in `FORMATS`, or a mapping with it as `kind`, `on_bad_row` and the format's settings.

    Raises:
      UserError: An unknown kind or key, or an invalid value.
    """
    kind, mapping = choose_kind(section.values, FORMATS, section.place)
    format = parse(mapping, kind, section.place, also=("kind", "on_bad_row"))
    is_mapping = isinstance(section.values, dict)
    return format, section.get("on_bad_row", OnBadRow, Source.on_bad_row) if is_mapping else Source.on_bad_row
