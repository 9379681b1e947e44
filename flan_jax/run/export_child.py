"""The processes that export, so that TensorFlow never enters the process that trains.

    a run --(requests)--> export child --(one split at a time)--> export workers

Run as a module: `python -m flan_jax.run.export_child export REQUESTS EXPORT_DIR ANSWER`, or with `worker` alone.
"""

import json
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

from flan_jax.data.manifest import request_from_json
from flan_jax.errors import as_user_error

MODULE = "flan_jax.run.export_child"  # `__name__` is "__main__" in a child.
USER_ERROR_STATUS = 2


def environment() -> dict[str, str]:
    """Returns a child's environment: this process's modules, TensorFlow quiet, no accelerator for either library."""
    paths = [os.path.abspath(path) for path in sys.path]  # "" is the working directory.
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }


def start_worker() -> "subprocess.Popen[str]":
    """Starts a process that exports the splits that it is given; see `flan_jax.tasks.exporting.worker`."""
    # -P: the worker's modules are this process's, not those of the working directory.
    command = [sys.executable, "-P", "-m", MODULE, "worker"]
    return subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def export(order: str, export_dir: str, answer: str) -> int:
    """Exports the requests of a parent.

    Args:
      order: a JSON file, a list of requests.
      export_dir: the export directory.
      answer: the JSON file that receives message and traceback of an error that the user can fix.

    Returns:
      The exit status.
    """
    leave_with_parent()
    requests = [request_from_json(value) for value in json.loads(Path(order).read_text())]
    names = ", ".join(f"{request.name} ({request.split})" for request in requests)
    # Loading what the export needs can take a minute the first time.
    print(f"To be exported: {names}. Loading ...", file=sys.stderr, flush=True)
    try:
        from flan_jax.collections import catalog
        from flan_jax.tasks.exporting.export import export_requests

        catalog.install()
        export_requests(requests, export_dir=export_dir, start_worker=start_worker)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        refusal = as_user_error(error)
        if refusal is None:
            raise
        text = {"message": str(refusal), "traceback": "".join(traceback.format_exception(error))}
        Path(answer).write_text(json.dumps(text))
        return USER_ERROR_STATUS
    return 0


def work() -> None:
    """Runs a worker process until its parent closes the pipe."""
    from flan_jax.collections import catalog
    from flan_jax.tasks.exporting import serving

    catalog.install()
    serving.serve()


def leave_with_parent() -> None:
    """Ends this process when the parent's end of standard input closes: the parent was killed with SIGKILL."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)  # Finished shards are on disk; the rest is exported again.

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.argv[1] == "worker":
        work()
    else:
        sys.exit(export(*sys.argv[2:5]))
