"""The same numbers however a batch is cut: devices, microbatches, packed rows."""

import functools

import jax
import numpy as np
import optax
import pytest

from flan_jax import sharding
from flan_jax.commands.assembly import Network, open_tasks
from flan_jax.data.exports import find
from flan_jax.data.loader import TrainFeed
from flan_jax.data.manifest import Request
from flan_jax.data.features import packed_batch, unpacked_batch
from flan_jax.data.packing import bin_centred
from flan_jax.models import t5
from flan_jax.models.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.train.state import new_state
from flan_jax.train.step import make_train_step
from tests.integration.conftest import LENGTHS

pytestmark = pytest.mark.tensorflow

CONFIG = T5Config(
    emb_dim=16, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, head_dim=8, mlp_dim=16, vocab_size=1664,
    dropout_rate=0.0,
)  # fmt: skip
STEPS = 20


@functools.cache
def examples(export_dir):
    """The real examples of 20 batches, 24 each."""
    manifest = find(Request(name="embedded_train", lengths=LENGTHS, vocabulary="embedded"), export_dir)
    tasks = open_tasks(manifest, export_dir)
    flat = [example for name in sorted(tasks) for example in tasks[name].read(range(STEPS * 24 // len(tasks) + 1))]
    order = np.random.default_rng(0).permutation(len(flat))[: STEPS * 24].reshape(STEPS, 24)
    return [[flat[i] for i in row] for row in order.tolist()]


def packed(batch_examples, rows=16):
    sizes = np.array([[len(a), len(b)] for a, b in batch_examples])
    plan = [[batch_examples[i] for i in row] for row in bin_centred(sizes, (LENGTHS["inputs"], LENGTHS["targets"]))]
    assert len(plan) <= rows and max(len(row) for row in plan) > 1
    return packed_batch(plan + [[]] * (rows - len(plan)), lengths=LENGTHS)


def losses(batches, *, plan=sharding.MeshPlan(data=1), num_microbatches=1):
    network = Network(CONFIG, plan=plan)
    optimizer = optax.sgd(0.3)
    step = make_train_step(Seq2Seq(), network.apply, optimizer, seed=0, num_microbatches=num_microbatches)
    found = []
    with network.within():
        params = t5.init_params(CONFIG, rng=jax.random.key(0))
        state = new_state(params, optimizer=optimizer)
        where = network.shardings(state)
        state = jax.device_put(state, where)
        compiled = jax.jit(step, out_shardings=(where, None))
        for batch in batches:
            state, metrics = compiled(state, None, network.place(batch))
            found.append(float(metrics.mean("loss")))
    return np.array(found)


@pytest.fixture(scope="module")
def one_device(export_dir):
    return losses([packed(e) for e in examples(export_dir)])


@pytest.mark.parametrize(
    "plan",
    [
        sharding.MeshPlan(data=8),
        sharding.MeshPlan(data=4, model=2, rules="parameter_sharded"),
    ],
    ids=["data 8", "data 4, model 2, parameters cut"],
)
def test_eight_devices_give_the_losses_of_one(export_dir, one_device, plan):
    assert one_device[-1] < one_device[0] - 1
    np.testing.assert_allclose(losses([packed(e) for e in examples(export_dir)], plan=plan), one_device, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_microbatches", [2, 4])
def test_microbatches_give_the_losses_of_whole_batches(export_dir, one_device, num_microbatches):
    found = losses([packed(e) for e in examples(export_dir)], num_microbatches=num_microbatches)
    np.testing.assert_allclose(found, one_device, rtol=0, atol=1e-5)


def test_packed_rows_give_the_losses_of_unpacked_ones(export_dir, one_device):
    found = losses([unpacked_batch(e, lengths=LENGTHS) for e in examples(export_dir)])
    np.testing.assert_allclose(found, one_device, rtol=0, atol=1e-5)


def test_the_feed_gives_the_same_batches_to_one_process_and_to_four(export_dir):
    manifest = find(Request(name="embedded_train", lengths=LENGTHS, vocabulary="embedded"), export_dir)
    tasks, rates = open_tasks(manifest, export_dir), {m.task: m.rate for m in manifest.members}
    common = {"seed": 3, "batch_size": 16, "lengths": LENGTHS}
    with TrainFeed(tasks, rates, **common) as whole:
        expected = [next(whole)[0]["encoder_input_tokens"] for _ in range(3)]
    parts = []
    for index in range(4):
        with TrainFeed(tasks, rates, **common, process_index=index, process_count=4) as feed:
            parts.append([next(feed)[0]["encoder_input_tokens"] for _ in range(3)])
    for number, batch in enumerate(expected):
        np.testing.assert_array_equal(np.concatenate([part[number] for part in parts]), batch)
