"""Every family against transformers: encoder states, logits, loss gradients."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.network import Transformer
from flan_jax.models.t5.parameters import parameter_shapes
from flan_jax.objectives.seq2seq import Seq2Seq
from tests import made_up_t5 as made_up

BATCH = made_up.goldens.made_up_batch()
FAMILIES = made_up.goldens.FAMILIES


@functools.cache
def ours(family: str) -> dict:
    """Encoder states, logits, and the gradient of the mean loss by parameter name; one program."""
    config = made_up.config(family)
    apply = functools.partial(t5.forward, config=config)

    def mean_loss(params):
        loss, weight, _ = Seq2Seq(z_loss=0.0)(apply, params, BATCH, None)
        return loss / weight

    def everything(params):
        network = Transformer(config).bind({"params": params})
        batch = jax.tree.map(jnp.asarray, BATCH)
        encoded = network.encode(batch, deterministic=True)
        logits = network.head().logits(network.decode(encoded, batch, deterministic=True))
        return encoded, logits, jax.grad(mean_loss)(params)

    encoded, logits, gradient = jax.jit(everything)(made_up.params(config))
    named = {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)}
    return {"encoded": encoded, "logits": logits, "gradient": named}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("what", "segments"), [("encoded", "encoder_segment_ids"), ("logits", "decoder_segment_ids")])
def test_states_and_logits_are_equal_on_real_positions(family, what, segments):
    real = BATCH[segments] > 0
    np.testing.assert_allclose(ours(family)[what][real], made_up.golden(family)[what][real], rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_of_every_parameter_is_equal(family):
    flat, start = made_up.golden(family)["gradients"], 0
    for name, shape in sorted(parameter_shapes(made_up.config(family)).items()):
        size = int(np.prod(shape))
        expected = flat[start : start + size].reshape(shape)
        assert np.abs(expected).max() > 1e-5, f"{name}: too small to tell"
        np.testing.assert_allclose(ours(family)["gradient"][name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
        start += size
    assert start == flat.size


@pytest.mark.reference
def test_the_installed_transformers_computes_the_stored_numbers():
    tool = made_up.ROOT / "tools" / "make_transformers_goldens.py"
    done = subprocess.run([sys.executable, "-W", "ignore", str(tool), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
