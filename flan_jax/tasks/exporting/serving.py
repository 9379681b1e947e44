"""A worker process's side of `worker`: registers the parent's tasks and exports the splits that it names."""

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flan_jax.data.manifest import Lengths, request_from_json
from flan_jax.errors import UnknownNameError, as_user_error
from flan_jax.tasks import registry
from flan_jax.tasks.exporting.plans import plan
from flan_jax.tasks.exporting.splits import digests_of, export_split, published


def serve() -> None:
    """Runs a worker: reads orders from standard input until it closes; the catalog of collections is installed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Output of imported modules goes to standard error: standard output carries the answers.
    orders = _orders()
    first = orders.get()
    request, export_dir = request_from_json(first["request"]), Path(first["export_dir"])
    registry.prepare(request)
    while True:
        order = orders.get()
        try:
            made = export_one(
                order["task"],
                order["split"],
                lengths=request.lengths,
                export_dir=export_dir,
                module_files=first["files"],
            )
            answer: dict[str, object] = {} if made is None else {"examples": made[0], "fingerprint": made[1]}
        except Exception as error:
            refusal = as_user_error(error)
            if refusal is None:
                raise
            answer = {"error": str(refusal), "traceback": "".join(traceback.format_exception(error))}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def export_one(
    name: str, split: str, *, lengths: Lengths, export_dir: Path, module_files: Sequence[str]
) -> tuple[int, str] | None:
    """Exports one split for another process: returns its number of examples and its fingerprint.

    None when no task of that name can be registered here, as one that only the other process knows.
    """
    try:
        task = registry.resolve(name)
    except UnknownNameError:
        return None
    planned = plan(task, split, lengths=lengths, export_dir=export_dir, module_digests=digests_of(module_files))
    made = published(planned, export_dir) or export_split(planned, export_dir)
    return made.num_examples, planned.fingerprint


def _orders() -> "queue.Queue[dict[str, Any]]":
    """The parent's orders; ends this process when the parent closes its end: it was killed or is finished."""
    orders: queue.Queue[dict[str, Any]] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        os._exit(0)  # Finished shards are on disk; the rest is exported again.

    threading.Thread(target=listen, daemon=True).start()
    return orders
