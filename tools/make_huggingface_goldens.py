"""Writes folders as `transformers` saves them, one per family, with the logits that it computes from them.

    python tools/make_huggingface_goldens.py  # with transformers 4, then again with transformers 5
    python tools/make_huggingface_goldens.py t5_other_numbers umt5_scaled umt5_unscaled  # These alone.

Version 4 saves synthetic models to tests/golden/huggingface/<family>_v4, like the published checkpoints; version 5
loads each of them and saves it to <family>_v5. `expected.npz` contains what the version that saved a folder computes
from it.
"""

import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers

GOLDEN_DIR = Path(__file__).resolve().parents[1] / "tests" / "golden" / "huggingface"
VERSION = int(transformers.__version__.partition(".")[0])
SIZES = {"vocab_size": 48, "d_model": 16, "d_kv": 4, "d_ff": 20, "num_heads": 3}
FAMILIES = {  # model class, layers of encoder and decoder, what distinguishes it
    "t5_1_0": ("T5", (2, 2), {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
    "t5_1_1": ("T5", (2, 2), {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mt5": ("MT5", (2, 2), {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "umt5": ("UMT5", (2, 2), {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "byt5": ("T5", (3, 1), {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "ul2": ("T5", (2, 2), {"feed_forward_proj": "gated-silu", "tie_word_embeddings": True}),
}
FAMILIES_OF_5 = {  # Written by version 5 alone: other numbers than T5's, and umT5's flag in both states.
    "t5_other_numbers": (
        "T5",
        (2, 2),
        {
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "relative_attention_num_buckets": 16,
            "relative_attention_max_distance": 40,
            "layer_norm_epsilon": 1e-2,
        },
    ),
    "umt5_scaled": ("UMT5", (2, 2), {"feed_forward_proj": "gated-gelu", "scale_decoder_outputs": True}),
    "umt5_unscaled": ("UMT5", (2, 2), {"feed_forward_proj": "gated-gelu", "scale_decoder_outputs": False}),
}
IN_BFLOAT16 = ("byt5",)
INPUT_LENGTHS, TARGET_LENGTH, GREEDY_TOKENS = (140, 60), 8, 16


def made_up_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the same values for a name wherever it is drawn."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 1:
        values = 1.0 + 0.2 * values
    elif name == "shared.weight":
        values = values * 0.3  # Small, or tied logits would favour the token that was read last.
    elif "relative" not in name:
        values = values * 1.2 / np.sqrt(shape[1])
    return values.astype(np.float32)


def synthetic(family: str):
    """Returns a model of the family, every parameter filled."""
    kind, (num_layers, num_decoder_layers), choices = (FAMILIES | FAMILIES_OF_5)[family]
    layers = {"num_layers": num_layers, "num_decoder_layers": num_decoder_layers}
    config = getattr(transformers, f"{kind}Config")(**SIZES, **layers, **choices, decoder_start_token_id=0)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(made_up_weight(name, tuple(parameter.shape))))
    return model.to(torch.bfloat16) if family in IN_BFLOAT16 else model


def expected(folder: Path, family: str) -> dict[str, np.ndarray]:
    """Returns a batch, and the float32 logits and greedy tokens that a folder gives for it."""
    rng = np.random.default_rng(7)
    mask = np.arange(max(INPUT_LENGTHS)) < np.array(INPUT_LENGTHS)[:, None]
    batch = {
        "input_ids": rng.integers(2, SIZES["vocab_size"], mask.shape) * mask,
        "attention_mask": mask,
        "decoder_input_ids": np.pad(rng.integers(2, SIZES["vocab_size"], (2, TARGET_LENGTH - 1)), ((0, 0), (1, 0))),
    }
    tensors = {name: torch.tensor(value, dtype=torch.long) for name, value in batch.items()}
    model = (
        getattr(transformers, f"{(FAMILIES | FAMILIES_OF_5)[family][0]}ForConditionalGeneration")
        .from_pretrained(folder)
        .eval()
        .float()
    )
    with torch.no_grad():
        logits = model(**tensors).logits.numpy()
        tensors.pop("decoder_input_ids")
        greedy = model.generate(**tensors, do_sample=False, num_beams=1, max_new_tokens=GREEDY_TOKENS).numpy()[:, 1:]
    print(family, "std", logits.std(), "greedy", greedy.tolist())
    return {**{name: value.astype(np.int32) for name, value in batch.items()}, "logits": logits, "greedy": greedy}


def main() -> None:
    """Writes the folders of the version that is installed."""
    families = FAMILIES | (FAMILIES_OF_5 if VERSION == 5 else {})
    for family in sys.argv[1:] or families:
        kind = families[family][0]
        folder = GOLDEN_DIR / f"{family}_v{VERSION}"
        shutil.rmtree(folder, ignore_errors=True)
        if VERSION == 4 or family in FAMILIES_OF_5:
            model = synthetic(family)
        else:
            model = getattr(transformers, f"{kind}ForConditionalGeneration").from_pretrained(
                GOLDEN_DIR / f"{family}_v4"
            )
        model.save_pretrained(folder)
        if family == "byt5":
            transformers.ByT5Tokenizer(extra_ids=1).save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)
        np.savez_compressed(folder / "expected.npz", **expected(folder, family))


if __name__ == "__main__":
    main()
