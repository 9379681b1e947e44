"""An output whose lines are computed one by one, and which a later process continues if the first one was killed.

    <output>.partial            the lines so far; the last one may be incomplete
    <output>.partial.identity   the identity of the computation that they belong to

A leaf: any module may import it. The caller holds a lock on the output.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from flan_jax.files import accessing, write_atomic


@final
class PartialFile:
    """The lines of an output that is not complete.

    Attributes:
      path: The file of the lines.
    """

    def __init__(self, output: Path, *, identity: str):
        """Opens nothing.

        Args:
          output: The path of the complete output.
          identity: A digest of everything that decides the lines.
        """
        self.path = output.with_name(f"{output.name}.partial")
        self._output = output
        self._identity = identity
        self._identity_file = output.with_name(f"{output.name}.partial.identity")

    def open(self) -> bool:
        """Creates the file if there is none; returns False if it belongs to another computation."""
        if self.path.exists():
            return self._identity_file.exists() and self._identity_file.read_text() == self._identity
        write_atomic(self._identity_file, self._identity)  # First: lines without identity would never be continued.
        self.path.touch()
        return True

    def lines(self) -> Iterator[bytes]:
        r"""Yields the complete lines, and then removes what follows them, which a killed process left.

        Bytes, so that only \n ends a line: texts may hold other characters that Python counts as ends of lines.
        """
        end = 0
        with open(self.path, "r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                yield line
                end += len(line)
            file.truncate(end)

    @contextmanager
    def appending(self) -> Iterator[Callable[[str], None]]:
        """Returns the function that appends a line; it has reached the operating system when the function returns."""
        with accessing(self.path, setting="The output", action="written"), open(self.path, "ab") as file:

            def append(line: str) -> None:
                with accessing(self.path, setting="The output", action="written"):
                    file.write(line.encode())
                    file.flush()

            yield append

    def publish(self) -> None:
        """Gives the file, which is complete, the name of the output."""
        self.path.rename(self._output)
        self._identity_file.unlink()

    def remove(self) -> None:
        """Removes the file; there may be none."""
        self.path.unlink(missing_ok=True)
        self._identity_file.unlink(missing_ok=True)
