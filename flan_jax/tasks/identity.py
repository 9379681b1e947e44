"""The identity of a templated task: digests of everything that its texts depend on.

Equal identities give equal texts. The export's fingerprint adds what tokenization depends on (vocabulary, lengths).
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

from flan_jax.files import sha256_of
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.templates import options
from flan_jax.templates.render import digest

DEEPEST = 6  # Nested objects of a normalizer that are described.


def identity(task: TemplatedTask, split: str) -> dict[str, Any]:
    """Returns everything that decides the texts of a split, as JSON values.

    Args:
      task: The declaration.
      split: One of its source's; its rows are read, or their files digested.

    Raises:
      MissingFileError, UserError: The source cannot be read.
    """
    return {
        "kind": "templated",
        "source_revision": task.source.revision(split),
        "on_bad_row": task.source.on_bad_row,
        "templates_digest": digest(task.templates),
        "options_digest": sha256_of(task.options),
        "references": task.references,
        "normalizer_digest": sha256_of(described(task.normalizer)),
        "templates_per_row": task.renderings_per_row(split),
        "evaluation": task.evaluation,
        "max_rows": task.max_rows,
        "group": task.group,
        "ends_inputs": task.ends_inputs,
        "filters": [[described(rule), rule.revision()] for rule in task.filters],
        "few_shot": _few_shot(task),
        "varied_options": sha256_of(options.pools()) if task.varied_options else None,
        # Draws are keyed by the task's name, which is in the fingerprint anyway.
        "seed": task.seed,
    }


def _few_shot(task: TemplatedTask) -> Any:
    """The settings of few-shot prompts, and the revision of the rows that exemplars come from."""
    if task.few_shot is None:
        return None
    settings = {f.name: getattr(task.few_shot, f.name) for f in dataclasses.fields(task.few_shot) if f.name != "pool"}
    settings["formats"] = [dataclasses.asdict(form) for form in task.few_shot.formats]
    pool = task.few_shot.pool
    return [settings, task.source.revision(TRAIN_SPLIT) if pool is None else identity(pool, TRAIN_SPLIT)]


def described(value: object, *, depth: int = 0) -> Any:
    """Returns JSON values that change when a function changes: its source, its defaults, its closure.

    Functions that it calls by name are not followed: the manifest's digests of module files cover those. Nothing here
    depends on addresses or on the process.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if depth >= DEEPEST:
        return type(value).__qualname__
    inner = functools.partial(described, depth=depth + 1)
    if isinstance(value, (list, tuple)):
        return [inner(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(v) for v in value)
    if isinstance(value, Mapping):
        return [[inner(k), inner(v)] for k, v in value.items()]
    if isinstance(value, functools.partial):
        return ["partial", inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, types.MethodType):
        return ["method", inner(value.__func__), inner(value.__self__)]
    if isinstance(value, types.FunctionType):
        enclosed = [_content(cell) for cell in value.__closure__ or ()]
        return ["function", _source(value), inner(value.__defaults__), inner(value.__kwdefaults__), inner(enclosed)]
    if isinstance(value, type):
        return ["type", _source(value)]
    if dataclasses.is_dataclass(value):
        fields = [[f.name, inner(getattr(value, f.name))] for f in dataclasses.fields(value)]
        return ["object", _source(type(value)), fields]
    if type(value).__repr__ is object.__repr__:
        return ["object", _source(type(value)), inner(vars(value)) if hasattr(value, "__dict__") else None]
    return [type(value).__qualname__, repr(value)]


def _source(value: types.FunctionType | type) -> str:
    """The source text; the qualified name where there is none, as for compiled or interactive code."""
    # Cached: finding it takes milliseconds, and the tasks of a collection share it; 790 of them would take half a
    # minute.
    cached: Callable[[Any], str] = _found_source
    return cached(value)


@functools.cache
def _found_source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return f"{value.__module__}.{value.__qualname__}"


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # Not assigned yet: a function that encloses itself while it is being defined.
        return None
