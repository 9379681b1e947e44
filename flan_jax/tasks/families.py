"""Names that are registered when they are asked for: a family of thousands of tasks costs nothing until one is used.

What registering is, is left to `registry`, which keeps one `Families`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Family:
    names: Callable[[], Iterable[str]]
    define: Callable[[str], bool]
    covering: Callable[[], Iterable[str]]


class Families:
    """The families that were declared, and what has been registered of them."""

    def __init__(self) -> None:
        """Starts without any."""
        self._families: dict[str, _Family] = {}
        self._registered: list[str] = []
        self._depth = 0

    def declare(
        self,
        name: str,
        *,
        names: Callable[[], Iterable[str]],
        define: Callable[[str], bool],
        covering: Callable[[], Iterable[str]],
    ) -> bool:
        """Adds or replaces a family; whether there was one of this name, whose entries are then out of date."""
        known = name in self._families
        self._families[name] = _Family(names=names, define=define, covering=covering)
        return known

    def define(self, name: str) -> bool:
        """Has the family that knows a name register it; False when none does."""
        self._depth += 1
        try:
            return any(family.define(name) for family in list(self._families.values()))
        finally:
            self._depth -= 1

    def remember(self, name: str) -> None:
        """Told of everything that is registered; keeps what a family registers."""
        if self._depth:
            self._registered.append(name)

    def forget(self) -> list[str]:
        """Returns what families have registered, once: to be taken out of the registries."""
        gone, self._registered = self._registered, []
        return gone

    def names(self) -> Iterator[str]:
        """Yields all names that families know."""
        for family in self._families.values():
            yield from family.names()

    def covering(self) -> Iterator[str]:
        """Yields the names of tasks that together use every template of every family."""
        for family in self._families.values():
            yield from family.covering()

    def sizes(self) -> dict[str, int]:
        """Returns how many names each family knows."""
        return {name: sum(1 for _ in family.names()) for name, family in self._families.items()}
