"""Saves what `transformers` computes for each T5 family on synthetic weights, for tests/models and tests/decoding.

    python tools/make_transformers_goldens.py          # writes tests/golden/transformers_*
    python tools/make_transformers_goldens.py --check  # compares the files with the installed release

Needs the `reference` extra. The weights are not stored: `made_up_weight` draws each from its T5X name alone, and the
tests draw the same. The files contain the encoder's states, the logits, the gradients of the mean cross-entropy, and
greedy tokens, all from the library's own classes. Releases 4 and 5 give the same numbers once these are undone:

- 5 ties every model made from a config, whatever `tie_word_embeddings` says. Untied families get a separate output
  layer here, as they have when they are loaded from files that contain one.
- 5.3 to 5.23 multiply umT5's decoder outputs by 1/sqrt(d_model) always, 4 where `tie_word_embeddings` is true. umT5's
  logits are untied and were trained unscaled (T5X's gin files), so the flag is set to false on the model. Otherwise
  these releases give logits that are smaller by that factor: the same greedy tokens, another loss.
- 5 scales T5 unless the config says `tie_word_embeddings=False`, which is right for all families that use its class.
  mT5, untied, is never scaled by 5, and by 4 only where that flag is true. Nothing is undone there.
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np

GOLDEN_DIR = Path(__file__).resolve().parents[1] / "tests" / "golden"
SIZES = {
    "vocab_size": 32,
    "emb_dim": 16,
    "num_heads": 3,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "head_dim": 4,
    "mlp_dim": 24,
}
# What differs between families that share a network (T5 1.1, LM-adapted, Flan-T5) is not in the numbers.
FAMILIES = {
    "t5_1_0": {"mlp_activations": ("relu",), "logits_via_embedding": True},
    "t5_1_1": {"mlp_activations": ("gelu", "linear"), "logits_via_embedding": False},
    "mt5": {"mlp_activations": ("gelu", "linear"), "logits_via_embedding": False, "vocab_size": 48},
    "umt5": {"mlp_activations": ("gelu", "linear"), "logits_via_embedding": False, "relpos_bias_per_layer": True},
    "byt5": {
        "mlp_activations": ("gelu", "linear"),
        "logits_via_embedding": False,
        "num_encoder_layers": 3,
        "num_decoder_layers": 1,
    },
    "ul2": {"mlp_activations": ("silu", "linear"), "logits_via_embedding": True, "num_heads": 2, "head_dim": 8},
}
CLASSES = {"mt5": "MT5", "umt5": "UMT5"}
PROJECTIONS = {("relu",): "relu", ("gelu", "linear"): "gated-gelu", ("silu", "linear"): "gated-silu"}
# Longer than 128, so that the last buckets of both bias tables are met; the second row is padded on both sides.
INPUT_LENGTHS = (150, 60)
TARGET_LENGTHS = (140, 30)
PROMPT_LENGTHS = (3, 7, 12, 16, 20, 20)
GREEDY_TOKENS = 24
# Settings of `generate` for tests/golden/transformers_decoding.json. Other ids than 1 as the end of sequence, so that many
# hypotheses end.
DECODINGS = {
    "beams": {"num_beams": 3, "num_return_sequences": 3, "eos": 4},
    "beams_never": {"num_beams": 4, "num_return_sequences": 2, "early_stopping": "never", "eos": 4},
    "beams_early": {"num_beams": 4, "num_return_sequences": 4, "early_stopping": True, "eos": 7},
    "beams_long": {"num_beams": 5, "num_return_sequences": 2, "length_penalty": 2.5, "eos": 24},
    "beams_short": {"num_beams": 2, "num_return_sequences": 2, "length_penalty": -0.5, "eos": 4},
    "beams_unnormalized": {
        "num_beams": 3, "num_return_sequences": 1, "length_penalty": 0.0, "early_stopping": "never", "eos": 19
    },
    "beams_processed": {
        "num_beams": 3, "num_return_sequences": 3, "min_new_tokens": 5, "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2, "eos": 4,
    },
    "greedy_processed": {"min_new_tokens": 6, "repetition_penalty": 1.4, "no_repeat_ngram_size": 3, "eos": 4},
    "greedy_unigrams": {"no_repeat_ngram_size": 1, "eos": 1},
    "greedy_rewarded": {"repetition_penalty": 0.8, "min_new_tokens": 2, "eos": 7},
}  # fmt: skip
DECODING_FAMILIES = {"t5_1_1": tuple(DECODINGS), "umt5": ("beams_early",), "t5_1_0": ("beams_processed",)}
# Of the draws tried, ones under which greedy outputs vary, and some rows end early while others go on.
DRAW, TIED_DRAW = 20, 259


def made_up_weight(path: str, shape: tuple[int, ...], *, tied: bool) -> np.ndarray:
    """Returns the weight of the parameter `path` ("encoder/layers_0/mlp/wi/kernel"), the same wherever it is drawn.

    Where logits are tied to the table, a network of this size says its last token for ever, unless the table is small
    next to what the layers of the decoder add.
    """
    rng = np.random.default_rng(zlib.crc32(f"{TIED_DRAW if tied else DRAW}:{path}".encode()))
    values = rng.standard_normal(shape)
    if path.endswith("scale"):
        values = 1.0 + 0.2 * values
    elif path.endswith("kernel"):
        values = values * 1.2 / np.sqrt(shape[0])
    if tied and path == "token_embedder/embedding":
        values = values * 0.5
    elif tied and path.startswith("decoder/") and "/mlp/" in path:
        values = values * 3.0
    return values.astype(np.float32)


def made_up_batch() -> dict[str, np.ndarray]:
    """Returns two examples, one a row, in the project's batch format."""
    rng = np.random.default_rng(20)
    S, T = max(INPUT_LENGTHS), max(TARGET_LENGTHS)
    inputs = rng.integers(2, SIZES["vocab_size"], (2, S))
    targets = rng.integers(2, SIZES["vocab_size"], (2, T))
    encoder_segments = np.arange(S) < np.array(INPUT_LENGTHS)[:, None]
    decoder_segments = np.arange(T) < np.array(TARGET_LENGTHS)[:, None]
    targets = targets * decoder_segments
    batch = {
        "encoder_input_tokens": inputs * encoder_segments,
        "encoder_segment_ids": encoder_segments,
        "encoder_positions": np.arange(S) * encoder_segments,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1] * decoder_segments,
        "decoder_target_tokens": targets,
        "decoder_segment_ids": decoder_segments,
        "decoder_positions": np.arange(T) * decoder_segments,
    }
    batch = {key: np.asarray(value, np.int32) for key, value in batch.items()}
    return {**batch, "decoder_loss_weights": decoder_segments.astype(np.float32)}


def made_up_prompts() -> dict[str, np.ndarray]:
    """Returns short inputs of several lengths, what generation reads of a batch."""
    rng = np.random.default_rng(21)
    S = max(PROMPT_LENGTHS)
    segments = np.arange(S) < np.array(PROMPT_LENGTHS)[:, None]
    inputs = rng.integers(2, SIZES["vocab_size"], segments.shape) * segments
    return {
        "encoder_input_tokens": np.asarray(inputs, np.int32),
        "encoder_segment_ids": np.asarray(segments, np.int32),
    }


def reference_name(path: str) -> str:
    """Returns transformers' name for a T5X path, for the weights this tool fills."""
    stack, *rest = path.split("/")
    if path == "token_embedder/embedding":
        return "shared.weight"
    if path == "decoder/logits_dense/kernel":
        return "lm_head.weight"
    if rest[-1] == "rel_embedding":
        number = rest[0].removeprefix("layers_") if rest[0].startswith("layers_") else 0
        return f"{stack}.block.{number}.layer.0.SelfAttention.relative_attention_bias.weight"
    if rest[0] in ("encoder_norm", "decoder_norm"):
        return f"{stack}.final_layer_norm.weight"
    block = f"{stack}.block.{rest[0].removeprefix('layers_')}"
    last = 1 if stack == "encoder" else 2
    norms = {"attention": 0, "self_attention": 0, "cross_attention": 1, "mlp": last}
    if rest[1].startswith("pre_"):
        layer = norms[rest[1].removeprefix("pre_").removesuffix("_layer_norm")]
        return f"{block}.layer.{layer}.layer_norm.weight"
    if rest[1] == "mlp":
        return f"{block}.layer.{last}.DenseReluDense.{rest[2]}.weight"
    layer, module = (1, "EncDecAttention") if rest[1] == "encoder_decoder_attention" else (0, "SelfAttention")
    return f"{block}.layer.{layer}.{module}.{rest[2][0]}.weight"


def turned(path: str, array: np.ndarray) -> np.ndarray:
    """Returns an array of ours as transformers has it, or the other way."""
    return np.ascontiguousarray(array.T if path.endswith(("kernel", "rel_embedding")) else array)


def reference_model(family: str, paths: dict[str, tuple[int, ...]]):
    """Returns transformers' model with the synthetic weights in every parameter."""
    import torch
    import transformers

    network = {**SIZES, **FAMILIES[family]}
    tied = network["logits_via_embedding"]
    name = CLASSES.get(family, "T5")
    config = getattr(transformers, f"{name}Config")(
        vocab_size=network["vocab_size"],
        d_model=network["emb_dim"],
        d_kv=network["head_dim"],
        d_ff=network["mlp_dim"],
        num_layers=network["num_encoder_layers"],
        num_decoder_layers=network["num_decoder_layers"],
        num_heads=network["num_heads"],
        feed_forward_proj=PROJECTIONS[network["mlp_activations"]],
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    if not tied:  # see the module's docstring
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        model.config.tie_word_embeddings = False
    named = dict(model.named_parameters())
    for path, shape in paths.items():
        named.pop(reference_name(path)).data = torch.tensor(turned(path, made_up_weight(path, shape, tied=tied)))
    assert not named, f"not filled: {sorted(named)}"
    assert (model.lm_head.weight is model.shared.weight) == tied
    return model


def parameter_shapes(family: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes by T5X path, read from this folder's golden text."""
    lines = (GOLDEN_DIR / f"parameters_{family}.txt").read_text().splitlines()
    split = [line.split() for line in lines if line and not line.startswith("#")]
    return {path: tuple(int(n) for n in shape.split("x")) for path, shape, *_ in split}


def computed(family: str) -> dict[str, np.ndarray]:
    """Returns all that is stored of one family."""
    import torch

    paths = parameter_shapes(family)
    model = reference_model(family, paths)
    batch = {key: torch.tensor(value, dtype=torch.long) for key, value in made_up_batch().items()}
    seen = {"input_ids": batch["encoder_input_tokens"], "attention_mask": batch["encoder_segment_ids"]}
    outcome = model(
        **seen,
        decoder_input_ids=batch["decoder_input_tokens"],
        labels=batch["decoder_target_tokens"].masked_fill(batch["decoder_segment_ids"] == 0, -100),
    )
    outcome.loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    prompts = {key: torch.tensor(value, dtype=torch.long) for key, value in made_up_prompts().items()}
    return {
        "encoded": outcome.encoder_last_hidden_state.detach().numpy(),
        "logits": outcome.logits.detach().numpy(),
        # One after the other in the order of our paths' names, each as our tree has it.
        "gradients": np.concatenate([turned(p, gradients[reference_name(p)]).ravel() for p in sorted(paths)]),
        "greedy": greedy(model, **seen),
        "prompts_greedy": greedy(
            model, input_ids=prompts["encoder_input_tokens"], attention_mask=prompts["encoder_segment_ids"]
        ),
    }


def greedy(model, **seen) -> np.ndarray:
    """Returns the tokens that the model generates, [B, GREEDY_TOKENS]; refuses one that rounding could decide."""
    outcome = model.generate(
        **seen,
        do_sample=False,
        num_beams=1,
        max_new_tokens=GREEDY_TOKENS,
        output_scores=True,
        return_dict_in_generate=True,
    )
    tokens = outcome.sequences.numpy()[:, 1:]
    best, second = np.moveaxis(np.stack([score.topk(2).values.numpy() for score in outcome.scores], axis=1), -1, 0)
    assert (best - second)[tokens != 0].min() > 1e-3
    return np.pad(tokens, ((0, 0), (0, GREEDY_TOKENS - tokens.shape[1])))


def decodings() -> dict[str, list[dict]]:
    """Returns each row's sequences and, of beams, scores, by family and setting."""
    import torch

    prompts = {key: torch.tensor(value, dtype=torch.long) for key, value in made_up_prompts().items()}
    results = {}
    for family, names in DECODING_FAMILIES.items():
        model = reference_model(family, parameter_shapes(family))
        for name in names:
            settings, eos = DECODINGS[name], DECODINGS[name]["eos"]
            outcome = model.generate(
                input_ids=prompts["encoder_input_tokens"],
                attention_mask=prompts["encoder_segment_ids"],
                do_sample=False,
                max_new_tokens=GREEDY_TOKENS,
                eos_token_id=eos,
                pad_token_id=0,
                output_scores=True,
                return_dict_in_generate=True,
                **{"num_beams": 1, **{key: value for key, value in settings.items() if key != "eos"}},
            )
            rows = []
            for tokens in outcome.sequences[:, 1:].tolist():
                rows.append(tokens[: tokens.index(eos) + 1] if eos in tokens else tokens)
            scores = getattr(outcome, "sequences_scores", None)
            results[f"{family}/{name}"] = {"tokens": rows, "scores": None if scores is None else scores.tolist()}
    return results


def check_decodings(*, is_check: bool) -> None:
    """Writes the sequences of all decoding settings, or compares."""
    file, results = GOLDEN_DIR / "transformers_decoding.json", decodings()
    if not is_check:
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in results.items())
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    stored = json.loads(file.read_text())
    assert stored.keys() == results.keys()
    for name, expected in stored.items():
        assert results[name]["tokens"] == expected["tokens"], name
        assert np.allclose(results[name]["scores"] or 0, expected["scores"] or 0, atol=1e-4), name


def main() -> None:
    """Writes one file a family, or compares."""
    parser = argparse.ArgumentParser(description="Writes tests/golden/transformers_*.npz.")
    parser.add_argument("--check", action="store_true", help="compare with the files, fail at 1e-4, write nothing")
    check = parser.parse_args().check
    check_decodings(is_check=check)
    for family in FAMILIES:
        file, arrays = GOLDEN_DIR / f"transformers_{family}.npz", computed(family)
        print(family, {name: array.shape for name, array in arrays.items()}, "ends", (arrays["greedy"] == 1).sum())
        if not check:
            np.savez_compressed(file, **arrays)
            continue
        with np.load(file) as stored:
            differences = {name: float(np.abs(stored[name] - arrays[name]).max()) for name in stored}
        print("  largest difference", differences)
        assert max(differences.values()) < 1e-4, f"{family}: this release computes other numbers than the stored ones"


if __name__ == "__main__":
    main()
