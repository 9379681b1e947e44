"""`flan-jax export`: exports tasks and mixtures to tokenized shards."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flan_jax.data.manifest import MixtureManifest, OnMissingSource, Request, TaskManifest, read_task
from flan_jax.errors import UserError
from flan_jax.files import require_writable_directory
from flan_jax.names import counted, grouped
from flan_jax.paths import user_path
from flan_jax.run import export_process

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_TASKS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """The exports that a command wrote or found.

    Attributes:
      manifests: One per split.
      export_dir: The directory that they and their tasks are in.
    """

    manifests: Sequence[MixtureManifest]
    export_dir: Path

    def __rich__(self) -> "RenderableType":
        """Shows a table per split: examples, tokens, truncated and dropped examples, and their sums."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = []
        for manifest in self.manifests:
            parts.append(_table(manifest, export_dir=self.export_dir))
            parts += [Text(note) for note in manifest.notes]
            split = f"{manifest.request.name} ({manifest.request.split})"
            parts += [Text(f"Skipped in {split}: {line}") for line in grouped(manifest.skipped, noun="task")]
        return Group(*parts)


def export(
    *,
    mixture_or_task_name: str,
    task_feature_lengths: Mapping[str, int],
    export_dir: str,
    mixture_or_task_module: str | None = None,
    vocabulary: str | None = None,
    splits: Sequence[str] | str = ("train", "validation"),
    tfds_data_dir: str | None = None,
    max_truncated_targets: float = Request.max_truncated_targets,
    on_missing_source: OnMissingSource = Request.on_missing_source,
    processes: int | None = None,
) -> Exported:
    """Exports splits of a mixture or task to tokenized shards.

    Exports that exist and are fresh are reused; a killed export is resumed.

    Args:
      mixture_or_task_name: A mixture or a task in SeqIO's registries.
      task_feature_lengths: {"inputs": S, "targets": T} in tokens.
      export_dir: The directory of exported tasks.
      mixture_or_task_module: The module that defines it, when the package does not: dotted modules or paths,
        comma-separated.
      vocabulary: "embedded", "bytes" or a SentencePiece model, for tasks that name none.
      splits: The splits to export, a list or a comma-separated string; tasks without one are skipped and named.
      tfds_data_dir: Where TensorFlow Datasets are prepared.
      max_truncated_targets: The largest share of a task's targets that may be truncated.
      on_missing_source: "error" stops when the rows of a member are not on this machine; "skip" leaves such members out
        and records that in the manifest.
      processes: How many processes may export at a time, half a gigabyte of memory each; None for one per core.

    Raises:
      UserError: No task has any of the splits, or the export is refused; see `flan_jax.tasks.exporting.export`.
    """
    require_writable_directory(export_dir, setting="--export_dir")
    requests = [
        Request(
            name=mixture_or_task_name,
            split=split,
            lengths=task_feature_lengths,
            module=mixture_or_task_module,
            vocabulary=vocabulary,
            tfds_data_dir=tfds_data_dir,
            max_truncated_targets=max_truncated_targets,
            on_missing_split="empty",
            on_missing_source=on_missing_source,
        )
        for split in ([word.strip() for word in splits.split(",")] if isinstance(splits, str) else splits)
    ]
    manifests = export_process.ensure_exports(requests, export_dir=user_path(export_dir), processes=processes)
    if not any(manifest.members for manifest in manifests):
        reasons = "".join(f"\n  {line}" for line in grouped(manifests[0].skipped, noun="task"))
        raise UserError(f"Nothing of {mixture_or_task_name!r} to export. Choose other splits.{reasons}")
    return Exported(manifests=manifests, export_dir=user_path(export_dir))


def _table(manifest: MixtureManifest, *, export_dir: Path) -> "RenderableType":
    from rich import box
    from rich.table import Table

    title = f"{manifest.request.name} ({manifest.request.split}) in {export_dir}; inputs / targets"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("task", overflow="fold")
    for name in ("examples", "tokens", "truncated", "dropped", "rate"):
        table.add_column(name, justify="right", no_wrap=True)
    lines = [(member, _numbers(read_task(export_dir / member.path))) for member in manifest.members]
    for member, numbers in lines[:SHOWN_TASKS]:
        table.add_row(member.task, *_cells(numbers), f"{member.rate:g}")
    if len(lines) > SHOWN_TASKS:
        table.add_row(f"... and {len(lines) - SHOWN_TASKS:,} more")
    if len(lines) > 1:
        table.add_section()
        totals = tuple(map(sum, zip(*(numbers for _, numbers in lines), strict=True)))
        table.add_row(counted(len(lines), "task"), *_cells(totals))
    return table


def _cells(numbers: Sequence[int]) -> tuple[str, str, str, str]:
    examples, input_tokens, target_tokens, truncated_inputs, truncated_targets, dropped = (f"{n:,}" for n in numbers)
    return examples, f"{input_tokens} / {target_tokens}", f"{truncated_inputs} / {truncated_targets}", dropped


def _numbers(task: TaskManifest) -> tuple[int, ...]:
    """Examples, tokens and truncated examples of both features, and dropped rows and examples."""
    return (
        task.num_examples,
        task.tokens["inputs"],
        task.tokens["targets"],
        task.truncated["inputs"],
        task.truncated["targets"],
        sum(task.dropped.values()),
    )
