"""Rows with predictions: computed as they are read, and written so that a killed process can continue."""

import contextlib
import dataclasses
import glob
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

from rich.console import Console

from flan_jax import processes
from flan_jax.errors import UserError
from flan_jax.files import accessing, require_writable_directory
from flan_jax.locks import locked
from flan_jax.names import counted
from flan_jax.partial_file import PartialFile
from flan_jax.paths import user_path
from flan_jax.tasks.prompting import PREDICTION, PromptedRow
from flan_jax.train.console import QUIET

Row = Mapping[str, Any]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """Rows of an input, each with its `prediction`; nothing is computed before the first row is read.

    Attributes:
      identity: Returns a digest of the weights and all settings that decide the predictions. Reads all weights, so it
        is called only for a file that a later call may continue.
      rows: Returns the rows with their prompts; those of standard input only once.
      predict: Returns rows with predictions, a few at a time.
      reads: The file that the rows come from; None for standard input.
      console: Where notes are printed.
      converse: Answers what is typed at a terminal, one input after the other; None if the rows come from elsewhere.
    """

    identity: Callable[[], str]
    rows: Callable[[], Iterator[PromptedRow]]
    predict: Callable[[Iterator[PromptedRow]], Iterator[Row]]
    reads: Path | None = None
    console: Console = QUIET
    converse: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Row]:
        return self.predict(self.rows())


def write_predictions(predictions: Predictions, output: str) -> int:
    """Writes all rows as JSONL; of several processes every one computes, and only the first writes.

    Rows go to `<output>.partial`, with their identity in a file next to it. A later call for the same identity appends
    the rows that are missing; the file gets its name when it is complete.

    Args:
      predictions: The rows to write.
      output: The path of a .jsonl file, or "-" for standard output.

    Returns:
      The number of rows of the complete output.

    Raises:
      UserError: The partial file was written with other weights, other rows or other settings.
    """
    group = processes.group()
    rows = predictions.rows()
    partial, done = None, 0
    with contextlib.ExitStack() as stack:
        append: Callable[[str], object] = _print_line
        if group.is_first and output != "-":
            path = _require_file(user_path(output))
            if predictions.reads is not None and predictions.reads.resolve() == path:
                raise UserError(f"--output is {output!r}, the file that the rows are read from. Give another path.")
            leftovers = (f".{glob.escape(path.name)}.partial.*",)
            lock = path.with_name(f".{path.name}.lock")
            stack.enter_context(locked(lock, what=f"--output={output}", leftovers=leftovers))
            if path.exists():
                predictions.console.print(f"{path} exists; the new predictions replace it when all are computed.")
            partial = PartialFile(path, identity=predictions.identity())
            if not partial.open():
                raise _another_job(partial.path)
            stack.callback(_remove_empty, partial)
            done = _finished_rows(partial, rows)
            append = stack.enter_context(partial.appending())
        count: int = group.broadcast(done)
        if not group.is_first:  # The first process has read them to compare them.
            next(itertools.islice(rows, count, count), None)
        try:
            for row in predictions.predict(rows):
                count += 1
                if group.is_first:
                    append(_line(row))
        except KeyboardInterrupt as stopped:
            if partial is not None and count:
                stopped.add_note(f"{counted(count, 'row')} are in {partial.path}; the same command adds the others.")
            raise
        if partial is not None:
            partial.publish()
    return count


def _require_file(output: Path) -> Path:
    """Returns the path of an output that can be written."""
    output = output.resolve()  # A link stays a link, and two names of one file have one lock.
    if output.exists() and not output.is_file():
        kind = "a directory" if output.is_dir() else "no regular file"
        raise UserError(f"--output is {str(output)!r}, which is {kind}. Give a .jsonl file, or - for a pipe.")
    require_writable_directory(output.parent, setting="The directory of --output")
    return output


def _finished_rows(partial: PartialFile, rows: Iterator[PromptedRow]) -> int:
    """Returns how many rows a file has, after comparing each with its row of the input.

    Raises:
      UserError: The file has other rows.
    """
    done = 0
    for line in partial.lines():
        prompted = next(rows, None)
        if prompted is None or not line.startswith(_line({**prompted.row, PREDICTION: ""})[:-3].encode()):
            raise _another_job(partial.path)
        done += 1
    return done


def _print_line(line: str) -> None:
    with accessing("-", setting="--output", action="written"):
        sys.stdout.write(line)
        sys.stdout.flush()


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _another_job(partial: Path) -> UserError:
    return UserError(
        f"{partial} was written with another checkpoint, input, template or setting. Delete it, or choose another "
        "output."
    )


def _remove_empty(partial: PartialFile) -> None:
    """Removes a file in which no row was written, so that the next call may have other settings."""
    if partial.path.exists() and not partial.path.stat().st_size:
        partial.remove()
