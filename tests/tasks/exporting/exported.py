"""One split of one task, exported as a mixture's member is."""

from pathlib import Path

from flan_jax.tasks import registry
from flan_jax.tasks.exporting.plans import plan
from flan_jax.tasks.exporting.splits import export_split


def export_task(task, split, *, lengths, export_dir):
    """Exports a split of a SeqIO task and returns its manifest."""
    return export_split(plan(registry.of_seqio(task), split, lengths=lengths, export_dir=Path(export_dir)), export_dir)
