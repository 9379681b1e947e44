"""Records what T5X itself computes for one of its runs: batches, the content of a checkpoint, and logits.

    python tools/t5x_answers.py --gin_file=run.gin --gin.ANSWERS=\"answers.npz\" \\
        [--gin.CHECKPOINT=\"runs/a/checkpoint_4\"]

Takes the gin files of `python -m t5x.train` and builds what its trainer builds, so that another implementation can be
compared on the same model, data and weights. The file contains `batch_<i>/<feature>` of the first training batches,
`unpacked/<feature>` of one that is not packed, and, for the checkpoint restored as the trainer does, `state/<name>` of
every leaf, `logits/packed` and `logits/unpacked`. Needs T5X (docs/t5x.md).
"""

import dataclasses
import sys

import gin
import jax
import numpy as np
from flax import traverse_util
from t5x import gin_utils, utils
from t5x import train as t5x_train


def train(*, model, train_dataset_cfg, partitioner, answers, checkpoint, num_batches, use_orbax=True, **others):
    """Stands where the gin files expect T5X's trainer, takes its arguments, and writes down what it would use."""
    del others
    batches = _batches(train_dataset_cfg, model, number=num_batches)
    (unpacked,) = _batches(dataclasses.replace(train_dataset_cfg, pack=False), model, number=1)
    found = {f"batch_{i}/{name}": array for i, batch in enumerate(batches) for name, array in batch.items()}
    found |= {f"unpacked/{name}": array for name, array in unpacked.items()}
    if checkpoint is not None:
        state = _restored(checkpoint, model, partitioner, batches[0], use_orbax=use_orbax)
        logits = jax.jit(model._compute_logits)
        found |= {f"state/{name}": np.asarray(leaf) for name, leaf in _named(state.state_dict()).items()}
        found["logits/packed"] = np.asarray(logits(state.params, batches[0]))
        found["logits/unpacked"] = np.asarray(logits(state.params, unpacked))
    np.savez(answers, **found)


def _batches(config, model, *, number):
    data = utils.get_dataset(config, 0, 1, model.FEATURE_CONVERTER_CLS)
    return list(data.take(number).as_numpy_iterator())


def _restored(path, model, partitioner, batch, *, use_orbax):
    """Returns the `TrainState` that T5X makes of a checkpoint, optimizer and step included."""
    initializer = utils.TrainStateInitializer(
        optimizer_def=model.optimizer_def,
        init_fn=model.get_initial_variables,
        input_shapes={name: array.shape for name, array in batch.items()},
        input_types={name: array.dtype for name, array in batch.items()},
        partitioner=partitioner,
    )
    config = utils.RestoreCheckpointConfig(path=path, mode="specific", dtype="float32")
    state, _ = utils.create_checkpoint_manager_and_restore(
        initializer, partitioner, config, path, jax.random.PRNGKey(0), use_orbax=use_orbax
    )
    return state


def _named(tree):
    return {"/".join(path): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}


def main():
    files = [argument.removeprefix("--gin_file=") for argument in sys.argv[1:] if argument.startswith("--gin_file=")]
    bindings = [argument.removeprefix("--gin.") for argument in sys.argv[1:] if argument.startswith("--gin.")]
    own = {"answers": "ANSWERS", "checkpoint": "CHECKPOINT", "num_batches": "NUM_BATCHES"}
    bindings = ["CHECKPOINT = None", "NUM_BATCHES = 4", *bindings]
    bindings += [f"__main__.train.{argument} = %{macro}" for argument, macro in own.items()]
    configurable = gin.configurable(train)
    gin_utils.parse_gin_flags(t5x_train._DEFAULT_GIN_SEARCH_PATHS, files, bindings)
    configurable()


if __name__ == "__main__":
    main()
