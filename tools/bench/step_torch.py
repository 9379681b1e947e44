"""The contender "transformers" of step.py: T5 1.1 under Torch on padded batches, as Seq2SeqTrainer steps it.

It does only what a step needs: forward, backward, Adafactor. No clipping, logging or saving.
"""

import itertools
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import step_contender as contender
import torch
import transformers


def made_model(spec):
    sizes = spec["sizes"]
    config = transformers.T5Config(
        vocab_size=sizes["vocab_size"],
        d_model=sizes["emb_dim"],
        d_kv=sizes["head_dim"],
        d_ff=sizes["mlp_dim"],
        num_layers=sizes["num_layers"],
        num_decoder_layers=sizes["num_layers"],
        num_heads=sizes["num_heads"],
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=spec["dropout"],
        decoder_start_token_id=0,
    )
    torch.manual_seed(spec["seed"])
    model = transformers.T5ForConditionalGeneration(config)
    # Version 5 ties the embeddings whatever the configuration says.
    if model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr():
        model.lm_head.weight = torch.nn.Parameter(model.shared.weight.detach().clone() * sizes["emb_dim"] ** -0.5)
        model.config.tie_word_embeddings = False
    # Since version 5 the logits of a model that says so are scaled as tied ones are.
    if hasattr(model.config, "scale_decoder_outputs"):
        model.config.scale_decoder_outputs = False
    return model.train()


def padded(rows, *, multiple, longest, fill):
    width = max(map(len, rows))
    width = min(longest, -(-width // multiple) * multiple)
    out = np.full((len(rows), width), fill, np.int64)
    for row, tokens in zip(out, rows, strict=True):
        row[: len(tokens)] = tokens
    return torch.from_numpy(out)


def main():
    spec = contender.read_spec()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = made_model(spec).to(device)
    optimizer = transformers.Adafactor(model.parameters(), lr=1e-3, relative_step=False, warmup_init=False)
    examples = contender.read_examples(spec["examples"])
    batches = contender.padded_batches(
        examples, batch=spec["batch"], is_grouped=spec["kind"] == "grouped", seed=spec["seed"]
    )
    run = torch.compile(model, dynamic=True) if spec["compile"] else model
    half = torch.autocast(device.type, torch.bfloat16, enabled=spec["dtype"] == "bfloat16")
    S, T = spec["lengths"]
    # torch.compile treats sizes as dynamic, except those that are equal at first, and recompiles when these differ
    # later. Therefore the first batch is padded to the full lengths, which differ.
    multiples = itertools.chain([(S, T)], itertools.repeat((64, 64))) if spec["compile"] else itertools.repeat((1, 1))

    def step():
        chosen = [examples[i] for i in next(batches)]
        of_inputs, of_labels = next(multiples)
        inputs = padded([pair[0] for pair in chosen], multiple=of_inputs, longest=S, fill=0).to(device)
        labels = padded([pair[1] for pair in chosen], multiple=of_labels, longest=T, fill=-100).to(device)
        with half:
            loss = run(input_ids=inputs, attention_mask=(inputs != 0).long(), labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {
            "loss": loss.item(),
            "examples": len(chosen),
            "tokens": sum(len(a) + len(b) for a, b in chosen),
            "positions": inputs.numel() + labels.numel(),
        }

    about = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": contender.versions("torch", "transformers"),
        "notes": f"attention {model.config._attn_implementation}, {torch.get_num_threads()} threads, {device.type}"
        + (", torch.compile" if spec["compile"] else ""),
    }

    def device_peak():
        return {"device_peak_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else {}

    contender.serve(step, about=about, extra=device_peak)


if __name__ == "__main__":
    main()
