"""What a run was asked for, so that two processes can tell whether they were asked for the same."""

import dataclasses
import json

import optax

from flan_jax.data import packing
from flan_jax.models.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim.selection import by_path
from flan_jax.run import provenance
from flan_jax.train.loop import Cadence

MODEL = T5Config(
    vocab_size=32, emb_dim=8, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, head_dim=4, mlp_dim=8
)


def asked(**changes):
    arguments = {
        "model": MODEL,
        "objective": Seq2Seq(),
        "packing_strategy": packing.bin_centred,
        "cadence": Cadence(total_steps=3),
        "allow_leak": ("a", {"b": 1}),
        "export_dir": "/of/this/machine",
        "optimizer": object(),
        "early_stopping": optax.identity(),
    } | changes
    selection = by_path([(".*", optax.identity())])
    return provenance.asked(arguments, selection=selection, learning_rate=lambda step: 0.5)


def test_equal_commands_are_equal_and_hold_no_address_of_memory():
    assert asked() == asked(export_dir="/of/another", early_stopping=optax.identity())
    text = json.dumps(asked())
    assert "0x" not in text and "bin_centred" in text and "/of/this/machine" not in text


def test_every_argument_counts():
    whole = asked()
    assert whole["cadence"]["total_steps"] == 3 and whole["versions"]["jax"] and whole["allow_leak"] == ["a", {"b": 1}]
    assert asked(cadence=Cadence(total_steps=4)) != whole
    assert asked(packing_strategy=packing.one_per_row) != whole
    assert asked(model=dataclasses.replace(MODEL, emb_dim=16)) != whole
    assert asked(num_streams=2) != whole
