"""`flan-jax train`: one run, from the name of a mixture to checkpoints, metrics and evaluations."""

import contextlib
import dataclasses

from rich.console import Console

from flan_jax import placement, processes
from flan_jax.files import require_writable_directory
from flan_jax.run.directory import RunDirectory
from flan_jax.run.identity import shared_settings
from flan_jax.run.network import Network
from flan_jax.run.run_config import RunConfig
from flan_jax.run.run_data import open_data
from flan_jax.run.summary import FinishedRun
from flan_jax.run.training import Run
from flan_jax.train.console import QUIET
from flan_jax.train.start_up import StartUp


def train(config: RunConfig, *, console: Console = QUIET, resolved_config: str | None = None) -> FinishedRun:
    """Trains a T5 on a SeqIO mixture; what is not exported yet is exported first, in a child process.

    The same call resumes a run that was stopped or killed.

    Args:
      config: The run.
      console: Where progress is printed.
      resolved_config: The complete configuration as gin text, for the run directory.

    Returns:
      How the run ended.

    Raises:
      UserError: The recipe, an export, the run directory or this machine does not allow the run.
    """
    start_up, group = StartUp(), processes.group()
    if group.count > 1:
        group.require_agreement(shared_settings(config))
    if group.is_first:
        require_writable_directory(config.model_dir, setting="MODEL_DIR")
        if config.use_cached_tasks is not True:
            require_writable_directory(config.export_dir, setting="EXPORT_DIR")
    with start_up.phase("devices"):
        network = Network(config.model, plan=config.mesh, execution=config.execution, lengths=config.data.lengths)
        num_microbatches = network.microbatches(config.num_microbatches, batch_size=config.batch_size)
        if config.evaluation is not None:
            placement.require_divisible_batch(config.evaluation.batch_size, mesh=network.mesh)
    with start_up.phase("exports"):
        data = open_data(config)
    with RunDirectory(path=config.model_dir).locked() if group.is_first else contextlib.nullcontext("") as note:
        if note:
            console.print(note, highlight=False, soft_wrap=True)
        run = Run(
            dataclasses.replace(config, num_microbatches=num_microbatches),
            network=network,
            data=data,
            console=console,
            start_up=start_up,
            resolved_config=resolved_config,
        )
        return run.train()
