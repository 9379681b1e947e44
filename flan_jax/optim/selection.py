"""The optimizer of each parameter, by ordered rules over parameter paths.

A path is the keys of the parameter tree joined by slashes: `decoder/layers_0/mlp/wo/kernel`. The first rule whose
regular expression matches the complete path applies. The rules must cover the tree, and each must apply to some
parameter: one that applies to none is probably misspelled. `Selection.report` lists the parameters per rule.
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
"""A regular expression, and the optimizer of the parameters that it matches; None freezes them."""

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
class RuleReport:
    """The number of tensors and parameters that one rule applies to."""

    rule: str
    trained: bool
    tensors: int
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Rules over a tree of parameters; made by `by_path`."""

    rules: tuple[Rule, ...]
    default: optax.GradientTransformation | None

    @property
    def transformation(self) -> optax.GradientTransformation:
        """One transformation for the entire tree; without rules the default itself, its state unwrapped."""
        if not self.rules:
            assert self.default is not None
            return self.default
        # Labels become names in the checkpoint, in which the slashes of a pattern are not allowed.
        transformations = {_FROZEN: optax.set_to_zero()}
        transformations |= {f"rule_{i}": tx for i, (_, tx) in enumerate(self.rules) if tx is not None}
        if self.default is not None:
            transformations[_DEFAULT] = self.default
        # A function, because the names of the parameters are known only when the state is initialized.
        return optax.partition(transformations, self.labels)

    def labels(self, params: Any) -> Any:
        """Returns the tree with the label of each leaf's optimizer.

        Raises:
          UserError: A parameter that no rule covers, or a rule that applies to none.
        """
        labels = [self._label(index) for index in self._assign(path_names(params))]
        return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(params), labels)

    def trainable(self, params: Any) -> Any:
        """Returns the tree with True for a trained leaf and False for a frozen one.

        Raises:
          UserError: As `labels`.
        """
        return jax.tree.map(lambda label: label != _FROZEN, self.labels(params))

    def report(self, params: Any) -> tuple[RuleReport, ...]:
        """Returns what each rule applies to, in the rules' order; the default last, if it applies to anything.

        Args:
          params: Arrays, or their shapes.

        Raises:
          UserError: As `labels`.
        """
        leaves = jax.tree_util.tree_leaves(params)
        assigned = self._assign(path_names(params))
        rows = []
        for index, (pattern, transformation) in enumerate((*self.rules, (_DEFAULT, self.default))):
            sizes = [math.prod(leaf.shape) for leaf, rule in zip(leaves, assigned, strict=True) if rule == index]
            if sizes:
                trained = transformation is not None
                rows.append(RuleReport(rule=pattern, trained=trained, tensors=len(sizes), parameters=sum(sizes)))
        return tuple(rows)

    def _label(self, index: int) -> str:
        if index == len(self.rules):
            return _DEFAULT
        return _FROZEN if self.rules[index][1] is None else f"rule_{index}"

    def _assign(self, names: Sequence[str]) -> list[int]:
        """Returns the index of the rule that applies to each name; the number of rules means the default."""
        patterns = [re.compile(pattern) for pattern, _ in self.rules]
        assigned = [next((i for i, p in enumerate(patterns) if p.fullmatch(name)), len(patterns)) for name in names]
        for index, pattern in enumerate(patterns):
            # A rule that only takes what an earlier one leaves may be empty for another model size; it still is
            # refused, because an experiment with it would train something else than it claims.
            if index not in assigned:
                raise UserError(_applies_to_nothing(pattern, names, assigned, self.rules))
        uncovered = [name for name, index in zip(names, assigned, strict=True) if index == len(patterns)]
        if uncovered and self.default is None:
            raise UserError(
                f"No rule covers {len(uncovered)} of {len(names)} parameters, {uncovered[0]!r} first. Give a default "
                "optimizer, or "
                "end the rules with ('.*', None) to freeze the others."
            )
        return assigned


def by_path(rules: Sequence[Rule] = (), *, default: optax.GradientTransformation | None = None) -> Selection:
    """Returns the optimizer of each parameter, or none, by rules over paths.

    Args:
      rules: Pairs of a regular expression, which must match the complete path, and an optimizer or None (frozen).
        The first that matches applies.
      default: The optimizer of parameters that no rule matches; None forbids such parameters.

    Raises:
      UserError: Neither rules nor a default, or an invalid regular expression. Rules are compared with parameters
        later, by the transformation's `init` and by `report`.

    >>> selection = by_path([("encoder/.*", None)], default=optax.sgd(0.1))
    >>> shapes = {"encoder": {"scale": jax.ShapeDtypeStruct((4,), "float32")},
    ...           "logits": jax.ShapeDtypeStruct((4, 8), "float32")}
    >>> for row in selection.report(shapes):
    ...     print(row)
    RuleReport(rule='encoder/.*', trained=False, tensors=1, parameters=4)
    RuleReport(rule='default', trained=True, tensors=1, parameters=32)
    """
    if not rules and default is None:
        raise UserError("Nothing would be trained: there are neither rules nor a default optimizer. Give one of them.")
    for pattern, _ in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"The rule {pattern!r} is not a regular expression: {error}.") from error
    return Selection(rules=tuple((pattern, transformation) for pattern, transformation in rules), default=default)


def _applies_to_nothing(
    pattern: re.Pattern[str], names: Sequence[str], assigned: Sequence[int], rules: Sequence[Rule]
) -> str:
    """Returns why a rule applies to no parameter, and what may have been meant."""
    matched = [(name, index) for name, index in zip(names, assigned, strict=True) if pattern.fullmatch(name)]
    if matched:
        name, index = matched[0]
        return (
            f"The rule {pattern.pattern!r} applies to nothing: an earlier rule, {rules[index][0]!r}, matches all of "
            "its "
            f"parameters, {name!r} first. Put the narrower rule first."
        )
    hint = nearest(pattern.pattern, names)
    return (
        f"The rule {pattern.pattern!r} matches none of the {len(names)} parameter paths; it must match a complete "
        f"path, such as {names[0]!r}.{hint}"
    )
