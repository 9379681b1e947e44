"""`flan-jax evaluate`: scores checkpoints of a run on tasks and mixtures."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from flan_jax import placement, processes
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.collections import suites
from flan_jax.data import exports
from flan_jax.data.manifest import MixtureManifest, OnMissingSource, Request, safe_name
from flan_jax.data.source import open_members
from flan_jax.decoding.strategies import Greedy
from flan_jax.errors import UserError
from flan_jax.evaluation import report
from flan_jax.evaluation.results import SuiteResult, as_json
from flan_jax.evaluation.suite import EvaluationPlan
from flan_jax.files import require_writable_directory
from flan_jax.locks import locked
from flan_jax.names import grouped
from flan_jax.paths import user_path
from flan_jax.run import provenance
from flan_jax.run.evaluator import Evaluator
from flan_jax.run.export_process import ensure_exports
from flan_jax.run.rescoring import Exported, rescore
from flan_jax.run.run_data import labeled_tasks, require_same_vocabulary
from flan_jax.run.trained import ModelOptions, TrainedModel, chosen_checkpoints, open_trained
from flan_jax.train.console import QUIET

DEFAULT_SPLIT = "validation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one or more checkpoints.

    Attributes:
      by_step: The results of each checkpoint, by step.
      source: A sentence about where the predictions are.
      directory: The directory with one folder of predictions and scores per step; None when existing predictions
        were rescored.
      show_predictions: How many predictions of each suite are shown when this is printed.
    """

    by_step: Mapping[int, SuiteResult]
    source: str
    directory: Path | None = None
    show_predictions: int = 0

    @property
    def data(self) -> dict[str, Any]:
        """Each evaluation as its `summary.json` has it."""
        return {"evaluations": [as_json(result) for result in self.by_step.values()]}

    def __rich__(self) -> RenderableType:
        """Shows a table per checkpoint, compared with the first one, and some predictions."""
        parts: list[RenderableType] = []
        first: SuiteResult | None = None
        for step, result in self.by_step.items():
            parts.append(report.compare(first, result))
            first = first or result
            if self.show_predictions and self.directory is not None:
                directory = self.directory / str(step)
                parts.append(report.predictions(directory, result, per_label=self.show_predictions))
        return Group(*parts, Text(self.source, no_wrap=True, overflow="ignore"))


def evaluate(
    options: ModelOptions,
    *,
    mixture_or_task_name: str | None = None,
    suite: str | None = None,
    mixture_or_task_module: str | None = None,
    split: str | None = None,
    max_examples_per_task: int | None = None,
    use_cached_tasks: exports.UseCached = "auto",
    on_missing_source: OnMissingSource | None = None,
    from_predictions: str | None = None,
    fields: Mapping[str, str] | None = None,
    metrics: str | None = None,
    show_predictions: int = 0,
    console: Console = QUIET,
) -> Scores:
    """Evaluates checkpoints, or scores predictions that are in files.

    What is not exported yet is exported first. Results go to the run's `eval` directory. A killed evaluation continues
    where it stopped, and predictions that were made with the same weights, decoding and exports are not computed again.

    Args:
      options: The run or checkpoint, and how predictions are decoded; None given uses the strategy of the run.
      mixture_or_task_name: The tasks to evaluate on; None uses the suites of the run, with all of their examples.
      suite: A published suite, with a split, an aggregation and a decoding length of its own; `flan-jax show suites`
        lists them.
      mixture_or_task_module: The module that registers the mixture or task; None uses the run's.
      split: The split of a named mixture or task; None is "validation".
      max_examples_per_task: Examples per task, spread over its split; None uses all.
      use_cached_tasks: As in `RunConfig`.
      on_missing_source: "error" stops when the rows of a task are not on this machine; "skip" leaves such tasks out and
        prints them; None does as the run did.
      from_predictions: A directory of an evaluation, or a file of rows in any format with `prediction` and `references`
        or `target`, to score without a model. With mixture_or_task_name and export_dir, references are the export's,
        found by `index`, or `row` and `template`.
      fields: The names or paths that such a file has for the fields of a row: {"references": "answers.text"}.
      metrics: Names of metrics, separated by commas, to score such a file by; None uses the task's.
      show_predictions: How many predictions of each suite are shown.
      console: Where progress is shown.

    Raises:
      UserError: There is nothing to evaluate, or an export has another vocabulary than the run.
      MissingFileError: There is no run, or no such checkpoint.
    """
    if from_predictions is not None:
        exported = (
            None
            if mixture_or_task_name is None
            else Exported(
                name=mixture_or_task_name,
                split=split or DEFAULT_SPLIT,
                export_dir=user_path(options.export_dir or "exports"),
                lengths=options.task_feature_lengths,
                limit=max_examples_per_task,
            )
        )
        given = [f"--suite={suite}"] if suite is not None else []
        given += [options.model_dir] if options.model_dir else []
        given += [f"--{name}={value}" for name, value in options.decoding().items()]
        return _rescored(from_predictions, given=given, fields=fields, metrics=metrics, exported=exported)
    if metrics or fields:
        raise UserError("--metrics and --fields score predictions that are in files: give --from_predictions, too.")
    run = open_trained(options)
    checkpoints = chosen_checkpoints(run, options, console=console)
    plan, directory = _plan(
        run,
        options,
        name=mixture_or_task_name,
        suite=suite,
        split=split,
        max_examples_per_task=max_examples_per_task,
    )
    evaluator = _evaluator(
        run,
        plan,
        steps=list(checkpoints),
        directory=directory,
        module=mixture_or_task_module,
        use_cached=use_cached_tasks,
        on_missing_source=on_missing_source,
        console=console,
    )
    lock = locked(directory / ".lock", what=f"The directory of evaluations {directory}", leftovers=("**/.*",))
    with lock if processes.group().is_first else contextlib.nullcontext(), run.network.within():
        try:
            by_step = {
                number: evaluator(number, run.params(weights), weights={"params_digest": leaves_digest(weights.params)})
                for number, weights in checkpoints.items()
            }
        except KeyboardInterrupt as stopped:
            stopped.add_note(f"The predictions so far are in {directory}; the same command continues.")
            raise
    return Scores(
        by_step=by_step, source=f"Written to {directory}.", directory=directory, show_predictions=show_predictions
    )


def _rescored(
    path: str,
    *,
    given: Sequence[str],
    fields: Mapping[str, str] | None,
    metrics: str | None,
    exported: Exported | None,
) -> Scores:
    """Returns the scores of predictions that are in files.

    Raises:
      UserError: Options that compute predictions are given, too; or as `rescore`.
    """
    if given:
        raise UserError(
            f"Give {' '.join(given)} to compute predictions, or --from_predictions={path} to score those that are "
            "there without a model."
        )
    names = [name.strip() for name in metrics.split(",")] if metrics else []
    result = rescore(path, metrics=names, fields=fields, exported=exported)
    return Scores(by_step={result.step: result}, source=f"Scores of the predictions in {path}.")


def _plan(
    run: TrainedModel,
    options: ModelOptions,
    *,
    name: str | None,
    suite: str | None,
    split: str | None,
    max_examples_per_task: int | None,
) -> tuple[EvaluationPlan, Path]:
    """Returns what is evaluated, and the directory of its results."""
    directory, max_decode_length = run.directory.evaluations, options.max_decode_length
    if suite is not None and name is not None:
        raise UserError(f"Give --suite={suite} or --mixture_or_task_name={name}, not both.")
    if split is not None and name is None:
        raise UserError(f"--split={split} belongs to --mixture_or_task_name=NAME: suites have splits of their own.")
    if suite is not None:
        published = suites.suite(suite)
        evaluated, split = {suite: (suite,)}, published.split
        max_decode_length = max_decode_length or published.max_decode_length
        directory = directory / _folder_name(suite, split)
    elif name is not None:
        split = split or DEFAULT_SPLIT
        evaluated = {"evaluated": (name,)}
        directory = directory / _folder_name(name, split)
    elif run.plan is not None:
        evaluated, split = dict(run.plan.suites), run.plan.split
        max_decode_length = max_decode_length or run.plan.max_decode_length
    else:
        raise UserError(
            f"{options.model_dir} has no evaluation suites of its own: give --suite=NAME or "
            "--mixture_or_task_name=NAME."
        )
    plan = EvaluationPlan(
        suites=evaluated,
        split=split,
        max_examples_per_task=max_examples_per_task,
        max_decode_length=max_decode_length,
        batch_size=options.batch_size,
        strategy=options.strategy(default=Greedy() if run.plan is None else run.plan.strategy),
    )
    return plan, directory


def _evaluator(
    run: TrainedModel,
    plan: EvaluationPlan,
    *,
    steps: Sequence[int],
    directory: Path,
    module: str | None,
    use_cached: exports.UseCached,
    on_missing_source: OnMissingSource | None,
    console: Console,
) -> Evaluator:
    """Returns the evaluator of a plan, with its exports, on which all processes agree."""
    group = processes.group()
    placement.require_divisible_batch(plan.batch_size, mesh=run.network.mesh)
    if group.is_first:
        require_writable_directory(directory, setting="The directory of evaluations")
    base = dataclasses.replace(
        run.request,
        module=module or run.request.module,
        on_missing_source=on_missing_source or run.request.on_missing_source,
    )
    exported = group.first_then_others(lambda: _ensure_exports(run, plan, base, use_cached=use_cached))
    for name, manifest in exported.items():
        for line in grouped(manifest.skipped, noun="task"):
            console.print(f"Left out of {name}: {line}", highlight=False, soft_wrap=True)
    group.require_agreement(
        {
            "steps": list(steps),
            "plan": plan.record(),
            "exports": {name: manifest.fingerprint() for name, manifest in exported.items()},
            "versions": provenance.versions(),
        }
    )
    opened = {name: open_members(manifest, export_dir=run.export_dir) for name, manifest in exported.items()}
    return Evaluator(
        plan,
        members=labeled_tasks(suites.members_of(plan.suites, split=plan.split), opened),
        exported=exported,
        export_dir=run.export_dir,
        network=run.network,
        directory=directory,
        console=console,
        print_line=lambda line: console.print(line, highlight=False, soft_wrap=True),
    )


def _folder_name(name: str, split: str) -> str:
    """The folder of the evaluations of a named mixture or task, another one for each name and split."""
    if "-" in split:  # "a-b" and "c" would share a folder with "a" and "b-c".
        return safe_name(f"{name}:{split}")
    return f"{safe_name(name)}-{safe_name(split)}"


def _ensure_exports(
    run: TrainedModel, plan: EvaluationPlan, base: Request, *, use_cached: exports.UseCached
) -> dict[str, MixtureManifest]:
    """Returns the manifests of the plan's exports, by name, all of the run's vocabulary."""
    members = suites.members_of(plan.suites, split=plan.split)
    try:
        manifests = ensure_exports(
            [one.request(base) for one in members],
            export_dir=run.export_dir,
            use_cached=use_cached,
        )
    except UserError as error:
        raise suites.with_needs(error, members) from error
    exported = dict(zip((one.name for one in members), manifests, strict=True))
    refs = {"the run": run.vocabulary_ref, **{name: manifest.vocabulary for name, manifest in exported.items()}}
    require_same_vocabulary(refs, model=run.network.config)
    return exported
