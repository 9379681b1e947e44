"""The exports of a run: reuses exports on disk or creates them in a child process.

The training process must not load TensorFlow. The child shares the terminal, where it shows its progress. It can start
children of its own, which take one split at a time:

    a run --(requests)--> export process --(one split at a time)--> export processes

Run as a module, this is the child.
"""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flan_jax.data import exports
from flan_jax.data.exports import UseCached
from flan_jax.data.manifest import MixtureManifest, Request, TaskMetadata
from flan_jax.settings import from_json
from flan_jax.tasks.exporting.child import Child, serve

_MODULE = "flan_jax.run.export_process"  # `__name__` is "__main__" in a child.


@dataclasses.dataclass(frozen=True, kw_only=True)
class DescribedTask:
    """A task before its export.

    Attributes:
      task: Its name.
      metadata: Of its declaration.
      vocabulary_size: Number of ids.
    """

    task: str
    metadata: TaskMetadata
    vocabulary_size: int


def ensure_exports(
    requests: Sequence[Request],
    *,
    export_dir: Path,
    use_cached: UseCached = "auto",
    processes: int | None = None,
    check: Callable[[list[list[DescribedTask]]], None] | None = None,
) -> tuple[MixtureManifest, ...]:
    """Returns the exports for requests; a child process creates those that are missing or out of date.

    Args:
      requests: The exports of a run.
      export_dir: The export directory.
      use_cached: True never exports; "auto" and False export what is missing or out of date.
      processes: How many processes may export at a time; None for one per core.
      check: Refuses the tasks of the requests before any row is read; not called when nothing is exported.

    Raises:
      UserError: `use_cached` is True and an export is missing or out of date: the fields that differ are named.
      ExportFailed: The export failed with a user error, or its process was killed.
    """

    def exporter(group: Sequence[Request], export_dir: Path) -> None:
        listed = [dataclasses.asdict(request) for request in group]
        with start() as child:
            if check is not None:
                check(_described(child, requests))
            try:
                child.ask(
                    {"requests": listed, "export_dir": str(export_dir), "processes": processes},
                    work=f"exported {', '.join(repr(request.name) for request in group)}",
                )
            except KeyboardInterrupt as stopped:
                stopped.add_note(f"Finished shards are in {export_dir}; the same command exports the others.")
                raise

    return exports.ensure_all(requests, export_dir=export_dir, use_cached=use_cached, exporter=exporter)


def describe(requests: Sequence[Request]) -> list[list[DescribedTask]]:
    """Returns the tasks of each request, from a child process that registers them and reads no rows.

    Raises:
      ExportFailed: A name or a split does not exist, or a module cannot be imported.
    """
    with start() as child:
        return _described(child, requests)


def _described(child: Child, requests: Sequence[Request]) -> list[list[DescribedTask]]:
    order = {"describe": [dataclasses.asdict(request) for request in requests]}
    answer = child.ask(order, work=f"described {', '.join(repr(request.name) for request in requests)}")
    return [[from_json(task, DescribedTask, file="the answer") for task in tasks] for tasks in answer["tasks"]]


def start() -> Child:
    """Starts an export process."""
    return Child(_MODULE)


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Carries out an order: describes requests, exports them or one split of one task, or runs a task's own metrics."""
    if "describe" in order:
        from flan_jax.collections import catalog
        from flan_jax.tasks.exporting.export import described

        catalog.install()
        return {"tasks": described([from_json(value, Request, file="the order") for value in order["describe"]])}
    if "measure" in order:
        from flan_jax.tasks import external_metrics, registry
        from flan_jax.tasks.external import ExternalTask

        request, _ = _prepared(json.dumps(order["request"]))
        task = registry.resolve(order["measure"])
        assert isinstance(task, ExternalTask), order["measure"]
        scores = external_metrics.measure(
            task,
            order["split"],
            lengths=request.lengths,
            generated=dict(order["generated"]),
            are_ids=order["are_ids"],
        )
        return dataclasses.asdict(scores)
    export_dir = Path(order["export_dir"])
    if "requests" in order:
        requests = [from_json(value, Request, file="the order") for value in order["requests"]]
        names = ", ".join(f"{request.name} ({request.split})" for request in requests)
        # Loading what the export needs can take a minute the first time.
        print(f"To be exported: {names}. Loading ...", file=sys.stderr, flush=True)
        from flan_jax.collections import catalog
        from flan_jax.tasks.exporting.export import export_requests

        catalog.install()
        export_requests(requests, export_dir=export_dir, start=start, processes=order["processes"])
        return {}
    from flan_jax.tasks.exporting.export import export_one

    request, files = _prepared(json.dumps(order["request"]))
    return export_one(order["task"], order["split"], request=request, export_dir=export_dir, module_files=files)


@functools.cache  # A process registers the tasks of one request once.
def _prepared(request: str) -> tuple[Request, Sequence[str]]:
    """Returns a request with the user's files that define its tasks, once these are registered."""
    from flan_jax.collections import catalog
    from flan_jax.tasks import registry

    catalog.install()
    prepared = from_json(json.loads(request), Request, file="the order")
    return prepared, registry.prepare(prepared)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    serve(answer)
