"""The contender "transformers" of decode.py: greedy `generate` with a key-value cache."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import step_contender as contender
import torch
from step_torch import made_model


def main():
    spec = contender.read_spec()
    model = made_model(spec).eval()
    # No row ends early: random weights would end at random.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    with np.load(spec["inputs"]) as arrays:
        inputs = {int(name): torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}

    def decode(batch_size):
        ids = inputs[batch_size]
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                num_beams=1,
                max_new_tokens=spec["new_tokens"],
                min_new_tokens=spec["new_tokens"],
            )
        assert out.shape == (batch_size, spec["new_tokens"] + 1), out.shape

    contender.tell({"about": contender.versions("torch", "transformers")})
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        decode(int(line))
        contender.tell({"wall": time.perf_counter() - wall, "processor": time.process_time() - processor})


if __name__ == "__main__":
    main()
