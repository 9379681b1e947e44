"""`flan-jax infer`: rows of a file or of standard input to JSONL, with trained weights; killed, it goes on."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from flan_jax import placement, processes, sharding
from flan_jax.data.evaluation_feed import PADDING_ROW, score_batches
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import sha256_of, write_atomic
from flan_jax.models.config import T5Config
from flan_jax.run import provenance
from flan_jax.run.trained import Trained, chosen_checkpoints, open_trained
from flan_jax.templates.render import Template

CHUNK_BATCHES = 8  # Written together; what a kill loses at most.


def infer(
    *,
    model_dir: str,
    input: str = "-",
    output: str = "-",
    template: str = "{inputs}",
    step: int | str = "latest",
    batch_size: int = 32,
    max_decode_length: int | None = None,
    export_dir: str | None = None,
    vocabulary: str | None = None,
    task_feature_lengths: Mapping[str, int] | None = None,
    model: T5Config | None = None,
    mesh: sharding.MeshPlan = sharding.MeshPlan(),  # noqa: B008  (frozen)
) -> None:
    """Generates a prediction for each row, greedily.

    Args:
      model_dir: a run's directory, or a checkpoint: converted, T5X's or Hugging Face's.
      input: a .jsonl or .tsv file (its first line names the columns), or "-": standard input, a JSON object or a text a line.
      output: a .jsonl file, each row with its `prediction`; "-" is standard output. A file that was begun is gone on with.
      template: makes the input text of a row: "Question: {question}"; a line of text is the field `inputs`.
      step: "latest" or a checkpoint's step.
      batch_size: rows of a batch.
      max_decode_length: tokens that a prediction may have; None is the run's target length.
      export_dir: where the run's vocabulary lies; None is where it lay when the run began.
      vocabulary: of a checkpoint that has none beside it: a SentencePiece model, or "bytes".
      task_feature_lengths: {"inputs": S, "targets": T} in tokens; None is the run's, 512 and 128 for a bare checkpoint.
      model: the network of a checkpoint that does not say what its activations are.
      mesh: devices and sharding rules.

    Raises:
      UserError: a row that cannot be read or rendered, or an output begun with another model or input.
      MissingFileError: there is no run, no such checkpoint or no input.
    """
    group = processes.group()
    if group.count > 1 and input == "-":
        raise UserError(
            f"{group.count} processes cannot share one standard input: give --input=FILE, in a folder that all of them see."
        )
    run = open_trained(
        model_dir, mesh=mesh, export_dir=export_dir, vocabulary=vocabulary, lengths=task_feature_lengths, model=model
    )
    number, weights = list(chosen_checkpoints(run, step).items())[-1]
    if run.vocabulary is None:
        raise UserError(
            f"{model_dir} was trained with a vocabulary class of its own, which no text can be encoded with here."
        )
    placement.require_divisible_batch(batch_size, mesh=run.network.mesh)
    pattern = Template(inputs=template, targets="-", name="--template")
    rows = [(row, pattern.render(row).inputs) for row in _read(input)]
    identity = sha256_of(
        [str(run.directory.path.resolve()), number, template, max_decode_length, [text for _, text in rows]]
    )
    group.require_agreement({"identity": identity, "batch_size": batch_size, "versions": provenance.versions()})
    partial, done = _begun(output, identity) if group.is_first else (None, 0)
    done = group.told_by_first(done)
    quiet = Console(stderr=True, quiet=not group.is_first)
    chunk = CHUNK_BATCHES * batch_size
    cut = 0
    with run.network.within():
        predict = _predictor(run, run.params(weights), batch_size=batch_size, max_decode_length=max_decode_length)
        starts = range(done, len(rows), chunk)
        for start in track(starts, description="predicting", console=quiet, disable=not quiet.is_terminal):
            part = rows[start : start + chunk]
            predictions, shortened = predict([text for _, text in part])
            cut += shortened
            lines = (
                json.dumps({**row, "prediction": p}, ensure_ascii=False)
                for (row, _), p in zip(part, predictions, strict=True)
            )
            if group.is_first:
                _append(partial, "".join(line + "\n" for line in lines))
    if cut:
        quiet.print(
            f"{cut:,} of {len(rows) - done:,} inputs were longer than {run.request.lengths['inputs']} tokens and were cut."
        )
    if partial is not None:
        partial.rename(output)
        _identity_file(partial).unlink()
        quiet.print(f"{len(rows):,} rows written to {output}.", highlight=False)


def _predictor(run: Trained, params: Any, *, batch_size: int, max_decode_length: int | None):
    """Returns the function from texts to predictions, in their order, and how many texts were cut."""
    vocabulary = run.vocabulary
    assert vocabulary is not None
    lengths = dict(run.request.lengths)
    generate = run.network.generate_fn(
        params, max_decode_length=max_decode_length or lengths["targets"], eos_id=vocabulary.eos_id
    )

    def predict(texts: list[str]) -> tuple[list[str], int]:
        encoded = vocabulary.encode_batch(texts)
        limit = lengths["inputs"]
        cut = sum(len(ids) >= limit for ids in encoded)
        pairs = [([*ids[: limit - 1], vocabulary.eos_id], [vocabulary.eos_id]) for ids in encoded]
        predictions = [""] * len(texts)
        for batch, numbers in score_batches(pairs, batch_size=batch_size, lengths=lengths):
            tokens = np.asarray(generate(batch))
            for number, ids in zip(numbers.tolist(), tokens.tolist(), strict=True):
                if number != PADDING_ROW:
                    predictions[number] = vocabulary.decode(ids)
        return predictions, cut

    return predict


def _read(place: str) -> Iterator[Mapping[str, Any]]:
    if place == "-":
        yield from _objects(sys.stdin, name="standard input", texts=True)
        return
    path = Path(place).expanduser()
    if not path.is_file():
        raise MissingFileError(f"There is no input file {place}.")
    with open(path, encoding="utf-8") as lines:
        if path.suffix == ".tsv":
            columns = next(lines, "").rstrip("\n").split("\t")
            for number, line in enumerate(lines, start=2):
                values = line.rstrip("\n").split("\t")
                if len(values) != len(columns):
                    raise UserError(
                        f"{place}, line {number}: {len(values)} columns; the first line names {len(columns)}."
                    )
                yield dict(zip(columns, values, strict=True))
        else:
            yield from _objects(lines, name=place, texts=False)


def _objects(lines: Iterable[str], *, name: str, texts: bool) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield row
        elif texts:
            yield {"inputs": line.rstrip("\n")}
        else:
            raise UserError(f"{name}, line {number}: not a JSON object: {line.strip()[:80]!r}.")


def _begun(output: str, identity: str) -> tuple[Path | None, int]:
    """Returns the file that rows are added to (None: standard output), and how many it holds already."""
    if output == "-":
        return None, 0
    partial = Path(output).expanduser().with_name(Path(output).name + ".partial")
    begun_with = _identity_file(partial)
    if not partial.exists():
        partial.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(begun_with, identity)
        return partial, 0
    if not begun_with.exists() or begun_with.read_text() != identity:
        raise UserError(
            f"{partial} was begun with another checkpoint, input or template. Delete it, or choose another output."
        )
    whole = list(
        itertools.takewhile(lambda line: line.endswith("\n"), partial.read_text(encoding="utf-8").splitlines(True))
    )
    write_atomic(partial, "".join(whole))  # Without the half line of a process that was killed.
    return partial, len(whole)


def _identity_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".identity")


def _append(partial: Path | None, text: str) -> None:
    if partial is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        with open(partial, "a", encoding="utf-8") as file:
            file.write(text)
