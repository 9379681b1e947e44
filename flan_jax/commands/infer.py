"""`flan-jax infer`: adds a prediction to each row of a file or of standard input."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from flan_jax import placement, processes
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.data.evaluation_feed import PADDING_ROW, score_batches
from flan_jax.errors import UserError
from flan_jax.files import accessing, sha256_of
from flan_jax.paths import user_path
from flan_jax.run import provenance
from flan_jax.run.predictions import Predictions, Row
from flan_jax.run.trained import ModelOptions, TrainedModel, chosen_checkpoints, open_trained
from flan_jax.templates.render import Template
from flan_jax.train.console import QUIET

CHUNK_BATCHES = 8  # Batches that share one sort by length; a killed process repeats at most so many.


def infer(
    options: ModelOptions, *, input: str = "-", template: str = "{inputs}", console: Console = QUIET
) -> Predictions:
    """Generates a prediction for each row, greedily. On the command line, `--output=FILE` names a .jsonl file for them.

    Args:
      options: The run or checkpoint.
      input: A .jsonl file, or "-": standard input, with one JSON object or one text per line.
      template: Builds the input text of a row: "Question: {question}"; a line of text is the field `inputs`.
      console: Where progress is shown.

    Returns:
      The rows with their predictions, computed as they are read.

    Raises:
      UserError: A row cannot be read or rendered.
      MissingFileError: There is no run, no such checkpoint or no input.
    """
    group = processes.group()
    if group.count > 1 and input == "-":
        raise UserError(
            f"{group.count} processes cannot share one standard input: give --input=FILE in a shared folder."
        )
    run, batch_size = open_trained(options), options.batch_size
    weights = list(chosen_checkpoints(run, options, console=console).values())[-1]
    if run.vocabulary is None:
        raise UserError(
            f"{options.model_dir} was trained with a vocabulary class of its own, so that no text can be encoded for "
            "it here."
        )
    placement.require_divisible_batch(batch_size, mesh=run.network.mesh)
    pattern = Template(inputs=template, targets="-", name="--template")
    rows = [(row, pattern.render(row).inputs) for row in _read(input)]
    settings = sha256_of(  # With the weights, everything that decides a row.
        {
            "model": dataclasses.asdict(run.network.config),
            "vocabulary": run.vocabulary.digest,
            "lengths": dict(run.request.lengths),
            "max_decode_length": options.max_decode_length,
            "rows": [(dict(row), text) for row, text in rows],
        }
    )
    group.require_agreement({"settings": settings, "batch_size": batch_size, "versions": provenance.versions()})

    def compute(first: int) -> Iterator[Row]:
        chunk, truncated = CHUNK_BATCHES * batch_size, 0
        predict = _predictor(run, run.params(weights), options)
        starts = range(first, len(rows), chunk)
        for start in track(starts, description="predicting", console=console, disable=not console.is_terminal):
            part = rows[start : start + chunk]
            predictions, num_truncated = predict([text for _, text in part])
            truncated += num_truncated
            yield from ({**row, "prediction": p} for (row, _), p in zip(part, predictions, strict=True))
        if truncated:
            console.print(
                f"{truncated:,} of {len(rows) - first:,} inputs were longer than {run.request.lengths['inputs']} "
                "tokens and were truncated."
            )

    def identity() -> str:
        return sha256_of([leaves_digest(weights.params), settings])

    return Predictions(identity=identity, count=len(rows), compute=compute)


def _predictor(run: TrainedModel, params: Any, options: ModelOptions) -> Callable[[list[str]], tuple[list[str], int]]:
    """Returns the function from texts to predictions, in the same order, and the number of truncated texts."""
    vocabulary = run.vocabulary
    assert vocabulary is not None
    lengths = dict(run.request.lengths)
    limit = lengths["inputs"]
    generate = run.network.generate_fn(
        params, max_decode_length=options.max_decode_length or lengths["targets"], eos_id=vocabulary.eos_id
    )

    def predict(texts: list[str]) -> tuple[list[str], int]:
        encoded = vocabulary.encode_batch(texts)
        num_truncated = sum(len(ids) >= limit for ids in encoded)
        pairs = [([*ids[: limit - 1], vocabulary.eos_id], [vocabulary.eos_id]) for ids in encoded]
        predictions = [""] * len(texts)
        with run.network.within():
            for batch, numbers in score_batches(pairs, batch_size=options.batch_size, lengths=lengths):
                tokens = np.asarray(generate(batch))
                for number, ids in zip(numbers.tolist(), tokens.tolist(), strict=True):
                    if number != PADDING_ROW:
                        predictions[number] = vocabulary.decode(ids)
        return predictions, num_truncated

    return predict


def _read(source: str) -> Iterator[Mapping[str, Any]]:
    if source == "-":
        yield from _objects(sys.stdin, name="standard input", allows_text=True)
        return
    path = user_path(source)
    with accessing(source, setting="--input", action="read"), open(path, encoding="utf-8") as lines:
        try:
            yield from _objects(lines, name=source, allows_text=False)
        except UnicodeDecodeError as error:
            raise UserError(f"--input {source}: not UTF-8 text ({error}).") from error


def _objects(lines: Iterable[str], *, name: str, allows_text: bool) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield row
        elif allows_text:
            yield {"inputs": line.rstrip("\n")}
        else:
            raise UserError(f"{name}, line {number}: not a JSON object: {line.strip()[:80]!r}.")
