"""The data of one run: opened exports of the training mixture and of what is evaluated, checked against each other."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from flan_jax import placement, processes, vocab
from flan_jax.collections import suites
from flan_jax.data.loader import TrainFeed
from flan_jax.data.manifest import MixtureManifest, Request, TaskMetadata, VocabularyRef
from flan_jax.data.source import ExportedTask, open_members
from flan_jax.errors import UserError
from flan_jax.evaluation import score_names, suite
from flan_jax.models.t5.config import T5Config
from flan_jax.run import export_process
from flan_jax.run.held_out import require_held_out
from flan_jax.run.run_config import RunConfig, require_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """Exports that exist, are fresh, share one vocabulary, and do not leak what is held out.

    Attributes:
      mixture: The manifest of the training mixture.
      members: Its tasks, open for reading.
      evaluated: The manifests of what is evaluated, by the name of the mixture or task.
      labeled: The tasks that are evaluated, open for reading; empty without an evaluation.
      hold_out: The hold-out and the leaks that are allowed, for `run.json`; None when nothing is held out.
    """

    mixture: MixtureManifest
    members: Sequence[ExportedTask]
    evaluated: Mapping[str, MixtureManifest]
    labeled: Sequence[suite.Labeled]
    hold_out: Mapping[str, Any] | None

    @property
    def member_names(self) -> set[str]:
        """The names of the tasks that are trained on; a mixture's own name is none of them."""
        return {member.task for member in self.mixture.members}

    @property
    def truncated(self) -> dict[str, float]:
        """The share of examples that the lengths truncate, per feature; without those that are complete."""
        counts = Counter[str]()
        for task in self.members:
            counts.update(task.manifest.truncated)
        return {feature: count / self.mixture.num_examples for feature, count in sorted(counts.items()) if count}

    def feed(self, config: RunConfig, mesh: jax.sharding.Mesh) -> TrainFeed:
        """Returns the feed of the rows that belong on this process's devices, at its beginning."""
        index, count = placement.reading_share(mesh)
        return TrainFeed(
            {task.manifest.task: task for task in self.members},
            {member.task: member.rate for member in self.mixture.members},
            seed=config.seed,
            batch_size=config.batch_size,
            lengths=self.mixture.request.lengths,
            strategy=config.packing_strategy,
            process_index=index,
            process_count=count,
        )


def open_data(config: RunConfig) -> RunData:
    """Opens the data of a run; the first process exports what is missing.

    Raises:
      UserError: An export is missing and may not be made, the vocabularies differ, the mixture leaks held-out tasks, or
        a score is watched that the evaluation will not have.
    """
    mixture, evaluated = processes.group().first_then_others(lambda: _ensure_exports(config))
    members = open_members(mixture, export_dir=config.export_dir)
    opened = {name: open_members(manifest, export_dir=config.export_dir) for name, manifest in evaluated.items()}
    labeled: Sequence[suite.Labeled] = ()
    if config.evaluation is not None:
        labeled = labeled_tasks(_evaluated_members(config), opened)
        _require_scores(config, [(one.label, one.task.manifest.task, one.task.manifest.metadata) for one in labeled])
    hold_out = require_held_out(members, config.evaluation, opened, mixture=mixture, allow_leak=config.allow_leak)
    return RunData(mixture=mixture, members=members, evaluated=evaluated, labeled=labeled, hold_out=hold_out)


def check_data(config: RunConfig) -> None:
    """Checks what can be known of a run's data before any row is read; takes a child process that registers the tasks.

    Raises:
      UserError: A mixture, task or split does not exist, a module cannot be imported, a vocabulary has more ids than
        the model has embeddings, or a score is watched that the evaluation will not have.
    """
    _check_described(config, export_process.describe(_requests(config)))


def _check_described(config: RunConfig, described: Sequence[Sequence[export_process.DescribedTask]]) -> None:
    labels = [one.label for one in _evaluated_members(config)]
    trained, *evaluated = described
    for task in (task for tasks in (trained, *evaluated) for task in tasks):
        require_rows(f"The vocabulary of task {task.task!r}", task.vocabulary_size, config.model)
    pairs = [(label, task) for label, tasks in zip(labels, evaluated, strict=True) for task in tasks]
    _require_scores(config, [(label, task.task, task.metadata) for label, task in pairs])


def _require_scores(config: RunConfig, tasks: Sequence[tuple[str, str, TaskMetadata]]) -> None:
    for setting, score in config.watched_scores.items():
        published = [one.label for one in _evaluated_members(config) if one.suite is not None]
        score_names.require_known(score, tasks, suites=published, setting=setting)


def require_same_vocabulary(refs: Mapping[str, VocabularyRef], *, model: T5Config) -> None:
    """Checks that several exports have one vocabulary, and that the model has an embedding for each id.

    Args:
      refs: The vocabularies by the name of the mixture or task.
      model: The model that is trained or evaluated on them.

    Raises:
      UserError: The vocabularies differ, or the embedding table is too small.
    """
    first, *others = refs
    for name in others:
        if refs[name].digest != refs[first].digest:
            raise UserError(
                f"{name!r} was exported with another vocabulary ({refs[name].size} ids, digest "
                f"{refs[name].digest[:12]}) than {first!r} ({refs[first].size} ids, digest {refs[first].digest[:12]}). "
                "Use one VOCABULARY for all of them."
            )
    require_rows(f"The vocabulary of {first!r}", refs[first].size, model)


def _ensure_exports(config: RunConfig) -> tuple[MixtureManifest, dict[str, MixtureManifest]]:
    """Returns the manifests of the mixture and of what is evaluated; all requests go to one export process."""
    data, requests = config.data, _requests(config)
    mixture, *others = export_process.ensure_exports(
        requests,
        export_dir=config.export_dir,
        use_cached=config.use_cached_tasks,
        check=functools.partial(_check_described, config),
    )
    evaluated = dict(zip((request.name for request in requests[1:]), others, strict=True))
    refs = {name: manifest.vocabulary for name, manifest in {data.name: mixture, **evaluated}.items()}
    require_same_vocabulary(refs, model=config.model)
    _require_requested_vocabulary(mixture.vocabulary, requested=data.vocabulary, name=data.name)
    return mixture, evaluated


def _requests(config: RunConfig) -> list[Request]:
    """The exports of a run: of the training mixture, then of each member of the evaluation."""
    data = config.data
    return [data, *(one.request(data) for one in _evaluated_members(config))]


def _evaluated_members(config: RunConfig) -> list[suites.Member]:
    plan = config.evaluation
    return suites.members_of(plan.suites, split=plan.split) if plan else []


def labeled_tasks(
    members: Sequence[suites.Member], opened: Mapping[str, Sequence[ExportedTask]]
) -> tuple[suite.Labeled, ...]:
    """Returns the tasks of an evaluation under their labels, those of published suites with their groups.

    Args:
      members: What the evaluation covers.
      opened: The exported tasks of each member, by its name.

    Raises:
      UserError: A task is under two labels, a label has two rules, or there are no tasks.
    """
    rules: dict[str, str] = {}
    for one in members:
        rule = "" if one.suite is None else one.suite.aggregation
        if rules.setdefault(one.label, rule) != rule:
            raise UserError(
                f"The label {one.label!r} of the evaluation has suites or mixtures with different rules for one score. "
                "Give each a label of its own."
            )
    suite_of = {task.manifest.task: one.suite for one in members if one.suite for task in opened[one.name]}
    return tuple(
        dataclasses.replace(
            one,
            group=published.group_of(one.task.manifest.task, one.task.manifest.metadata.cluster),
            aggregation=published.aggregation,
        )
        if (published := suite_of.get(one.task.manifest.task)) is not None
        else one
        for one in suite.labeled((one.label, opened[one.name]) for one in members)
    )


def _require_requested_vocabulary(ref: VocabularyRef, *, requested: str | None, name: str) -> None:
    """Refuses an export whose tasks bring another vocabulary than the one that the recipe names."""
    if requested is None:
        return
    expected = vocab.load(requested)
    if expected.digest != ref.digest:
        raise UserError(
            f"VOCABULARY is {requested!r} ({expected.size} ids, digest {expected.digest[:12]}), but the tasks of "
            f"{name!r} have their own ({ref.size} ids, digest {ref.digest[:12]}). Set VOCABULARY = None to use theirs."
        )
