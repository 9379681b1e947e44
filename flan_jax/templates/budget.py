"""The budget of one rendering: steps, and sizes of the values that an expression may build.

A template is data, and data must not be able to stop an export. Python cannot interrupt an operation such as
`7 ** (7 ** 9)` once it has begun, so every operation that can make much out of little is priced before it runs.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextvars import ContextVar
from typing import Any

from jinja2.sandbox import SecurityError

MAX_STEPS = 100_000
"""The steps of one rendering: a call, an iteration of a loop, a number of `range` and every 100 characters take one."""
MAX_SIZE = 1_000_000
"""Of a value: characters of a text, items of a list, bits of a number."""
_CHARACTERS_PER_STEP = 100
_PLAIN = frozenset((str, int, float, bool, type(None)))
# The owner's size is free here, so that a loop may append to a long list.
_IN_CONSTANT_TIME = frozenset("append pop get setdefault add keys values items".split())
_WIDE = re.compile(r"\d{6,}|\*")
_NESTED = re.compile(r"\{[^{}]*\{")

_steps_left: ContextVar[list[int]] = ContextVar("steps_left")


def start() -> None:
    """Starts a rendering with a full budget."""
    _steps_left.set([MAX_STEPS])


def spend(steps: int) -> None:
    """Takes steps from the budget.

    Raises:
      SecurityError: The budget is spent.
    """
    try:
        left = _steps_left.get()
    except LookupError:  # Jinja evaluates constant expressions while it compiles.
        start()
        left = _steps_left.get()
    left[0] -= steps
    if left[0] < 0:
        raise SecurityError(f"more than {MAX_STEPS:,} steps")


def pay(size: int) -> None:
    """Takes the price of a value of this size.

    Raises:
      SecurityError: The value is too large, or the budget is spent.
    """
    if size > MAX_SIZE:
        raise SecurityError(f"a value of more than {MAX_SIZE:,} characters, items or bits")
    spend(1 + size // _CHARACTERS_PER_STEP)


def counted(items: Any) -> Any:
    """Returns what a loop iterates over, after taking a step for every item."""
    if hasattr(items, "__len__"):
        spend(len(items))
        return items
    return _counted(items)


def _counted(items: Any) -> Iterator[Any]:
    for item in items:
        spend(1)
        yield item


def as_text(value: Any) -> str:
    """Returns `str(value)`; refuses nested values whose text would be too long."""
    if type(value) is str:
        return value
    if type(value) not in _PLAIN:
        pay(_nested_size(value))
    return str(value)


def compared(value: Any) -> Any:
    """Returns an operand of a comparison, after taking the price of all that it contains."""
    if type(value) not in _PLAIN:
        pay(_nested_size(value))
    return value


def concatenated(values: Sequence[Any]) -> str:
    """Returns the texts of values in one, as Jinja's `~` does."""
    texts = [as_text(value) for value in values]
    pay(sum(map(len, texts)))
    return "".join(texts)


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Takes the price of `left operator right`.

    >>> start()
    >>> check_operation("**", 7, 9)
    >>> check_operation("**", 7, 7**9)
    Traceback (most recent call last):
    jinja2.exceptions.SecurityError: a value of more than 1,000,000 characters, items or bits
    """
    if operator == "%" and isinstance(left, (str, bytes)):
        pay(_formatted_size(left, right if isinstance(right, tuple) else (right,)))
    elif isinstance(left, int) and isinstance(right, int):
        if operator == "**":
            pay(left.bit_length() * max(right, 0))
        elif operator in "*+":
            pay(left.bit_length() + right.bit_length())
    elif operator == "*" and isinstance(left, Sized) and isinstance(right, int):
        pay(len(left) * max(right, 0))
    elif operator == "*" and isinstance(left, int) and isinstance(right, Sized):
        pay(len(right) * max(left, 0))
    elif operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
        pay(len(left) + len(right))


def check_call(function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Takes the price of a call: a step, and the sizes that a method of a text or a list works on."""
    method = getattr(function, "__wrapped__", function)  # The sandbox wraps `str.format`.
    owner = getattr(method, "__self__", None)
    if isinstance(owner, (str, bytes, int, list, dict, set)):
        pay(_applied_size(method.__name__, owner, arguments))
    else:
        pay(sum(map(_nested_size, arguments)))


def check_filter(name: str, value: Any, arguments: Sequence[Any]) -> None:
    """Takes the price of `value | name(*arguments)`."""
    if name in ("join", "replace", "format"):
        owner, rest = value, arguments
        if name == "join":
            owner, rest = (arguments[0] if arguments else ""), (value,)
        pay(_applied_size(name, owner, rest))
        return
    sizes = [_nested_size(each) for each in (value, *arguments)]
    if name in ("center", "indent", "batch", "slice", "round", "tojson", "wordwrap"):
        sizes += [abs(each) for each in arguments if isinstance(each, int)]
        if name in ("indent", "wordwrap") and isinstance(value, str):
            breaks = 1 + (value.count("\n") if name == "indent" else len(value))
            sizes.append(breaks * max((_width(argument) for argument in arguments), default=4))
    pay(sum(sizes))


def _width(argument: Any) -> int:
    return len(argument) if isinstance(argument, str) else int(argument)


def _applied_size(name: str, owner: Any, arguments: Sequence[Any]) -> int:
    """Returns an upper bound of the size of a method's result, for methods that can return more than they are given."""
    own = 0 if name in _IN_CONSTANT_TIME else _nested_size(owner)
    numbers = [abs(argument) for argument in arguments if isinstance(argument, int)]
    if isinstance(owner, bytes):  # As a text of as many characters.
        owner = owner.decode("latin-1")
        arguments = [a.decode("latin-1") if isinstance(a, bytes) else a for a in arguments]
    if name == "replace" and len(arguments) >= 2 and isinstance(owner, str):
        return own + owner.count(as_text(arguments[0])) * len(as_text(arguments[1]))
    if name == "join" and arguments and isinstance(arguments[0], Sized):
        return own * len(arguments[0]) + _nested_size(arguments[0])
    if name in ("format", "format_map") and isinstance(owner, str):
        return _formatted_size(owner, arguments)
    if name in ("center", "ljust", "rjust", "zfill", "to_bytes"):
        return own + sum(numbers)
    if name == "expandtabs":
        return own + owner.count("\t") * sum(numbers)
    if name == "translate":
        return own * max([1, *(_nested_size(argument) for argument in arguments)])
    return own + sum(map(_nested_size, arguments))


def _formatted_size(pattern: str | bytes, arguments: Sequence[Any]) -> int:
    """Returns an upper bound of the size of a formatted text; widths of six digits and more, and `*`, are refused."""
    if isinstance(pattern, bytes):
        pattern = pattern.decode("latin-1")
    if _WIDE.search(pattern) or _NESTED.search(pattern):
        return MAX_SIZE + 1
    largest = max([20, *(_nested_size(argument) for argument in arguments)])
    widths = sum(map(int, re.findall(r"\d+", pattern)))
    return len(pattern) + widths + (pattern.count("{") + pattern.count("%")) * largest


def _nested_size(value: Any) -> int:
    """Returns nearly the length of `str(value)`; takes a step for every inner value, however often it is reached."""
    if type(value) is str:
        return len(value)
    if type(value) in _PLAIN:
        return 8
    if isinstance(value, Mapping):
        spend(1 + len(value))
        return sum(_nested_size(name) + _nested_size(inner) for name, inner in value.items())
    if isinstance(value, (list, tuple, set)):
        spend(1 + len(value))
        return sum(map(_nested_size, value))
    return len(value) if isinstance(value, Sized) else 8
