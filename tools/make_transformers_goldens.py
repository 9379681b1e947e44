"""Logits and greedy tokens of `transformers`' T5 on made-up weights, for tests/models and tests/decoding.

    python tools/make_transformers_goldens.py  # needs the `reference` extra; writes tests/golden/*.npz

The weights are not stored: `made_up_weight` draws each from its T5X name alone, and the tests draw the same.
"""

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
FAMILIES = {
    "t5_1_0": {"mlp_activations": ("relu",), "logits_via_embedding": True},
    "t5_1_1": {"mlp_activations": ("gelu", "linear"), "logits_via_embedding": False},
}
# Longer than 128, so that the last buckets of both bias tables are met; the second row is padded on both sides.
INPUT_LENGTHS = (150, 60)
TARGET_LENGTHS = (140, 30)
GREEDY_TOKENS = 24
# Of the draws tried, one under which greedy outputs vary and one row ends early while the other goes on.
DRAW = 20


def made_up_weight(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the weight of the parameter `path` ("encoder/layers_0/mlp/wi/kernel"), the same wherever it is drawn."""
    rng = np.random.default_rng(zlib.crc32(f"{DRAW}:{path}".encode()))
    values = rng.standard_normal(shape)
    if path.endswith("scale"):
        values = 1.0 + 0.2 * values
    elif path.endswith("kernel"):
        values = values * 1.2 / np.sqrt(shape[0])
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


def reference_name(path: str) -> str:
    """Returns transformers' name for a T5X path, for the weights this tool fills."""
    stack, *rest = path.split("/")
    if path == "token_embedder/embedding":
        return "shared.weight"
    if path == "decoder/logits_dense/kernel":
        return "lm_head.weight"
    if rest[0] == "relpos_bias":
        attention = "SelfAttention"
        return f"{stack}.block.0.layer.0.{attention}.relative_attention_bias.weight"
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


def reference_model(family: str, paths: dict[str, tuple[int, ...]]):
    """Returns transformers' model filled with the made-up weights, every one of its parameters included."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tied = FAMILIES[family]["logits_via_embedding"]
    config = T5Config(
        vocab_size=SIZES["vocab_size"],
        d_model=SIZES["emb_dim"],
        d_kv=SIZES["head_dim"],
        d_ff=SIZES["mlp_dim"],
        num_layers=SIZES["num_encoder_layers"],
        num_decoder_layers=SIZES["num_decoder_layers"],
        num_heads=SIZES["num_heads"],
        feed_forward_proj="relu" if family == "t5_1_0" else "gated-gelu",
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    model = T5ForConditionalGeneration(config).eval()
    if not tied:  # transformers 5 ties a model made from a config whatever the config says
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    named = dict(model.named_parameters())
    for path, shape in paths.items():
        weight = made_up_weight(path, shape)
        turned = weight.T if path.endswith(("kernel", "rel_embedding")) else weight
        named.pop(reference_name(path)).data = torch.tensor(np.ascontiguousarray(turned))
    assert not named, f"not filled: {sorted(named)}"
    assert (model.lm_head.weight is model.shared.weight) == tied
    return model


def parameter_shapes(family: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes by T5X path, read from this folder's golden text."""
    lines = (GOLDEN_DIR / f"parameters_{family}.txt").read_text().splitlines()
    split = [line.split() for line in lines if line and not line.startswith("#")]
    return {path: tuple(int(n) for n in shape.split("x")) for path, shape, *_ in split}


def main() -> None:
    """Writes one file a family."""
    import torch

    batch = made_up_batch()
    tensors = {key: torch.tensor(value, dtype=torch.long) for key, value in batch.items()}
    for family in FAMILIES:
        model = reference_model(family, parameter_shapes(family))
        with torch.no_grad():
            seen = {"input_ids": tensors["encoder_input_tokens"], "attention_mask": tensors["encoder_segment_ids"]}
            logits = model(**seen, decoder_input_ids=tensors["decoder_input_tokens"]).logits.numpy()
            greedy = model.generate(**seen, do_sample=False, num_beams=1, max_new_tokens=GREEDY_TOKENS).numpy()
        print(family, "logits", logits.shape, "std", logits.std(), "greedy\n", greedy)
        np.savez_compressed(GOLDEN_DIR / f"transformers_{family}.npz", logits=logits, greedy=greedy[:, 1:])


if __name__ == "__main__":
    main()
