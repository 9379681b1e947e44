"""Rules between this project's tree of parameters and another's: one ordered table, used both ways.

A rule pairs two names. `{i}` in a name stands for a layer's number; a rule with `{i}` on our side alone is about a
stack, in which the other tree keeps all layers of a kernel as one tensor. Every rule of a table has to find its tensors
and every tensor its rule: what is left over is named on both sides, with the nearest names of the other.
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
    """How one tree's tensor becomes the other's."""

    @abc.abstractmethod
    def to_ours(self, leaf: Leaf) -> Leaf:
        """Returns our tensor, given theirs."""

    @abc.abstractmethod
    def to_theirs(self, leaf: Leaf) -> Leaf:
        """Returns their tensor, given ours."""


@final
@dataclasses.dataclass(frozen=True)
class Same(Form):
    """As it is."""

    def to_ours(self, leaf: Leaf) -> Leaf:
        """Returns the leaf."""
        return leaf

    def to_theirs(self, leaf: Leaf) -> Leaf:
        """Returns the leaf."""
        return leaf


@final
@dataclasses.dataclass(frozen=True)
class Transposed(Form):
    """Rows and columns exchanged."""

    def to_ours(self, leaf: Leaf) -> Leaf:
        """Returns the leaf transposed."""
        return leaves.transposed(leaf)

    def to_theirs(self, leaf: Leaf) -> Leaf:
        """Returns the leaf transposed."""
        return leaves.transposed(leaf)


@final
@dataclasses.dataclass(frozen=True)
class SplitHeads(Form):
    """Theirs has heads and head size as two dimensions where ours has one.

    Attributes:
      axis: the dimension of ours.
      head_dim: the head size, needed to split.
    """

    axis: int
    head_dim: int

    def to_ours(self, leaf: Leaf) -> Leaf:
        """Returns the leaf with heads and head size joined."""
        return leaves.joined(leaf, axis=self.axis)

    def to_theirs(self, leaf: Leaf) -> Leaf:
        """Returns the leaf with heads and head size apart."""
        return leaves.divided(leaf, axis=self.axis, inner=self.head_dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """One pair of names.

    Attributes:
      ours: our name, "encoder/layers_{i}/mlp/wo/kernel".
      theirs: the other tree's.
      form: what happens to the values.
      stack_axis: the dimension of theirs that counts layers, where theirs is a stack.
    """

    ours: str
    theirs: str
    form: Form = Same()
    stack_axis: int | None = None

    def __post_init__(self) -> None:
        assert (self.stack_axis is not None) == (_LAYER in self.ours and _LAYER not in self.theirs), self


def to_ours(theirs: Mapping[str, Leaf], rules: Sequence[Rule], *, place: str) -> dict[str, Leaf]:
    """Returns our tree of another's.

    Args:
      theirs: their leaves by name.
      rules: must cover them.
      place: which checkpoint, for messages.

    Raises:
      UserError: a name that no rule has, or one that a rule wants and that is missing; all are named.
    """
    counts = _layer_counts(rules, theirs)
    _require_cover([r.theirs for r in rules], theirs, counts, place=place)
    ours: dict[str, Leaf] = {}
    for rule in rules:
        for i in range(counts[_stack(rule)]) if _LAYER in rule.ours else [0]:
            leaf = theirs[rule.theirs.replace(_LAYER, str(i))]
            if rule.stack_axis is not None:
                leaf = leaves.at(leaf, axis=rule.stack_axis, position=i)
            ours[rule.ours.replace(_LAYER, str(i))] = rule.form.to_ours(leaf)
    return ours


def to_theirs(ours: Mapping[str, Leaf], rules: Sequence[Rule], *, place: str) -> dict[str, Leaf]:
    """Returns another tree of ours; arguments and errors as in `to_ours`."""
    counts = {stack: _count(ours, [r.ours for r in rules if _stack(r) == stack]) for stack in {*map(_stack, rules)}}
    _require_cover([r.ours for r in rules], ours, counts, place=place)
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
    """Returns how many of the names one of the patterns has; to choose between tables."""
    matchers = [_matcher(pattern) for pattern in patterns]
    return sum(any(matcher.fullmatch(name) for matcher in matchers) for name in names)


def _stack(rule: Rule) -> str:
    return rule.ours.partition("/")[0]


def _layer_counts(rules: Sequence[Rule], theirs: Mapping[str, Leaf]) -> dict[str, int]:
    """Returns how many layers their encoder and decoder have."""
    counts = {}
    for stack in {*map(_stack, rules)}:
        own = [rule for rule in rules if _stack(rule) == stack]
        numbered = _count(theirs, [rule.theirs for rule in own])
        sizes = [theirs[r.theirs].shape[r.stack_axis] for r in own if r.stack_axis is not None and r.theirs in theirs]
        counts[stack] = max([numbered, *sizes])
    return counts


def _count(names: Mapping[str, Leaf], patterns: Sequence[str]) -> int:
    matchers = [_matcher(pattern) for pattern in patterns if _LAYER in pattern]
    found = [int(match[1]) for name in names for matcher in matchers if (match := matcher.fullmatch(name))]
    return max(found, default=-1) + 1


def _matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(re.escape(_LAYER), r"(\d+)"))


def _require_cover(
    patterns: Sequence[str], names: Mapping[str, Leaf], counts: Mapping[str, int], *, place: str
) -> None:
    """Refuses names without a rule, and rules without a name."""
    wanted: dict[str, None] = {}
    for pattern in patterns:
        stack = re.split(r"[/.]", pattern)[0]
        numbers = range(counts.get(stack, 0)) if _LAYER in pattern else range(1)
        wanted |= dict.fromkeys(pattern.replace(_LAYER, str(i)) for i in numbers)
    missing = [name for name in wanted if name not in names]
    extra = [name for name in names if name not in wanted]
    if missing or extra:
        raise UserError(
            f"The tensors of {place} do not fit.\n"
            + _listed("missing", missing, candidates=extra)
            + _listed("not known", extra, candidates=missing)
        )


def _listed(what: str, names: Sequence[str], *, candidates: Sequence[str]) -> str:
    shown = [f"  {what}: {name}{nearest(name, candidates)}\n" for name in names[:_SHOWN]]
    rest = len(names) - _SHOWN
    return "".join(shown) + (f"  {what}: {rest} more\n" if rest > 0 else "")
