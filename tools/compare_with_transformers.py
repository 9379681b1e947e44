"""Compares the text that `flan-jax infer` wrote with what transformers generates from the same weights.

    flan-jax convert --from=runs/quickstart --to=quickstart_hf --format=hf
    flan-jax infer runs/quickstart --input=rows.jsonl --output=answers.jsonl
    python tools/compare_with_transformers.py quickstart_hf answers.jsonl

Rows have "inputs" and "prediction". Decoding is greedy, with inputs and targets truncated as `infer` does. Needs
transformers and torch, and nothing of this package.
"""

import argparse
import json
from pathlib import Path

import transformers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("answers", type=Path)
    parser.add_argument("--inputs_length", type=int, default=64)
    parser.add_argument("--targets_length", type=int, default=16)
    arguments = parser.parse_args()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(arguments.folder).eval()
    rows = [json.loads(line) for line in arguments.answers.read_text(encoding="utf-8").splitlines()]
    differing = 0
    for row in rows:
        ids = tokenizer(row["inputs"], return_tensors="pt", truncation=True, max_length=arguments.inputs_length)
        made = model.generate(**ids, max_new_tokens=arguments.targets_length, do_sample=False, num_beams=1)
        text = tokenizer.decode(made[0], skip_special_tokens=True)
        if text != row["prediction"]:
            differing += 1
            print(f"{row['inputs']!r}\n  transformers {text!r}\n  flan_jax     {row['prediction']!r}")
    print(f"transformers {transformers.__version__}: {len(rows) - differing} of {len(rows)} texts equal")
    raise SystemExit(differing > 0)


if __name__ == "__main__":
    main()
