"""The declaration of a templated task. Declaring reads nothing, needs no TensorFlow, and refuses invalid settings.

`rendering` turns its rows into examples, `registry.register` makes a SeqIO task of it.
"""

import abc
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from flan_jax.annotations import NOT_IN_YAML, Count, PositiveInt, check_fields
from flan_jax.errors import FieldError, UserError, in_errors
from flan_jax.evaluation import metrics as metrics_lib
from flan_jax.evaluation import postprocess
from flan_jax.names import one_of, repeated
from flan_jax.tasks.filters.rule import RowFilter
from flan_jax.tasks.sources.rows import Row, Source
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.templates.render import Pattern
from flan_jax.vocab import Vocabulary

Evaluation = Literal["generate", "rank"]
Normalizer = Callable[[Row], Row | Iterable[Row] | None]

ExemplarTemplates = Literal["query", "matching", "mixed"]

TRAIN_SPLIT = "train"
NAME_PATTERN = re.compile(r"^[\w\d\.\:_#]+$")  # SeqIO's, repeated to check names without importing it.


class CountsTokens(abc.ABC):
    """A normalizer whose rows depend on the length of texts: it receives the vocabulary when its task is registered."""

    @abc.abstractmethod
    def with_vocabulary(self, vocabulary: Vocabulary) -> Normalizer:
        """Returns the normalizer that counts the vocabulary's tokens."""


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Solved examples in front of each query, drawn from the split "train", never the query's own row.

    Attributes:
      num_exemplars: Exemplars to draw; fewer when they do not fit, or the split has no more.
      formats: Layouts of a prompt; a query under template i uses formats[i mod len(formats)].
      max_tokens: Limit of query and exemplars together, without separators; the first exemplar that does not fit ends
        the list. None for no limit.
      drop_without: Whether a row that is left without exemplars is dropped (and counted) instead of used zero-shot.
      templates: "query" renders exemplars under the query's template; "matching" draws a template for each exemplar and
        selects those that drew the query's; "mixed" selects all of them.
      max_pool_rows: Number of rows, from the first of the split on, that can be exemplars.
      pool: The task whose rows are the exemplars; None for the task itself.
    """

    num_exemplars: int
    formats: tuple[FewShotFormat, ...]
    max_tokens: int | None = None
    drop_without: bool = False
    templates: ExemplarTemplates = "query"
    max_pool_rows: int = 10_000
    pool: "TemplatedTask | None" = None

    def __post_init__(self) -> None:
        if self.num_exemplars < 1 or not self.formats or self.max_pool_rows < 1:
            raise UserError(
                "Few-shot needs at least one exemplar, one format and one row to draw from; got "
                f"num_exemplars={self.num_exemplars}, {len(self.formats)} formats, max_pool_rows={self.max_pool_rows}. "
                "Zero-shot is few_shot=None."
            )
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class TemplatedTask:
    """A dataset, the templates that turn its rows into prompts, and the metrics that score answers.

    In the split "train", row i is rendered under `templates_per_row` of the N templates: (i + k) mod N for k = 0,
    1, ... In all other splits it is rendered once, under forward template i mod F of the F forward ones.

    Attributes:
      name: Letters, digits and `_ . : #`; unique among tasks and mixtures.
      source: The rows.
      cluster: The skill that it tests; tasks of one cluster are held out together. "" for the task's name.
      templates: N templates.
      options: The answers to choose from, or the name of the field that lists them.
      metrics: Names in `evaluation.metrics.METRICS`.
      postprocessor: A name in `evaluation.postprocess.POSTPROCESSORS`.
      normalizer: From a row to the fields that templates name: one row, several, or None to leave the row out.
      references: Name of the field that lists all correct answers.
      templates_per_row: Number of templates that a training row is rendered under; 0 for all.
      evaluation: "generate" compares the generated answer; "rank" compares the likeliest option.
      license: Of the rows.
      max_rows: Number of normalized rows of a split that are used, from the first on; None for all.
      corpora: The corpora that its rows come from, in lower case ("snli"): a task that shares one with a held-out task
        would leak it.
      filters: Rules that leave out normalized rows, counted by reason.
      few_shot: Solved examples in front of each query.
      varied_options: Whether options are written in styles drawn for each training row; evaluation never varies them.
      group: The field that groups rows, for metrics that score groups of rows.
      ends_inputs: Whether inputs end with the end of sequence, as targets always do; T0's do not.
      seed: Of all random draws for a row.
      declared_in: File, line and keys of its declaration in a YAML file, for messages.
    """

    name: str
    source: Source
    cluster: str = ""
    templates: tuple[Pattern, ...]
    options: tuple[str, ...] | str | None = None
    metrics: tuple[str, ...] = ("exact_match",)
    postprocessor: str | None = None
    normalizer: Normalizer | None = field(default=None, metadata=NOT_IN_YAML)
    references: str | None = None
    templates_per_row: Count = 1
    evaluation: Evaluation = "generate"
    license: str = ""
    max_rows: PositiveInt | None = None
    corpora: tuple[str, ...] = ()
    filters: tuple[RowFilter, ...] = ()
    few_shot: FewShot | None = field(default=None, metadata=NOT_IN_YAML)
    varied_options: bool = field(default=False, metadata=NOT_IN_YAML)
    group: str | None = None
    ends_inputs: bool = field(default=True, metadata=NOT_IN_YAML)
    seed: int = field(default=0, metadata=NOT_IN_YAML)
    declared_in: str = field(default="", metadata=NOT_IN_YAML, compare=False)

    def __post_init__(self) -> None:
        require_name(self.name)
        if not self.cluster:
            object.__setattr__(self, "cluster", self.name)
        # YAML files and many users give lists.
        object.__setattr__(self, "templates", tuple(self.templates))
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "corpora", tuple(self.corpora))
        if self.options is not None and not isinstance(self.options, str):
            object.__setattr__(self, "options", tuple(self.options))
        with in_errors(f"Task {self.name!r}"):
            check_fields(self)
            for field, wrong in (*self._wrong_templates(), *self._wrong_evaluation(), *self._wrong_metrics()):
                raise FieldError.of(field, wrong)

    def __str__(self) -> str:
        return f"Task {self.name!r}" + (f" ({self.declared_in})" if self.declared_in else "")

    def _wrong_templates(self) -> Iterable[tuple[str, str]]:
        """Yields fields with what is wrong about them, as the next two do."""
        if not self.templates:
            yield "templates", "it has no templates; give it at least one Template(inputs=..., targets=...)."
        for index, template in enumerate(self.templates):
            if not isinstance(template, Pattern):
                yield "templates", f"templates[{index}] must be a Template, got {template!r}."
            elif template.shows_options and self.options is None:
                yield "templates", f"templates[{index}] shows {{options_}}, and the task has no options."
        if not 0 <= self.templates_per_row <= len(self.templates):
            yield (
                "templates_per_row",
                f"templates_per_row must be 0 (all) to {len(self.templates)} (the number of templates); "
                f"got {self.templates_per_row}.",
            )

    def _wrong_evaluation(self) -> Iterable[tuple[str, str]]:
        listed = self.options if isinstance(self.options, tuple) else ()
        if self.evaluation == "rank" and self.options is None and not all(t.gives_options for t in self.templates):
            yield "evaluation", "rank evaluation needs options to rank; give the answers, or the field that lists them."
        if self.evaluation == "rank" and isinstance(self.options, tuple) and len(set(listed)) < max(2, len(listed)):
            yield "options", f"rank evaluation needs two or more options, all different; got {list(listed)}."
        for option in repeated(listed):
            yield "options", f"the option {option!r} is listed twice; got {list(listed)}."
        if self.evaluation == "rank" and not self.forward_templates:
            yield "templates", "rank evaluation needs a forward template: the target of an inverted one is no option."
        if self.postprocessor is not None and self.postprocessor not in postprocess.POSTPROCESSORS:
            yield "postprocessor", one_of(self.postprocessor, postprocess.POSTPROCESSORS, "postprocessor")

    def _wrong_metrics(self) -> Iterable[tuple[str, str]]:
        for name in repeated(self.metrics):
            yield "metrics", f"the metric {name!r} is listed twice."
        for name in self.metrics:
            if name not in metrics_lib.METRICS:
                yield "metrics", one_of(name, metrics_lib.METRICS, "a metric")
            elif metrics_lib.METRICS[name].lacks:
                yield "metrics", metrics_lib.missing_package(name)
            elif metrics_lib.METRICS[name].kind == "rank" and self.evaluation != "rank":
                yield (
                    "metrics",
                    f"the metric {name!r} needs the scores of options: set evaluation='rank', or choose one of texts: "
                    f"{metrics_lib.of_texts()}.",
                )
            else:
                yield from (("metrics", lacking) for lacking in self._lacks_for_metric(name))

    def _lacks_for_metric(self, name: str) -> Iterable[str]:
        needs, count = metrics_lib.METRICS[name].needs, metrics_lib.METRICS[name].num_options
        fits = count in (0, len(self.options)) if isinstance(self.options, tuple) else self.options is not None
        if "options" in needs and not (fits or all(t.gives_options for t in self.templates)):
            wanted = "two options, of which the second is the positive class" if count else "options, which are classes"
            yield (
                f"the metric {name!r} needs {wanted}; got "
                f"{self.options if self.options is None else list(self.options)}. Metrics that need none: "
                f"{metrics_lib.of_texts()}."
            )
        if "groups" in needs and self.group is None:
            yield f"the metric {name!r} scores groups of rows: set `group` to the field that identifies the group."

    @property
    def forward_templates(self) -> tuple[int, ...]:
        """Positions of the templates that evaluation uses."""
        return tuple(i for i, template in enumerate(self.templates) if template.direction == "forward")

    @property
    def exemplar_corpora(self) -> tuple[str, ...]:
        """The corpora that the solved examples in its prompts come from; () when it shows none."""
        return () if self.few_shot is None else (self.few_shot.pool or self).corpora

    def templates_of(self, split: str) -> tuple[int, ...]:
        """Returns the positions of the templates that a split's rows are rendered under in turn.

        Raises:
          UserError: An evaluation split of a task with inverted templates only.
        """
        if split == TRAIN_SPLIT:
            return tuple(range(len(self.templates)))
        if not self.forward_templates:
            raise UserError(
                f"{self}: its split {split!r} cannot be evaluated, because all its templates are inverted. "
                "Give it a forward template or leave the split out."
            )
        return self.forward_templates

    def renderings_per_row(self, split: str) -> int:
        """Returns the number of examples that a row of a split becomes."""
        return (self.templates_per_row or len(self.templates)) if split == TRAIN_SPLIT else 1


def with_vocabulary(task: TemplatedTask, vocabulary: Vocabulary) -> TemplatedTask:
    """Returns the task with the vocabulary given to its normalizer and its exemplars', if they count tokens."""
    if isinstance(task.normalizer, CountsTokens):
        task = replace(task, normalizer=task.normalizer.with_vocabulary(vocabulary))
    if task.few_shot is not None and task.few_shot.pool is not None:
        pool = with_vocabulary(task.few_shot.pool, vocabulary)
        if pool is not task.few_shot.pool:
            task = replace(task, few_shot=replace(task.few_shot, pool=pool))
    return task


def require_name(name: str, *, also: str = "") -> None:
    """Refuses a name that SeqIO would refuse.

    Args:
      name: Of a task or a mixture.
      also: Another character to allow.

    Raises:
      UserError: It has a character that is not allowed.
    """
    if not isinstance(name, str) or not NAME_PATTERN.match(name.replace(also, "_") if also else name):
        raise UserError(
            f"The name {name!r} cannot be used for a task or mixture: use letters, digits and _ . : # "
            f"(SeqIO's rule, {NAME_PATTERN.pattern})."
        )
