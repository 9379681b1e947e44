"""T5X's parameter trees: which layout a checkpoint has, and the rules between it and this project's tree.

This project's tree is that of T5X's `examples/t5`: a name for each layer, heads and head size merged in a kernel. T5X's
`examples/scalable_t5` has two dimensions for them, and a relative position bias in each layer. With scanned layers (its
default; umT5's released checkpoints) all layers of a stack are one tensor, whose second dimension counts them. Any
combination of the three is read.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import final

from flan_jax.checkpoint import mapping
from flan_jax.checkpoint.leaves import Leaf
from flan_jax.checkpoint.mapping import Form, Rule, Same, SplitHeads
from flan_jax.checkpoint.t5x.unstacking import unstacked, unstacked_rows
from flan_jax.errors import UserError

STACK_AXIS = 1
_NORMS = {
    "encoder": ("pre_attention_layer_norm", "pre_mlp_layer_norm"),
    "decoder": ("pre_self_attention_layer_norm", "pre_cross_attention_layer_norm", "pre_mlp_layer_norm"),
}
_ATTENTIONS = {"encoder": ("attention",), "decoder": ("self_attention", "encoder_decoder_attention")}
_BIAS = "relpos_bias/rel_embedding"
_MLP = ("wi", "wi_0", "wi_1", "wo")
_STACKED = re.compile(r"encoder/encoder/.+|decoder/decoder/.+")
_QUERY = re.compile(r".*attention/query/kernel")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a T5X tree differs from this project's.

    Attributes:
      is_scanned: The layers of a stack are one tensor.
      has_split_heads: Heads and head size are two dimensions of a kernel.
    """

    is_scanned: bool
    has_split_heads: bool

    def __str__(self) -> str:
        layers = "layers stacked" if self.is_scanned else "a name for each layer"
        return layers + (", heads split" if self.has_split_heads else "")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Translated:
    """A T5X tree under this project's names.

    Attributes:
      params: The leaves; those without a rule keep T5X's names.
      layout: Of the T5X tree.
      rules: Those that found their tensors.
      notes: Why leaves kept T5X's names.
    """

    params: dict[str, Leaf]
    layout: Layout
    rules: tuple[Rule, ...]
    notes: tuple[str, ...] = ()


def rules(layout: Layout, *, head_dim: int) -> tuple[Rule, ...]:
    """Returns the rules between this project's tree and a layout, for every kind of T5: gated or plain, tied or not.

    Args:
      layout: Of the T5X tree.
      head_dim: Needed to split kernels, not to merge them.
    """
    split = layout.has_split_heads
    inner, outer = (SplitHeads(1, head_dim), SplitHeads(0, head_dim)) if split else (Same(), Same())
    table = [Rule(ours="token_embedder/embedding", theirs="token_embedder/embedding")]
    for stack in ("encoder", "decoder"):
        layer: dict[str, Form] = {f"{norm}/scale": Same() for norm in _NORMS[stack]}
        for attention in _ATTENTIONS[stack]:
            layer |= {f"{attention}/{name}/kernel": inner for name in ("query", "key", "value")}
            layer[f"{attention}/out/kernel"] = outer
        layer |= {f"mlp/{name}/kernel": Same() for name in _MLP}
        # A tree has this bias of each layer, or the shared one below.
        layer[_BIAS] = Same()
        table += [_layer_rule(stack, name, form, layout) for name, form in layer.items()]
        table += [Rule(ours=f"{stack}/{n}", theirs=f"{stack}/{n}") for n in (_BIAS, f"{stack}_norm/scale")]
    table.append(Rule(ours="decoder/logits_dense/kernel", theirs="decoder/logits_dense/kernel"))
    return tuple(table)


def layout_of(theirs: Mapping[str, Leaf]) -> Layout:
    """Returns the layout of a T5X tree, by its names and the dimensions of its query kernels."""
    is_scanned = any(_STACKED.fullmatch(name) for name in theirs)
    ranks = [len(leaf.shape) for name, leaf in theirs.items() if _QUERY.fullmatch(name)]
    # By the query kernel, whose number of dimensions differs between all layouts; a bias's, for example, does not.
    return Layout(is_scanned=is_scanned, has_split_heads=max(ranks, default=0) == (4 if is_scanned else 3))


def to_ours(theirs: Mapping[str, Leaf], *, where: str) -> Translated:
    """Returns a T5X tree under this project's names, as far as it is a T5.

    Leaves without a rule keep their names. So do all leaves if a layer is missing or a tensor has an unexpected number
    of dimensions: a run that starts from some of them can still name them.
    """
    layout = layout_of(theirs)
    # The table covers every kind of T5; the rules that find nothing are those of other kinds.
    found = tuple(rule for rule in rules(layout, head_dim=_head_dim(theirs, layout)) if names_of(rule, theirs))
    known = {name for rule in found for name in names_of(rule, theirs)}
    rest = {name: leaf for name, leaf in theirs.items() if name not in known}
    try:
        _require_stacks(theirs, found)
        params = mapping.to_ours(cheap_parts({name: theirs[name] for name in known}, found), found, where=where)
    except UserError as error:
        return Translated(params=dict(theirs), layout=layout, rules=(), notes=(str(error),))
    return Translated(params=params | rest, layout=layout, rules=found)


def present(ours: Mapping[str, Leaf], table: Sequence[Rule]) -> tuple[Rule, ...]:
    """Returns the rules whose tensors this project's tree has: a plain T5 has no gate, a tied one no logits kernel."""
    return tuple(rule for rule in table if mapping.fits(ours, [rule.ours]))


def cheap_parts(theirs: Mapping[str, Leaf], found: Sequence[Rule]) -> dict[str, Leaf]:
    """Returns a T5X tree in which reading one layer of a stack, or a block of rows, costs only that part."""
    axes = {rule.theirs: rule.stack_axis for rule in found if rule.stack_axis is not None}
    return {n: unstacked(leaf, axis=axes[n]) if n in axes else unstacked_rows(leaf) for n, leaf in theirs.items()}


def names_of(rule: Rule, theirs: Mapping[str, Leaf]) -> list[str]:
    """Returns the names in a T5X tree that a rule matches."""
    if "{i}" not in rule.theirs:
        return [rule.theirs] if rule.theirs in theirs else []
    pattern = re.compile(re.escape(rule.theirs).replace(re.escape("{i}"), r"\d+"))
    return [name for name in theirs if pattern.fullmatch(name)]


def _layer_rule(stack: str, name: str, form: Form, layout: Layout) -> Rule:
    ours = f"{stack}/layers_{{i}}/{name}"
    if layout.is_scanned:
        return Rule(ours=ours, theirs=f"{stack}/{stack}/{name}", form=form, stack_axis=STACK_AXIS)
    return Rule(ours=ours, theirs=ours, form=form)


def _head_dim(theirs: Mapping[str, Leaf], layout: Layout) -> int:
    """Returns the head size of split query kernels; 1, which is never read, where heads are merged."""
    if not layout.has_split_heads:
        return 1
    return next(leaf.shape[-1] for name, leaf in theirs.items() if _QUERY.fullmatch(name))


def _require_stacks(theirs: Mapping[str, Leaf], found: Sequence[Rule]) -> None:
    """Rejects tensors with a number of dimensions that their rule does not support, and stacks of different heights."""
    heights: dict[str, tuple[int, str]] = {}
    for rule in found:
        expected = 1 if rule.theirs.endswith("/scale") else 2
        expected += (rule.stack_axis is not None) + isinstance(rule.form, SplitHeads)
        for name in names_of(rule, theirs):
            shape = theirs[name].shape
            if len(shape) != expected:
                raise UserError(f"{name} has the shape {list(shape)}; expected {expected} dimensions.")
            if rule.stack_axis is None:
                continue
            height, first = heights.setdefault(name.partition("/")[0], (shape[rule.stack_axis], name))
            if shape[rule.stack_axis] != height:
                raise UserError(f"{name} has {shape[rule.stack_axis]} layers and {first} has {height}.")
