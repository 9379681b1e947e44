"""Rematerialization, scanning and offloading: refusals, and equality of results."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from flan_jax.models.acceleration.attention_choice import Accelerator
from flan_jax.models.execution import Execution, resolve
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.run.network import Network
from flan_jax.sharding import MeshPlan

CONFIG = T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=32,
    dropout_rate=0.1,
)


@functools.cache
def _batch():
    generator = np.random.default_rng(0)
    batch = {}
    for side, length in (("encoder", 32), ("decoder", 16)):
        batch[f"{side}_input_tokens"] = generator.integers(1, 32, size=(4, length)).astype(np.int32)
        batch[f"{side}_segment_ids"] = np.ones((4, length), np.int32)
    batch["decoder_target_tokens"] = generator.integers(1, 32, size=(4, 16)).astype(np.int32)
    batch["decoder_loss_weights"] = np.ones((4, 16), np.float32)
    return batch


@functools.cache
def _loss(remat: str, config: T5Config = CONFIG, layers: str = "auto"):
    apply = functools.partial(t5.output, config=config, execution=Execution(remat=remat, layers=layers))
    return lambda params: Seq2Seq()(apply, params, _batch(), jax.random.key(1))[0]


@functools.cache
def _value_and_gradient(remat: str, config: T5Config = CONFIG, layers: str = "auto"):
    return jax.jit(jax.value_and_grad(_loss(remat, config, layers)))(t5.init_params(config, rng=jax.random.key(0)))


@pytest.mark.parametrize("per_layer", [False, True], ids=["one bias", "a bias per layer"])
@pytest.mark.parametrize("remat", ["minimal", "full"])
def test_rematerialization_changes_neither_loss_nor_gradient(remat, per_layer):
    config = dataclasses.replace(CONFIG, relpos_bias_per_layer=per_layer)
    got, expected = _value_and_gradient(remat, config), _value_and_gradient("none", config)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * scale), got[1], expected[1])


@pytest.mark.parametrize("per_layer", [False, True], ids=["one bias", "a bias per layer"])
@pytest.mark.parametrize("remat", ["none", "minimal", "full"])
def test_scanned_layers_have_the_loss_and_gradient_of_unrolled_ones(remat, per_layer):
    """With dropout, from the same parameter tree."""
    config = dataclasses.replace(CONFIG, relpos_bias_per_layer=per_layer, num_encoder_layers=3)
    got, expected = _value_and_gradient(remat, config, "scanned"), _value_and_gradient("none", config)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * scale), got[1], expected[1])


def test_the_program_of_a_scan_does_not_grow_with_the_layers():
    def lines(layers, count):
        config = dataclasses.replace(CONFIG, num_encoder_layers=count, num_decoder_layers=count)
        lowered = jax.jit(_loss("none", config, layers)).lower(t5.abstract_params(config))
        return lowered.as_text().count("stablehlo.dot_general")

    assert lines("scanned", 8) == lines("scanned", 4)
    assert lines("unrolled", 8) > 1.8 * lines("unrolled", 4)


def test_layers_are_scanned_or_unrolled_by_platform_and_size():
    def chosen(platform, **sizes):
        return _resolved(Execution(), platform, dataclasses.replace(CONFIG, **sizes))[0].layers

    xl = {"num_encoder_layers": 24, "num_decoder_layers": 24, "emb_dim": 2048}
    assert [chosen("cpu", **xl), chosen("tpu", **xl), chosen("gpu", **xl)] == ["unrolled", "scanned", "scanned"]
    assert [chosen("tpu"), chosen("gpu")] == ["unrolled", "unrolled"]


def test_resolved_options_have_a_reason_and_explicit_ones_stay():
    requested = Execution(layers="scanned", attention="xla")
    assert _resolved(requested, "cpu") == (requested, ())
    resolved, reasons = _resolved(Execution(), "cpu")
    assert (resolved.layers, resolved.attention) == ("unrolled", "xla")
    assert reasons == (
        "layers unrolled: on CPU, scanning layers costs about a third of the step time",
        "attention xla: the implementation of every platform except NVIDIA GPUs",
    )
    with pytest.raises(
        ValueError, match="Execution.attention is 'cudnn', which runs on NVIDIA GPUs, but the platform is 'cpu'"
    ):
        _resolved(Execution(attention="cudnn"), "cpu")


def _resolved(execution, platform, config=CONFIG):
    return resolve(execution, accelerator=Accelerator(platform, platform), config=config, lengths=(512, 128))


def test_less_is_saved_for_the_backward_pass_the_more_is_rematerialized():
    def saved_bytes(remat):
        # The forward half alone returns what the backward half will read: the compiler's count of it.
        forward = jax.jit(lambda params: jax.vjp(_loss(remat), params))
        return forward.lower(t5.abstract_params(CONFIG)).compile().memory_analysis().output_size_in_bytes

    everything, products, inputs = (saved_bytes(remat) for remat in ("none", "minimal", "full"))
    assert products < 0.75 * everything and inputs < 0.75 * products


def test_products_are_computed_again_only_under_full_rematerialization():
    def products(remat):
        return (
            jax.jit(jax.grad(_loss(remat))).lower(t5.abstract_params(CONFIG)).as_text().count("stablehlo.dot_general")
        )

    # Of 2 encoder and 2 decoder layers: 6 attentions with two products each have batch dimensions.
    assert products("minimal") - products("none") == 12
    assert products("full") > products("minimal") + 12


def test_the_options_of_a_network_reach_its_layers_and_logits():
    params = t5.abstract_params(CONFIG)
    network = Network(CONFIG, plan=MeshPlan(data=1), execution=Execution(remat="full", logits="chunked"))
    program = str(
        jax.make_jaxpr(lambda p: network.apply(p, _batch(), None).statistics(_batch()["decoder_target_tokens"]))(params)
    )
    assert program.count("remat") >= 4
    plain = str(jax.make_jaxpr(lambda p: Network(CONFIG, plan=MeshPlan(data=1)).apply(p, _batch(), None))(params))
    assert "remat" not in plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"remat": "minimum"},
            "Execution.remat must be one of none, minimal, full, offload; got 'minimum'. Did you mean 'minimal'",
        ),
        (
            {"logits": "chunks"},
            "Execution.logits must be one of auto, whole, chunked; got 'chunks'. Did you mean 'chunked'",
        ),
        (
            {"layers": "scan"},
            "Execution.layers must be one of auto, scanned, unrolled; got 'scan'. Did you mean 'scanned'",
        ),
        ({"chunk_bytes": 0}, "Execution.chunk_bytes: expected a whole number of at least 1, got 0"),
        ({"chunk_bytes": 1.5}, "Execution.chunk_bytes: expected a whole number of at least 1, got 1.5"),
    ],
)
def test_options_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Execution(**arguments)


def test_offloading_is_refused_on_cpu():
    with pytest.raises(
        ValueError, match="Execution.remat is 'offload', .* 'cpu', whose arrays are in the host's memory"
    ):
        Network(CONFIG, plan=MeshPlan(data=1), execution=Execution(remat="offload"))
    _resolved(Execution(remat="offload"), "gpu")


def test_offloading_saves_products_in_host_memory():
    program = str(jax.make_jaxpr(jax.grad(_loss("offload")))(t5.abstract_params(CONFIG)))
    assert "pinned_host" in program or "Host" in program


def test_execution_options_are_no_part_of_the_run_identity():
    assert not {field.name for field in dataclasses.fields(Execution)} & {
        field.name for where in (T5Config, Seq2Seq) for field in dataclasses.fields(where)
    }
