"""The contender "transformers" of decode.py: `generate` with a key-value cache, batch after batch."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import step_contender as contender
import torch
from make_transformers_goldens import reference_name, turned
from step_torch import made_model

STRATEGIES = {"greedy": {"num_beams": 1}, "beam 4": {"num_beams": 4}}


def main():
    spec = contender.read_spec()
    model = made_model(spec).eval()
    parameters = dict(model.named_parameters())
    with np.load(spec["weights"]) as arrays:
        for path in arrays.files:
            parameters.pop(reference_name(path)).data = torch.from_numpy(turned(path, arrays[path]))
    assert not parameters, f"not filled: {sorted(parameters)}"
    rows = contender.read_rows(spec["inputs"])
    size = spec["batch_size"]

    def decode(order, options):
        tokens = [[] for _ in rows]
        for start in range(0, len(rows), size):
            batch = order[start : start + size]
            ids = np.zeros((len(batch), max(len(rows[i]) for i in batch)), np.int64)
            for row, i in zip(ids, batch, strict=True):
                row[: len(rows[i])] = rows[i]
            ids = torch.from_numpy(ids)
            with torch.inference_mode():
                out = model.generate(
                    input_ids=ids,
                    attention_mask=(ids != 0).long(),
                    do_sample=False,
                    max_new_tokens=spec["new_tokens"],
                    eos_token_id=1,
                    pad_token_id=0,
                    **options,
                )
            for i, row in zip(batch, out[:, 1:].tolist(), strict=True):
                tokens[i] = row[: row.index(1) + 1] if 1 in row else row
        return tokens

    contender.tell({"about": contender.versions("torch", "transformers")})
    for line in sys.stdin:
        name = line.strip()
        order = list(range(len(rows)))
        if name.endswith(" sorted"):
            order.sort(key=lambda i: -len(rows[i]))
        wall, processor = time.perf_counter(), time.process_time()
        tokens = decode(order, STRATEGIES[name.removesuffix(" sorted")])
        spent = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        contender.tell({**spent, "tokens": tokens})


if __name__ == "__main__":
    main()
