"""Rules between this project's parameter tree and another: one ordered table, used in both directions.

A rule pairs two names. `{i}` in a name means a layer's number. A rule with `{i}` in this project's name alone
describes a stack: the other tree has all layers of a kernel in one tensor. Every rule must find its tensors, and every
tensor its rule. An error lists what is left over on both sides, with the nearest names of the other.
"""

import abc
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import final

from flan_jax.checkpoint import leaves
from flan_jax.checkpoint.leaves import Leaf
from flan_jax.errors import UserError
from flan_jax.names import nearest

_LAYER = "{i}"
_SHOWN = 12


class Form(abc.ABC):
    """A transformation of one tree's tensor into the other's."""

    @abc.abstractmethod
    def to_ours(self, leaf: Leaf) -> Leaf:
        """Returns this project's tensor, given the other tree's."""

    @abc.abstractmethod
    def to_theirs(self, leaf: Leaf) -> Leaf:
        """Returns the other tree's tensor, given this project's."""


@final
@dataclasses.dataclass(frozen=True)
class Same(Form):
    """No transformation."""

    def to_ours(self, leaf: Leaf) -> Leaf:
        """Returns the leaf."""
        return leaf

    def to_theirs(self, leaf: Leaf) -> Leaf:
        """Returns the leaf."""
        return leaf


@final
@dataclasses.dataclass(frozen=True)
class Transposed(Form):
    """Rows and columns swapped."""

    def to_ours(self, leaf: Leaf) -> Leaf:
        """Returns the leaf transposed."""
        return leaves.transposed(leaf)

    def to_theirs(self, leaf: Leaf) -> Leaf:
        """Returns the leaf transposed."""
        return leaves.transposed(leaf)


@final
@dataclasses.dataclass(frozen=True)
class SplitHeads(Form):
    """Heads and head size are two dimensions in the other tree and one in this project's.

    Attributes:
      axis: The dimension in this project's tensor.
      head_dim: The head size, needed to split.
    """

    axis: int
    head_dim: int

    def to_ours(self, leaf: Leaf) -> Leaf:
        """Returns the leaf with heads and head size merged."""
        return leaves.joined(leaf, axis=self.axis)

    def to_theirs(self, leaf: Leaf) -> Leaf:
        """Returns the leaf with heads and head size split."""
        return leaves.divided(leaf, axis=self.axis, inner=self.head_dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A pair of names.

    Attributes:
      ours: This project's name, "encoder/layers_{i}/mlp/wo/kernel".
      theirs: The other tree's name.
      form: Transformation of the values.
      stack_axis: The dimension of the other tree's tensor that counts layers, where it is a stack.
    """

    ours: str
    theirs: str
    form: Form = Same()
    stack_axis: int | None = None

    def __post_init__(self) -> None:
        assert (self.stack_axis is not None) == (_LAYER in self.ours and _LAYER not in self.theirs), self


def to_ours(theirs: Mapping[str, Leaf], rules: Sequence[Rule], *, where: str) -> dict[str, Leaf]:
    """Returns another tree under this project's names.

    Args:
      theirs: Leaves by the other tree's names.
      rules: Must cover the leaves.
      where: The checkpoint, for messages.

    Raises:
      UserError: A name has no rule, or a rule's name is missing; the text lists all of them.
    """
    counts = _layer_counts(rules, theirs)
    _require_cover([r.theirs for r in rules], theirs, counts, where=where)
    ours: dict[str, Leaf] = {}
    for rule in rules:
        for i in range(counts[_stack(rule)]) if _LAYER in rule.ours else [0]:
            leaf = theirs[rule.theirs.replace(_LAYER, str(i))]
            if rule.stack_axis is not None:
                # First the layer, then the form, whose axes are those of one layer; `to_theirs` does both in reverse.
                leaf = leaves.at(leaf, axis=rule.stack_axis, position=i)
            ours[rule.ours.replace(_LAYER, str(i))] = rule.form.to_ours(leaf)
    return ours


def to_theirs(ours: Mapping[str, Leaf], rules: Sequence[Rule], *, where: str) -> dict[str, Leaf]:
    """Returns this project's tree under another tree's names; arguments and errors as in `to_ours`."""
    counts = {stack: _count(ours, [r.ours for r in rules if _stack(r) == stack]) for stack in {*map(_stack, rules)}}
    _require_cover([r.ours for r in rules], ours, counts, where=where)
    theirs: dict[str, Leaf] = {}
    for rule in rules:
        numbers = range(counts[_stack(rule)]) if _LAYER in rule.ours else range(1)
        made = [rule.form.to_theirs(ours[rule.ours.replace(_LAYER, str(i))]) for i in numbers]
        if rule.stack_axis is not None:
            theirs[rule.theirs] = leaves.stacked(made, axis=rule.stack_axis)
        else:
            theirs |= {rule.theirs.replace(_LAYER, str(i)): leaf for i, leaf in zip(numbers, made, strict=True)}
    return theirs


def fits(names: Mapping[str, Leaf], patterns: Sequence[str]) -> int:
    """Returns how many of the names match one of the patterns."""
    matchers = [_matcher(pattern) for pattern in patterns]
    return sum(any(matcher.fullmatch(name) for matcher in matchers) for name in names)


def _stack(rule: Rule) -> str:
    return rule.ours.partition("/")[0]


def _layer_counts(rules: Sequence[Rule], theirs: Mapping[str, Leaf]) -> dict[str, int]:
    """Returns how many layers the other tree's encoder and decoder have."""
    counts = {}
    for stack in {*map(_stack, rules)}:
        own = [rule for rule in rules if _stack(rule) == stack]
        numbered = _count(theirs, [rule.theirs for rule in own])
        sizes = [theirs[r.theirs].shape[r.stack_axis] for r in own if r.stack_axis is not None and r.theirs in theirs]
        # The largest count, so that a missing layer is listed as missing and does not make the network shorter.
        counts[stack] = max([numbered, *sizes])
    return counts


def _count(names: Mapping[str, Leaf], patterns: Sequence[str]) -> int:
    matchers = [_matcher(pattern) for pattern in patterns if _LAYER in pattern]
    found = [int(match[1]) for name in names for matcher in matchers if (match := matcher.fullmatch(name))]
    return max(found, default=-1) + 1


def _matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(re.escape(_LAYER), r"(\d+)"))


def _require_cover(
    patterns: Sequence[str], names: Mapping[str, Leaf], counts: Mapping[str, int], *, where: str
) -> None:
    """Rejects names without a rule, and rules without a name."""
    expected: dict[str, None] = {}
    for pattern in patterns:
        # Slashes in this project's and T5X's names, dots in Hugging Face's.
        stack = re.split(r"[/.]", pattern)[0]
        numbers = range(counts.get(stack, 0)) if _LAYER in pattern else range(1)
        expected |= dict.fromkeys(pattern.replace(_LAYER, str(i)) for i in numbers)
    missing = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    if missing or extra:
        raise UserError(
            f"The tensors of {where} do not match the network.\n"
            + _listed("missing", missing, candidates=extra)
            + _listed("unknown", extra, candidates=missing)
        )


def _listed(what: str, names: Sequence[str], *, candidates: Sequence[str]) -> str:
    shown = [f"  {what}: {name}{nearest(name, candidates)}\n" for name in names[:_SHOWN]]
    rest = len(names) - _SHOWN
    return "".join(shown) + (f"  {what}: {rest} more\n" if rest > 0 else "")
