"""`flan-jax export`: tasks and mixtures to tokenised shards. Also what the child process of any export runs.

TensorFlow is imported by the child only, inside a function.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from flan_jax import errors
from flan_jax.data import exports
from flan_jax.data.export_process import USER_ERROR_STATUS
from flan_jax.data.manifest import MixtureManifest, OnMissingSource, Request, TaskManifest, read_task, request_from_json
from flan_jax.errors import UserError
from flan_jax.run.terminal import console

SHOWN_TASKS = 50


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
) -> None:
    """Exports splits of a mixture or task to tokenised shards, and prints what became of each.

    What is there and fresh stays; a killed export goes on where it was.

    Args:
      mixture_or_task_name: of a mixture or a task in SeqIO's registries.
      task_feature_lengths: {"inputs": S, "targets": T} in tokens.
      export_dir: where exports lie.
      mixture_or_task_module: what defines it, when the package does not: dotted modules or paths, comma-separated.
      vocabulary: "embedded", "bytes" or a SentencePiece model, for tasks that name none.
      splits: to export, a list or words separated by commas; tasks that lack one are left out and named.
      tfds_data_dir: where TensorFlow Datasets are prepared.
      max_truncated_targets: largest share of a task's targets that may be cut to their length.
      on_missing_source: "error" stops when a member's rows are not on this machine; "skip" leaves such members out and
        says so in the manifest.

    Raises:
      UserError: no task has any of the splits, or whatever else refuses the export; see `flan_jax.tasks.exporting.export`.
    """
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
    manifests = exports.ensure_all(requests, export_dir=export_dir)
    if not any(manifest.members for manifest in manifests):
        reasons = "; ".join(f"{task} {reason}" for task, reason in sorted(manifests[0].skipped.items())[:5])
        raise UserError(f"Nothing of {mixture_or_task_name!r} to export: {reasons}. Choose other splits.")
    print_summary(manifests, export_dir=Path(export_dir).expanduser())


def print_summary(manifests: Sequence[MixtureManifest], *, export_dir: Path) -> None:
    """Prints a table a mixture and split: examples, tokens, what was cut and what was left out, and their sums."""
    from rich.table import Table

    out = console()
    for manifest in manifests:
        title = f"{manifest.request.name} ({manifest.request.split}) in {export_dir}; inputs / targets"
        table = Table(title=title, title_justify="left")
        table.add_column("task", overflow="fold")
        for name in ("examples", "tokens", "cut", "left out", "rate"):
            table.add_column(name, justify="right", no_wrap=True)
        lines = [(member, _numbers(read_task(export_dir / member.path))) for member in manifest.members]
        for member, numbers in lines[:SHOWN_TASKS]:
            table.add_row(member.task, *_cells(numbers), f"{member.rate:g}")
        if len(lines) > SHOWN_TASKS:
            table.add_row(f"... and {len(lines) - SHOWN_TASKS:,} more")
        if len(lines) > 1:
            table.add_section()
            totals = tuple(map(sum, zip(*(numbers for _, numbers in lines), strict=True)))
            table.add_row(f"{len(lines):,} tasks", *_cells(totals))
        out.print(table)
        for note in manifest.notes:
            out.print(note)
        for name, reason in manifest.skipped.items():
            out.print(f"Left out of {manifest.request.name} ({manifest.request.split}): {name} {reason}.")


def _cells(numbers: Sequence[int]) -> tuple[str, str, str, str]:
    examples, input_tokens, target_tokens, inputs_cut, targets_cut, left_out = (f"{n:,}" for n in numbers)
    return examples, f"{input_tokens} / {target_tokens}", f"{inputs_cut} / {targets_cut}", left_out


def _numbers(task: TaskManifest) -> tuple[int, ...]:
    """Examples, tokens of both features, examples cut in either, rows and examples left out."""
    return (
        task.num_examples,
        task.tokens["inputs"],
        task.tokens["targets"],
        task.truncated["inputs"],
        task.truncated["targets"],
        sum(task.dropped.values()),
    )


def _child(order: str, export_dir: str, answer: str) -> int:
    """Runs the requests of a parent; returns the exit status, with the message of a refusal in the file `answer`."""
    _leave_with_parent()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    requests = [request_from_json(value) for value in json.loads(Path(order).read_text())]
    names = ", ".join(f"{request.name} ({request.split})" for request in requests)
    # Loading what the export needs can take a minute the first time.
    print(f"To be exported: {names}. Loading ...", file=sys.stderr, flush=True)
    try:
        from flan_jax.tasks.exporting.export import export_requests

        export_requests(requests, export_dir=export_dir)
    except KeyboardInterrupt:
        return 130
    except errors.UserError as error:
        Path(answer).write_text(errors.message(error))
        return USER_ERROR_STATUS
    return 0


def _leave_with_parent() -> None:
    """Ends this process when the parent's end of standard input closes: the parent was killed outright."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)  # Finished shards lie on disk; the rest is made again.

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:4]))
