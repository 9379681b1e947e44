"""Starts a new run from a checkpoint of any format: a plan that accounts for every leaf, then arrays on the mesh.

Each device reads only its own part of each parameter, cast to the run's type. So a checkpoint that no single host can
hold starts a run on many. The caller initializes what the checkpoint does not provide.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import numpy as np

from flan_jax.annotations import Count, check_fields
from flan_jax.checkpoint.leaves import Index, Leaf, cast, same_dtypes
from flan_jax.checkpoint.native import slots_of
from flan_jax.checkpoint.trees import named_leaves
from flan_jax.checkpoint.weights import Weights
from flan_jax.errors import UserError
from flan_jax.models.t5.config import T5Config
from flan_jax.models.t5.families import recognize
from flan_jax.models.t5.parameters import require_shapes
from flan_jax.names import nearest

Rule = tuple[str, str | None]
Restore = Literal["params", "params_and_optimizer"]
# Properties of the network that shapes do not determine.
COMPARED = ("mlp_activations", "decoder_outputs_are_scaled", "relpos_max_distance", "layer_norm_epsilon")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    r"""The parts of an initial checkpoint that a run restores.

    Attributes:
      rules: Ordered pairs of a regular expression that matches a parameter's full name in the run, and the parameter's
        name in the checkpoint (with \1 for groups), or None to initialize it. The first match decides; a parameter
        without a match keeps its name. Without rules the whole checkpoint must match the model.
      restore: "params", or "params_and_optimizer" to restore also Adafactor's second moments and the step, which
        continues the checkpoint's run.
      step: Which of several checkpoints at the path; None selects the latest.
    """

    rules: tuple[Rule, ...] = ()
    restore: Restore = "params"
    step: Count | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for rule in self.rules:
            try:
                re.compile(rule[0])
            except re.error as error:
                raise UserError(f"Start.rules has {rule[0]!r}, which is not a regular expression: {error}.") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One leaf of the plan.

    Attributes:
      name: In the run; None for a leaf of the checkpoint that the run does not use.
      source: Name in the checkpoint; None if the run initializes the leaf.
      shape: Sizes of the dimensions.
      dtype: Element type in the checkpoint.
    """

    name: str | None
    source: str | None
    shape: tuple[int, ...]
    dtype: str | None


def plan(weights: Weights, abstract_params: Any, start: Start, *, config: T5Config) -> list[Row]:
    """Returns a row for every parameter of the run and of the checkpoint.

    Args:
      weights: The checkpoint.
      abstract_params: Shapes of the run's parameters.
      start: The parts to restore.
      config: The run's network.

    Raises:
      UserError: Some leaves do not match; the text lists them.
    """
    expected = named_leaves(abstract_params)
    _require_one_dtype(weights)
    if start.rules:
        # Parts of another network may be wanted, but its feed-forward layers mean nothing with another activation.
        require_same_network(weights, config, fields=("mlp_activations",))
    else:
        require_shapes({name: leaf.shape for name, leaf in weights.params.items()}, config, place=weights.path)
        require_same_network(weights, config)
        return [_row(name, name, weights.params) for name in expected]
    sources = _sources(list(expected), start.rules)
    lines = []
    for name, source in sources.items():
        got = weights.params.get(source) if source is not None else None
        if source is not None and got is None:
            lines.append(f"{name}: the checkpoint has no {source}.{nearest(source, weights.params)}")
        elif got is not None and got.shape != tuple(expected[name].shape):
            lines.append(f"{name}: got {list(got.shape)} in the checkpoint, expected {list(expected[name].shape)}")
    if lines:
        raise UserError(
            f"{weights.path} does not match under the given rules:\n  " + "\n  ".join(lines[:20]) + "\n"
            "A rule (name, None) initializes a parameter."
        )
    rows = [
        Row(name=name, source=None, shape=tuple(expected[name].shape), dtype=None)
        if source is None
        else _row(name, source, weights.params)
        for name, source in sources.items()
    ]
    unused = sorted(set(weights.params) - set(sources.values()))
    return rows + [_row(None, name, weights.params) for name in unused]


def require_same_network(weights: Weights, config: T5Config, *, fields: Sequence[str] = COMPARED) -> None:
    """Rejects a checkpoint that records another network than the model, in fields that do not follow from shapes.

    Args:
      weights: The checkpoint.
      config: The requested model.
      fields: The compared fields.

    Raises:
      UserError: A field differs.
    """
    if not weights.config_is_stated or weights.config is None:
        return
    pairs = {name: (_comparable(weights.config, name), _comparable(config, name)) for name in fields}
    differing = [f"{name}: got {got!r}, the model has {want!r}" for name, (got, want) in pairs.items() if got != want]
    if differing:
        raise UserError(
            f"{weights.path} has another network than the model; it is {recognize(weights.config).title}.\n  "
            + "\n  ".join(differing)
        )


def grouped(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns rows for a table, with equal rows of different layers merged and counted.

    >>> rows = [Row(name=f"encoder/layers_{i}/a/kernel", source=None, shape=(2,), dtype=None) for i in range(3)]
    >>> grouped(rows)
    [{'parameter': 'encoder/layers_*/a/kernel', 'leaves': 3, 'shape': [2], 'from': 'initialized'}]
    """
    groups: dict[tuple[Any, ...], int] = {}
    for row in rows:
        name, source = (text and re.sub(r"layers_\d+", "layers_*", text) for text in (row.name, row.source))
        if row.name is None:
            origin = "not used"
        elif row.source is None:
            origin = "initialized"
        else:
            origin = f"checkpoint, {row.dtype}" if row.source == row.name else f"checkpoint, {source}, {row.dtype}"
        key = (name or source, row.shape, origin)
        groups[key] = groups.get(key, 0) + 1
    return [
        {"parameter": name, "leaves": count, "shape": list(shape), "from": origin}
        for (name, shape, origin), count in groups.items()
    ]


def read_onto(leaf: Leaf, abstract: Any) -> Any:
    """Returns a `jax.Array` with the sharding and type of `abstract`; a process reads each part once.

    Args:
      leaf: The values.
      abstract: A `jax.ShapeDtypeStruct` of the leaf's shape; without a sharding the array goes to the first device.
    """
    import jax

    typed = cast(leaf, abstract.dtype)
    sharding = abstract.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    read: dict[Any, np.ndarray] = {}

    def part(index: Index | None) -> np.ndarray:
        assert index is not None
        key = tuple((s.start, s.stop) for s in index)
        # Devices that hold the same part, as of a replicated parameter, share one read.
        if key not in read:
            read[key] = typed.part(index)
        return read[key]

    return jax.make_array_from_callback(tuple(leaf.shape), sharding, part)


def restored_params(weights: Weights, rows: Sequence[Row], abstract_params: Any) -> dict[str, Any]:
    """Returns the parameters that come from the checkpoint, by name, on the mesh of `abstract_params`."""
    expected = named_leaves(abstract_params)
    return {
        row.name: read_onto(weights.params[row.source], expected[row.name])
        for row in rows
        if row.name is not None and row.source is not None
    }


def restored_optimizer(weights: Weights, abstract_state: Any, *, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of an optimizer's state by name: Adafactor's second moments, and the step for each count.

    Args:
      weights: With slots.
      abstract_state: Shapes and shardings of the run's optimizer state.
      params: The run's parameters by name; only the names are used.

    Raises:
      UserError: The checkpoint has no slots or no step, or not all the state of the run's optimizer.
    """
    if not weights.slots or weights.step is None:
        raise UserError(f"{weights.path} has only parameters and no state of Adafactor: set Start.restore to 'params'.")
    named = named_leaves(abstract_state)
    slots = {name: slot for slot, name in slots_of({name: name for name in named}, params).items()}
    restored, lines = {}, []
    for name, leaf in named.items():
        stored = weights.slots.get(slots.get(name, ""))
        if stored is not None and stored.shape == tuple(leaf.shape):
            restored[name] = read_onto(stored, leaf)
        elif name not in slots and name.rpartition("/")[2] == "count":
            # Schedules continue from the step of the checkpoint.
            restored[name] = _scalar(weights.step, leaf)
        else:
            have = "nothing" if stored is None else list(stored.shape)
            lines.append(f"{name}: expected {list(leaf.shape)}, the checkpoint has {have}")
    unused = sorted(set(weights.slots) - {slots[name] for name in restored if name in slots})
    lines += [f"{slot}: the checkpoint has it, this run's optimizer does not" for slot in unused]
    if lines:
        raise UserError(
            f"The optimizer's state in {weights.path} does not match this run's optimizer:\n  "
            + "\n  ".join(lines[:12])
            + "\nUse a plain Adafactor like T5X's, or set Start.restore to 'params'."
        )
    return restored


def _scalar(value: int, abstract: Any) -> Any:
    leaf = Leaf(shape=(), dtype=np.dtype(abstract.dtype), read=lambda _: np.asarray(value, abstract.dtype))
    return read_onto(leaf, abstract)


def _comparable(config: T5Config, field: str) -> Any:
    value = getattr(config, field)
    # Two names of one function.
    return tuple("silu" if name == "swish" else name for name in value) if field == "mlp_activations" else value


def _sources(names: Sequence[str], rules: Sequence[Rule]) -> dict[str, str | None]:
    """Returns each parameter's name in the checkpoint, None to initialize it."""
    patterns = [(re.compile(pattern), target) for pattern, target in rules]
    counts = [0] * len(patterns)
    sources: dict[str, str | None] = {}
    for name in names:
        sources[name] = name
        for number, (pattern, target) in enumerate(patterns):
            if match := pattern.fullmatch(name):
                # Counted only where it decides, so that a rule that earlier ones shadow is refused, too.
                counts[number] += 1
                sources[name] = target and match.expand(target)
                break
    for count, (text, _) in zip(counts, rules, strict=True):
        if not count:
            raise UserError(
                f"Start.rules: {text!r} matches no parameter of this model. A pattern must match a full name, such "
                f"as {names[0]!r}.{nearest(text, names)}"
            )
    return sources


def _require_one_dtype(weights: Weights) -> None:
    """Rejects a checkpoint of several types, which is usually the result of an incomplete cast."""
    groups = same_dtypes(weights.params)
    if len(groups) > 1:
        (usual, most), (odd, few) = list(groups.items())[:2]
        raise UserError(
            f"{weights.path} mixes types: {few[0]} is {odd} ({len(few)} such), but {len(most)} others are {usual}. "
            "Convert it first, `flan-jax convert --dtype=float32`, which casts all of them."
        )


def _row(name: str | None, source: str, params: Mapping[str, Leaf]) -> Row:
    return Row(name=name, source=source, shape=params[source].shape, dtype=str(params[source].dtype))
