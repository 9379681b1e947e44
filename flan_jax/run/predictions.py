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

from flan_jax import processes
from flan_jax.errors import UserError
from flan_jax.files import accessing, remove_temporary, require_writable_directory, write_atomic
from flan_jax.locks import locked
from flan_jax.paths import user_path

Row = Mapping[str, Any]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """Rows of an input, each with its `prediction`; nothing is computed before the first row is read.

    Attributes:
      identity: Returns a digest of the weights, the input and all settings that decide the rows. Reads all weights, so
        it is called only for a file that a later call may continue.
      count: The number of rows.
      compute: Returns the rows from the one with a given index on.
    """

    identity: Callable[[], str]
    count: int
    compute: Callable[[int], Iterator[Row]]

    def __iter__(self) -> Iterator[Row]:
        return self.compute(0)


def write_predictions(predictions: Predictions, output: str) -> None:
    """Writes all rows as JSONL; of several processes every one computes, and only the first writes.

    Rows go to `<output>.partial`, with their identity in a file next to it. A later call for the same identity appends
    the rows that are missing; the file gets its name when it is complete.

    Args:
      predictions: What to write.
      output: The path of a .jsonl file, or "-" for standard output.

    Raises:
      UserError: The partial file was written with other weights, another input or other settings.
    """
    group = processes.group()
    partial, done = None, 0
    with contextlib.ExitStack() as stack:
        if group.is_first and output != "-":
            path = _require_file(user_path(output))
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), what=f"--output={output}"))
            remove_temporary(path.parent, f".{glob.escape(path.name)}.partial.*")
            partial, done = _open_partial(path, predictions.identity())
        file = sys.stdout if partial is None else stack.enter_context(open(partial, "a", encoding="utf-8"))
        for row in predictions.compute(group.broadcast(done)):
            if group.is_first:
                with accessing(output, setting="--output", action="written"):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    file.flush()
        if partial is not None:
            partial.rename(user_path(output))
            _identity_file(partial).unlink()


def _require_file(output: Path) -> Path:
    """Returns the path of an output that can be written."""
    if output.is_dir():
        raise UserError(f"--output is {str(output)!r}, which is a directory. Give the path of a .jsonl file.")
    require_writable_directory(output.parent, setting="The directory of --output")
    return output


def _open_partial(output: Path, identity: str) -> tuple[Path, int]:
    """Returns the file to append to, and how many rows it has."""
    partial = output.with_name(f"{output.name}.partial")
    identity_file = _identity_file(partial)
    if not partial.exists():
        partial.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(identity_file, identity)
        return partial, 0
    if not identity_file.exists() or identity_file.read_text() != identity:
        raise UserError(
            f"{partial} was written with another checkpoint, input, template or setting. Delete it, or choose another "
            "output."
        )
    lines = partial.read_text(encoding="utf-8").splitlines(keepends=True)
    # Drops the truncated last line of a process that was killed while it wrote.
    complete = list(itertools.takewhile(lambda line: line.endswith("\n"), lines))
    write_atomic(partial, "".join(complete))
    return partial, len(complete)


def _identity_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.identity")
