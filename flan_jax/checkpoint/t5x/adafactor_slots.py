"""Translates Adafactor's second moments between T5X and Optax.

For a matrix that is large enough, both store the mean of the squared gradient over rows and over columns, and for other
tensors all of it, `v`; an unused slot is a single zero. On matrices they agree on the names: `v_row` is the mean over
the larger side. For stacked layers or split heads, T5X names by the meaning of each dimension: its `v_row` belongs to
the width of the model and `v_col` to the rest, whatever their sizes. Then the names are swapped; values never change.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from flan_jax.checkpoint import mapping
from flan_jax.checkpoint.leaves import Leaf, from_array
from flan_jax.checkpoint.mapping import Form, Rule, Same, SplitHeads
from flan_jax.checkpoint.t5x.layouts import cheap_parts, names_of
from flan_jax.errors import UserError

SLOTS = ("v_row", "v_col", "v")
MOMENTUM = "m"
UNUSED_SHAPE = (1,)
_ENDS_IN_WIDTH = re.compile(r".*/(out|wo)/kernel")
_NEVER_FACTORED = re.compile(r".*/(scale|rel_embedding)")


def is_adafactor(states: Mapping[str, Leaf], params: Mapping[str, Leaf]) -> bool:
    """Whether an optimizer's state, by T5X's names, is Adafactor's: four leaves for each parameter that it updates."""
    slots = {*SLOTS, MOMENTUM}
    found: dict[str, set[str]] = {}
    for name in states:
        param, _, slot = name.rpartition("/")
        found.setdefault(param, set()).add(slot)
    return bool(found) and all(param in params and names == slots for param, names in found.items())


def to_ours(
    states: Mapping[str, Leaf], rules: Sequence[Rule], params: Mapping[str, Leaf], *, where: str
) -> dict[str, Leaf]:
    """Returns T5X's state by this project's names: "v_row/<parameter>", "v_col/...", "v/..." and, if used, "m/...".

    Args:
      states: By T5X's names, "<parameter>/v_row".
      rules: Of the parameters.
      params: This project's, for their shapes.
      where: The checkpoint, for messages.

    Raises:
      UserError: A slot is missing, or its shape does not match its parameter.
    """
    # No parameter of a T5 has this shape itself.
    used = {name: leaf for name, leaf in states.items() if leaf.shape != UNUSED_SHAPE}
    table = [rule for rule in _slot_rules(rules, params) if names_of(rule, used)]
    mapped = mapping.to_ours(cheap_parts(used, table), table, where=where)
    slots = {}
    for name, leaf in mapped.items():
        param, _, slot = name.rpartition("/")
        expected = _shape(slot, params[param].shape)
        if leaf.shape != expected:
            raise UserError(f"{slot} of {param} has the shape {list(leaf.shape)}; expected {list(expected)}.")
        slots[f"{slot}/{param}"] = leaf
    moved = sorted({name.partition("/")[2] for name in slots})
    return {f"{slot}/{param}": _unused() for param in moved for slot in SLOTS} | slots


def to_theirs(
    slots: Mapping[str, Leaf], rules: Sequence[Rule], params: Mapping[str, Leaf], *, where: str
) -> dict[str, Leaf]:
    """Returns this project's state by T5X's names, "<parameter>/v_row" and so on, four leaves for each parameter.

    Raises:
      UserError: T5X stores means of a parameter for which this state has all of `v`, or a parameter has no state.
    """
    used = {
        f"{name.partition('/')[2]}/{name.partition('/')[0]}": leaf
        for name, leaf in slots.items()
        if leaf.shape != UNUSED_SHAPE
    }
    table = [rule for rule in _slot_rules(rules, params) if mapping.fits(used, [rule.ours])]
    _require_means(table, where)
    states = mapping.to_theirs(used, table, where=where)
    for name in mapping.to_theirs(params, rules, where=where):
        if not any(f"{name}/{slot}" in states for slot in SLOTS):
            raise UserError(f"{where}: the parameter {name} has no state of Adafactor, although others do.")
        states |= {f"{name}/{s}": _unused() for s in (*SLOTS, MOMENTUM) if f"{name}/{s}" not in states}
    return states


def _slot_rules(rules: Sequence[Rule], params: Mapping[str, Leaf]) -> list[Rule]:
    """Returns the rules of slots, "<parameter>/<slot>" on both sides, that follow from the parameters' rules."""
    table = []
    for rule in rules:
        for slot in ("v", MOMENTUM):
            table.append(_slot_rule(rule, slot, slot, rule.form, rule.stack_axis))
        table += _mean_rules(rule, params)
    return table


def _mean_rules(rule: Rule, params: Mapping[str, Leaf]) -> list[Rule]:
    """Returns the rules of `v_row` and `v_col`; see the module's docstring."""
    shape = params[rule.ours.replace("{i}", "0")].shape
    if len(shape) != 2 or _NEVER_FACTORED.fullmatch(rule.ours) and _is_named_by_meaning(rule):
        return []
    if not _is_named_by_meaning(rule):
        return [_slot_rule(rule, slot, slot, Same(), None) for slot in ("v_row", "v_col")]
    # T5X's `standard_logical_factor_rules`: `embed` is a row, every other axis a column.
    width_axis = 1 if _ENDS_IN_WIDTH.fullmatch(rule.ours) else 0
    # Here `v_row` retains the smaller axis, which need not be the width.
    smaller_axis, _ = _by_size(shape)
    for_width, for_rest = ("v_row", "v_col") if smaller_axis == width_axis else ("v_col", "v_row")
    rest_form: Form = SplitHeads(0, rule.form.head_dim) if isinstance(rule.form, SplitHeads) else Same()
    row_axis = col_axis = None
    if rule.stack_axis is not None:  # Layers are the tensor's second dimension; one mean drops the first.
        row_axis, col_axis = (1, 0) if width_axis == 0 else (0, 1)
    return [
        _slot_rule(rule, for_width, "v_row", Same(), row_axis),
        _slot_rule(rule, for_rest, "v_col", rest_form, col_axis),
    ]


def _is_named_by_meaning(rule: Rule) -> bool:
    return rule.stack_axis is not None or isinstance(rule.form, SplitHeads)


def _slot_rule(rule: Rule, ours: str, theirs: str, form: Form, stack_axis: int | None) -> Rule:
    return Rule(ours=f"{rule.ours}/{ours}", theirs=f"{rule.theirs}/{theirs}", form=form, stack_axis=stack_axis)


def _require_means(table: Sequence[Rule], where: str) -> None:
    for rule in table:
        kernel = rule.ours.rpartition("/")[0]
        if rule.ours.endswith("/v") and not _NEVER_FACTORED.fullmatch(kernel) and _is_named_by_meaning(rule):
            raise UserError(
                f"{where}: Adafactor stores all of v for {kernel}, which is too small for means here, but T5X stores "
                "means for stacked layers and split heads of any size. Write the parameters only, or layers by name "
                "with heads merged."
            )


def _shape(slot: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if slot in ("v", MOMENTUM):
        return shape
    smaller, larger = _by_size(shape)
    gone = larger if slot == "v_row" else smaller
    return shape[:gone] + shape[gone + 1 :]


def _by_size(shape: Sequence[int]) -> tuple[int, int]:
    """Returns the axes of the second largest and the largest size; of equal sizes the later axis counts as larger."""
    # As Optax (`_factored_dims`) and T5X's heuristic sort them.
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])


def _unused() -> Leaf:
    return from_array(np.zeros(UNUSED_SHAPE, np.float32))
