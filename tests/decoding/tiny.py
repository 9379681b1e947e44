"""Small networks, their decoders, and rows to decode."""

import functools

import numpy as np

from flan_jax.decoding.hypotheses import Hypothesis
from flan_jax.decoding.strategies import Strategy
from flan_jax.run.network import Network
from flan_jax.shapes import EOS_ID
from flan_jax.sharding import MeshPlan
from tests import made_up_t5 as made_up


def ids_of(batch) -> list[list[int]]:
    """The inputs of a batch, without padding."""
    pairs = zip(batch["encoder_input_tokens"], batch["encoder_segment_ids"], strict=True)
    return [tokens[segments > 0].tolist() for tokens, segments in pairs]


PROMPTS = ids_of(made_up.goldens.made_up_prompts())


def mixed_rows(count: int, *, longest: int = 60, vocab_size: int = 32) -> list[list[int]]:
    """Rows of log-normal lengths."""
    rng = np.random.default_rng(count)
    lengths = np.clip(np.exp(rng.normal(2.3, 0.9, count)), 1, longest).astype(int)
    return [rng.integers(2, vocab_size, length).tolist() for length in lengths]


@functools.cache
def network(family: str = "t5_1_1", devices: int = 1, **changes) -> Network:
    import jax

    return Network(made_up.config(family, **changes), plan=MeshPlan(), devices=jax.devices()[:devices])


@functools.cache
def _params(family: str, **changes):
    return made_up.params(made_up.config(family, **changes))


def decoder(family: str, strategy: Strategy, *, steps: int, batch_size: int = 8, eos_id: int = EOS_ID, **options):
    devices, vocabulary = options.pop("devices", 1), options.pop("vocabulary", None)
    return network(family, devices, **options).decoder(
        _params(family, **options),
        strategy=strategy,
        max_decode_length=steps,
        batch_size=batch_size,
        vocabulary=vocabulary,
        eos_id=eos_id,
    )


def decode(family: str, strategy: Strategy, *, rows, **options) -> list[tuple[Hypothesis, ...]]:
    """Returns the hypotheses of each row, in their order."""
    decoded = dict(decoder(family, strategy, **options)(enumerate(rows)))
    assert sorted(decoded) == list(range(len(rows)))
    return [decoded[number] for number in range(len(rows))]
