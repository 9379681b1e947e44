"""The contender "transformers" of rank.py: one pass per option, in padded batches sorted by length."""

import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import step_contender as contender
import torch
import transformers


def padded(rows, *, fill):
    out = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for row, tokens in zip(out, rows, strict=True):
        row[: len(tokens)] = tokens
    return torch.from_numpy(out)


def main():
    spec = contender.read_spec()
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(spec["weights"]).eval()
    pairs = [(inputs, option) for inputs, options in json.loads(spec["rows"]) for option in options]
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))

    def score():
        scores = [0.0] * len(pairs)
        for start in range(0, len(order), spec["batch_size"]):
            chosen = order[start : start + spec["batch_size"]]
            inputs = padded([pairs[i][0] for i in chosen], fill=0)
            labels = padded([pairs[i][1] for i in chosen], fill=-100)
            with torch.inference_mode():
                logits = model(
                    input_ids=inputs, attention_mask=(inputs != 0).long(), labels=labels, use_cache=False
                ).logits
                log_probs = torch.log_softmax(logits, dim=-1)
                taken = torch.gather(log_probs, 2, labels.clamp(min=0)[..., None])[..., 0] * (labels >= 0)
            for i, total in zip(chosen, taken.sum(dim=1).tolist(), strict=True):
                scores[i] = total
        return scores

    contender.tell({"about": contender.versions("torch", "transformers")})
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        scores = score()
        took = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        contender.tell({**took, "scores": scores})


if __name__ == "__main__":
    main()
