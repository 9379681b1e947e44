"""What a new run takes from a checkpoint of any format: a plan that accounts for every leaf, then arrays on the mesh.

Each device reads its own part of each parameter and no more, in the type that the run keeps; so a checkpoint that fits
on no single host starts a run on many. Initialising what is not taken is left to the caller, who knows the network.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import numpy as np

from flan_jax.checkpoint.leaves import Index, Leaf, cast, same_dtypes
from flan_jax.checkpoint.trees import named_leaves
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.families import recognize
from flan_jax.models.t5.parameters import require_shapes
from flan_jax.names import nearest

Rule = tuple[str, str | None]
Restore = Literal["params", "params_and_optimizer"]
# What a checkpoint of the right shapes may still differ in.
COMPARED = ("mlp_activations", "decoder_outputs_are_scaled")
_RESTORE: tuple[Restore, ...] = ("params", "params_and_optimizer")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    r"""What is taken of the initial checkpoint.

    Attributes:
      rules: ordered pairs of a regular expression that matches a parameter's whole name in the run, and the name that
        the parameter has in the checkpoint (with \1 for groups), or None: initialised anew. The first match decides;
        what no rule matches keeps its name. Without rules everything has to fit.
      restore: "params", or "params_and_optimizer": Adafactor's second moments and the step as well, so that the
        checkpoint's run goes on.
      step: which of several checkpoints at the path; None is the latest.
    """

    rules: tuple[Rule, ...] = ()
    restore: Restore = "params"
    step: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(tuple(rule) for rule in self.rules))  # gin hands over lists
        if self.restore not in _RESTORE:
            raise UserError(
                f"Start.restore is {self.restore!r}; allowed are {', '.join(map(repr, _RESTORE))}."
                f"{nearest(str(self.restore), _RESTORE)}"
            )
        for rule in self.rules:
            if len(rule) != 2 or not isinstance(rule[0], str) or not isinstance(rule[1], str | None):
                raise UserError(f"Start.rules has {rule!r}; a rule is a pair of a pattern and a name, or None.")
            try:
                re.compile(rule[0])
            except re.error as error:
                raise UserError(f"Start.rules has {rule[0]!r}, which is no regular expression: {error}.") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What happens to one leaf.

    Attributes:
      name: in the run; None: a leaf of the checkpoint that the run has no use for.
      source: its name in the checkpoint; None: initialised anew.
      shape: its sizes.
      dtype: its type in the checkpoint.
    """

    name: str | None
    source: str | None
    shape: tuple[int, ...]
    dtype: str | None


def plan(weights: Weights, abstract_params: Any, start: Start, *, config: T5Config) -> list[Row]:
    """Returns a row for every parameter of the run and every one of the checkpoint.

    Args:
      weights: the checkpoint.
      abstract_params: shapes of the run's parameters.
      start: what to take.
      config: the run's network.

    Raises:
      UserError: something does not fit; every leaf that does not is named.
    """
    wanted = named_leaves(abstract_params)
    _require_one_dtype(weights)
    if start.rules:
        require_same_network(weights, config, fields=("mlp_activations",))
    else:
        require_shapes({name: leaf.shape for name, leaf in weights.params.items()}, config, place=weights.path)
        require_same_network(weights, config)
        return [_row(name, name, weights.params) for name in wanted]
    sources = _sources(list(wanted), start.rules)
    lines = []
    for name, source in sources.items():
        got = weights.params.get(source) if source is not None else None
        if source is not None and got is None:
            lines.append(f"{name}: the checkpoint has no {source}.{nearest(source, weights.params)}")
        elif got is not None and got.shape != tuple(wanted[name].shape):
            lines.append(f"{name}: got {list(got.shape)} in the checkpoint, wanted {list(wanted[name].shape)}")
    if lines:
        raise UserError(
            f"{weights.path} does not fit by the rules given:\n  " + "\n  ".join(lines[:20]) + "\n"
            "A rule (name, None) initialises a parameter anew."
        )
    rows = [
        Row(name=name, source=None, shape=tuple(wanted[name].shape), dtype=None)
        if source is None
        else _row(name, source, weights.params)
        for name, source in sources.items()
    ]
    unused = sorted(set(weights.params) - set(sources.values()))
    return rows + [_row(None, name, weights.params) for name in unused]


def require_same_network(weights: Weights, config: T5Config, *, fields: Sequence[str] = COMPARED) -> None:
    """Refuses a checkpoint that says of itself what shapes cannot tell, and says something else than the model.

    Args:
      weights: the checkpoint.
      config: the model that was asked for.
      fields: what is compared.

    Raises:
      UserError: some field differs.
    """
    if not weights.config_is_stated or weights.config is None:
        return
    pairs = {name: (_spelled(weights.config, name), _spelled(config, name)) for name in fields}
    differing = [
        f"{name}: got {got!r}, the model's is {wanted!r}" for name, (got, wanted) in pairs.items() if got != wanted
    ]
    if differing:
        raise UserError(
            f"{weights.path} is of another network than the model; it is {recognize(weights.config).title}.\n  "
            + "\n  ".join(differing)
        )


def grouped(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns rows for a table: layers that fare alike together, with their number.

    >>> rows = [Row(name=f"encoder/layers_{i}/a/kernel", source=None, shape=(2,), dtype=None) for i in range(3)]
    >>> grouped(rows)
    [{'parameter': 'encoder/layers_*/a/kernel', 'leaves': 3, 'shape': [2], 'from': 'initialised'}]
    """
    groups: dict[tuple[Any, ...], int] = {}
    for row in rows:
        name, source = (text and re.sub(r"layers_\d+", "layers_*", text) for text in (row.name, row.source))
        if row.name is None:
            told = "not used"
        elif row.source is None:
            told = "initialised"
        else:
            told = f"checkpoint, {row.dtype}" if row.source == row.name else f"checkpoint, {source}, {row.dtype}"
        key = (name or source, row.shape, told)
        groups[key] = groups.get(key, 0) + 1
    return [
        {"parameter": name, "leaves": count, "shape": list(shape), "from": told}
        for (name, shape, told), count in groups.items()
    ]


def read_onto(leaf: Leaf, abstract: Any) -> Any:
    """Returns a `jax.Array` with the sharding and type of `abstract`; each part is read once a process.

    Args:
      leaf: where the values are.
      abstract: a `jax.ShapeDtypeStruct` of the leaf's shape; without a sharding the array goes to the first device.
    """
    import jax

    typed = cast(leaf, abstract.dtype)
    sharding = abstract.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    read: dict[Any, np.ndarray] = {}

    def part(index: Index | None) -> np.ndarray:
        assert index is not None
        key = tuple((s.start, s.stop) for s in index)
        if key not in read:
            read[key] = typed.part(index)
        return read[key]

    return jax.make_array_from_callback(tuple(leaf.shape), sharding, part)


def taken_params(weights: Weights, rows: Sequence[Row], abstract_params: Any) -> dict[str, Any]:
    """Returns the parameters that the rows take, by name, on the mesh of `abstract_params`."""
    wanted = named_leaves(abstract_params)
    return {
        row.name: read_onto(weights.params[row.source], wanted[row.name])
        for row in rows
        if row.name is not None and row.source is not None
    }


def restored_optimizer(weights: Weights, abstract_state: Any, *, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of an optimiser's state by name: Adafactor's second moments, and the step for each count.

    Args:
      weights: with slots.
      abstract_state: shapes and shardings of the run's optimiser state.
      params: the run's parameters by name; what they are does not matter.

    Raises:
      UserError: the checkpoint has no slots or no step, or the run's optimiser keeps something that it has not.
    """
    from flan_jax.checkpoint.own import slots_of

    if not weights.slots or weights.step is None:
        raise UserError(f"{weights.path} holds parameters only, no state of Adafactor: set Start.restore to 'params'.")
    named = named_leaves(abstract_state)
    slots = {name: slot for slot, name in slots_of({name: name for name in named}, params).items()}
    found, lines = {}, []
    for name, leaf in named.items():
        kept = weights.slots.get(slots.get(name, ""))
        if kept is not None and kept.shape == tuple(leaf.shape):
            found[name] = read_onto(kept, leaf)
        elif name not in slots and name.rpartition("/")[2] == "count":
            found[name] = _scalar(weights.step, leaf)
        else:
            have = "nothing" if kept is None else list(kept.shape)
            lines.append(f"{name}: wanted {list(leaf.shape)}, the checkpoint has {have}")
    kept_there = sorted(set(weights.slots) - {slots[name] for name in found if name in slots})
    lines += [f"{slot}: the checkpoint keeps it, this run's optimiser does not" for slot in kept_there]
    if lines:
        raise UserError(
            f"The optimiser's state in {weights.path} is not that of this run's optimiser:\n  "
            + "\n  ".join(lines[:12])
            + "\nUse a plain Adafactor, as T5X's, or set Start.restore to 'params'."
        )
    return found


def _scalar(value: int, abstract: Any) -> Any:
    leaf = Leaf(shape=(), dtype=np.dtype(abstract.dtype), read=lambda _: np.asarray(value, abstract.dtype))
    return read_onto(leaf, abstract)


def _spelled(config: T5Config, field: str) -> Any:
    value = getattr(config, field)
    return tuple("silu" if name == "swish" else name for name in value) if field == "mlp_activations" else value


def _sources(names: Sequence[str], rules: Sequence[Rule]) -> dict[str, str | None]:
    """Returns, by a parameter's name, its name in the checkpoint."""
    patterns = [(re.compile(pattern), target) for pattern, target in rules]
    took = [0] * len(patterns)
    sources: dict[str, str | None] = {}
    for name in names:
        sources[name] = name
        for number, (pattern, target) in enumerate(patterns):
            if match := pattern.fullmatch(name):
                took[number] += 1
                sources[name] = target and match.expand(target)
                break
    for count, (text, _) in zip(took, rules, strict=True):
        if not count:
            raise UserError(
                f"Start.rules: {text!r} takes no parameter of this model. Names are as {names[0]!r}; a pattern has to "
                f"match the whole of one.{nearest(text, names)}"
            )
    return sources


def _require_one_dtype(weights: Weights) -> None:
    """Refuses a checkpoint of several types: one that was cast half-way gives a model that nobody has seen."""
    groups = same_dtypes(dict(weights.params))
    if len(groups) > 1:
        (usual, most), (odd, few) = list(groups.items())[:2]
        raise UserError(
            f"{weights.path} mixes types: {few[0]} is {odd} ({len(few)} such), where {len(most)} others are {usual}. "
            "Convert it first, `flan-jax convert --dtype=float32`, which casts all of them."
        )


def _row(name: str | None, source: str, params: Mapping[str, Leaf]) -> Row:
    return Row(name=name, source=source, shape=params[source].shape, dtype=str(params[source].dtype))
