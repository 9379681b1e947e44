"""Saves the ids that transformers' `AutoTokenizer` gives for our tokenizer files.

    python tools/make_tokenizer_goldens.py  # needs transformers 5 and ../shared/data

Writes tests/golden/tokenizer_ids.json for tests/checkpoint/huggingface/test_tokenizer.py: each line with its ids under
every vocabulary. Writes tests/golden/added_token_ids.json for tests/vocabularies: lines with added tokens in them.
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
from tests.vocabularies.synthetic_folders import lines_with_tokens, with_added_tokens  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "tokenizer_ids.json"
SHARED_DATA = ROOT.parent / "shared" / "data"
MODELS = {
    "embedded": EMBEDDED_MODEL,
    "t5": SHARED_DATA / "vocab_t5" / "cc_all.32000.sentencepiece.model",
    "seqio_test": SHARED_DATA / "vocab_seqio_test" / "sentencepiece.model",
}
GOLDEN_ADDED = GOLDEN.with_name("added_token_ids.json")
LINES_EACH = 15
LINES_WITH_TOKENS = 60
LONGEST = 100


def lines() -> list[str]:
    """Returns 15 short lines of every kind that has so many."""
    kept: dict[str, list[str]] = {}
    for kind, text in made_lines(250):
        if len(text) <= LONGEST and len(kept.setdefault(kind, [])) < LINES_EACH:
            kept[kind].append(text)
    return [text for texts in kept.values() for text in texts]


def write_added() -> None:
    """Saves ids and texts of lines with added tokens, as `T5Tokenizer` gives them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), with_added_tokens(Path(folder) / "added.model"), model_rows=2000)
        Path(folder, "config.json").write_text('{"model_type": "t5"}')
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        assert type(tokenizer).__name__ == "T5Tokenizer"
        for text in lines_with_tokens(LINES_WITH_TOKENS):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(text) <= LONGEST and tokenizer.unk_token_id not in ids:  # Its class knows no bytes.
                shown = [i for i in ids if i not in (tokenizer.pad_token_id, tokenizer.eos_token_id)]
                rows.append({"text": text, "ids": ids, "decoded": tokenizer.decode(shown)})
    made_with = json.dumps(f"transformers {transformers.__version__}, T5Tokenizer")
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    GOLDEN_ADDED.write_text(f'{{"made_with": {made_with}, "rows": [\n{body}\n]}}\n')
    print(f"{len(rows)} lines in {GOLDEN_ADDED}")


def main() -> None:
    write_added()
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
