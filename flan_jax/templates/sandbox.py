"""Jinja templates that others wrote, rendered so that they run no code, read no file and always end.

The language is promptsource's (Bach et al. 2022, arXiv:2202.01279): Jinja with `zip`, `most_frequent` and `choice`.
`promptsource` gives the rendered text its meaning.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import jinja2
from jinja2 import meta, nodes
from jinja2.compiler import CodeGenerator
from jinja2.filters import do_truncate
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

from flan_jax.draws import Draws
from flan_jax.templates import budget

_DRAWS = "the draws"  # No template can name it: it has a space.
_UNPRICED = frozenset("string length count default d first last int float abs".split())
"""Filters that neither make a large value nor turn one into text."""
_SHORTENING = frozenset("trim lower upper title capitalize".split())
"""Filters whose result is no longer than a text given to them, nearly; they make up most of promptsource's."""
_COMPARING = frozenset("eq equalto == ne != lt lessthan < le <= gt greaterthan > ge >= in".split())
"""Tests, such as `{{ a is eq(b) }}`, that look into their arguments."""


class _Priced(NodeTransformer):
    """Passes what loops iterate over, what is compared, and the operands of `~` through functions of `budget`."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filtered(cast(nodes.Expr, node.iter), "counted")  # Annotated as any node.
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "compared")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "compared")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:
        self.generic_visit(node)
        if not isinstance(node.arg, (nodes.Const, nodes.Slice)):  # A key is hashed, with all that it contains.
            node.arg = _filtered(cast(nodes.Expr, node.arg), "compared")
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Pair:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filtered(node.key, "compared")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "concatenated")


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _CodeGenerator(CodeGenerator):
    def visit_Template(self, node: nodes.Template, frame: Any = None) -> None:
        super().visit_Template(_Priced().visit(node), frame)


class _Sandbox(SandboxedEnvironment):
    """Jinja's sandbox, which here raises instead of rendering an unsafe attribute as empty, and prices what it runs.

    Lists and mappings can be changed: a tenth of promptsource's templates build their own. Rows are copied before.
    """

    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset(("**", "*", "%", "+"))

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"the attribute {attribute!r} of {type(obj).__name__!r}")

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget.check_call(__obj, [*args, *kwargs.values()])
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget.check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def concat(texts: Iterable[str]) -> str:
        """Joins the parts of a block, a macro or a `{% set %}`."""
        return budget.concatenated(list(texts))


@functools.cache
def _environment() -> _Sandbox:
    environment = _Sandbox(finalize=budget.as_text)
    environment.globals.update(zip=zip, range=_range)
    environment.globals.pop("lipsum")  # Draws by itself, from no seed.
    environment.filters = {
        name: function if name in _UNPRICED else _priced(name, function)
        for name, function in environment.filters.items()
    }
    environment.tests = {
        name: _priced(name, test) if name in _COMPARING else test  # type: ignore[arg-type]  # Annotated as functions.
        for name, test in environment.tests.items()
    }
    environment.filters.update(
        choice=_choice, random=_random,
        most_frequent=_priced("most_frequent", most_frequent), string=budget.as_text, truncate=_truncate,
        counted=budget.counted, compared=budget.compared, concatenated=budget.concatenated,
    )  # fmt: skip
    return environment


def _priced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that takes its price first; `wraps` carries over what Jinja is to pass to it before the value."""
    before = 1 if hasattr(function, "jinja_pass_arg") else 0
    shortens = name in _SHORTENING

    @functools.wraps(function)
    def priced(*args: Any, **kwargs: Any) -> Any:
        first = args[before] if len(args) > before else None
        if shortens and type(first) is str:
            return function(*args, **kwargs)
        if hasattr(first, "__next__"):  # Of `map`, `select` and their like: its size is not known until it has ended.
            first = list(budget.counted(first))
            args = (*args[:before], first, *args[before + 1 :])
        budget.check_filter(name, first, [*args[before + 1 :], *kwargs.values()])
        return function(*args, **kwargs)

    return priced


@functools.lru_cache(maxsize=4096)
def compiled(source: str) -> jinja2.Template:
    """Returns a template ready to be filled in by `fill`.

    Raises:
      jinja2.TemplateSyntaxError: it is not Jinja.
      SecurityError: It includes or imports other files, or a constant expression in it exceeds the budget.
    """
    environment = _environment()
    for node in environment.parse(source).find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise SecurityError(f"another file ({type(node).__name__.lower()} in line {node.lineno})")
    return environment.from_string(source)


def fill(source: str, fields: Mapping[str, Any], *, draws: Callable[[], Draws]) -> str:
    """Returns the rendered text of a template.

    >>> fill("{{ a }} and {{ ['b', 'b'] | choice }}", {"a": 1}, draws=lambda: Draws("row 1"))
    '1 and b'

    Args:
      source: In Jinja.
      fields: The values of its variables; lists and mappings among them may be changed by it.
      draws: Creates the choices of `choice` and `random`, at the first use of either.

    Raises:
      jinja2.TemplateSyntaxError, SecurityError: as `compiled`; the latter also for unsafe attributes, and for more
        steps or larger values than `budget` allows.
      Exception: Whatever its expressions raise.
    """
    budget.start()  # Before compiling, so that constants which Jinja folds are priced too.
    template = compiled(source)
    # What `render` does, without merging its chain of globals for each row: half of the time a short template takes.
    values = {**_globals(), **fields, _DRAWS: functools.cache(draws)}
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


@jinja2.pass_environment
def _truncate(environment: jinja2.Environment, value: Any, length: int = 255, *args: Any, **kwargs: Any) -> str:
    """Jinja's filter, sooner done with a text that is short: promptsource has it at every variable."""
    text = budget.as_text(value)
    return text if len(text) <= length else do_truncate(environment, text, length, *args, **kwargs)


@jinja2.pass_context
def _choice(context: Context, items: Iterable[Any]) -> Any:
    given = list(items)
    if not given:
        raise ValueError("nothing to choose from")
    return context[_DRAWS]().choice(given)


@jinja2.pass_context
def _random(context: Context, items: Iterable[Any]) -> Any:
    given = list(items)
    return context[_DRAWS]().choice(given) if given else context.environment.undefined("Nothing to draw from.")


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    budget.spend(len(numbers))
    return numbers
