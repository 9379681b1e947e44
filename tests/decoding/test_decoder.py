"""The decoder: predictions independent of the batch, stop strings, lengths, few programs, refusals."""

import functools

import jax
import numpy as np
import pytest

from flan_jax.decoding.hypotheses import Stops
from flan_jax.decoding.lengths import best_lengths
from flan_jax.decoding.strategies import BeamSearch, Greedy, Sampling
from flan_jax.errors import UserError
from flan_jax.models.position_bias import RelativePositionBias
from flan_jax.models.t5 import model as t5
from flan_jax.vocab import ByteVocabulary
from tests import made_up_t5 as made_up
from tests.decoding import tiny

STRATEGIES = {
    "greedy": Greedy(),
    "beams": BeamSearch(num_beams=3, num_return_sequences=2, length_penalty=-0.5),
    "samples": Sampling(temperature=0.8, top_p=0.95, num_samples=2, seed=4),
}
STEPS, EOS = 10, 24
ROWS = tiny.mixed_rows(64, longest=16)


def texts_of(decoded):
    return [[hypothesis.tokens.tolist() for hypothesis in hypotheses] for hypotheses in decoded]


@functools.cache
def decoded(name: str):
    return tiny.decode("t5_1_1", STRATEGIES[name], rows=ROWS, steps=STEPS, eos_id=EOS)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_prediction_is_the_same_alone_in_a_batch_of_7_and_of_64_and_on_8_devices(name):
    expected = texts_of(decoded(name))
    assert len({str(tokens) for tokens in expected}) > 40 and len({len(row[0]) for row in expected}) > 2
    decode = tiny.decoder("t5_1_1", STRATEGIES[name], steps=STEPS, eos_id=EOS)
    for numbers in ([5], [40], range(20, 27)):
        alone = dict(decode([(number, ROWS[number]) for number in numbers]))
        assert texts_of(alone[number] for number in numbers) == [expected[number] for number in numbers]
    other = tiny.decode("t5_1_1", STRATEGIES[name], rows=ROWS, steps=STEPS, eos_id=EOS, batch_size=16, devices=8)
    assert texts_of(other) == expected


def test_a_sample_depends_on_the_seed_the_number_of_its_row_and_its_own_number():
    first = texts_of(decoded("samples"))
    decode = tiny.decoder("t5_1_1", STRATEGIES["samples"], steps=STEPS, eos_id=EOS)
    renumbered = dict(decode([(1000, ROWS[0])]))[1000]
    assert texts_of([renumbered]) != first[:1]
    assert first[0][0] != first[0][1]
    for changes in ({"seed": 5}, {"num_samples": 3}):
        strategy = Sampling(**{"temperature": 0.8, "top_p": 0.95, "num_samples": 2, "seed": 4} | changes)
        changed = texts_of(tiny.decode("t5_1_1", strategy, rows=ROWS[:4], steps=STEPS, eos_id=EOS))
        assert ([row[:2] for row in changed] == first[:4]) == ("num_samples" in changes)


def test_a_temperature_of_0_decodes_greedily():
    sampled = tiny.decode("t5_1_1", Sampling(temperature=0.0, top_k=5), rows=ROWS[:16], steps=STEPS, eos_id=EOS)
    assert texts_of(sampled) == texts_of(decoded("greedy"))[:16]


def test_cached_steps_equal_the_argmax_and_the_score_of_uncached_rows():
    """140 steps: beyond the widest bucket of the decoder's bias, and rows that start at any position of the ring."""
    rows = [tiny.PROMPTS[i % 6] for i in range(12)]
    config = made_up.config("t5_1_1")
    decoded = tiny.decode("t5_1_1", Greedy(), rows=rows, steps=140, batch_size=5)
    forward = jax.jit(functools.partial(t5.forward, config=config))
    for inputs, (hypothesis,) in zip(rows[:6], decoded[6:], strict=True):
        length = len(hypothesis.tokens)
        given = {
            "encoder_input_tokens": np.pad(inputs, (0, 20 - len(inputs)))[None],
            "encoder_segment_ids": (np.arange(20) < len(inputs)).astype(np.int32)[None],
            "decoder_input_tokens": np.pad(hypothesis.tokens, (1, 140 - length))[None, :140],
            "decoder_segment_ids": np.ones((1, 140), np.int32),
        }
        log_p = jax.nn.log_softmax(forward(made_up.params(config), given)[0, :length])
        np.testing.assert_array_equal(np.argmax(log_p, axis=-1), hypothesis.tokens)
        expected = np.take_along_axis(np.asarray(log_p), hypothesis.tokens[:, None], axis=1).sum()
        np.testing.assert_allclose([hypothesis.score, hypothesis.beam_score], expected, rtol=1e-4)
    assert {3, 140} < {len(hypothesis.tokens) for (hypothesis,) in decoded}


def test_a_thousand_rows_of_mixed_lengths_compile_at_most_8_programs():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    decode = tiny.decoder("byt5", Greedy(), steps=4, batch_size=32, eos_id=EOS)
    rows = list(enumerate(tiny.mixed_rows(1000, longest=200)))
    try:
        assert sorted(number for number, _ in decode(rows[:900])) == list(range(900))
        assert len(list(decode(rows[900:]))) == 100
    finally:
        jax.monitoring.clear_event_listeners()
    assert 4 < decode.programs <= 8 and len(compiled) == decode.programs


def test_longer_inputs_than_those_of_earlier_calls_add_a_length():
    decode = tiny.decoder("byt5", Greedy(), steps=3, batch_size=4)
    (short,) = decode([(0, [5] * 10)])
    (long,) = decode([(0, [5] * 100)])
    (again,) = decode([(0, [5] * 10)])
    assert short[1][0].tokens.tolist() == again[1][0].tokens.tolist() and len(long[1][0].tokens) == 3


def test_the_streamed_tokens_of_a_row_grow_to_its_prediction():
    number = max(range(len(ROWS)), key=lambda n: len(decoded("greedy")[n][0].tokens))
    for strategy in (Greedy(), STRATEGIES["beams"]):
        decode = tiny.decoder("t5_1_1", strategy, steps=STEPS, eos_id=EOS)
        streamed = [tokens.tolist() for tokens in decode.stream(ROWS[number])]
        assert streamed[-1] == dict(decode([(0, ROWS[number])]))[0][0].tokens.tolist()
        assert all(later[: len(earlier)] == earlier for earlier, later in zip(streamed, streamed[1:], strict=False))
        assert (len(streamed) > 2) == (strategy == Greedy())


def test_a_stop_string_truncates_wherever_its_tokens_are():
    """Bytes are tokens: ids above 2 are characters, so that any text is a stop string of some rows."""
    vocabulary = ByteVocabulary(extra_ids=0)
    options = {"rows": tiny.PROMPTS * 2, "steps": 40, "vocabulary": vocabulary, "vocab_size": 140, "batch_size": 5}
    plain = [vocabulary.decode(row[0].tokens.tolist()) for row in tiny.decode("byt5", Greedy(), **options)]
    whole = max(plain, key=len)
    for stop in (whole[3:5], whole[6:10], whole[1], whole[14:17]):
        for (hypothesis,), text in zip(
            tiny.decode("byt5", Greedy(stop_strings=(stop, "never")), **options), plain, strict=True
        ):
            if stop not in text:
                assert hypothesis.text is None and vocabulary.decode(hypothesis.tokens.tolist()) == text
                continue
            assert hypothesis.ended and hypothesis.text == text[: text.index(stop)]
            assert vocabulary.decode(hypothesis.tokens.tolist()) == hypothesis.text + stop
            assert hypothesis.score < 0


def test_a_stop_string_is_found_at_the_same_token_however_many_were_added():
    vocabulary = ByteVocabulary(extra_ids=0)
    tokens = np.asarray(vocabulary.encode("an answer. And more. é"), np.int32)
    search = Stops([". A", "and", ". "], vocabulary).find
    whole = search(tokens, known=0)
    assert (whole.num_tokens, whole.text) == (11, "an answer")
    for known in range(11):
        assert search(tokens, known=known) == whole and search(tokens[:11], known=known) == whole
    assert search(tokens[:10], known=0) is None


def test_bfloat16_decodes_with_a_cache_of_that_type():
    ((hypothesis,),) = tiny.decode("t5_1_1", Greedy(), rows=ROWS[:1], steps=4, dtype="bfloat16")
    assert hypothesis.tokens.dtype == np.int32 and len(hypothesis.tokens) == 4
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(t5.incremental(made_up.config("ul2")).cache_shapes(1, 2))} == {
        "float32"
    }


@pytest.mark.parametrize(
    ("strategy", "options", "rows", "message"),
    [
        (Greedy(), {"steps": 0}, ROWS[:1], "max_decode_length is 0; it must be at least 1"),
        (BeamSearch(num_beams=33), {"steps": 4}, ROWS[:1], "num_beams is 33, but the network's vocabulary has 32 ids"),
        (BeamSearch(length_penalty=-8.0), {"steps": 16}, ROWS[:1], "factor above 100000. Choose a penalty closer to 0"),
        (BeamSearch(length_penalty=1e9), {"steps": 4}, ROWS[:1], "length_penalty is 1000000000.0"),
        (Greedy(stop_strings=("x",)), {"steps": 4}, ROWS[:1], "stop_strings needs a vocabulary"),
        (Greedy(), {"steps": 4}, [[5], []], "Row 1 has no token"),
    ],
)
def test_what_cannot_be_decoded_is_refused(strategy, options, rows, message):
    with pytest.raises(UserError, match=message):
        tiny.decode("t5_1_1", strategy, rows=rows, **options)


def test_nothing_is_decoded_of_no_rows():
    assert list(tiny.decoder("t5_1_1", Greedy(), steps=4)([])) == []


def test_lengths_pad_rows_the_least():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 120, 50).tolist()

    def padded(chosen):
        return sum(min(size for size in chosen if size >= length) for length in lengths)

    sizes = range(16, 121 + 16, 16)
    largest = -(-max(lengths) // 16) * 16
    brute = min(padded({a, b, largest}) for a in sizes for b in sizes)
    assert padded(best_lengths(lengths, count=3)) == brute
    assert best_lengths([16] * 9, count=3) == (16,)


def test_the_ring_of_the_bias_is_a_row_of_the_square_bias():
    bias = RelativePositionBias(num_heads=2, bidirectional=False)
    params = {"params": {"rel_embedding": jax.numpy.arange(64.0).reshape(2, 32)}}
    square = bias.apply(params, 200, 200)
    for position in (0, 1, 37, 199):
        ring = bias.apply(params, jax.numpy.int32(position), 200, method="ring")[0, :, 0]
        oldest_first = np.roll(ring, -position - 1, axis=1)
        np.testing.assert_array_equal(oldest_first, square[0, :, 199])
