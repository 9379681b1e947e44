"""The command line with notes of every example that is read, and faults on demand; settings are environment variables.

NOTES: a file to which every read appends a JSON line, [task, numbers of examples].
FAILS_AT, FAILS_AS: the draw of a batch that raises an error, and of whom: a "user" or a "defect".
STALLS_AT, RELEASE: the draw of a batch that waits until the file RELEASE exists, so that a signal always meets a run
  that is still training, however busy the machine is.
JAX_SAYS: the version of JAX that this process reports.
STALLS_AFTER_PREDICTIONS: the number of predictions after which an evaluation creates the file `stalled` in its
  directory and waits to be killed.
"""

import contextlib
import itertools
import json
import os
import sys
import time
from pathlib import Path

from flan_jax import cli
from flan_jax.data.loader import TrainFeed
from flan_jax.data.source import ExportedTask
from flan_jax.errors import UserError
from flan_jax.evaluation import suite
from flan_jax.partial_file import PartialFile
from flan_jax.run import provenance

read, draw, versions = ExportedTask.read, TrainFeed.__next__, provenance.versions
draws = itertools.count(1)


def noting(self, numbers):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps([self.manifest.task, [int(n) for n in numbers]]) + "\n")
    return read(self, numbers)


def disturbed(self):
    number = str(next(draws))
    if number == os.environ.get("FAILS_AT"):
        raise {"user": UserError, "defect": KeyError}[os.environ["FAILS_AS"]]("pyhton")
    while number == os.environ.get("STALLS_AT") and not Path(os.environ["RELEASE"]).exists():
        time.sleep(0.01)
    return draw(self)


class StallingFile(PartialFile):
    """Appends so many lines, of all files together, and then waits."""

    left = int(os.environ.get("STALLS_AFTER_PREDICTIONS") or 0)

    @contextlib.contextmanager
    def appending(self):
        with super().appending() as append:

            def stalling(line):
                append(line)
                StallingFile.left -= 1
                if StallingFile.left == 0:
                    self.path.with_name("stalled").touch()
                    time.sleep(600)

            yield stalling


TrainFeed.__next__ = disturbed
if StallingFile.left:
    suite.PartialFile = StallingFile
if "NOTES" in os.environ:
    ExportedTask.read = noting
if "JAX_SAYS" in os.environ:
    provenance.versions = lambda: {**versions(), "jax": os.environ["JAX_SAYS"]}
sys.exit(cli.run(sys.argv[1:]))
