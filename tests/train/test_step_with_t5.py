"""Twenty steps of a tiny T5 have the same losses with any microbatches, packing and mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import placement, sharding
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim.optimizers import adafactor
from flan_jax.train.state import new_state
from flan_jax.train.step import make_train_step
from tests.data.packings import packed_and_unpacked

CONFIG = T5Config(
    vocab_size=32,
    emb_dim=8,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=4,
    mlp_dim=16,
    dropout_rate=0.0,
)
STEPS = 20
LENGTHS = {"inputs": 16, "targets": 12}


def _examples(step):
    """Examples of many lengths, so that rows and microbatches have different numbers of target tokens."""
    generator = np.random.default_rng(step)
    lengths = [(int(generator.integers(1, 15)), int(generator.integers(1, 6))) for _ in range(16)]
    return [
        tuple(generator.integers(1, CONFIG.vocab_size, size=length).astype(np.int32) for length in pair)
        for pair in lengths
    ]


def _padded(batch, rows):
    """The batch with empty rows at its end, which have no target tokens."""
    return {n: np.concatenate([a, np.zeros((rows - len(a), *a.shape[1:]), a.dtype)]) for n, a in batch.items()}


@functools.cache
def _batches():
    return [packed_and_unpacked(_examples(number), lengths=LENGTHS) for number in range(STEPS)]


@functools.cache
def _params():
    return jax.device_get(t5.init_params(CONFIG, rng=jax.random.key(0)))


def _losses(*, num_microbatches=1, plan=None, packed=False):
    optimizer = adafactor(0.01)
    step = make_train_step(
        Seq2Seq(), functools.partial(t5.forward, config=CONFIG), optimizer, seed=0, num_microbatches=num_microbatches
    )
    plan = plan or sharding.MeshPlan(data=1)
    mesh, rules = sharding.make_mesh(plan), sharding.rules_of(plan)
    state = new_state(_params(), optimizer=optimizer)
    axes = t5.logical_axes(CONFIG)
    shardings = sharding.state_shardings(state, params=state.params, axes=axes, mesh=mesh, rules=rules)
    losses = []
    with sharding.use_mesh(mesh, rules=rules):
        state = jax.device_put(state, shardings)
        step = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
        for in_few_rows, one_a_row in _batches():
            batch = _padded(in_few_rows, 16) if packed else one_a_row
            state, metrics = step(state, placement.put_batch(batch, mesh=mesh))
            losses.append(float(metrics.mean("loss")))
    assert jnp.isfinite(losses[-1])
    return losses


@pytest.fixture(scope="module")
def reference():
    return _losses()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"num_microbatches": 4}, id="4 microbatches"),
        pytest.param({"packed": True}, id="packed rows"),
        pytest.param({"plan": sharding.MeshPlan(data=8), "num_microbatches": 2}, id="8 devices, 2 microbatches"),
        pytest.param(
            {"plan": sharding.MeshPlan(fsdp=4, tensor=2)},
            id="parameters sharded over 4 x 2 devices",
        ),
    ],
)
def test_losses_do_not_depend_on_microbatches_packing_or_mesh(reference, arguments):
    np.testing.assert_allclose(_losses(**arguments), reference, rtol=1e-5)
