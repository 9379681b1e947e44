import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim.optimizers import adafactor
from flan_jax.optim.schedules import constant
from flan_jax.optim.selection import by_path
from flan_jax.train.state import new_state
from flan_jax.train.step import make_train_step

VOCABULARY, WIDTH, ROWS, STEPS = 11, 8, 32, 20


def _params():
    generator = np.random.default_rng(0)
    shapes = {"embedding": (VOCABULARY, WIDTH), "kernel": (WIDTH, VOCABULARY)}
    return {name: {"w": jnp.asarray(generator.normal(size=shape), jnp.float32)} for name, shape in shapes.items()}


def _apply(params, batch, rng):
    del rng
    inputs = params["embedding"]["w"][batch["encoder_input_tokens"]].mean(axis=1, keepdims=True)
    decoder = params["embedding"]["w"][batch["decoder_input_tokens"]]
    return jnp.tanh(inputs + decoder) @ params["kernel"]["w"]


def _batch(seed):
    """Rows with 1 to 6 target tokens, so that the mean differs from a mean of means of rows or parts."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(1, VOCABULARY, size=(ROWS, 12)).astype(np.int32)
    lengths = generator.integers(1, 7, size=(ROWS, 1))
    return {
        "encoder_input_tokens": tokens[:, :6],
        "decoder_input_tokens": np.roll(tokens[:, 6:], 1, axis=1),
        "decoder_target_tokens": tokens[:, 6:],
        "decoder_loss_weights": (np.arange(6)[None] < lengths).astype(np.float32),
    }


def _losses(*, num_microbatches=1, mesh=None):
    optimizer = adafactor(0.1)
    step = make_train_step(Seq2Seq(), _apply, optimizer, seed=0, num_microbatches=num_microbatches)
    state, place = new_state(_params(), optimizer=optimizer), jnp.asarray
    if mesh is not None:
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
        rows = NamedSharding(mesh, PartitionSpec("data"))
        place = lambda array: jax.device_put(array, rows)  # noqa: E731
    step = jax.jit(step, donate_argnums=0)
    losses = []
    for seed in range(STEPS):
        state, metrics = step(state, {name: place(array) for name, array in _batch(seed).items()})
        losses.append(float(metrics.mean("loss")))
    return losses, jax.device_get(state.params)


@pytest.fixture(scope="module")
def reference():
    return _losses()


def _assert_same(got, reference):
    np.testing.assert_allclose(got[0], reference[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got[1], reference[1])


@pytest.mark.parametrize("num_microbatches", [2, 4])
def test_microbatches_change_nothing(reference, num_microbatches):
    _assert_same(_losses(num_microbatches=num_microbatches), reference)


@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_eight_devices_train_as_one(reference, num_microbatches):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    _assert_same(_losses(mesh=mesh, num_microbatches=num_microbatches), reference)


def test_microbatches_move_no_rows_between_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    optimizer = adafactor(0.1)
    step = make_train_step(Seq2Seq(), _apply, optimizer, seed=0, num_microbatches=4)
    everywhere, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    state = jax.eval_shape(lambda: new_state(_params(), optimizer=optimizer))
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), state)
    batch = {n: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=rows) for n, a in _batch(0).items()}
    program = jax.jit(step).lower(state, batch).compile().as_text()
    assert "all-reduce" in program
    assert not [word for word in ("all-to-all", "all-gather", "collective-permute") if word in program]


def _one_step(objective, *, batch=None, params=None, step=0, apply=_apply, **arguments):
    optimizer = arguments.pop("optimizer", optax.adam(constant(0.1)))
    function = make_train_step(objective, apply, optimizer, **{"seed": 0, **arguments})
    state = new_state(_params() if params is None else params, optimizer=optimizer)
    state = state.replace(step=jnp.int32(step))
    return state, *jax.jit(function)(state, _batch(0) if batch is None else batch)


def _noise(apply, params, batch, rng):
    """An objective whose value is drawn with the dropout key."""
    noise = jax.random.uniform(rng)
    return 0.0 * jnp.sum(params["kernel"]["w"]) + noise, jnp.ones(()), {"square": noise**2}


def test_dropout_is_a_function_of_seed_step_and_microbatch():
    def drawn(**arguments):
        sums = _one_step(_noise, **arguments)[2].sums
        return float(sums["loss"]), float(sums["square"])

    first = drawn()
    assert drawn() == first
    assert drawn(step=1) != first
    assert drawn(seed=1) != first
    total, squares = drawn(num_microbatches=2)
    assert squares != pytest.approx(total**2 / 2)  # the two draws differ
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), part) for part in (0, 1)]
    assert total == pytest.approx(sum(float(jax.random.uniform(key)) for key in keys))


def _breaking(name):
    """An objective with a finite value whose gradient by one parameter is not finite."""

    def objective(apply, params, batch, rng):
        whole = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
        return whole + jnp.sqrt(0.0 * jnp.sum(params[name]["w"])), jnp.ones(()), {}

    return objective


def test_a_step_that_is_not_finite_changes_nothing_but_the_counts():
    before, after, metrics = _one_step(_breaking("kernel"))
    assert bool(metrics.skipped)
    assert int(metrics.bad_tensors) == 1
    assert int(metrics.first_bad_tensor) == 1  # embedding/w is 0, kernel/w 1
    assert int(after.step) == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(
        np.testing.assert_array_equal, *(optax.tree_utils.tree_get(s.opt_state, "mu") for s in (after, before))
    )
    counts = [count for _, count in optax.tree_utils.tree_get_all_with_path(after.opt_state, "count")]
    assert counts and all(int(count) == 1 for count in counts)  # so the schedule stays a function of the step


def test_a_loss_that_is_not_finite_is_skipped_too():
    def objective(apply, params, batch, rng):
        return jnp.sum(params["kernel"]["w"]) + jnp.inf, jnp.ones(()), {}

    _, _, metrics = _one_step(objective)
    assert bool(metrics.skipped)
    assert (int(metrics.bad_tensors), int(metrics.first_bad_tensor)) == (0, -1)


def test_a_finite_step_is_not_skipped_and_moves_every_parameter():
    before, after, metrics = _one_step(Seq2Seq())
    assert not bool(metrics.skipped)
    assert int(metrics.first_bad_tensor) == -1
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before.params, after.params)
    assert all(jax.tree.leaves(moved))


def test_frozen_parameters_do_not_change_and_count_in_no_metric():
    selection = by_path([("embedding/.*", None)], default=optax.adam(0.1))
    arguments = {"optimizer": selection.transformation, "trainable": selection.trainable, "weight_statistics": True}
    before, after, metrics = _one_step(Seq2Seq(), **arguments)
    np.testing.assert_array_equal(after.params["embedding"]["w"], before.params["embedding"]["w"])
    assert bool(jnp.any(after.params["kernel"]["w"] != before.params["kernel"]["w"]))
    assert float(metrics.values["grad_norm"]) < float(_one_step(Seq2Seq())[2].values["grad_norm"])
    assert {name for name in metrics.values if "embedding" in name} == set()


def test_no_gradient_of_a_frozen_parameter_is_computed():
    @jax.custom_vjp
    def refuse(x):
        return x

    def backward(_, gradient):
        raise AssertionError("differentiated")

    refuse.defvjp(lambda x: (x, None), backward)

    def apply(params, batch, rng):
        return _apply({**params, "embedding": {"w": refuse(params["embedding"]["w"])}}, batch, rng)

    selection = by_path([("embedding/.*", None)], default=optax.adam(0.1))
    _one_step(Seq2Seq(), apply=apply, optimizer=selection.transformation, trainable=selection.trainable)
    with pytest.raises(AssertionError, match="differentiated"):
        _one_step(Seq2Seq(), apply=apply)


def test_a_bad_tensor_is_indexed_in_the_complete_tree():
    selection = by_path([("embedding/.*", None)], default=optax.adam(0.1))
    arguments = {"optimizer": selection.transformation, "trainable": selection.trainable}
    assert int(_one_step(_breaking("kernel"), **arguments)[2].first_bad_tensor) == 1


def test_a_batch_without_target_tokens_changes_nothing_and_is_finite():
    batch = _batch(0) | {"decoder_loss_weights": np.zeros((ROWS, 6), np.float32)}
    before, after, metrics = _one_step(Seq2Seq(), batch=batch, optimizer=adafactor(0.1))
    assert not bool(metrics.skipped)
    assert float(metrics.mean("loss")) == 0.0
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)


def test_learning_rate_and_statistics_are_reported_when_requested():
    def objective(apply, params, batch, rng):
        return 3.0 * jnp.sum(params["a"]), jnp.full((), 2.0), {}

    schedule = constant(0.5, warmup_steps=4)
    arguments = {"optimizer": optax.sgd(schedule), "params": {"a": jnp.asarray([3.0, 4.0])}}
    values = _one_step(objective, learning_rate=schedule, weight_statistics=True, step=2, **arguments)[2].values
    assert {name: round(float(value), 4) for name, value in values.items()} == {
        "grad_norm": 2.1213,  # 1.5 sqrt(2): the sum's gradient over the weight
        "learning_rate": 0.25,
        "weight_rms/a": 3.5355,
        "gradient_rms/a": 1.5,
        "update_rms/a": 0.0,  # the optimizer counts from its own start, where this schedule is at its floor
    }
    assert set(_one_step(objective, **arguments)[2].values) == {"grad_norm"}


def test_gradients_are_summed_in_float32_whatever_the_parameters_are():
    def objective(apply, params, batch, rng):
        return jnp.sum(params["a"] * batch["x"].astype(jnp.bfloat16)), jnp.ones(()), {}

    params = {"a": jnp.ones((), jnp.bfloat16)}
    batch = {"x": jnp.asarray([256.0, 1.0, 1.0, 1.0])}  # bfloat16 has no 257
    metrics = _one_step(objective, params=params, batch=batch, num_microbatches=4, optimizer=optax.sgd(0.1))[2]
    assert float(metrics.values["grad_norm"]) == 259.0 / 4.0


def test_no_microbatch_at_all_is_refused():
    with pytest.raises(ValueError, match="num_microbatches is 0; it must be at least 1"):
        make_train_step(Seq2Seq(), _apply, optax.sgd(0.1), seed=0, num_microbatches=0)


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="A batch of 32 rows cannot be split into 3 microbatches. Choose"):
        _one_step(Seq2Seq(), num_microbatches=3)


def test_nothing_to_train_is_refused():
    selection = by_path([(".*", None)])
    with pytest.raises(ValueError, match="Every parameter is frozen: there is nothing to train"):
        _one_step(Seq2Seq(), optimizer=selection.transformation, trainable=selection.trainable)
