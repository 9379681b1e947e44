"""Chunked logits: losses and gradients of whole logits, sharding, and memory."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import placement, sharding
from flan_jax.models.acceleration.chunked_logits import ChunkedLogits, chunk_width, read_logits
from flan_jax.models.execution import LARGEST_WHOLE_LOGITS_BYTES, Execution
from flan_jax.models.layers import LogitsHead
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq, statistics_of, token_losses

B, T, D, V = 4, 6, 8, 48
OBJECTIVE = Seq2Seq(label_smoothing=0.1, z_loss=0.01)
WHOLE = Execution(logits="whole")


def _chunks_of(rows: int) -> Execution:
    return Execution(logits="chunked", chunk_bytes=4 * B * T * rows)


def _arrays(tied: bool):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(B, T, D)).astype(np.float32)
    table = generator.normal(size=(V, D) if tied else (D, V)).astype(np.float32)
    targets = generator.integers(0, V, size=(B, T)).astype(np.int32)
    targets[-1, -1] = np.argmax(vectors[-1, -1] @ (table.T if tied else table))  # At least one prediction is correct.
    return tuple(map(jnp.asarray, (vectors, table, targets)))


def _loss(vectors, table, targets, *, tied, execution):
    read = read_logits(vectors, LogitsHead(table=table, is_tied=tied, divisor=2.0), execution=execution)
    apply = lambda params, batch, rng: read  # noqa: E731
    batch = {"decoder_target_tokens": targets, "decoder_loss_weights": jnp.linspace(0.0, 1.0, B * T).reshape(B, T)}
    total, _, sums = OBJECTIVE(apply, None, batch, None)
    return total, sums


def _value_and_gradients(tied: bool, execution: Execution):
    vectors, table, targets = _arrays(tied)
    function = jax.value_and_grad(
        functools.partial(_loss, tied=tied, execution=execution), argnums=(0, 1), has_aux=True
    )
    return jax.jit(function)(vectors, table, targets)


def _in_float64(tied: bool):
    """Returns loss, d(vectors) and d(table) with the target distribution written out, in NumPy."""
    vectors, table, targets = map(np.asarray, _arrays(tied))
    x, kernel = vectors.astype(np.float64), (table.T if tied else table).astype(np.float64)
    logits = x @ kernel / 2.0
    log_z = np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    low = 0.1 / (V - 1)
    expected = np.where(np.arange(V) == targets[..., None], 0.9, low)
    weights = np.linspace(0.0, 1.0, B * T).reshape(B, T, 1)
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(low))
    loss = np.sum(weights * (np.sum(expected * (log_z - logits), axis=-1, keepdims=True) + 0.01 * log_z**2 - entropy))
    grad = weights * (np.exp(logits - log_z) * (1.0 + 0.02 * log_z) - expected) / 2.0
    table_grad = np.einsum("btd,btv->dv", x, grad)
    return loss, grad @ kernel.T, table_grad.T if tied else table_grad


@pytest.mark.parametrize(
    "rows", [48, 16, 11, 1], ids=["one chunk", "equal chunks", "a shorter last chunk", "single rows"]
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_loss_and_gradients_of_chunks_are_those_of_whole_logits_and_of_float64(tied, rows):
    (value, sums), gradients = _value_and_gradients(tied, _chunks_of(rows))
    (whole, whole_sums), whole_gradients = _value_and_gradients(tied, WHOLE)
    exact, *exact_gradients = _in_float64(tied)
    for reference in (whole, exact):
        np.testing.assert_allclose(value, reference, rtol=1e-5)
    for reference in (whole_gradients, exact_gradients):
        for got, expected in zip(gradients, reference, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert sums.keys() == whole_sums.keys() and sums["accuracy"] == whole_sums["accuracy"] > 0
    for name in sums:
        np.testing.assert_allclose(sums[name], whole_sums[name], rtol=1e-5)


def test_among_equal_logits_the_first_is_the_prediction():
    vectors, table = jnp.ones((1, 3, 1)), jnp.asarray([[0.0, 5.0, 1.0, 5.0, 5.0, 2.0]])
    targets = jnp.asarray([[1, 3, 4]])
    for rows in (6, 2, 3):
        execution = Execution(logits="chunked", chunk_bytes=4 * 3 * rows)
        read = read_logits(vectors, LogitsHead(table=table, is_tied=False, divisor=1.0), execution=execution)
        assert read.statistics(targets).is_correct.tolist() == [[1.0, 0.0, 0.0]]


def test_bfloat16_vectors_have_float32_logits():
    vectors, table, targets = _arrays(True)
    function = jax.grad(lambda x, w: _loss(x, w, targets, tied=True, execution=_chunks_of(16))[0], argnums=(0, 1))
    few = jnp.asarray(vectors, jnp.bfloat16)
    x_grad, table_grad = jax.jit(function)(few, table)
    assert (x_grad.dtype, table_grad.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(table_grad, jax.jit(function)(few.astype(jnp.float32), table)[1], atol=1e-5)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_chunks_save_the_memory_of_the_logits(tied):
    shape = (8, 64, 64, 8192)
    logits_bytes = 4 * shape[0] * shape[1] * shape[3]

    def temporary(execution):
        def loss(vectors, table, targets):
            read = read_logits(vectors, LogitsHead(table=table, is_tied=tied, divisor=1.0), execution=execution)
            found = statistics_of(read, targets_BT=targets) if execution is WHOLE else read.statistics(targets)
            return jnp.sum(token_losses(found, z_loss=1e-4).total)

        arguments = (
            jax.ShapeDtypeStruct(shape[:3], jnp.float32),
            jax.ShapeDtypeStruct((shape[3], shape[2]) if tied else (shape[2], shape[3]), jnp.float32),
            jax.ShapeDtypeStruct(shape[:2], jnp.int32),
        )
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    chunks = temporary(Execution(logits="chunked", chunk_bytes=logits_bytes // 32))
    assert temporary(WHOLE) - chunks > 0.9 * logits_bytes


def _auto_is_chunked(rows: int) -> bool:
    """Whether "auto" chunks logits of `rows` times 4 MiB."""
    kinds = []

    def read(vectors, table):
        head = LogitsHead(table=table, is_tied=True, divisor=1.0)
        kinds.append(type(read_logits(vectors, head, execution=Execution())))

    jax.eval_shape(
        read, jax.ShapeDtypeStruct((rows, 1024, 2), jnp.float32), jax.ShapeDtypeStruct((1024, 2), jnp.float32)
    )
    return kinds == [ChunkedLogits]


def test_auto_chunks_logits_larger_than_256_mib_per_device():
    assert LARGEST_WHOLE_LOGITS_BYTES == 64 * 4 << 20
    assert [_auto_is_chunked(rows) for rows in (64, 65)] == [False, True]
    plan = sharding.MeshPlan(data=2, tensor=4)
    with sharding.use_mesh(sharding.make_mesh(plan), rules=sharding.rules_of(plan)):
        assert [_auto_is_chunked(rows) for rows in (512, 514)] == [False, True]


CONFIG = T5Config(
    vocab_size=160,
    emb_dim=24,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=4,
    mlp_dim=16,
    dropout_rate=0.0,
)


def _batch():
    generator = np.random.default_rng(1)
    batch = {}
    for side, length in (("encoder", 10), ("decoder", 12)):
        batch[f"{side}_input_tokens"] = generator.integers(1, 64, size=(8, length)).astype(np.int32)
        batch[f"{side}_segment_ids"] = np.ones((8, length), np.int32)
    batch["decoder_target_tokens"] = generator.integers(1, 64, size=(8, 12)).astype(np.int32)
    batch["decoder_loss_weights"] = np.ones((8, 12), np.float32)
    return batch


def _on_mesh(plan, *, execution):
    """Returns loss and gradients of the network on a mesh, and the compiled program."""
    params = t5.init_params(CONFIG, rng=jax.random.key(0))
    mesh, rules = sharding.make_mesh(plan), sharding.rules_of(plan)
    axes = t5.logical_axes(CONFIG)
    places = sharding.state_shardings(params, params=params, axes=axes, mesh=mesh, rules=rules)
    apply = functools.partial(t5.output, config=CONFIG, execution=execution)

    def loss(params, batch):
        return OBJECTIVE(apply, params, batch, None)[0]

    with sharding.use_mesh(mesh, rules=rules):
        batch = placement.put_batch(_batch(), mesh=mesh)
        params = jax.device_put(params, places)
        function = jax.jit(jax.value_and_grad(loss), out_shardings=(None, places))
        compiled = function.lower(params, batch).compile()
        return jax.device_get(compiled(params, batch)), compiled.as_text()


@pytest.fixture(scope="module")
def on_one_device():
    return _on_mesh(sharding.MeshPlan(data=1), execution=WHOLE)[0]


@pytest.mark.parametrize(
    "plan",
    [
        sharding.MeshPlan(data=8),
        sharding.MeshPlan(data=2, tensor=4),
        sharding.MeshPlan(data=1, fsdp=2, tensor=4),
    ],
    ids=str,
)
def test_on_a_mesh_each_device_computes_its_own_shard_of_the_vocabulary(on_one_device, plan):
    chunks_of_8 = Execution(logits="chunked", chunk_bytes=4 * (8 * 12 // (plan.data * plan.fsdp)) * 8)
    found, program = _on_mesh(plan, execution=chunks_of_8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), found, on_one_device)
    gathered = re.findall(r"= f32\[([\d,]*)\]\S* all-gather\(", program)
    sizes = [np.prod([int(size) for size in shape.split(",")]) for shape in gathered]
    assert (
        max(sizes, default=0) < 24 * 160 // plan.tensor
    )  # One device's shard, where the table is sharded along D too.


def test_a_chunk_has_at_least_one_row_and_at_most_all(subtests):
    for positions in [1, 1000, 100_000]:
        for vocab_size in [384, 32_128, 250_112]:
            for shards in [1, 8]:
                with subtests.test(positions=positions, vocab_size=vocab_size, shards=shards):
                    width = chunk_width(vocab_size, positions=positions, shards=shards, chunk_bytes=32 << 20)
                    assert 1 <= width <= vocab_size // shards
                    assert width == 1 or 4 * positions * width <= 32 << 20
