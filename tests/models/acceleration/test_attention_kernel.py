"""The kernel: blocks, skipped reads, absent arrays, on a mesh, in a network, and compiled for a GPU."""

import contextlib
import dataclasses
import functools
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flan_jax.models.acceleration.attention_kernel import Tiling, Tilings, attend_in_tiles, tilings_for
from flan_jax.models.execution import Execution
from flan_jax.models.partitioning import call_per_device
from flan_jax.models.t5 import model as t5
from tests import made_up_t5 as made_up
from tests.models.acceleration import attention_cases
from tests.models.acceleration.attention_cases import Case

SMALL = Tilings(
    forward=Tiling(queries=16, keys=32),
    query_gradient=Tiling(queries=32, keys=16),
    key_value_gradient=Tiling(queries=16, keys=16),
)
ROW = (((1, 21), (2, 150), (0, 19)),)


def gradients(given, *, causal=False, tilings=SMALL, mix=attend_in_tiles):
    """Returns the output and the gradients of query, key, value and table, like `attention_cases.answer`."""

    @functools.partial(jax.jit, compiler_options=attention_cases.QUICKLY_COMPILED)
    def all_of_it(arguments, ids, mixed_grad):
        found, pull = jax.vjp(
            lambda *arrays: mix(*arrays, query_ids_BT=ids[0], key_ids_BS=ids[1], causal=causal, tilings=tilings),
            *arguments,
        )
        return dict(zip(("query", "key", "value", "table"), pull(mixed_grad), strict=True)) | {"mixed": found}

    arguments = [given.get(name) for name in ("query", "key", "value", "table")]
    return all_of_it(arguments, (given["query_ids"], given["key_ids"]), given["mixed_grad"])


def assert_close(found, expected):
    for name, array in expected.items():
        tolerance = 16 * np.finfo(np.float32).eps * np.max(np.abs(array))
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("causal", [False, True])
def test_oblong_blocks_have_the_results_of_float64(causal):
    case = Case(queries=ROW, causal=causal, heads=1, head_dim=16)
    given = attention_cases.arrays(case)
    assert_close(gradients(given, causal=causal), attention_cases.answer(case, given))


def test_segments_in_any_order_are_separated():
    case = Case(queries=(((3, 20), (1, 30), (0, 10), (3, 21), (2, 9)),), heads=1, head_dim=16)
    given = attention_cases.arrays(case)
    assert_close(gradients(given), attention_cases.answer(case, given))


def test_blocks_of_keys_without_a_common_segment_are_not_read():
    queries, keys = ((1, 32), (3, 56), (0, 8)), ((1, 32), (2, 32), (3, 24), (0, 8))
    given = attention_cases.arrays(Case(queries=(queries,), keys=(keys,), heads=1, head_dim=16))
    for name in ("key", "value"):
        given[name][:, 32:64] = np.nan
    found = gradients(given)
    assert all(np.isfinite(array).all() for array in found.values())
    assert not found["key"][:, 32:64].any() and found["key"][:, 64:].any()


def test_a_block_of_queries_later_than_a_causal_block_of_keys_reads_no_more():
    given = attention_cases.arrays(Case(queries=(((1, 64),),), causal=True, heads=1, head_dim=16))
    given["key"][:, 32:] = given["value"][:, 32:] = np.nan
    given["mixed_grad"][:, 32:] = 0.0
    assert np.isfinite(gradients(given, causal=True)["mixed"][:, :32]).all()


def test_blocks_are_no_longer_than_rows():
    tilings = tilings_for(64, jnp.dtype(jnp.bfloat16)).within(20, 70)
    assert (tilings.forward.queries, tilings.forward.keys) == (32, 64)
    assert (tilings.query_gradient.queries, tilings.query_gradient.keys) == (32, 32)
    assert tilings.padded(20, 70) == (32, 128)


def lowered_for_cuda(function, *arguments):
    """Returns the program of a function for an NVIDIA GPU; none is needed."""
    context: contextlib.AbstractContextManager = contextlib.nullcontext()
    with warnings.catch_warnings():
        if jax.__version_info__ >= (0, 11):
            warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
            device = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="cuda")
            mesh = jax.sharding.AbstractMesh(
                (1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,), abstract_device=device
            )
            context = jax.sharding.use_abstract_mesh(mesh)
        with context:
            return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_program_for_a_gpu_has_the_kernel_and_no_array_of_both_lengths(causal, has_bias):
    B, T, H, K = 2, 512, 3, 64
    rows = jax.ShapeDtypeStruct((B, T, H, K), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((B, T), jnp.int32)
    table = jax.ShapeDtypeStruct((H, 32), jnp.float32) if has_bias else None

    def backward(query, key, value, table, ids, mixed_grad):
        mix = functools.partial(attend_in_tiles, query_ids_BT=ids, key_ids_BS=ids, causal=causal)
        found, pull = jax.vjp(mix, query, key, value, table)
        return found, pull(mixed_grad)

    text = lowered_for_cuda(backward, rows, rows, rows, table, ids, rows)
    assert text.count("@__gpu$xla.gpu.triton") == (4 if has_bias else 3)
    assert not re.search(r"\D512x512\D", text)


@pytest.mark.gpu_compiler
@pytest.mark.parametrize(
    "choices", [(), ("--causal",), ("--head-dim", "128"), ("--dtype", "float32"), ("--gpu", "a100")]
)
def test_the_kernel_compiles_for_gpus_that_are_absent(choices):
    tool = Path(__file__).resolve().parents[3] / "tools/bench/compile_for_gpu.py"
    options = ["--lengths", "512", "--tokens", "1024", "--implementations", "pallas", *choices]
    found = subprocess.run([sys.executable, tool, *options], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert all(f"t5_attention_{of}_gradient" in found.stdout for of in ("query", "key_value", "table"))


def test_on_a_mesh_rows_and_heads_are_sharded_and_the_tables_gradient_is_summed():
    case = Case(queries=(((1, 21), (0, 11)),) * 2 + (((1, 9), (2, 23)),) * 2, heads=2, head_dim=16)
    given = attention_cases.arrays(case)
    per_head, ids = ("batch", None, "heads", None), ("batch", None)

    def sharded(query, key, value, table, *, query_ids_BT, key_ids_BS, **choices):
        def here(query, key, value, table, query_ids, key_ids):
            assert query.shape == (1, 32, 1, 16)  # 4 rows over 4 devices, 2 heads over 2
            return attend_in_tiles(query, key, value, table, query_ids_BT=query_ids, key_ids_BS=key_ids, **choices)

        arrays = (query, key, value, table, query_ids_BT, key_ids_BS)
        names = (per_head, per_head, per_head, ("heads", None), ids, ids)
        return call_per_device(here, arrays, names=names, out_names=per_head)

    mesh = jax.make_mesh(
        (1, 2, 2, 2), ("replica", "data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 4
    )
    rules = (("batch", ("replica", "data", "fsdp")), ("heads", "tensor"))
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        found = gradients(given, mix=sharded)
    assert_close(found, {name: np.asarray(array) for name, array in gradients(given).items()})


def test_a_dimension_that_does_not_divide_over_the_mesh_is_replicated():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh), nn.logical_axis_rules((("batch", "data"),)):
        found = call_per_device(
            lambda x: x + x.shape[0], [jnp.zeros((3, 2))], names=[("batch", None)], out_names=("batch", None)
        )
    np.testing.assert_array_equal(found, np.full((3, 2), 3.0))


@pytest.mark.parametrize(
    ("family", "execution"), [("t5_1_1", Execution(remat="minimal")), ("umt5", Execution(layers="unrolled"))]
)
def test_a_network_has_the_gradients_of_the_xla_implementation(family, execution):
    config = made_up.config(family, dropout_rate=0.0, num_encoder_layers=1, num_decoder_layers=1)
    params, batch = made_up.params(config), made_up.goldens.made_up_batch()
    # Of positions that see nothing each implementation makes what it likes; nobody reads it.
    weights = (batch["decoder_segment_ids"] > 0)[:, :, None]

    def loss(params, attention):
        chosen = dataclasses.replace(execution, attention=attention, logits="whole")
        logits = t5.output(params, batch, None, config=config, execution=chosen)
        return jnp.mean(jnp.sin(logits) * weights)

    assert "pallas_call" in str(jax.make_jaxpr(functools.partial(loss, attention="pallas"))(params))
    assert "pallas_call" not in str(jax.make_jaxpr(functools.partial(t5.forward, config=config))(params, batch))
    expected, found = (
        jax.jit(jax.grad(functools.partial(loss, attention=name)), compiler_options=attention_cases.QUICKLY_COMPILED)(
            params
        )
        for name in ("xla", "pallas")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6), found, expected)
    tables = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found) if "rel_embedding" in str(path)]
    assert tables and all(np.abs(table).max() > 1e-7 for table in tables)
