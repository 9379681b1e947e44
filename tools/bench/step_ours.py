"""The contender "flan_jax" of step.py: this project's feed, packing, network, step and Adafactor.

Built as `flan-jax train` builds them, without exports, checkpoints and logs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import jax
import numpy as np
import step_contender as contender
import step_parts as parts

from flan_jax import backend
from flan_jax.data.loader import TrainFeed
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim import optimizers, schedules, selection
from flan_jax.run.initial_state import fresh_state
from flan_jax.run.network import Network
from flan_jax.sharding import MeshPlan
from flan_jax.train.start_up import StartUp

LEARNING_RATE = schedules.constant(1e-3)


class Examples:
    """What the feed reads, in memory."""

    def __init__(self, pairs):
        self._pairs = pairs
        self.lengths = np.array([[len(inputs), len(targets)] for inputs, targets in pairs], np.int32)

    def __len__(self):
        return len(self._pairs)

    def read(self, indices):
        return [self._pairs[int(i)] for i in indices]


def made_network(spec):
    sizes = spec["sizes"]
    config = T5Config(
        vocab_size=sizes["vocab_size"],
        emb_dim=sizes["emb_dim"],
        num_heads=sizes["num_heads"],
        num_encoder_layers=sizes["num_layers"],
        num_decoder_layers=sizes["num_layers"],
        head_dim=sizes["head_dim"],
        mlp_dim=sizes["mlp_dim"],
        mlp_activations=("gelu", "linear"),
        logits_via_embedding=False,
        dropout_rate=spec["dropout"],
        dtype=spec["dtype"],
    )
    return Network(config, plan=MeshPlan(), lengths=lengths_of(spec))


def lengths_of(spec):
    return dict(zip(("inputs", "targets"), spec["lengths"], strict=True))


def main():
    spec = contender.read_spec()
    backend.compute_in_calling_thread()
    backend.compile_cache(spec["compile_cache"])
    network = made_network(spec)
    optimizer = selection.by_path(default=optimizers.adafactor(LEARNING_RATE))
    shapes = network.abstract_state(optimizer)
    rows = network.abstract_batch(spec["batch"], lengths_of(spec))
    function = network.train_step(
        Seq2Seq(),
        optimizer,
        learning_rate=LEARNING_RATE,
        seed=spec["seed"],
        num_microbatches=network.microbatches("auto", batch_size=spec["batch"]),
    )
    compiled = network.compiling(function, shapes, rows, start_up=StartUp())

    where = jax.tree.map(lambda leaf: leaf.sharding, shapes.params)
    params = t5.init_params(network.config, rng=jax.random.key(spec["seed"]), out_shardings=where)
    state = fresh_state(params, shapes, optimizer)
    feed = TrainFeed(
        {"examples": Examples(contender.read_examples(spec["examples"]))},
        {"examples": 1.0},
        seed=spec["seed"],
        batch_size=spec["batch"],
        lengths=lengths_of(spec),
    )

    def step():
        nonlocal state
        batch, stats = next(feed)
        state, metrics = compiled(state, network.place(batch))
        loss = float(metrics.mean("loss"))
        jax.block_until_ready(state)
        return {
            "loss": loss,
            "examples": stats["examples"],
            "tokens": stats["input_tokens"] + stats["target_tokens"],
            "positions": spec["batch"] * sum(spec["lengths"]),
        }

    def extra():
        nonlocal state
        batch = network.place(next(feed)[0])
        state, measured = parts.measure(network, function, state, batch, rows, spec=spec)
        return measured

    about = {
        "parameters": t5.count_params(state.params),
        "versions": contender.versions("jax", "flax", "optax"),
        "notes": "; ".join((f"{jax.devices()[0].device_kind}", *network.picked)),
    }
    with feed:
        contender.serve(step, about=about, extra=extra)


if __name__ == "__main__":
    main()
