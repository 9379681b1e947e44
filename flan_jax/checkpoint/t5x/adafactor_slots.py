"""Adafactor's second moments as T5X keeps them, and as Optax does.

Both keep, for a matrix that is large enough, the mean of the squared gradient over rows and over columns, and for
others all of it, `v`; what is not in use is one zero. On matrices they agree in which mean is called what: `v_row` is
the mean over the larger side. Where T5X has stacked layers or split heads it goes by the meaning of each dimension: its
`v_row` belongs to the width of the model and `v_col` to the rest, whatever their sizes. Then the two change names, never
values.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from flan_jax.checkpoint import mapping
from flan_jax.checkpoint.leaves import Leaf, from_array
from flan_jax.checkpoint.mapping import Form, Rule, Same, SplitHeads
from flan_jax.checkpoint.t5x.layouts import names_of, parts_apart
from flan_jax.errors import UserError

SLOTS = ("v_row", "v_col", "v")
MOMENTUM = "m"
UNUSED_SHAPE = (1,)
_ENDS_IN_WIDTH = re.compile(r".*/(out|wo)/kernel")
_NEVER_FACTORED = re.compile(r".*/(scale|rel_embedding)")


def is_adafactor(states: Mapping[str, Leaf], params: Mapping[str, Leaf]) -> bool:
    """Whether an optimiser's state, by T5X's names, is Adafactor's: four leaves for each parameter that it moves."""
    slots = {*SLOTS, MOMENTUM}
    found: dict[str, set[str]] = {}
    for name in states:
        param, _, slot = name.rpartition("/")
        found.setdefault(param, set()).add(slot)
    return bool(found) and all(param in params and names == slots for param, names in found.items())


def to_ours(
    states: Mapping[str, Leaf], rules: Sequence[Rule], params: Mapping[str, Leaf], *, place: str
) -> dict[str, Leaf]:
    """Returns T5X's state under our names, "v_row/<parameter>" and so on; all three of a parameter, "m/..." in use only.

    Args:
      states: T5X's, "<parameter>/v_row" by its names.
      rules: those of the parameters.
      params: ours, for their shapes.
      place: which checkpoint, for messages.

    Raises:
      UserError: a slot has not the shape that belongs to its parameter, or is missing.
    """
    used = {name: leaf for name, leaf in states.items() if leaf.shape != UNUSED_SHAPE}
    table = [rule for rule in _slot_rules(rules, params) if names_of(rule, used)]
    mapped = mapping.to_ours(parts_apart(used, table), table, place=place)
    slots = {}
    for name, leaf in mapped.items():
        param, _, slot = name.rpartition("/")
        wanted = _shape(slot, params[param].shape)
        if leaf.shape != wanted:
            raise UserError(f"{slot} of {param} has the shape {list(leaf.shape)}, where {list(wanted)} is expected.")
        slots[f"{slot}/{param}"] = leaf
    moved = sorted({name.partition("/")[2] for name in slots})
    return {f"{slot}/{param}": _unused() for param in moved for slot in SLOTS} | slots


def to_theirs(
    slots: Mapping[str, Leaf], rules: Sequence[Rule], params: Mapping[str, Leaf], *, place: str
) -> dict[str, Leaf]:
    """Returns T5X's state, "<parameter>/v_row" by its names and four for each parameter, of ours.

    Raises:
      UserError: T5X would keep a parameter's means where `v` is whole, or a parameter has no state.
    """
    used = {
        f"{name.partition('/')[2]}/{name.partition('/')[0]}": leaf
        for name, leaf in slots.items()
        if leaf.shape != UNUSED_SHAPE
    }
    table = [rule for rule in _slot_rules(rules, params) if mapping.fits(used, [rule.ours])]
    _require_means(table, place)
    states = mapping.to_theirs(used, table, place=place)
    for name in mapping.to_theirs(params, rules, place=place):
        if not any(f"{name}/{slot}" in states for slot in SLOTS):
            raise UserError(f"{place}: the parameter {name} has no state of Adafactor, where others have one.")
        states |= {f"{name}/{s}": _unused() for s in (*SLOTS, MOMENTUM) if f"{name}/{s}" not in states}
    return states


def _slot_rules(rules: Sequence[Rule], params: Mapping[str, Leaf]) -> list[Rule]:
    """Returns the rules of slots, "<parameter>/<slot>" on both sides, that go with those of parameters."""
    table = []
    for rule in rules:
        for slot in ("v", MOMENTUM):
            table.append(_slot_rule(rule, slot, slot, rule.form, rule.stack_axis))
        table += _mean_rules(rule, params)
    return table


def _mean_rules(rule: Rule, params: Mapping[str, Leaf]) -> list[Rule]:
    """Returns the rules of `v_row` and `v_col`; see the module's text."""
    shape = params[rule.ours.replace("{i}", "0")].shape
    if len(shape) != 2 or _NEVER_FACTORED.fullmatch(rule.ours) and _goes_by_meaning(rule):
        return []
    if not _goes_by_meaning(rule):
        return [_slot_rule(rule, slot, slot, Same(), None) for slot in ("v_row", "v_col")]
    width_axis = 1 if _ENDS_IN_WIDTH.fullmatch(rule.ours) else 0
    smaller_axis, _ = _by_size(shape)
    for_width, for_rest = ("v_row", "v_col") if smaller_axis == width_axis else ("v_col", "v_row")
    rest_form: Form = SplitHeads(0, rule.form.head_dim) if isinstance(rule.form, SplitHeads) else Same()
    row_axis = col_axis = None
    if rule.stack_axis is not None:  # The dimension after the first in the tensor; the first goes in one of the two.
        row_axis, col_axis = (1, 0) if width_axis == 0 else (0, 1)
    return [
        _slot_rule(rule, for_width, "v_row", Same(), row_axis),
        _slot_rule(rule, for_rest, "v_col", rest_form, col_axis),
    ]


def _goes_by_meaning(rule: Rule) -> bool:
    return rule.stack_axis is not None or isinstance(rule.form, SplitHeads)


def _slot_rule(rule: Rule, ours: str, theirs: str, form: Form, stack_axis: int | None) -> Rule:
    return Rule(ours=f"{rule.ours}/{ours}", theirs=f"{rule.theirs}/{theirs}", form=form, stack_axis=stack_axis)


def _require_means(table: Sequence[Rule], place: str) -> None:
    for rule in table:
        kernel = rule.ours.rpartition("/")[0]
        if rule.ours.endswith("/v") and not _NEVER_FACTORED.fullmatch(kernel) and _goes_by_meaning(rule):
            raise UserError(
                f"{place}: Adafactor keeps all of v for {kernel}, which is too small for means here, and T5X keeps means "
                "for stacked layers and split heads of any size. Write the parameters alone, or layers by name with "
                "heads joined."
            )


def _shape(slot: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if slot in ("v", MOMENTUM):
        return shape
    smaller, larger = _by_size(shape)
    gone = larger if slot == "v_row" else smaller
    return shape[:gone] + shape[gone + 1 :]


def _by_size(shape: Sequence[int]) -> tuple[int, int]:
    """Returns the axes of the second largest and the largest size; of equals the later one counts as larger."""
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])


def _unused() -> Leaf:
    return from_array(np.zeros(UNUSED_SHAPE, np.float32))
