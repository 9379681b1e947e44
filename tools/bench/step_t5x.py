"""The contender "T5X" of step.py: its own network, trainer and Adafactor on rows that SeqIO packs.

Everything is T5X's and SeqIO's, with the settings of its `examples/t5/t5_1_1` files, built without gin. Needs T5X
(docs/t5x.md).
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import jax
import numpy as np
import seqio
import step_contender as contender
import tensorflow as tf
from t5x import adafactor, losses, models, partitioning, trainer, utils
from t5x.examples.t5 import network


def made_model(spec):
    sizes = spec["sizes"]
    config = network.T5Config(
        vocab_size=sizes["vocab_size"],
        emb_dim=sizes["emb_dim"],
        num_heads=sizes["num_heads"],
        num_encoder_layers=sizes["num_layers"],
        num_decoder_layers=sizes["num_layers"],
        head_dim=sizes["head_dim"],
        mlp_dim=sizes["mlp_dim"],
        mlp_activations=("gelu", "linear"),
        dtype=spec["dtype"],
        dropout_rate=spec["dropout"],
        logits_via_embedding=False,
    )
    optimizer = adafactor.Adafactor(
        decay_rate=0.8, step_offset=0, logical_factor_rules=adafactor.standard_logical_factor_rules()
    )
    vocabulary = seqio.PassThroughVocabulary(size=sizes["vocab_size"])
    return models.EncoderDecoderModel(
        module=network.Transformer(config),
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=optimizer,
        z_loss=1e-4,
        label_smoothing=0.0,
        loss_normalizing_factor=losses.SpecialLossNormalizingFactor.NUM_REAL_TARGET_TOKENS,
    )


def packed_batches(examples, *, spec):
    """Yields the examples in random order forever, packed and batched by SeqIO as `utils.get_dataset` does."""

    def shuffled():
        for number in range(sys.maxsize):
            for i in np.random.default_rng((spec["seed"], number)).permutation(len(examples)):
                yield {"inputs": examples[i][0], "targets": examples[i][1]}

    tokens = tf.TensorSpec([None], tf.int32)
    data = tf.data.Dataset.from_generator(shuffled, output_signature={"inputs": tokens, "targets": tokens})
    lengths = dict(zip(("inputs", "targets"), spec["lengths"], strict=True))
    converted = seqio.EncDecFeatureConverter(pack=True)(data, task_feature_lengths=lengths)
    return converted.batch(spec["batch"], drop_remainder=True).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def made_trainer(model, batch, *, spec):
    partitioner = partitioning.PjitPartitioner(
        num_partitions=1, logical_axis_rules=partitioning.standard_logical_axis_rules()
    )
    initializer = utils.TrainStateInitializer(
        optimizer_def=model.optimizer_def,
        init_fn=model.get_initial_variables,
        input_shapes={name: array.shape for name, array in batch.items()},
        input_types={name: array.dtype for name, array in batch.items()},
        partitioner=partitioner,
    )
    state = initializer.from_scratch(jax.random.PRNGKey(spec["seed"]))
    return trainer.Trainer(
        model=model,
        train_state=state,
        partitioner=partitioner,
        eval_names=[],
        summary_dir=None,
        train_state_axes=initializer.train_state_axes,
        rng=jax.random.PRNGKey(spec["seed"] + 1),
        learning_rate_fn=utils.create_learning_rate_scheduler(factors="constant", base_learning_rate=1e-3),
        num_microbatches=None,
    )


def main():
    spec = contender.read_spec()
    model = made_model(spec)
    batches = packed_batches(contender.read_examples(spec["examples"]), spec=spec)
    batch = next(batches)
    theirs = made_trainer(model, batch, spec=spec)

    def step():
        nonlocal batch
        metrics = theirs.train(iter([batch]), 1)
        state = jax.block_until_ready(theirs.train_state)
        tokens = int((batch["encoder_segment_ids"] > 0).sum() + (batch["decoder_segment_ids"] > 0).sum())
        done = {
            "loss": float(metrics.result()["loss"].value),
            "examples": int(batch["encoder_segment_ids"].max(axis=1).sum()),
            "tokens": tokens,
            "positions": batch["encoder_segment_ids"].size + batch["decoder_segment_ids"].size,
        }
        del state
        batch = next(batches)
        return done

    about = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(theirs.train_state.params)),
        "versions": contender.versions("jax", "flax", "seqio", "tensorflow"),
        "notes": f"examples/t5, SeqIO's packing, {jax.devices()[0].device_kind}",
    }
    contender.serve(step, about=about)
    theirs.close()


if __name__ == "__main__":
    main()
