"""Runs inside T5X: restores a checkpoint as its trainer and its inference do, and saves it again in both of its forms.

    python -m tests.checkpoint.t5x_restoring NETWORK CHECKPOINT PARAMETERS_ALONE OUT

A process of its own: T5X wants one device where the tests have eight, and rank promotion. Leaves by name in
OUT/<restored by>.npz, saved again in OUT/legacy and OUT/orbax.
"""

import dataclasses
import sys
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import seqio
from t5x import adafactor, checkpoints, models, partitioning, utils
from t5x.examples.scalable_t5 import network as scalable
from t5x.examples.t5 import network as unrolled

from tests.checkpoint import t5x_files

SIZES = {"emb_dim": 128, "mlp_dim": 256, "vocab_size": 384, "num_heads": 4, "head_dim": 48}
"""Large enough for means of squared gradients in place of all of them, as in every released model."""
NETWORKS = {
    "examples/t5": (unrolled, {}),
    "scalable_t5, scanned": (scalable, {"scan_layers": True, "remat_policy": "none"}),
    "scalable_t5": (scalable, {"scan_layers": False, "remat_policy": "none"}),
}


def main(name: str, checkpoint: str, parameters_alone: str, out: Path) -> None:
    model = t5x_model(*NETWORKS[name])
    partitioner = partitioning.PjitPartitioner(num_partitions=1)
    trained = state_shape(model, partitioner, optimizer=model.optimizer_def)
    infers = state_shape(model, partitioner, optimizer=None)
    for path, shape, of in ((checkpoint, trained, "training"), (parameters_alone, infers, "inference")):
        legacy = checkpoints.Checkpointer(shape, partitioner, "").restore(path=path)
        orbax = checkpoints.OrbaxCheckpointManagerInterface(path, shape, partitioner).restore(path=path)
        write_leaves(out / f"{of}, legacy.npz", legacy, shape)
        write_leaves(out / f"{of}, orbax.npz", orbax, shape)
    state = checkpoints.Checkpointer(trained, partitioner, "").restore(path=checkpoint)
    for folder in ("legacy", "orbax"):
        (out / folder).mkdir()
    checkpoints.Checkpointer(trained, partitioner, str(out / "legacy")).save(state)
    manager = checkpoints.OrbaxCheckpointManagerInterface(str(out / "orbax"), trained, partitioner)
    manager.save(state)
    manager.wait_until_finished()


def t5x_model(network, options):
    """T5X's model of our config; both networks' configs name their sizes as ours does."""
    config = t5x_files.config(**SIZES)
    fields = {field.name for field in dataclasses.fields(network.T5Config)}
    sizes = {name: value for name, value in dataclasses.asdict(config).items() if name in fields}
    vocabulary = seqio.PassThroughVocabulary(config.vocab_size)
    return models.EncoderDecoderModel(
        module=network.Transformer(config=network.T5Config(**sizes, **options)),
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=adafactor.Adafactor(1e-3, logical_factor_rules=adafactor.standard_logical_factor_rules()),
    )


def state_shape(model, partitioner, *, optimizer):
    tokens = {"encoder_input_tokens": (2, 8), "decoder_target_tokens": (2, 8), "decoder_input_tokens": (2, 8)}
    initializer = utils.TrainStateInitializer(
        optimizer_def=optimizer,
        init_fn=model.get_initial_variables,
        input_shapes=tokens,
        input_types=dict.fromkeys(tokens, jnp.int32),
        partitioner=partitioner,
    )
    return initializer.global_train_state_shape


def write_leaves(file, state, shape):
    """T5X does not compare shapes of what is inline in an index with what its optimizer expects, so it is done here."""
    restored, expected = named(state), named(shape)
    assert {n: leaf.shape for n, leaf in restored.items()} == {n: leaf.shape for n, leaf in expected.items()}
    np.savez(file, **{name: np.asarray(leaf) for name, leaf in restored.items()})


def named(state):
    return {"/".join(path): leaf for path, leaf in flax.traverse_util.flatten_dict(state.state_dict()).items()}


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main(*sys.argv[1:4], Path(sys.argv[4]))
