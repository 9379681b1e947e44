"""Saves the ids that transformers' `AutoTokenizer` gives for our tokenizer files.

    python tools/make_tokenizer_goldens.py  # needs transformers 5 and ../shared/data

Writes tests/golden/tokenizer_ids.json for tests/checkpoint/huggingface/test_tokenizer.py: each line with its ids under
every vocabulary.
"""

import json
import sys
import tempfile
from pathlib import Path

import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flan_jax import vocab  # noqa: E402
from flan_jax.checkpoint.huggingface.tokenizer import write_tokenizer  # noqa: E402
from flan_jax.vocab import EMBEDDED_MODEL  # noqa: E402
from tests.checkpoint.tokenizer_lines import made_lines  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "tokenizer_ids.json"
SHARED_DATA = ROOT.parent / "shared" / "data"
MODELS = {
    "embedded": EMBEDDED_MODEL,
    "t5": SHARED_DATA / "vocab_t5" / "cc_all.32000.sentencepiece.model",
    "seqio_test": SHARED_DATA / "vocab_seqio_test" / "sentencepiece.model",
}
LINES_EACH = 15
LONGEST = 100


def lines() -> list[str]:
    """Returns 15 short lines of every kind that has so many."""
    kept: dict[str, list[str]] = {}
    for kind, text in made_lines(250):
        if len(text) <= LONGEST and len(kept.setdefault(kind, [])) < LINES_EACH:
            kept[kind].append(text)
    return [text for texts in kept.values() for text in texts]


def main() -> None:
    texts = lines()
    ids = {}
    for name, model in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_tokenizer(Path(folder), vocab.load(str(model), extra_ids=100), model_rows=32128)
            Path(folder, "config.json").write_text('{"model_type": "t5"}')
            ids[name] = transformers.AutoTokenizer.from_pretrained(folder)(texts)["input_ids"]
    rows = [{"text": text, **{name: ids[name][i] for name in MODELS}} for i, text in enumerate(texts)]
    made_with = json.dumps(f"transformers {transformers.__version__}, AutoTokenizer")
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    GOLDEN.write_text(f'{{"made_with": {made_with}, "rows": [\n{body}\n]}}\n')
    print(f"{len(rows)} lines in {GOLDEN}")


if __name__ == "__main__":
    main()
