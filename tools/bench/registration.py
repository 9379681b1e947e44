"""Measures the cost of registration on top of importing SeqIO: time, memory, TensorFlow graphs, connections.

    python tools/bench/registration.py               # the collections of the package
    python tools/bench/registration.py --module gin_configs/tasks/superni.yaml
    python tools/bench/registration.py --prefix flan_ # defines only names that start with flan_

"declared" is `registry.register_all()`, after which names are known and registered on demand. "defined" registers every
name, which no run does: it shows that each one can be registered, and the total cost. Run it on an idle machine: times
are wall time of one core.
"""

import argparse
import socket
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flan_jax.tasks import lazy

PAGE_BYTES = 4096


class Watch:
    """Seconds, memory, graphs and connections since it was created."""

    graphs = 0
    connections = 0

    def __init__(self) -> None:
        self._graphs, self._connections = Watch.graphs, Watch.connections
        self._start, self._bytes = time.perf_counter(), resident_bytes()

    def row(self, what: str, names: int) -> list[str]:
        seconds, grown = time.perf_counter() - self._start, resident_bytes() - self._bytes
        counts = [Watch.graphs - self._graphs, Watch.connections - self._connections]
        return [what, f"{names:,}", f"{seconds:.2f}", f"{grown / 2**20:.1f}", *map(str, counts)]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def count_graphs_and_connections() -> None:
    from tensorflow.python.framework import ops

    make, connect = ops.Graph.__init__, socket.socket.connect

    def made(self, *args, **settings):
        Watch.graphs += 1
        return make(self, *args, **settings)

    def connected(self, address):
        Watch.connections += 1
        return connect(self, address)

    ops.Graph.__init__ = made
    socket.socket.connect = connected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", default="", help="modules and YAML files, as MIXTURE_OR_TASK_MODULE names them")
    parser.add_argument("--prefix", default="", help="of the names to define")
    arguments = parser.parse_args()
    start, before = time.perf_counter(), resident_bytes()
    lazy.import_seqio()
    lazy.import_tfds()
    from flan_jax.collections import catalog
    from flan_jax.tasks import registry, seqio_source  # noqa: F401  (every registration imports them)

    count_graphs_and_connections()
    table = Table("", "names", "seconds", "MiB", "graphs", "connections")
    grown = (resident_bytes() - before) / 2**20
    table.add_row(
        "importing SeqIO and TensorFlow Datasets", "", f"{time.perf_counter() - start:.2f}", f"{grown:.1f}", "", ""
    )
    total = Watch()
    declared = Watch()
    catalog.install()
    registry.use_vocabulary("embedded")
    registry.register_all()
    if arguments.module:
        registry.import_module(arguments.module)
    table.add_row(*declared.row("declared", sum(registry.collections().values()) + len(registry.defined_names())))
    listed = Watch()
    names = [name for name in registry.names() if name.startswith(arguments.prefix)]
    table.add_row(*listed.row("listed", len(names)))
    defined = Watch()
    refused = 0
    for name in names:
        try:
            registry.mixture_or_task(name)
        except (FileNotFoundError, ValueError):  # A mixture whose data is not on this machine.
            refused += 1
    table.add_row(*defined.row("defined", len(names) - refused))
    table.add_section()
    table.add_row(*total.row("all three", len(registry.defined_names())))
    console = Console()
    console.print(table)
    console.print(f"Refused because the data is missing: {refused:,}.")
    console.print(
        "Names by collection: " + ", ".join(f"{name} {count:,}" for name, count in registry.collections().items())
    )


if __name__ == "__main__":
    main()
