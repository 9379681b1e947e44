"""`flan-jax evaluate`: checkpoints of a run on tasks and mixtures."""

import dataclasses
from collections.abc import Mapping, Sequence

from rich.console import Console

from flan_jax import placement, processes, sharding
from flan_jax.data import exports
from flan_jax.data.manifest import MixtureManifest, safe_name
from flan_jax.errors import UserError
from flan_jax.evaluation import report, suite
from flan_jax.models.config import T5Config
from flan_jax.run import provenance
from flan_jax.run.evaluator import Evaluator
from flan_jax.run.network import require_same_vocabulary
from flan_jax.run.trained import Trained, chosen_checkpoints, open_trained


def evaluate(
    *,
    model_dir: str,
    step: int | str = "latest",
    mixture_or_task_name: str | None = None,
    mixture_or_task_module: str | None = None,
    split: str = "validation",
    max_examples_per_task: int | None = None,
    max_decode_length: int | None = None,
    batch_size: int = 32,
    export_dir: str | None = None,
    use_cached_tasks: bool | str = "auto",
    vocabulary: str | None = None,
    task_feature_lengths: Mapping[str, int] | None = None,
    model: T5Config | None = None,
    mesh: sharding.MeshPlan = sharding.MeshPlan(),  # noqa: B008  (frozen)
    show_predictions: int = 0,
) -> None:
    """Evaluates checkpoints; what is not exported yet is exported first. Results go to the run's `eval` folder.

    Args:
      model_dir: a run's directory, or a checkpoint: converted, T5X's or Hugging Face's.
      step: "latest", "all" or a checkpoint's step.
      mixture_or_task_name: what to evaluate on; None is what the run itself evaluates, all examples of it.
      mixture_or_task_module: what registers it; None is the run's own module.
      split: of a named mixture or task.
      max_examples_per_task: examples of each task, spread over its split; None is all.
      max_decode_length: tokens that a prediction may have; None is the export's target length.
      batch_size: rows of a batch.
      export_dir: where exports lie; None is the run's.
      use_cached_tasks: as in `train`.
      vocabulary: of a checkpoint that has none beside it: a SentencePiece model, or "bytes".
      task_feature_lengths: {"inputs": S, "targets": T} in tokens; None is the run's, 512 and 128 for a bare checkpoint.
      model: the network of a checkpoint that does not say what its activations are.
      mesh: devices and sharding rules.
      show_predictions: how many predictions of each suite are printed.

    Raises:
      UserError: there is nothing to evaluate, or another vocabulary than the run's.
      MissingFileError: there is no run, or no such checkpoint.
    """
    group = processes.group()
    console = Console(quiet=not group.is_first)
    run = open_trained(
        model_dir, mesh=mesh, export_dir=export_dir, vocabulary=vocabulary, lengths=task_feature_lengths, model=model
    )
    checkpoints = chosen_checkpoints(run, step)
    place = run.directory.evaluations
    if mixture_or_task_name is not None:
        suites: Mapping[str, Sequence[str]] = {"evaluated": (mixture_or_task_name,)}
        place = place / f"{safe_name(mixture_or_task_name)}-{safe_name(split)}"
    elif run.plan is not None:
        suites, split = run.plan.suites, run.plan.split
    else:
        raise UserError(f"{model_dir} evaluates nothing by itself: give --mixture_or_task_name=NAME.")
    plan = suite.EvaluationPlan(
        suites=suites,
        split=split,
        max_examples_per_task=max_examples_per_task,
        max_decode_length=max_decode_length,
        batch_size=batch_size,
    )
    placement.require_divisible_batch(plan.batch_size, mesh=run.network.mesh)
    exported = group.first_first(lambda: _ensure(run, plan, module=mixture_or_task_module, use_cached=use_cached_tasks))
    fingerprints = {name: manifest.fingerprint() for name, manifest in exported.items()}
    group.require_agreement(
        {
            "steps": list(checkpoints),
            "plan": dataclasses.asdict(plan),
            "exports": fingerprints,
            "versions": provenance.versions(),
        }
    )
    evaluator = Evaluator(
        plan,
        exported=exported,
        export_dir=run.export_dir,
        network=run.network,
        directory=place,
        console=console,
    )
    before = None
    with run.network.within():
        for number, weights in checkpoints.items():
            result = evaluator(number, run.params(weights))
            console.print(report.compare(before, result))
            before = before or result
            if show_predictions and group.is_first:
                console.print(report.predictions(place / str(number), result, per_label=show_predictions))
    console.print(f"Written to {place}.", highlight=False, soft_wrap=True)


def _ensure(
    run: Trained, plan: suite.EvaluationPlan, *, module: str | None, use_cached: bool | str
) -> dict[str, MixtureManifest]:
    """Returns the plan's exports, and refuses those of another vocabulary."""
    names = [name for _, name in plan.members()]
    asked = dataclasses.replace(run.request, split=plan.split, module=module or run.request.module)
    manifests = exports.ensure_all(
        [dataclasses.replace(asked, name=name) for name in names],
        export_dir=run.export_dir,
        use_cached=use_cached,  # type: ignore[arg-type]
    )
    found = dict(zip(names, manifests, strict=True))
    refs = {"the run": run.vocabulary_ref, **{name: manifest.vocabulary for name, manifest in found.items()}}
    require_same_vocabulary(refs, model=run.network.config)
    return found
