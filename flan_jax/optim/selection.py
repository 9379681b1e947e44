"""Which optimiser takes which parameter: ordered rules over parameter paths.

A path is the keys of the parameter tree joined by slashes, `decoder/layers_0/mlp/wo/kernel`. The first rule whose
regular expression matches the whole path decides. The rules have to cover the tree, and each has to take something:
a rule that takes nothing is a name misspelt. `Selection.report` says what each took.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

from flan_jax.errors import UserError
from flan_jax.names import nearest

Rule = tuple[str, optax.GradientTransformation | None]
"""A regular expression, and what optimises the parameters it matches; None freezes them."""

_FROZEN = "frozen"
_DEFAULT = "default"


def path_name(path: Sequence[Any]) -> str:
    """Returns the name of a leaf from its JAX key path.

    >>> jax.tree_util.tree_map_with_path(lambda path, leaf: path_name(path), {"encoder": {"scale": 1}})
    {'encoder': {'scale': 'encoder/scale'}}
    """
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def path_names(params: Any) -> list[str]:
    """Returns the names of all leaves, in the order in which JAX flattens the tree."""
    return [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taken:
    """What one rule took: a row of the report."""

    rule: str
    trained: bool
    tensors: int
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Rules and what they decide for a tree of parameters; made by `by_path`."""

    rules: tuple[Rule, ...]
    default: optax.GradientTransformation | None

    @property
    def transformation(self) -> optax.GradientTransformation:
        """One transformation for the whole tree; without rules the default itself, its state unwrapped."""
        if not self.rules:
            assert self.default is not None
            return self.default
        # Plain words as labels: they become names in the checkpoint, where a pattern's slashes would not do.
        transformations = {_FROZEN: optax.set_to_zero()}
        transformations |= {f"rule_{i}": tx for i, (_, tx) in enumerate(self.rules) if tx is not None}
        if self.default is not None:
            transformations[_DEFAULT] = self.default
        return optax.partition(transformations, self.labels)

    def labels(self, params: Any) -> Any:
        """Returns the tree with, for each leaf, the label of what optimises it.

        Raises:
          UserError: a parameter that no rule covers, or a rule that takes nothing.
        """
        labels = [self._label(index) for index in self._assign(path_names(params))]
        return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(params), labels)

    def trainable(self, params: Any) -> Any:
        """Returns the tree with True where a leaf is trained and False where it is frozen.

        Raises:
          UserError: as `labels`.
        """
        return jax.tree.map(lambda label: label != _FROZEN, self.labels(params))

    def report(self, params: Any) -> tuple[Taken, ...]:
        """Returns what each rule took, in the rules' order, the default last when it took anything.

        Args:
          params: Arrays, or their shapes.

        Raises:
          UserError: as `labels`.
        """
        leaves = jax.tree_util.tree_leaves(params)
        assigned = self._assign(path_names(params))
        rows = []
        for index, (pattern, transformation) in enumerate((*self.rules, (_DEFAULT, self.default))):
            sizes = [math.prod(leaf.shape) for leaf, taker in zip(leaves, assigned, strict=True) if taker == index]
            if sizes:
                trained = transformation is not None
                rows.append(Taken(rule=pattern, trained=trained, tensors=len(sizes), parameters=sum(sizes)))
        return tuple(rows)

    def _label(self, index: int) -> str:
        if index == len(self.rules):
            return _DEFAULT
        return _FROZEN if self.rules[index][1] is None else f"rule_{index}"

    def _assign(self, names: Sequence[str]) -> list[int]:
        """The index of the rule that takes each name; the number of rules stands for the default."""
        patterns = [re.compile(pattern) for pattern, _ in self.rules]
        assigned = [next((i for i, p in enumerate(patterns) if p.fullmatch(name)), len(patterns)) for name in names]
        for index, pattern in enumerate(patterns):
            if index not in assigned:
                raise UserError(_took_nothing(pattern, names, assigned, self.rules))
        uncovered = [name for name, taker in zip(names, assigned, strict=True) if taker == len(patterns)]
        if uncovered and self.default is None:
            raise UserError(
                f"No rule says what optimises {len(uncovered)} of {len(names)} parameters, the first {uncovered[0]!r}. "
                "Give a default optimiser, or end the rules with ('.*', None) to freeze what is left."
            )
        return assigned


def by_path(rules: Sequence[Rule] = (), *, default: optax.GradientTransformation | None = None) -> Selection:
    """Returns the choice of an optimiser, or none, for each parameter by rules over paths.

    Args:
      rules: Pairs of a regular expression, which has to match the whole path, and a transformation or None (frozen);
        the first that matches decides.
      default: What optimises a parameter that no rule matches; None: there must be no such parameter.

    Raises:
      UserError: neither rules nor a default, or a regular expression that is none. What depends on the parameters
        is checked when they are there: by the transformation's `init`, and by `report`.

    >>> selection = by_path([("encoder/.*", None)], default=optax.sgd(0.1))
    >>> shapes = {"encoder": {"scale": jax.ShapeDtypeStruct((4,), "float32")},
    ...           "logits": jax.ShapeDtypeStruct((4, 8), "float32")}
    >>> for row in selection.report(shapes):
    ...     print(row)
    Taken(rule='encoder/.*', trained=False, tensors=1, parameters=4)
    Taken(rule='default', trained=True, tensors=1, parameters=32)
    """
    if not rules and default is None:
        raise UserError("Nothing is optimised: there are neither rules nor a default optimiser. Give one of them.")
    for pattern, _ in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"The rule {pattern!r} is no regular expression: {error}.") from error
    return Selection(rules=tuple((pattern, transformation) for pattern, transformation in rules), default=default)


def _took_nothing(pattern: re.Pattern, names: Sequence[str], assigned: Sequence[int], rules: Sequence[Rule]) -> str:
    """Why a rule took no parameter, and what may have been meant."""
    matched = [(name, taker) for name, taker in zip(names, assigned, strict=True) if pattern.fullmatch(name)]
    if matched:
        name, taker = matched[0]
        return (
            f"The rule {pattern.pattern!r} takes nothing: what it matches, {name!r} first, an earlier rule took "
            f"({rules[taker][0]!r}). Put the narrower rule first."
        )
    hint = nearest(pattern.pattern, names)
    return (
        f"The rule {pattern.pattern!r} matches none of the {len(names)} parameter paths; it has to match a whole path, "
        f"as {names[0]!r}.{hint}"
    )
