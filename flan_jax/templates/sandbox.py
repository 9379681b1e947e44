"""Jinja text under guard: templates that others wrote are filled in and can run nothing, read nothing, wait for ever.

The language is promptsource's (Bach et al. 2022, arXiv:2202.01279): Jinja with `zip`, `most_frequent` and `choice`.
What templates mean is left to `promptsource`.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment, SecurityError

from flan_jax.draws import Draws

MAX_STEPS = 100_000
"""Of a rendering: calls, and numbers that `range` gives. Without it a list that grows while it is iterated over
would loop forever."""
_RUN = "the run"  # No template can name it: it has a space.


class _Run:
    """The state of one rendering: its draws, made when the first is asked for, and the steps that it has left."""

    def __init__(self, start: Callable[[], Draws]):
        self._start, self._steps = start, MAX_STEPS

    @functools.cached_property
    def draws(self) -> Draws:
        return self._start()

    def spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise SecurityError(f"more than {MAX_STEPS:,} steps")


class _Sandbox(SandboxedEnvironment):
    """Jinja's sandbox, which here refuses at once instead of giving an empty text.

    Lists and mappings can be changed: a tenth of promptsource's templates build their own. Rows are copied before.
    """

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"the attribute {attribute!r} of {type(obj).__name__!r}")

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __context[_RUN].spend(1)
        return super().call(__context, __obj, *args, **kwargs)


@functools.cache
def _environment() -> _Sandbox:
    environment = _Sandbox()
    environment.globals.update(zip=zip, range=_range)
    environment.globals.pop("lipsum")  # Draws by itself, from no seed.
    environment.filters.update(choice=_choice, random=_random, most_frequent=most_frequent)
    return environment


@functools.lru_cache(maxsize=4096)
def compiled(source: str) -> jinja2.Template:
    """Returns a template ready to be filled in by `fill`.

    Raises:
      jinja2.TemplateSyntaxError: it is not Jinja.
      SecurityError: it asks for other files.
    """
    environment = _environment()
    for node in environment.parse(source).find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise SecurityError(f"another file ({type(node).__name__.lower()} in line {node.lineno})")
    return environment.from_string(source)


def fill(source: str, fields: Mapping[str, Any], *, draws: Callable[[], Draws]) -> str:
    """Returns the text that a template gives.

    >>> fill("{{ a }} and {{ ['b', 'b'] | choice }}", {"a": 1}, draws=lambda: Draws("row 1"))
    '1 and b'

    Args:
      source: in Jinja.
      fields: the values of its variables; lists and mappings among them may be changed by it.
      draws: starts what `choice` and `random` draw from, when the first of them is met.

    Raises:
      jinja2.TemplateSyntaxError, SecurityError: as `compiled`; the latter also for what it reaches for while it runs.
      Exception: whatever its expressions raise.
    """
    template = compiled(source)
    # What `render` does, without merging its chain of globals for each row: half of the time a short template takes.
    values = {**_globals(), **fields, _RUN: _Run(draws)}
    return "".join(template.root_render_func(template.new_context(values, shared=True)))


@functools.cache
def _globals() -> dict[str, Any]:
    return dict(_environment().globals)


def variables(source: str) -> frozenset[str]:
    """Returns the names that a template does not set itself, functions that all templates have apart.

    >>> sorted(variables("{% set a = 1 %}{{ a }}{{ b.c }}{% for d in zip(e, e) %}{{ d }}{% endfor %}"))
    ['b', 'e']
    """
    return frozenset(meta.find_undeclared_variables(_environment().parse(source)))


def most_frequent(items: Iterable[Any]) -> list[Any] | None:
    """Returns the items that occur most often, the first one first.

    >>> most_frequent(["b", "a", "c", "a", "b"])
    ['b', 'a']
    """
    counts = Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())] if counts else None


@jinja2.pass_context
def _choice(context: Context, items: Iterable[Any]) -> Any:
    given = list(items)
    if not given:
        raise ValueError("nothing to choose from")
    return context[_RUN].draws.choice(given)


@jinja2.pass_context
def _random(context: Context, items: Iterable[Any]) -> Any:
    given = list(items)
    return context[_RUN].draws.choice(given) if given else context.environment.undefined("Nothing to draw from.")


@jinja2.pass_context
def _range(context: Context, *bounds: int) -> range:
    numbers = range(*bounds)
    context[_RUN].spend(len(numbers))
    return numbers
