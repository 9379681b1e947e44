"""External tasks: registered by their authors with plain SeqIO, run as they are, read to the end once.

Their preprocessors decide tokens and order; this module changes one thing: `append_eos_after_trim` truncates without a
trace, so it runs without truncation, and the export truncates (to the same ids) and counts. Randomness is seeded, so
that two exports agree as far as the preprocessors allow.
"""

import contextlib
import dataclasses
import functools
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flan_jax.data.manifest import Lengths, TaskMetadata
from flan_jax.errors import UnknownNameError, UserError, as_user_error, raised_outside
from flan_jax.evaluation.metrics import METRICS
from flan_jax.files import sha256_of_file
from flan_jax.paths import user_path
from flan_jax.tasks import lazy
from flan_jax.tasks.external_encoder import ExternalEncoder, Numbered, text_of
from flan_jax.tasks.interface import (
    DEFAULT_METRICS,
    FEATURES,
    Encode,
    Finding,
    MissingSource,
    Preview,
    Rendering,
    TaskVocabulary,
)
from flan_jax.tasks.sources.rows import Record, plain_record
from flan_jax.tasks.vocabularies import of_task

Evaluation = Literal["generate", "external"]

SEED = 0  # Preprocessors that draw (span corruption, template choice) draw the same at every export.
CLUSTER = "external"
EVALUATION_MODULES = "flan_jax.evaluation."


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExternalTask:
    """A task of SeqIO's registry that this package did not declare; implements `interface.Task`.

    One split is exported at a time, in this process: TensorFlow brings threads of its own.
    """

    seqio_task: Any
    thread_safe = False
    joins_rows = False
    num_templates = 0

    @property
    def name(self) -> str:
        """The SeqIO task's."""
        return str(self.seqio_task.name)

    @property
    def splits(self) -> Collection[str]:
        """The source's."""
        return tuple(self.seqio_task.splits)

    @functools.cached_property
    def metadata(self) -> TaskMetadata:
        """The metrics, if this package has them; cluster and license are unknown."""
        evaluation, metrics, postprocessor = evaluation_of(self.seqio_task)
        return TaskMetadata(
            cluster=CLUSTER, metrics=metrics, postprocessor=postprocessor, evaluation=evaluation, license=""
        )

    @functools.cached_property
    def vocabulary(self) -> TaskVocabulary:
        """Ours when it gives the same ids, else the SeqIO vocabulary, which can only decode."""
        return of_task(self.seqio_task)

    @property
    def vocabulary_files(self) -> tuple[str, ...]:
        """The local SentencePiece model, if any."""
        path = getattr(self.seqio_task.output_features["inputs"].vocabulary, "sentencepiece_model_file", None)
        return (str(user_path(path)),) if path and Path(path).is_file() else ()

    def to_seqio(self) -> Any:
        """Returns the SeqIO task, which is registered already."""
        return self.seqio_task

    def identity(self, split: str, *, module_digests: Sequence[str] = ()) -> Mapping[str, Any]:
        """Returns what decides the examples, as far as can be seen without running the task.

        Functions are known by name and by the digests of the user's modules; files that a function reads by itself are
        not seen.
        """
        task = self.seqio_task
        return {
            "task": task.name,
            "split": split,
            "class": type(task).__qualname__,
            "source": _described(task.source),
            "files": source_digests(task.source, split),
            "preprocessors": [_function(p) for p in task.preprocessors],
            "features": {name: _described(feature) for name, feature in sorted(task.output_features.items())},
            "modules": sorted(module_digests),
            "seed": SEED,
        }

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the files of a source that names them."""
        return source_files(self.seqio_task.source, split)

    def missing_source(self, split: str) -> MissingSource | None:
        """Returns None: only running the task shows whether its rows are here."""
        del split
        return None

    def examples(self, split: str, *, lengths: Lengths, dropped: Counter[str] | None = None) -> Iterator[Numbered]:
        """Yields the examples as SeqIO makes them, numbered, not truncated.

        Raises:
          UserError: The task repeats itself without end.
        """
        del dropped  # What preprocessors leave out, nobody counts.
        return _examples(self.seqio_task, split, lengths=lengths)

    def encoder(self, split: str, *, lengths: Lengths) -> Encode:
        """Returns the function that checks ids, truncates them and records them.

        Raises:
          UserError: The task does not make inputs and targets in one vocabulary.
        """
        check_features(self.seqio_task)
        encoder = ExternalEncoder(
            name=self.name,
            size=self.vocabulary.size,
            eos_id=self.vocabulary.eos_id,
            lengths=lengths,
            decode=self.seqio_task.output_features["inputs"].vocabulary.decode,
            with_meta=split != "train",
        )
        return encoder.encode

    def num_examples(self, split: str, *, lengths: Lengths) -> int:
        """Returns the source's own count; runs the task when it has none."""
        known = self.seqio_task.num_input_examples(split)
        return int(known) if known is not None else sum(1 for _ in self.examples(split, lengths=lengths))

    def preview(self, split: str, *, index: int, lengths: Lengths, num_examples: int) -> Preview:
        """Shows example `index`."""
        encode = self.encoder(split, lengths=lengths)
        if split not in self.splits:
            splits = ", ".join(sorted(self.splits))
            raise UnknownNameError(f"Task {self.name!r} has no split {split!r}. Splits: {splits}.")
        numbered = self.examples(split, lengths=lengths)
        shown = list(itertools.islice(numbered, index, index + num_examples))
        if not shown:
            raise UserError(f"Task {self.name!r}: the split {split!r} has no example {index}.")
        source = self.seqio_task.source
        rows = source.get_dataset(split, shuffle=False).as_numpy_iterator()
        example = shown[0][1]
        first, decode = encode(shown[:1]), self.vocabulary.decode
        inputs, targets = (text_of(example, feature, decode) for feature in FEATURES)
        ids = next(iter(first.ids()), None)
        return Preview(
            place=f"{type(source).__name__}: row {index}",
            raw=_plain(next(itertools.islice(rows, index, None), {})),
            row=_plain(example),
            renderings=(Rendering(inputs=inputs, targets=targets, ids=ids, notes=first.notes(lengths)),),
            examples=encode(shown).ids(),
        )

    def lint(self, *, lengths: Lengths) -> Iterator[Finding]:
        """Yields nothing: preprocessors cannot be judged from outside."""
        del lengths
        yield from ()


def _plain(example: Mapping[str, Any]) -> Any:
    """An example as Python values; as texts when some are not UTF-8."""
    found = plain_record(example, place="")
    return found.row if isinstance(found, Record) else {name: str(value) for name, value in example.items()}


def check_features(task: Any) -> None:
    """Refuses a task without input ids and target ids of one vocabulary.

    Raises:
      UserError: Names the task and the feature.
    """
    features = task.output_features
    missing = [name for name in FEATURES if name not in features]
    if missing:
        raise UserError(
            f"Task {task.name!r} has no output feature {' and no '.join(map(repr, missing))} (it has "
            f"{', '.join(sorted(features))}): an encoder-decoder is trained on inputs and targets. Register it with "
            "both; a language-modeling task needs a preprocessor that splits its text, as prefix LM does."
        )
    for name in FEATURES:
        dtype = getattr(features[name].dtype, "as_numpy_dtype", features[name].dtype)
        if features[name].rank != 1 or not np.issubdtype(dtype, np.integer):
            raise UserError(f"Task {task.name!r}: {name} must be one sequence of ids; got {features[name]}.")
    if features["inputs"].vocabulary != features["targets"].vocabulary:
        raise UserError(
            f"Task {task.name!r} has two vocabularies: inputs {features['inputs'].vocabulary}, targets "
            f"{features['targets'].vocabulary}. The encoder and the decoder share one embedding: give both the same."
        )


def _examples(task: Any, split: str, *, lengths: Lengths) -> Iterator[Numbered]:
    import tensorflow as tf

    tf.random.set_seed(SEED)
    np.random.seed(SEED)  # For preprocessors in Python (`tf.numpy_function`).
    random.seed(SEED)
    plain = task.replace(preprocessors=[_untrimmed(p) for p in task.preprocessors])
    with _naming_the_task(task.name, split):
        dataset = _raw_dataset(task.source, split)
        dataset = plain.preprocess_precache(dataset, seed=SEED)
        dataset = plain.preprocess_postcache(dataset, sequence_length=dict(lengths), seed=SEED)
    if dataset.cardinality().numpy() == tf.data.INFINITE_CARDINALITY:
        raise UserError(
            f"Task {task.name!r}, split {split!r}, repeats without end, so it cannot be exported: leave `repeat()` out "
            "of its source and preprocessors; training repeats tasks itself, reshuffled at each epoch."
        )
    missing = [feature for feature in FEATURES if feature not in dataset.element_spec]
    if missing:
        raise UserError(
            f"Task {task.name!r}: after its preprocessors an example has {', '.join(sorted(dataset.element_spec))}, "
            f"and no {' and no '.join(missing)}. Rename the fields in a preprocessor."
        )
    options = tf.data.Options()
    options.deterministic = True
    dataset = dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
    with _naming_the_task(task.name, split):
        yield from enumerate(dataset.as_numpy_iterator())


@contextlib.contextmanager
def _naming_the_task(name: str, split: str) -> Iterator[None]:
    """Turns what a task's own code raises, most of it out of TensorFlow's graphs, into one message."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not raised_outside(error, caller=__file__):
            raise
        refusal = as_user_error(error) or f"{type(error).__name__}: {error}"
        raise UserError(f"Task {name!r}, split {split!r}, fails: {refusal}") from error


def _untrimmed(preprocessor: Callable[..., Any]) -> Callable[..., Any]:
    """SeqIO's `append_eos_after_trim` without its truncation; any other preprocessor unchanged."""
    preprocessors = lazy.import_seqio().preprocessors
    if preprocessor is not preprocessors.append_eos_after_trim:
        return preprocessor

    def append_eos(dataset: Any, output_features: Any) -> Any:
        return preprocessors.append_eos_after_trim(dataset, output_features=output_features, sequence_length=None)

    return append_eos


def _raw_dataset(source: Any, split: str) -> Any:
    """A source's rows in order; seeded, unless it accepts no seed (a `dataset_fn` of two arguments)."""
    try:
        return source.get_dataset(split=split, shuffle=False, seed=SEED)
    except ValueError as error:
        if "seed" not in str(error):
            raise
        return source.get_dataset(split=split, shuffle=False)


def source_files(source: Any, split: str) -> tuple[str, ...]:
    """Returns the local files, and the patterns of files, that a SeqIO source reads."""
    patterns = getattr(source, "_split_to_filepattern", {}).get(split, ())
    listed = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    found = [str(pattern) for pattern in listed if "*" in str(pattern)] if listed else []
    found += [str(path) for path in source.list_shards(split)] if listed else []
    return tuple(str(user_path(path)) for path in found if "://" not in path)


def source_digests(source: Any, split: str) -> list[str]:
    """Returns names and digests of a source's files, without their folders."""
    paths = [Path(path) for path in source_files(source, split) if Path(path).is_file()]
    return [f"{path.name} {sha256_of_file(path)}" for path in paths]


def evaluation_of(task: Any) -> tuple[Evaluation, tuple[str, ...], str | None]:
    """Returns (evaluation, metrics, postprocessor) for the manifest: the task's own if they are this package's."""
    functions = [*task.metric_fns, *([task.postprocessor] if task.postprocessor else [])]
    names = tuple(getattr(_unwrapped(function), "__name__", "") for function in task.metric_fns)
    are_ours = all(_module(function).startswith(EVALUATION_MODULES) for function in functions)
    if names and are_ours and all(name in METRICS for name in names):
        return "generate", names, _unwrapped(task.postprocessor).__name__ if task.postprocessor else None
    return "external", DEFAULT_METRICS, None


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _module(function: Any) -> str:
    return str(getattr(_unwrapped(function), "__module__", "")) + "."


def _function(function: Any) -> str:
    """A preprocessor's qualified name, with the arguments of a partial.

    >>> _function(functools.partial(max, 3, key=None))
    'builtins.max 3 key=None'
    """
    if isinstance(function, functools.partial):
        settings = [*map(_described, function.args), *(f"{k}={_described(v)}" for k, v in function.keywords.items())]
        return " ".join([_function(function.func), *settings])
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"


def _described(value: Any) -> str:
    """A value as text, without addresses, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
