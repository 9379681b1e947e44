import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from flan_jax.objectives import seq2seq

LOGITS = jnp.asarray([[[1.0, 3.0, -2.0, 0.5, 0.0], [0.0, 0.0, 4.0, 1.0, -1.0], [2.0, 2.0, 2.0, 2.0, 2.0]]])
TARGETS = jnp.asarray([[1, 3, 0]], jnp.int32)
WEIGHTS = jnp.asarray([[1.0, 0.5, 0.0]])
BATCH = {"decoder_target_tokens": TARGETS, "decoder_loss_weights": WEIGHTS}


def _literal(logits, *, label_smoothing, z_loss):
    """Returns T5X's loss, with the target distribution written out over the vocabulary."""
    vocabulary = logits.shape[-1]
    confidence, low = 1.0 - label_smoothing, label_smoothing / (vocabulary - 1)
    entropy = -(confidence * np.log(confidence) + (vocabulary - 1) * low * np.log(low + 1e-20))
    target = jax.nn.one_hot(TARGETS, vocabulary) * (confidence - low) + low
    log_z = jax.scipy.special.logsumexp(logits, axis=-1)
    loss = -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1) + z_loss * log_z**2 - entropy
    return jnp.sum(loss * WEIGHTS)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_value_and_gradient_are_those_of_the_one_hot_formula(label_smoothing, z_loss):
    objective = seq2seq.Seq2Seq(label_smoothing=label_smoothing, z_loss=z_loss)

    def ours(logits):
        return objective(lambda params, batch, rng: params, logits, BATCH, None)[0]

    def literal(logits):
        return _literal(logits, label_smoothing=label_smoothing, z_loss=z_loss)

    (value, gradient), (expected, expected_gradient) = (jax.value_and_grad(f)(LOGITS) for f in (ours, literal))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_returns_sums_over_weighted_tokens():
    total, weight, sums = seq2seq.Seq2Seq(z_loss=0.0)(lambda params, batch, rng: LOGITS, {}, BATCH, None)
    log_p = jax.nn.log_softmax(LOGITS)[0]
    assert float(weight) == 1.5
    np.testing.assert_allclose(total, -(log_p[0, 1] + 0.5 * log_p[1, 3]), rtol=1e-6)
    np.testing.assert_allclose(sums["cross_entropy"], total, rtol=1e-6)
    assert {name: float(value) for name, value in sums.items() if name != "cross_entropy"} == {
        "z_loss": 0.0,
        "accuracy": 1.0,  # the first token is right, the second wrong, the third has no weight
    }


def test_a_prediction_equal_to_the_smoothed_target_has_loss_zero():
    smoothed = jnp.log(jnp.asarray([[[0.2 / 4, 0.8, 0.2 / 4, 0.2 / 4, 0.2 / 4]]]))
    losses = seq2seq.token_losses(seq2seq.statistics_of(smoothed, targets_BT=jnp.asarray([[1]])), label_smoothing=0.2)
    np.testing.assert_allclose(losses.total, [[0.0]], atol=1e-6)


def test_tokens_without_weight_have_no_gradient():
    def loss(logits):
        return seq2seq.Seq2Seq()(lambda params, batch, rng: params, logits, BATCH, None)[0]

    assert float(jnp.abs(jax.grad(loss)(LOGITS)[0, 2]).max()) == 0.0


def test_bfloat16_logits_are_summed_in_float32():
    total, weight, sums = seq2seq.Seq2Seq()(lambda *_: LOGITS.astype(jnp.bfloat16), {}, BATCH, None)
    assert {total.dtype, weight.dtype, *(value.dtype for value in sums.values())} == {jnp.dtype("float32")}


def test_no_array_of_targets_over_the_vocabulary_exists():
    def value_and_gradient(logits, targets):
        def loss(logits):
            return jnp.sum(seq2seq.token_losses(seq2seq.statistics_of(logits, targets_BT=targets), z_loss=0.1).total)

        return jax.value_and_grad(loss)(logits)

    shape = (4, 64, 1024)
    compiled = jax.jit(value_and_gradient).lower(jnp.zeros(shape), jnp.zeros(shape[:2], jnp.int32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * np.prod(shape)


def test_the_dropout_key_and_the_batch_reach_the_network():
    seen, key = [], jax.random.key(0)
    seq2seq.Seq2Seq()(lambda *arguments: seen.append(arguments) or LOGITS, "params", BATCH, key)
    ((params, batch, rng),) = seen
    assert (params, batch) == ("params", BATCH) and rng is key


def test_shapes_in_signatures_are_checked_in_this_session():
    with pytest.raises(jaxtyping.TypeCheckError):
        seq2seq.statistics_of(LOGITS, targets_BT=jnp.zeros(3, jnp.int32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing: expected a number of at least 0 and below 1, got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing: expected .*, got -0.1"),
        ({"z_loss": -1e-4}, "z_loss: expected a number of at least 0, got -0.0001"),
    ],
)
def test_invalid_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        seq2seq.Seq2Seq(**arguments)
