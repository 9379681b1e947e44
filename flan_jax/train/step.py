"""The train step: a pure function from state and batch to the next state and metrics.

One step serves every stage of training; objective, network and optimizer are arguments. The caller compiles it:

    step = jax.jit(make_train_step(...), donate_argnums=0, in_shardings=..., out_shardings=(state_shardings, None))
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax.errors import UserError
from flan_jax.optim.selection import path_names
from flan_jax.shapes import Batch
from flan_jax.train.state import StepMetrics, TrainState

Apply = Callable[[Any, Batch, jax.Array | None], Any]
Objective = Callable[[Apply, Any, Batch, jax.Array | None], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
_Totals = dict[str, Any]


def make_train_step(
    objective: Objective,
    apply: Apply,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    num_microbatches: int = 1,
    learning_rate: Callable[[Any], jax.Array] | None = None,
    trainable: Callable[[Any], Any] | None = None,
    weight_statistics: bool = False,
) -> TrainStep:
    """Returns the step `(state, batch) -> (state, metrics)`.

    The gradient is that of the summed loss over all microbatches, in float32, divided once by the summed weight. A
    step whose loss or gradient is not finite changes neither parameters nor moments, but increments the counts, so that
    schedule and dropout remain functions of the step.

    Args:
      objective: Maps `(apply, params, batch, rng)` to a sum, a weight, and more sums.
      apply: The network: maps parameters, batch and dropout key to what the objective reads.
      optimizer: Receives the gradient of all parameters, which is zero for frozen ones.
      seed: The dropout key of a step is fold_in(fold_in(key(seed), step), microbatch).
      num_microbatches: Parts of the batch that are processed one after the other; divides the rows of a batch, and
        preferably those on each device.
      learning_rate: The optimizer's schedule, reported with each step.
      trainable: Maps the parameters to a tree of Python booleans, True where trained; None trains all. No gradient is
        computed where it is False.
      weight_statistics: Whether to report the root mean square of each trained parameter, its gradient and its update.

    Raises:
      UserError: There is no microbatch; or, when traced, the rows do not divide, or nothing is trained.
    """
    if num_microbatches < 1:
        raise UserError(f"num_microbatches is {num_microbatches}; it must be at least 1.")

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        # Python booleans, evaluated while tracing: frozen parameters cost neither a gradient nor its memory.
        mask = jax.tree.map(lambda _: True, state.params) if trainable is None else trainable(state.params)
        trained, fixed = _split(state.params, mask)
        totals = _totals(objective, apply, fixed=fixed)
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        total = _over_microbatches(totals, trained, batch, rng, num_microbatches=num_microbatches)
        # A batch without a single target token has a gradient of zero, and is not divided.
        divisor = jnp.where(total["weight"] > 0, total["weight"], 1.0)
        # Divided once, after all sums: a mean of microbatch means would weight a token by the length of its microbatch.
        gradients = jax.tree.map(lambda leaf: leaf / divisor, total["gradients"])

        # Optax's partition expects the complete tree. The zeros cost nothing: a frozen label does not read them.
        everywhere = _merge(gradients, jax.tree.map(jnp.zeros_like, fixed))
        with jax.named_scope("optimizer"):  # Its name in a profile.
            updates, opt_state = optimizer.update(everywhere, state.opt_state, state.params)
            new_trained = optax.apply_updates(trained, _split(updates, mask)[0])

        metrics = _metrics(total, gradients, mask)
        if learning_rate is not None:
            metrics.values["learning_rate"] = learning_rate(state.step)
        if weight_statistics:
            changes = jax.tree.map(jnp.subtract, new_trained, trained)
            trees = {"weight_rms": trained, "gradient_rms": gradients, "update_rms": changes}
            metrics.values.update(_statistics(trees))
        # Selected, not branched over: a skipped step is rare, and the selection fuses into the update.
        new_state = TrainState(
            step=state.step + 1,
            params=_merge(_unless(metrics.skipped, new_trained, trained), fixed),
            opt_state=_unless(metrics.skipped, opt_state, state.opt_state),
        )
        return new_state, metrics

    return step


def _totals(objective: Objective, apply: Apply, *, fixed: Any) -> Callable[..., _Totals]:
    """Returns the function from trained parameters, rows and a key to float32 sums: gradients, weight and others."""

    def totals(trained: Any, batch: Batch, rng: jax.Array) -> _Totals:
        def loss(trained: Any) -> tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]:
            total, weight, sums = objective(apply, _merge(trained, fixed), batch, rng)
            return total, (weight, {"loss": total, **sums})

        (_, (weight, sums)), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        everything = {"gradients": gradients, "weight": weight, "sums": sums}
        # Parts and devices are summed: bfloat16 would lose what a part adds to a large sum.
        in_float32: _Totals = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), everything)
        return in_float32

    return totals


def _over_microbatches(
    totals: Callable[..., _Totals], trained: Any, batch: Batch, rng: jax.Array, *, num_microbatches: int
) -> _Totals:
    """Sums `totals` over the parts of the batch, each with its own dropout key."""
    if num_microbatches == 1:
        # Folded in as for several parts, so that the dropout key is the documented one.
        return totals(trained, batch, jax.random.fold_in(rng, 0))
    parts = {name: _parts(array, num_microbatches) for name, array in batch.items()}
    first = {name: array[0] for name, array in parts.items()}
    # Traced for its shapes only; nothing is computed.
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(totals, trained, first, rng))

    def add(carry: _Totals, part: tuple[jax.Array, Batch]) -> tuple[_Totals, None]:
        index, rows = part
        return jax.tree.map(jnp.add, carry, totals(trained, rows, jax.random.fold_in(rng, index))), None

    # A loop, so that the activations of one part exist at a time and it is compiled once.
    total: _Totals = jax.lax.scan(add, zeros, (jnp.arange(num_microbatches), parts))[0]
    return total


def _parts(array: jax.Array, parts: int) -> jax.Array:
    """Splits [B, ...] into [parts, B / parts, ...]; row r goes into part r % parts."""
    rows = array.shape[0]
    if rows % parts:
        raise UserError(
            f"A batch of {rows} rows cannot be split into {parts} microbatches. Choose a num_microbatches that "
            f"divides {rows}."
        )
    # Not contiguous, because each device holds a contiguous block of rows: this way every part has equally many rows of
    # each device, and no row moves to another device.
    return jnp.swapaxes(array.reshape(rows // parts, parts, *array.shape[1:]), 0, 1)


def _metrics(total: _Totals, gradients: Any, mask: Any) -> StepMetrics:
    """Computes the metrics; one sum of squares per tensor serves both the norm and the test for finite values."""
    indices = [index for index, is_trained in enumerate(jax.tree.leaves(mask)) if is_trained]
    if not indices:
        raise UserError(
            "Every parameter is frozen: there is nothing to train. Change the rules or the default so that some "
            "are trained."
        )
    # Squares above 1e38 overflow float32: a gradient that large counts as not finite too.
    squares = jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)])
    bad = ~jnp.isfinite(squares)
    norm = jnp.sqrt(jnp.sum(squares))
    return StepMetrics(
        sums=total["sums"],
        weight=total["weight"],
        values={"grad_norm": norm},
        # Either occurs alone: a sum of losses overflows where gradients are finite, and a derivative is NaN where the
        # loss is not.
        skipped=~(jnp.isfinite(total["sums"]["loss"]) & jnp.isfinite(norm)),
        bad_tensors=jnp.sum(bad),
        # An index, since a compiled step cannot return a name; the loop has the names.
        first_bad_tensor=jnp.where(jnp.any(bad), jnp.asarray(indices)[jnp.argmax(bad)], -1),
    )


def _statistics(trees: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the root mean square of each leaf, named as `weight_rms/encoder/encoder_norm/scale`."""
    return {
        f"{kind}/{name}": jnp.sqrt(jnp.mean(jnp.square(leaf)))
        for kind, tree in trees.items()
        for name, leaf in zip(path_names(tree), jax.tree.leaves(tree), strict=True)
    }


def _unless(skipped: jax.Array, new: Any, old: Any) -> Any:
    """Returns the new tree, or the old one when the step is skipped; integer counts are always the new ones."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(skipped, old, new) if jnp.issubdtype(new.dtype, jnp.inexact) else new

    return jax.tree.map(choose, new, old)


def _split(tree: Any, mask: Any) -> tuple[Any, Any]:
    """Returns the leaves where the mask is True, and the others; None marks a leaf that is in the other tree."""
    chosen = jax.tree.map(lambda is_trained, leaf: leaf if is_trained else None, mask, tree)
    others = jax.tree.map(lambda is_trained, leaf: None if is_trained else leaf, mask, tree)
    return chosen, others


def _merge(chosen: Any, others: Any) -> Any:
    """Inverts `_split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, chosen, others, is_leaf=lambda leaf: leaf is None)
