"""Meshes and shardings: the same numbers on eight devices as on one, and refusals that name the culprit."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from flan_jax import placement, sharding
from flan_jax.models.execution import Execution
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim import optimizers, selection
from flan_jax.placement import put_whole_batch, reading_share
from flan_jax.run.network import Network
from flan_jax.sharding import RULES, MeshPlan, make_mesh, rules_of
from flan_jax.train.step import make_train_step
from tests import made_up_t5 as made_up

CONFIG = T5Config(
    vocab_size=32, emb_dim=16, num_heads=4, num_encoder_layers=1, num_decoder_layers=1, head_dim=4, mlp_dim=24
)
TABLES = {"params": t5.abstract_params(CONFIG), "axes": t5.logical_axes(CONFIG)}


def eight_rows():
    batch = made_up.goldens.made_up_batch()
    return {key: np.concatenate([value[:, :20]] * 4) for key, value in batch.items()}


def loss(params, batch, rng):
    logits = t5.forward(params, batch, rng, config=CONFIG)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["decoder_target_tokens"][..., None], axis=-1)
    return -jnp.mean(log_p)


@functools.cache
def loss_and_gradient(plan: MeshPlan):
    mesh, rules = make_mesh(plan), rules_of(plan)
    with sharding.use_mesh(mesh, rules=rules):
        where = sharding.state_shardings(TABLES["params"], **TABLES, mesh=mesh, rules=rules)
        params = t5.init_params(CONFIG, rng=jax.random.key(0), out_shardings=where)
        step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, where))
        value, gradient = step(params, placement.put_batch(eight_rows(), mesh=mesh), jax.random.key(1))
    return float(value), jax.tree.map(np.asarray, gradient), params


@pytest.mark.parametrize(
    "plan",
    [
        MeshPlan(),
        MeshPlan(fsdp=8),
        MeshPlan(replica=2, fsdp=2, tensor=2),
        MeshPlan(fsdp=2, tensor=4, activations="sharded"),
    ],
    ids=str,
)
def test_loss_and_gradient_with_dropout_are_those_of_one_device(plan):
    one, one_gradient, _ = loss_and_gradient(MeshPlan(data=1))
    many, many_gradient, params = loss_and_gradient(plan)
    assert params["encoder"]["encoder_norm"]["scale"].sharding.num_devices == 8
    np.testing.assert_allclose(many, one, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), many_gradient, one_gradient)


def specs(tree, mesh, rules):
    found = sharding.state_shardings(tree, **TABLES, mesh=mesh, rules=rules)
    return jax.tree.map(lambda leaf: leaf.spec, found)


def test_parameters_are_sharded_by_their_logical_axes():
    mesh = make_mesh(MeshPlan(fsdp=4, tensor=2))
    found = specs(TABLES["params"], mesh, RULES)
    assert found["token_embedder"]["embedding"] == PartitionSpec("tensor", "fsdp")
    assert found["encoder"]["layers_0"]["attention"]["out"]["kernel"] == PartitionSpec("tensor", "fsdp")
    assert found["encoder"]["encoder_norm"]["scale"] == PartitionSpec("fsdp")
    assert found["decoder"]["relpos_bias"]["rel_embedding"] == PartitionSpec("tensor", None)


def test_rules_of_a_plan_replace_those_of_the_table():
    plan = MeshPlan(fsdp=4, tensor=2, rules=(("embed", None), ("vocab", ("fsdp", "tensor"))))
    found = specs(TABLES["params"], make_mesh(plan), rules_of(plan))
    assert found["token_embedder"]["embedding"] == PartitionSpec(("fsdp", "tensor"), None)
    assert dict(rules_of(MeshPlan(activations="sharded")))["sequence"] == "tensor"


def test_optimizer_state_is_sharded_like_its_parameter():
    mesh = make_mesh(MeshPlan(fsdp=4, tensor=2))
    adam = specs(jax.eval_shape(optax.adam(1e-3).init, TABLES["params"]), mesh, RULES)
    assert adam[0].mu["decoder"]["logits_dense"]["kernel"] == PartitionSpec("fsdp", "tensor")
    assert adam[0].count == PartitionSpec()


def test_adafactor_statistics_are_sharded_like_the_remaining_dimension_of_their_parameter():
    mesh = make_mesh(MeshPlan(fsdp=4, tensor=2))
    state = jax.eval_shape(optax.adafactor(1e-3, min_dim_size_to_factor=8).init, TABLES["params"])
    (factored,) = [part for part in specs(state, mesh, RULES) if hasattr(part, "v_row")]
    head = {name: getattr(factored, name)["decoder"]["logits_dense"]["kernel"] for name in ("v_row", "v_col")}
    assert head == {"v_row": PartitionSpec("fsdp"), "v_col": PartitionSpec("tensor")}
    # A square one: the row statistic has the first dimension's length, the column statistic the last one's.
    square = {name: getattr(factored, name)["encoder"]["layers_0"]["attention"]["query"]["kernel"] for name in head}
    assert square == head
    assert factored.v["decoder"]["logits_dense"]["kernel"] == PartitionSpec()  # Optax's placeholder of length 1.


def test_a_plan_may_name_fewer_devices_or_all():
    assert dict(make_mesh(MeshPlan()).shape) == {"replica": 1, "data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(MeshPlan(fsdp=2, tensor=4)).shape) == {"replica": 1, "data": 1, "fsdp": 2, "tensor": 4}
    assert make_mesh(MeshPlan(data=1)).devices.size == 1


def test_a_batch_is_sharded_over_all_axes_except_tensor():
    mesh = make_mesh(MeshPlan(data=2, fsdp=2, tensor=2))
    placed = placement.put_batch({"decoder_target_tokens": np.arange(8, dtype=np.int32).reshape(4, 2)}, mesh=mesh)
    array = placed["decoder_target_tokens"]
    assert array.sharding.shard_shape(array.shape) == (1, 2)
    np.testing.assert_array_equal(array, np.arange(8).reshape(4, 2))


REFUSALS = {
    "platform absent": (
        lambda: make_mesh(MeshPlan(platform="gpu")),
        "MeshPlan.platform is 'gpu', but JAX sees 8 cpu devices (cpu) only. To fix it, install the CUDA build with "
        "`pip install 'flan_jax[cuda]'`, see that `nvidia-smi` lists the GPU; JAX_PLATFORMS is now 'cpu'. Or set "
        "platform=None.",
    ),
    "platform unknown": (
        lambda: make_mesh(MeshPlan(platform="tpus")),
        "MeshPlan.platform must be one of cpu, gpu, tpu; got 'tpus'",
    ),
    "no mesh": (lambda: make_mesh(MeshPlan(data=0)), "MeshPlan(replica=1, data=0, fsdp=1, tensor=1) is not a mesh"),
    "axes do not multiply out": (
        lambda: make_mesh(MeshPlan(fsdp=3, tensor=2)),
        "MeshPlan(replica=1, data=-1, fsdp=3, tensor=2) takes 6 devices, times data, but JAX sees 8 cpu devices: replica * "
        "fsdp * tensor must be a divisor of 8 (1, 2, 4, 8).",
    ),
    "too few devices": (
        lambda: make_mesh(MeshPlan(data=8, tensor=2)),
        "needs 16 devices, but JAX sees 8 cpu devices. Set data=-1",
    ),
    "activations unknown": (
        lambda: rules_of(MeshPlan(activations="shard")),
        "MeshPlan.activations must be one of replicated, sharded; got 'shard'. Did you mean 'sharded'?",
    ),
    "logical axis unknown": (
        lambda: rules_of(MeshPlan(rules=(("embedd", None),))),
        "a logical axis of MeshPlan.rules must be one of vocab, mlp",
    ),
    "mesh axis unknown": (
        lambda: rules_of(MeshPlan(rules=(("embed", "model"),))),
        "the mesh axis of 'embed' in MeshPlan.rules must be one of replica, data, fsdp, tensor; got 'model'.",
    ),
    "axis without rule": (
        lambda: specs(TABLES["params"], make_mesh(MeshPlan()), (RULES[0], RULES[1], RULES[4])),
        "No sharding rule covers the logical axis 'joined_kv' of parameter "
        "decoder/layers_0/encoder_decoder_attention/key/kernel of shape (16, 16)",
    ),
    "two axes on one": (
        lambda: specs(
            TABLES["params"], make_mesh(MeshPlan(data=4, tensor=2)), (("embed", "tensor"), ("joined_kv", "tensor"))
        ),
        "put two logical axes, 'embed' and 'joined_kv', of parameter decoder/layers_0/encoder_decoder_attention/key/",
    ),
    "axis does not divide": (
        lambda: specs(TABLES["params"], make_mesh(MeshPlan(tensor=8)), RULES),
        "The logical axis 'heads', 4 long, of parameter decoder/relpos_bias/rel_embedding of shape (4, 32) and logical "
        "axes ('heads', 'relpos_buckets') does not divide by the 8 devices along 'tensor'. Use a MeshPlan.tensor of 1, 2, 4,",
    ),
    "batch does not divide": (
        lambda: placement.put_batch({"a": np.zeros((6, 2))}, mesh=make_mesh(MeshPlan(data=2, fsdp=2, tensor=2))),
        "A batch of 6 rows does not divide over the mesh (replica=1, data=2, fsdp=2, tensor=2, 1 process), which shards rows "
        "over replica * data * fsdp; allowed are multiples of 4. Use 4 or 8 rows, or a MeshPlan whose replica * data * fsdp "
        "divides 6.",
    ),
    "microbatches do not divide the batch": (
        lambda: placement.require_divisible_batch(8, mesh=make_mesh(MeshPlan(data=4)), num_microbatches=3),
        "A batch of 8 rows cannot be split into 3 microbatches: choose a divisor of 8.",
    ),
    "no microbatch": (
        lambda: placement.require_divisible_batch(8, mesh=make_mesh(MeshPlan(data=4)), num_microbatches=0),
        "A batch of 8 rows cannot be split into 0 microbatches",
    ),
    "microbatch does not divide": (
        lambda: placement.require_divisible_batch(24, mesh=make_mesh(MeshPlan(data=2, fsdp=2)), num_microbatches=4),
        "A batch of 24 rows, in 4 microbatches, does not divide over the mesh (replica=1, data=2, fsdp=2, tensor=1, 1 "
        "process), which shards rows over replica * data * fsdp; allowed are multiples of 16. Use 16 or 32 rows, or a "
        "MeshPlan whose replica * data * fsdp divides 6.",
    ),
    "axis unused": (
        lambda: enter(make_mesh(MeshPlan(data=4, tensor=2)), (("batch", "data"), ("embed", "fsdp"))),
        "The mesh has 2 devices along 'tensor', but no sharding rule uses that axis",
    ),
}


def enter(mesh, rules):
    with sharding.use_mesh(mesh, rules=rules):
        pass


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused_with_a_fix(case):
    action, text = REFUSALS[case]
    with pytest.raises(ValueError, match=re.escape(text)):
        action()


def test_a_batch_may_have_microbatches_that_divide_over_the_mesh():
    mesh = make_mesh(MeshPlan(data=4))
    for num_microbatches in (1, 2, 4):
        placement.require_divisible_batch(16, mesh=mesh, num_microbatches=num_microbatches)


def owner(devices_of_each):
    """Returns the process of a device, when the processes have these numbers of devices."""
    bounds = np.cumsum(devices_of_each)
    return lambda device: int(np.searchsorted(bounds, device.id, side="right"))


@pytest.mark.parametrize(
    "plan, devices_of_each, shares",
    [
        (MeshPlan(), (8,), [(0, 1)]),
        (MeshPlan(replica=2, data=2, fsdp=2), (4, 4), [(0, 2), (1, 2)]),
        (MeshPlan(fsdp=4, tensor=2), (2, 2, 2, 2), [(0, 4), (1, 4), (2, 4), (3, 4)]),
        # Two processes hold one half of the model each, and the same rows.
        (MeshPlan(tensor=4), (2, 2, 2, 2), [(0, 2), (0, 2), (1, 2), (1, 2)]),
        (MeshPlan(tensor=8), (4, 4), [(0, 1), (0, 1)]),
    ],
)
def test_processes_read_the_rows_that_their_devices_hold(plan, devices_of_each, shares):
    mesh = make_mesh(plan)
    process_of = owner(devices_of_each)
    found = [reading_share(mesh, process_index=i, process_of=process_of) for i in range(len(devices_of_each))]
    assert found == shares


@pytest.mark.parametrize("devices_of_each, parts", [((3, 5), "2, 3"), ((2, 6), "1, 3")])
def test_processes_that_would_read_unequal_shares_are_refused(devices_of_each, parts):
    mesh = make_mesh(MeshPlan(data=4, tensor=2))
    with pytest.raises(
        ValueError, match=rf"data=4, fsdp=1, tensor=2\) gives the 2 processes {parts} shards of a batch's rows"
    ):
        reading_share(mesh, process_index=0, process_of=owner(devices_of_each))


def test_a_batch_that_every_process_holds_is_sharded_like_one_read_in_shares(monkeypatch):
    mesh = make_mesh(MeshPlan(data=4, tensor=2))
    batch = {"decoder_target_tokens": np.arange(16).reshape(8, 2)}
    (alone,) = put_whole_batch(batch, mesh=mesh).values()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    (of_two,) = put_whole_batch(batch, mesh=mesh).values()
    assert of_two.sharding == alone.sharding and np.array_equal(of_two, alone)
    with pytest.raises(ValueError, match="A batch of 6 rows does not divide over the mesh .*2 processes"):
        put_whole_batch({"decoder_target_tokens": np.zeros((6, 2))}, mesh=mesh)


@pytest.mark.parametrize(
    "plan", [MeshPlan(fsdp=8), MeshPlan(fsdp=4, tensor=2), MeshPlan(data=2, fsdp=2, tensor=2)], ids=str
)
def test_no_device_all_gathers_the_embedding_table(plan):
    """In the compiled program of a training step with Adafactor, tied and untied."""
    for tied in (False, True):
        config = dataclasses.replace(CONFIG, vocab_size=1024, logits_via_embedding=tied)
        network = Network(config, plan=plan, execution=Execution(chunk_bytes=16_384))
        optimizer = selection.by_path(default=optimizers.adafactor(1e-3, min_dim_size_to_factor=16))
        step = make_train_step(Seq2Seq(), network.apply, optimizer.transformation, seed=0)
        state = network.abstract_state(optimizer)
        batch = network.abstract_batch(8, {"inputs": 16, "targets": 8})
        program = network.lowered(step, state, batch).compile().as_text()
        shapes = re.findall(r"= [a-z0-9]+\[([\d,]*)\]\S* all-gather\(", program)
        gathered = [math.prod(int(size) for size in shape.split(",")) for shape in shapes if shape]
        assert gathered and max(gathered) <= 1024 * 16 / plan.tensor / 2


@pytest.mark.libtpu
def test_replicas_of_a_run_have_slices_of_their_own():
    """On two slices of 16 chips, as libtpu describes them."""
    from flan_jax.planning.topologies import topology_named

    devices = topology_named("v5e:4x4*2").devices
    for plan in (
        MeshPlan(replica=2, fsdp=4, tensor=4),
        MeshPlan(replica=2, fsdp=2, tensor=4),
        MeshPlan(replica=4, fsdp=8),
    ):
        mesh = make_mesh(plan, devices=devices)
        half = plan.replica // 2
        assert [
            {device.slice_index for device in mesh.devices[part].flat} for part in (slice(half), slice(half, None))
        ] == [
            {0},
            {1},
        ]
    with pytest.raises(ValueError, match="over 2 TPU slices, .* MeshPlan.replica must be 2 or a multiple of it, .* 16"):
        make_mesh(MeshPlan(fsdp=16, tensor=2), devices=devices)


def test_microbatches_on_cpu_are_as_small_as_keeps_its_cores_busy(monkeypatch):
    monkeypatch.setattr(placement.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    one, four = (make_mesh(MeshPlan(data=n), devices=jax.devices()[:n]) for n in (1, 4))

    def parts(batch_size, positions, mesh=one):
        return placement.microbatches(batch_size, positions=positions, mesh=mesh)[0]

    assert parts(8, 640) == 4 and parts(8, 1152) == 8 and parts(64, 1152) == 64
    assert parts(16, 80) == 1 and parts(1, 640) == 1
    assert parts(9, 640) == 3  # Three rows each: two do not divide nine.
    assert parts(8, 640, four) == 2 and parts(8, 1152, four) == 2  # Every device has a row of each microbatch.
    monkeypatch.setattr(placement.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert parts(8, 640) == 1 and parts(64, 640) == 4
    for batch_size in (4, 8, 12):
        placement.require_divisible_batch(batch_size, mesh=four, num_microbatches=parts(batch_size, 4096, four))
