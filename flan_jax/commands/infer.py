"""`flan-jax infer`: adds a prediction to each row of a file or of standard input."""

import dataclasses
import hashlib
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress

from flan_jax import placement, processes
from flan_jax.checkpoint.digest import leaves_digest
from flan_jax.checkpoint.weights import Weights
from flan_jax.decoding.decoder import Decoder
from flan_jax.decoding.strategies import Greedy, Strategy
from flan_jax.errors import UserError
from flan_jax.evaluation.generation import alternative
from flan_jax.evaluation.prediction import Alternative
from flan_jax.files import sha256_of
from flan_jax.names import counted
from flan_jax.paths import user_path
from flan_jax.run import provenance
from flan_jax.run.conversation import Conversation
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
from flan_jax.vocab import Vocabulary

CHUNK_BATCHES = 8  # Batches that are sorted by length together; a killed process repeats at most so many.


def infer(
    options: ModelOptions,
    *,
    input: str = STANDARD_INPUT,
    template: str | None = None,
    task: str | None = None,
    template_index: int | None = None,
    mixture_or_task_module: str | None = None,
    scores: bool = False,
    on_bad_row: OnBadRow = "error",
    delimiter: str | None = None,
    console: Console = QUIET,
) -> Predictions:
    r"""Adds predictions to rows, greedily unless an option selects another strategy.

    On the command line, `--output=FILE` names a .jsonl file. At a terminal, without --input and --output, inputs are
    typed and answers are shown while they are decoded.

    Args:
      options: The run or checkpoint, and how predictions are decoded.
      input: A file of JSON lines, a JSON list, CSV, TSV, Parquet or (.txt) lines of text, also gzipped; or "-" for
        standard input, with JSON lines or lines of text.
      template: The prompt of a row, such as "Question: {question}\nAnswer:", where \n is a newline, \t a tab and \\ a
        backslash; None uses the field `inputs`, which a line of text is.
      task: The name of a task whose normalizer and template make the prompts, so that they are those of its exports.
      template_index: Which of the task's templates; None uses the first that evaluation uses.
      mixture_or_task_module: The module or YAML file that registers the task; None uses the run's.
      scores: Whether each row gets the log-probability of its prediction, and its mean over tokens.
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
    strategy = options.strategy(default=Greedy())
    run = open_trained(options)
    (weights,) = chosen_checkpoints(run, options, console=console).values()
    if run.vocabulary is None:
        raise UserError(
            f"{options.model_dir} was trained with a vocabulary class of its own, so that no text can be encoded for "
            "it here."
        )
    placement.require_divisible_batch(options.batch_size, mesh=run.network.mesh)
    prompts = _prompts(run, template=template, task=task, template_index=template_index, module=mixture_or_task_module)
    adds = _added_fields(scores=scores, is_single=strategy.num_hypotheses == 1)
    prompted = PromptedInput(input=input, prompts=prompts, adds=adds, on_bad_row=on_bad_row, delimiter=delimiter)
    scan = _Scan.of(prompted) if input != STANDARD_INPUT else _Scan()
    inference = _Inference(
        run=run,
        weights=weights,
        vocabulary=run.vocabulary,
        options=options,
        strategy=strategy,
        prompted=prompted,
        num_rows=scan.count,
        scores=scores,
        console=console,
    )
    settings = sha256_of([inference.settings(), scan.digest])
    versions = provenance.versions()
    group.require_agreement({"settings": settings, "batch_size": options.batch_size, "versions": versions})
    return Predictions(
        identity=lambda: sha256_of([leaves_digest(weights.params), settings]),
        rows=lambda: prompted.rows(inference.dropped),
        predict=inference.predict,
        reads=None if input == STANDARD_INPUT else user_path(input),
        console=console,
        converse=inference.converse if input == STANDARD_INPUT and sys.stdin.isatty() else None,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inference:
    """One call of `infer`, opened: everything that decides its predictions.

    Attributes:
      num_rows: The number of rows; None if unknown.
      dropped: Counts the rows that are left out, by reason.
    """

    run: TrainedModel
    weights: Weights
    vocabulary: Vocabulary
    options: ModelOptions
    strategy: Strategy
    prompted: PromptedInput
    num_rows: int | None
    scores: bool
    console: Console
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def limit(self) -> int:
        """Tokens of an input, the end of sequence included."""
        return self.run.request.lengths["inputs"]

    @property
    def max_decode_length(self) -> int:
        """The largest number of tokens in a prediction."""
        return self.options.max_decode_length or self.run.request.lengths["targets"]

    def settings(self) -> dict[str, Any]:
        """Returns everything besides the weights and the rows that decides a row of the output, as JSON."""
        return {
            "model": dataclasses.asdict(self.run.network.config),
            "vocabulary": self.vocabulary.digest,
            "limit": self.limit,
            "decoding": {**self.strategy.record(), "max_decode_length": self.max_decode_length},
            "scores": self.scores,
            "prompts": self.prompted.identity,
        }

    def predict(self, rows: Iterator[PromptedRow]) -> Iterator[Row]:
        """Yields the rows with their predictions, a few batches at a time, and prints what a user should know."""
        batch_size = self.options.batch_size
        predictor = self._predictor(batch_size)
        report = _Report(console=self.console, limit=self.limit, max_decode_length=self.max_decode_length)
        with (
            self.run.network.within(),
            Progress(console=self.console, disable=not self.console.is_terminal) as progress,
        ):
            bar = progress.add_task("predicting", total=self.num_rows)
            while chunk := list(itertools.islice(rows, CHUNK_BATCHES * batch_size)):
                report.begin(chunk[0].prompt)
                for (_, row, _), fields in zip(chunk, predictor(chunk), strict=True):
                    report.count(fields)
                    yield {**row, **fields}
                progress.advance(bar, len(chunk))
        report.end(self.dropped, programs=predictor.decode.programs)

    def converse(self) -> None:
        """Answers what is typed."""
        with self.run.network.within():
            # The smallest batch that every mesh of these devices divides.
            predictor = self._predictor(self.run.network.mesh.size)
            strategy, step = type(self.strategy).__name__, self.weights.step or 0
            # Beams have no text before their end, and a text may begin a stop string that is no part of the answer.
            streams = self.strategy.num_candidates == 1 and not self.strategy.stop_strings
            Conversation(
                introduction=f"{self.options.model_dir}, step {step:,}, {strategy} decoding.",
                prompts=self.prompted.prompts,
                replies=predictor.stream if streams else predictor.texts,
            ).run()

    def _predictor(self, batch_size: int) -> "_Predictor":
        decode = self.run.network.decoder(
            self.run.params(self.weights),
            strategy=self.strategy,
            max_decode_length=self.max_decode_length,
            batch_size=batch_size,
            vocabulary=self.vocabulary,
            eos_id=self.vocabulary.eos_id,
        )
        return _Predictor(
            decode=decode,
            vocabulary=self.vocabulary,
            limit=self.limit,
            ends_inputs=self.prompted.prompts.ends_inputs,
            scores=self.scores,
        )


SCORE, SCORE_PER_TOKEN, ALL = "score", "score_per_token", "predictions"
TRUNCATED, INPUT_TRUNCATED = "truncated", "input_truncated"


def _added_fields(*, scores: bool, is_single: bool) -> tuple[str, ...]:
    """Returns the fields that rows may get."""
    of_scores = (SCORE, SCORE_PER_TOKEN) if scores else ()
    return (PREDICTION, *of_scores, TRUNCATED, INPUT_TRUNCATED, *(() if is_single else (ALL,)))


class _Report:
    """What a user reads about the rows next to the rows themselves."""

    def __init__(self, *, console: Console, limit: int, max_decode_length: int):
        self._console, self._limit, self._max_decode_length = console, limit, max_decode_length
        self._counts, self._started = Counter[str](), time.monotonic()

    def begin(self, prompt: str) -> None:
        """Prints the first prompt."""
        if not self._counts:
            self._console.print(f"The first prompt: {prompt!r}", soft_wrap=True)

    def count(self, fields: Row) -> None:
        """Counts a row."""
        self._counts.update(["rows", *(name for name in (TRUNCATED, INPUT_TRUNCATED) if name in fields)])

    def end(self, dropped: Counter[str], *, programs: int) -> None:
        """Prints how many rows are not as expected, and the speed."""
        counts, rows = self._counts, self._counts["rows"]
        lines = []
        if counts[INPUT_TRUNCATED]:
            lines.append(
                f"{counts[INPUT_TRUNCATED]:,} of {rows:,} inputs were longer than {self._limit} tokens and were "
                f"truncated; their rows have {INPUT_TRUNCATED!r}."
            )
        if counts[TRUNCATED]:
            lines.append(
                f"{counts[TRUNCATED]:,} of {rows:,} predictions reached {self._max_decode_length} tokens without "
                f"ending; their rows have {TRUNCATED!r}. --max_decode_length raises the limit."
            )
        if dropped:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(dropped.items()))
            lines.append(f"Rows that were left out: {dropped.total():,} ({reasons}).")
        seconds = time.monotonic() - self._started
        speed = f"{rows / seconds:,.1f} rows/s, {counted(programs, 'compiled program')}"
        for line in (*lines, f"{counted(rows, 'row')} in {seconds:,.1f} s: {speed}."):
            self._console.print(line, highlight=False, soft_wrap=True)


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
        for _, row, prompt in prompted.rows(Counter()):
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Predictor:
    """Maps rows to the fields that they get.

    Attributes:
      limit: Tokens of an input, the end of sequence included.
      ends_inputs: Whether inputs end with the end of sequence.
      scores: Whether rows get the score of their prediction.
    """

    decode: Decoder
    vocabulary: Vocabulary
    limit: int
    ends_inputs: bool
    scores: bool

    def __call__(self, chunk: Sequence[PromptedRow]) -> list[dict[str, Any]]:
        """Returns the fields for each of some rows."""
        encoded = self._encoded([row.prompt for row in chunk])
        fields: list[dict[str, Any]] = [{}] * len(chunk)
        # The number of a row in the whole input, by which samples are drawn, also after a process was killed.
        for number, hypotheses in self.decode((row.number, ids) for row, (ids, _) in zip(chunk, encoded, strict=True)):
            i = number - chunk[0].number
            alternatives = [alternative(hypothesis, self.vocabulary) for hypothesis in hypotheses]
            fields[i] = self._fields(alternatives, is_input_truncated=encoded[i][1])
        return fields

    def stream(self, prompt: str) -> Iterator[str]:
        """Yields the growing text of one answer."""
        ((ids, _),) = self._encoded([prompt])
        return (self.vocabulary.decode(tokens.tolist()) for tokens in self.decode.stream(ids))

    def texts(self, prompt: str) -> list[str]:
        """Returns all answers."""
        ((ids, _),) = self._encoded([prompt])
        ((_, hypotheses),) = self.decode([(0, ids)])
        return [alternative(hypothesis, self.vocabulary).prediction for hypothesis in hypotheses]

    def _encoded(self, prompts: Sequence[str]) -> list[tuple[list[int], bool]]:
        """Returns the token ids of prompts, and whether they are truncated."""
        end = [self.vocabulary.eos_id] if self.ends_inputs else []
        most = self.limit - len(end)
        return [([*ids[:most], *end], len(ids) > most) for ids in self.vocabulary.encode_batch(list(prompts))]

    def _fields(self, alternatives: Sequence[Alternative], *, is_input_truncated: bool) -> dict[str, Any]:
        first = alternatives[0]
        fields: dict[str, Any] = {PREDICTION: first.prediction}
        if self.scores:
            fields |= {SCORE: first.score, SCORE_PER_TOKEN: first.score_per_token}
        if first.truncated:
            fields[TRUNCATED] = True
        if is_input_truncated:
            fields[INPUT_TRUNCATED] = True
        if len(alternatives) > 1:
            fields[ALL] = [one.as_json() for one in alternatives]
        return fields
