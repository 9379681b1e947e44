"""`flan-jax infer`: adds a prediction to each row of a file or of standard input."""

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from flan_jax import placement, processes
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.data.evaluation_feed import PADDING_ROW, score_batches
from flan_jax.errors import UserError
from flan_jax.files import sha256_of
from flan_jax.paths import user_path
from flan_jax.run import provenance
from flan_jax.run.predictions import Predictions, Row
from flan_jax.run.trained import ModelOptions, TrainedModel, chosen_checkpoints, open_trained
from flan_jax.tasks.declare import with_vocabulary
from flan_jax.tasks.prompting import (
    DEFAULT_TEMPLATE,
    PREDICTION,
    STANDARD_INPUT,
    PromptedInput,
    PromptedRow,
    Prompts,
    TaskPrompts,
    TemplatePrompts,
)
from flan_jax.tasks.sources.rows import OnBadRow
from flan_jax.train.console import QUIET

CHUNK_BATCHES = 8  # Batches that share one sort by length; a killed process repeats at most so many.


def infer(
    options: ModelOptions,
    *,
    input: str = STANDARD_INPUT,
    template: str | None = None,
    task: str | None = None,
    template_index: int | None = None,
    mixture_or_task_module: str | None = None,
    on_bad_row: OnBadRow = "error",
    delimiter: str | None = None,
    console: Console = QUIET,
) -> Predictions:
    r"""Generates a prediction for each row, greedily. On the command line, `--output=FILE` names a .jsonl file.

    Args:
      options: The run or checkpoint.
      input: A file of JSON lines, a JSON list, CSV, TSV, Parquet or (.txt) lines of text, also gzipped; or "-" for
        standard input, with JSON lines or lines of text.
      template: The prompt of a row, such as "Question: {question}\nAnswer:", where \n is a newline, \t a tab and \\ a
        backslash; None uses the field `inputs`, which a line of text is.
      task: The name of a task whose normalizer and template make the prompts, so that they are those of its exports.
      template_index: Which of the task's templates; None uses the first that evaluation uses.
      mixture_or_task_module: The module or YAML file that registers the task; None uses the run's.
      on_bad_row: "error" stops at the first row that cannot be used, "skip" drops and counts such rows.
      delimiter: The character between the fields of a CSV file; None is a comma.
      console: Where progress is shown.

    Returns:
      The rows with their predictions, computed as they are read.

    Raises:
      UserError: A row cannot be read or rendered.
      MissingFileError: There is no run, no such checkpoint or no input.
    """
    group = processes.group()
    if group.count > 1 and input == STANDARD_INPUT:
        raise UserError(
            f"{group.count} processes cannot share one standard input: give --input=FILE in a shared folder."
        )
    if options.step == "all":
        raise UserError("step is 'all', but infer predicts with one checkpoint: give 'latest', 'best' or a number.")
    run, batch_size = open_trained(options), options.batch_size
    (weights,) = chosen_checkpoints(run, options, console=console).values()
    if run.vocabulary is None:
        raise UserError(
            f"{options.model_dir} was trained with a vocabulary class of its own, so that no text can be encoded for "
            "it here."
        )
    placement.require_divisible_batch(batch_size, mesh=run.network.mesh)
    prompts = _prompts(run, template=template, task=task, template_index=template_index, module=mixture_or_task_module)
    prompted = PromptedInput(input=input, prompts=prompts, on_bad_row=on_bad_row, delimiter=delimiter)
    scan = _Scan.of(prompted) if input != STANDARD_INPUT else _Scan()
    settings = sha256_of(  # With the weights, everything that decides a row.
        {
            "model": dataclasses.asdict(run.network.config),
            "vocabulary": run.vocabulary.digest,
            "lengths": dict(run.request.lengths),
            "max_decode_length": options.max_decode_length,
            "prompts": prompted.identity,
            "rows": scan.digest,
        }
    )
    group.require_agreement({"settings": settings, "batch_size": batch_size, "versions": provenance.versions()})
    dropped = Counter[str]()

    def predict(rows: Iterator[PromptedRow]) -> Iterator[Row]:
        computed = truncated = 0
        predictor = _predictor(run, run.params(weights), options, ends_inputs=prompts.ends_inputs)
        with Progress(console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("predicting", total=scan.count)
            while chunk := list(itertools.islice(rows, CHUNK_BATCHES * batch_size)):
                if not computed:
                    console.print(f"The first prompt: {chunk[0].prompt!r}", soft_wrap=True)
                predictions, num_truncated = predictor([prompt for _, prompt in chunk])
                computed, truncated = computed + len(chunk), truncated + num_truncated
                yield from ({**row, PREDICTION: p} for (row, _), p in zip(chunk, predictions, strict=True))
                progress.advance(bar, len(chunk))
        if truncated:
            console.print(
                f"{truncated:,} of {computed:,} inputs were longer than {run.request.lengths['inputs']} tokens and "
                "were truncated."
            )
        if dropped:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(dropped.items()))
            console.print(f"Rows that were left out: {dropped.total():,} ({reasons}).")

    return Predictions(
        identity=lambda: sha256_of([leaves_digest(weights.params), settings]),
        rows=lambda: prompted.rows(dropped),
        predict=predict,
        reads=None if input == STANDARD_INPUT else user_path(input),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scan:
    """Results of a first pass over a file, so that a bad row ends a command before it computes anything.

    Attributes:
      count: The number of predictions; None for standard input.
      digest: A digest of all rows and prompts, by which several processes agree.
    """

    count: int | None = None
    digest: str = ""

    @classmethod
    def of(cls, prompted: PromptedInput) -> "_Scan":
        """Reads an input once, in constant memory."""
        digest, count = hashlib.sha256(), 0
        for row, prompt in prompted.rows(Counter()):
            digest.update(json.dumps([row, prompt]).encode())
            count += 1
        return cls(count=count, digest=digest.hexdigest())


def _prompts(
    run: TrainedModel, *, template: str | None, task: str | None, template_index: int | None, module: str | None
) -> Prompts:
    """Returns what makes the prompts."""
    if task is None:
        if template_index is not None or module is not None:
            raise UserError("template_index and mixture_or_task_module belong to a task: give --task=NAME, too.")
        return TemplatePrompts(template=DEFAULT_TEMPLATE if template is None else template)
    if template is not None:
        raise UserError("Give --template or --task, not both: a task has templates of its own.")
    from flan_jax.collections import catalog
    from flan_jax.tasks import registry

    assert run.vocabulary is not None
    catalog.install()
    registry.prepare(dataclasses.replace(run.request, module=module or run.request.module))
    declared = registry.templated(task)
    if declared is None:
        raise UserError(f"Task {task!r} has no templates, so that it makes no prompts. Give --template.")
    return TaskPrompts(task=with_vocabulary(declared, run.vocabulary), template=template_index)


def _predictor(
    run: TrainedModel, params: Any, options: ModelOptions, *, ends_inputs: bool
) -> Callable[[list[str]], tuple[list[str], int]]:
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
        end = [vocabulary.eos_id] if ends_inputs else []
        most = limit - len(end)
        num_truncated = sum(len(ids) > most for ids in encoded)
        pairs = [([*ids[:most], *end], [vocabulary.eos_id]) for ids in encoded]
        predictions = [""] * len(texts)
        with run.network.within():
            for batch, numbers in score_batches(pairs, batch_size=options.batch_size, lengths=lengths):
                tokens = np.asarray(generate(batch))
                for number, ids in zip(numbers.tolist(), tokens.tolist(), strict=True):
                    if number != PADDING_ROW:
                        predictions[number] = vocabulary.decode(ids)
        return predictions, num_truncated

    return predict
