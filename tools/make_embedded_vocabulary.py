"""Trains the SentencePiece model of the embedded suite on its training rows: python tools/make_embedded_vocabulary.py

The same inputs and the same version of sentencepiece give the same file. Most words of the suite are one piece, which
keeps sequences short; other text is split into smaller pieces and, finally, UTF-8 bytes, so nothing is unknown. Ids are
those of T5: padding 0, end of sequence 1, unknown 2. A new file changes the digest that exports and checkpoints are
checked against, so run this only when the words of the suite change.
"""

import argparse
import contextlib
import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from flan_jax.collections.embedded import collection as embedded
from flan_jax.files import write_atomic
from flan_jax.vocab import EMBEDDED_MODEL

# An upper limit; with the 100 sentinels 1,600 ids. The words and letters of the suite decide the actual number.
PIECES = 1500
# Characters that no row needs to have for them to be cheap: everything that can be typed.
PRINTABLE_ASCII = "".join(map(chr, range(0x21, 0x7F)))


def corpus() -> Iterator[str]:
    """Yields every training row under each of its task's templates, inputs and targets."""
    for task in embedded.tasks():
        options = task.options or ()
        for row in task.source.rows("train"):
            for template in task.templates:
                rendered = template.render(row, options=options)
                yield from rendered.inputs.splitlines()
                yield rendered.targets


def seeds(lines: Iterable[str]) -> str:
    """Returns the candidates for pieces, one per line with its count: complete words, and single characters.

    SentencePiece would look for candidates among substrings that repeat, and a word that no other word contains does
    not repeat in a list of words: most of the suite's small vocabulary would be missed.
    """
    counts = Counter(word for line in lines for word in re.findall(r"\w+", line))
    entries = [f"▁{word}\t{count}" for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return "\n".join([*entries, *(f"{character}\t1" for character in PRINTABLE_ASCII)]) + "\n"


def train() -> bytes:
    """Returns the trained model's bytes."""
    model = io.BytesIO()
    # The model keeps the name of this file, so it is given without the changing folder that it is in.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("seeds.tsv").write_text(seeds(corpus()), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=corpus(),
            model_writer=model,
            vocab_size=PIECES,
            hard_vocab_limit=False,
            seed_sentencepieces_file="seeds.tsv",
            model_type="unigram",
            byte_fallback=True,
            required_chars=PRINTABLE_ASCII,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=1,
        )
    return model.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=EMBEDDED_MODEL)
    output = parser.parse_args().output
    write_atomic(output, train())
    print(f"Wrote {output} ({output.stat().st_size:,} bytes).")


if __name__ == "__main__":
    main()
