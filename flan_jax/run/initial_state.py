"""The initial state of a run: its own latest checkpoint, an initial checkpoint of any format, or new parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from flan_jax import processes
from flan_jax.checkpoint import formats, reading, starts
from flan_jax.checkpoint.manager import Checkpoints
from flan_jax.checkpoint.trees import named_leaves, unflatten
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import UserError
from flan_jax.models.t5 import model as t5
from flan_jax.optim.selection import Selection
from flan_jax.paths import location
from flan_jax.run.identity import METADATA_KEY, refuse_other_run
from flan_jax.run.network import Network
from flan_jax.run.run_config import RunConfig
from flan_jax.train.state import TrainState, new_state
from flan_jax.vocab import SentencePieceVocabulary


def initial_state(
    config: RunConfig,
    network: Network,
    checkpoints: Checkpoints,
    *,
    abstract: TrainState,
    identity: Mapping[str, Any],
    console: Console,
) -> tuple[TrainState, Mapping[str, Any] | None]:
    """Returns the initial state and, when it was restored from the run's own checkpoint, the position of its feed.

    In this order: the run's latest checkpoint; what `config.start` restores from the initial checkpoint; new
    parameters.

    Args:
      config: The run's configuration.
      network: The network on its mesh.
      checkpoints: The run's own checkpoints.
      abstract: The shapes and shardings of the state.
      identity: The run identity, which the run's latest checkpoint must have.
      console: Where to print what was restored.

    Raises:
      UserError: A checkpoint does not fit, or was written by another run; the text names each differing leaf or field.
    """
    latest = processes.group().broadcast(checkpoints.latest_step())
    if latest is not None:
        _require_own_checkpoint(checkpoints.directory, latest, identity=identity)
        restored = checkpoints.restore(abstract, step=latest)
        state: TrainState = restored.state
        return state, restored.data_state
    path, rng = config.initial_checkpoint_path, jax.random.key(config.seed)
    if path is None:
        where = jax.tree.map(lambda leaf: leaf.sharding, abstract.params)
        params = t5.init_params(network.config, rng=rng, out_shardings=where)
        return fresh_state(params, abstract, config.optimizer), None
    weights = formats.open_weights(location(path), step=config.start.step, strict=config.strict)
    _require_vocabulary(weights, identity["vocabulary"], console=console)
    params = _params(weights, abstract.params, config.start, network=network, rng=rng, console=console)
    if config.start.restore == "params":
        return fresh_state(params, abstract, config.optimizer), None
    return _with_optimizer(weights, abstract, params, total_steps=config.cadence.total_steps), None


def _require_own_checkpoint(directory: Any, step: int, *, identity: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that another run wrote, before any of its arrays is read."""
    checkpoint = reading.find(directory, step=step)
    stored = reading.read_json(checkpoint, "metadata").get(METADATA_KEY, {})
    refuse_other_run(stored, identity, where=f"The checkpoint {checkpoint}")


def fresh_state(params: Any, abstract: TrainState, optimizer: Selection) -> TrainState:
    """Returns the state before the first step. The parameters bypass the program that initializes the rest.

    Args:
      params: The parameters, with their final shardings.
      abstract: The shapes and shardings of the state.
      optimizer: Initializes the optimizer's state.
    """

    def rest(params: Any) -> TrainState:
        return dataclasses.replace(new_state(params, optimizer=optimizer.transformation), params=None)

    where = jax.tree.map(lambda leaf: leaf.sharding, dataclasses.replace(abstract, params=None))
    state: TrainState = jax.jit(rest, out_shardings=where)(params)
    return dataclasses.replace(state, params=params)


def _params(
    weights: Weights, abstract: Any, start: starts.Start, *, network: Network, rng: jax.Array, console: Console
) -> Any:
    """Returns the run's parameters on the mesh: restored ones, and the others initialized."""
    rows = starts.plan(weights, abstract, start, config=network.config)
    restored = starts.restored_params(weights, rows, abstract)
    missing = {name: leaf for name, leaf in named_leaves(abstract).items() if name not in restored}
    if missing:  # The same values as in a run without an initial checkpoint.
        where = {name: leaf.sharding for name, leaf in missing.items()}
        restored |= t5.init_subset(network.config, rng=rng, out_shardings=where)
    _report_restored(weights, rows, console=console)
    return unflatten(restored, abstract)


def _with_optimizer(weights: Weights, abstract: TrainState, params: Any, *, total_steps: int) -> TrainState:
    """Returns the state of the checkpoint's own run, with its step and second moments."""
    opt_state = starts.restored_optimizer(weights, abstract.opt_state, params=named_leaves(params))
    assert weights.step is not None
    if weights.step >= total_steps:
        raise UserError(
            f"{weights.path} is at step {weights.step:,}, and TRAIN_STEPS is {total_steps:,}: there are no steps "
            "left. Steps continue from the checkpoint's; set a larger TRAIN_STEPS."
        )
    step = jax.device_put(jnp.asarray(weights.step, jnp.int32), abstract.step.sharding)
    return dataclasses.replace(abstract, step=step, params=params, opt_state=unflatten(opt_state, abstract.opt_state))


def _require_vocabulary(weights: Weights, digest: str, *, console: Console) -> None:
    """Refuses weights of another vocabulary, if they record theirs."""
    stored = weights.metadata.get("vocabulary_digest")
    if stored is None and isinstance(weights.vocabulary, SentencePieceVocabulary):
        stored = weights.vocabulary.digest
    if stored is None:
        console.print(
            f"{weights.path} does not record the vocabulary that it was trained with: it could not be compared.",
            highlight=False,
            soft_wrap=True,
        )
    elif stored != digest:
        raise UserError(
            f"{weights.path} was trained with another vocabulary (vocabulary_digest {stored[:12]}) than this run's "
            f"tasks ({digest[:12]}): its embeddings belong to other tokens. Set VOCABULARY to its own."
        )


def _report_restored(weights: Weights, rows: list[starts.Row], *, console: Console) -> None:
    """Prints the source of every leaf: in one line when all were restored, otherwise one line per group of layers."""
    source = f"{weights.path} ({weights.layout})"
    if all(row.name == row.source for row in rows):
        lines = [f"all {len(rows):,} parameters restored from {source}, {rows[0].dtype}"]
    else:
        groups = starts.grouped(rows)
        width = max(len(group["parameter"]) for group in groups)
        lines = [f"parameters, and their source in {source}:"]
        lines += [
            f"  {group['parameter']:<{width}}  {group['leaves']:>3}  {' x '.join(map(str, group['shape'])):<16}  "
            f"{group['from']}"
            for group in groups
        ]
    for line in (*weights.warnings, *lines, *weights.notes):
        console.print(line, highlight=False, soft_wrap=True)
