"""Tasks that others registered with plain SeqIO: run as they are, read to the end once, described for the manifest.

Their preprocessors decide tokens and order; this module changes one thing: `append_eos_after_trim` trims in silence, so
it is run without trimming, and the export cuts (to the same ids) and counts. Randomness is seeded, so that two exports
agree as far as the preprocessors let them.
"""

import contextlib
import dataclasses
import functools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flan_jax.data.manifest import Lengths, VocabularyRef
from flan_jax.data.record import encode_record
from flan_jax.errors import UserError, as_user_error, raised_outside
from flan_jax.evaluation.metrics import METRICS
from flan_jax.files import sha256_of, sha256_of_file
from flan_jax.paths import user_path
from flan_jax.tasks import lazy
from flan_jax.tasks.exporting.shards import Encoded
from flan_jax.tasks.exporting.tokens import EMPTY_INPUTS, EMPTY_TARGETS
from flan_jax.tasks.exporting.vocabulary_files import reference
from flan_jax.tasks.vocabularies import from_seqio

Evaluation = Literal["generate", "foreign"]

SEED = 0  # Preprocessors that draw (span corruption, template choice) draw the same at every export.
FEATURES = ("inputs", "targets")
EVALUATION_MODULES = "flan_jax.evaluation."
DEFAULT_METRICS = ("exact_match", "rouge_l")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignFeatures:
    """How the examples of one plain SeqIO task and split become records.

    Attributes:
      name: of the task, for messages.
      decoders: each feature's own decoding, for texts that the task did not keep.
      with_meta: whether texts are kept beside the ids, as evaluation needs.
    """

    name: str
    vocabulary: VocabularyRef
    lengths: Lengths
    decoders: Mapping[str, Callable[[Sequence[int]], str]]
    with_meta: bool

    def encode(self, chunk: Sequence[tuple[int, Mapping[str, Any]]]) -> Encoded:
        """Turns examples as SeqIO gives them into records."""
        records: list[bytes] = []
        lengths: list[tuple[int, int]] = []
        truncated, dropped = Counter[str](), Counter[str]()
        for row, example in chunk:
            whole = [self._checked(example[feature], feature, row) for feature in FEATURES]
            empty = [ids.size == 0 or (ids.size == 1 and ids[0] == self.vocabulary.eos_id) for ids in whole]
            if any(empty):
                dropped[EMPTY_INPUTS if empty[0] else EMPTY_TARGETS] += 1
                continue
            cut = [self._cut(ids, feature, truncated) for ids, feature in zip(whole, FEATURES, strict=True)]
            records.append(encode_record(cut, self._meta(example, whole, row) if self.with_meta else None))
            lengths.append((len(cut[0]), len(cut[1])))
        table = np.array(lengths, np.int32).reshape(-1, 2)
        return Encoded(records=records, lengths=table, truncated=truncated, dropped=dropped)

    def _checked(self, ids: np.ndarray, feature: str, row: int) -> np.ndarray:
        size = self.vocabulary.size
        if ids.size and (ids.min() < 0 or (size > 0 and ids.max() >= size)):
            raise UserError(
                f"Task {self.name!r}, example {row}: {feature} holds ids {ids.min()}..{ids.max()}, and its vocabulary "
                f"has 0..{size - 1}. Mend the task's preprocessors or its output_features."
            )
        return ids

    def _cut(self, ids: np.ndarray, feature: str, truncated: Counter[str]) -> np.ndarray:
        """Cuts ids to their length; an end of sequence that was there stays last."""
        limit = self.lengths[feature]
        if len(ids) <= limit:
            return ids
        truncated[feature] += 1
        ends = ids[-1] == self.vocabulary.eos_id
        return np.append(ids[: limit - 1], ids[-1]) if ends else ids[:limit]

    def _meta(self, example: Mapping[str, Any], whole: Sequence[np.ndarray], row: int) -> Mapping[str, Any]:
        texts = {}
        for feature, ids in zip(FEATURES, whole, strict=True):
            text = example.get(f"{feature}_pretokenized")
            texts[feature] = _text(text) if isinstance(text, bytes | str) else self.decoders[feature](ids.tolist())
        return {
            **texts,
            "references": [texts["targets"]],
            "options": [],
            "option_tokens": [],
            "gold": -1,
            "template": 0,
            "row": row,
        }


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def check_features(task: Any) -> None:
    """Refuses a task that is not one of input ids and target ids in one vocabulary.

    Raises:
      UserError: naming the task and the feature.
    """
    features = task.output_features
    missing = [name for name in FEATURES if name not in features]
    if missing:
        raise UserError(
            f"Task {task.name!r} has no output feature {' and no '.join(map(repr, missing))} (it has "
            f"{', '.join(sorted(features))}): an encoder-decoder is trained on inputs and targets. Register it with "
            "both; a language-modelling task needs a preprocessor that splits its text, as prefix LM does."
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


def features_of(task: Any, *, lengths: Lengths, split: str, export_dir: Path) -> ForeignFeatures:
    """Returns how a task's examples are recorded; copies its vocabulary into the export."""
    check_features(task)
    return ForeignFeatures(
        name=task.name,
        vocabulary=vocabulary_ref(task.output_features["inputs"].vocabulary, export_dir=export_dir),
        lengths=lengths,
        decoders={name: task.output_features[name].vocabulary.decode for name in FEATURES},
        with_meta=split != "train",
    )


def vocabulary_ref(vocabulary: Any, *, export_dir: Path) -> VocabularyRef:
    """Describes a SeqIO vocabulary; copies its model into the export when it is one that `flan_jax.vocab` can read."""
    ours = from_seqio(vocabulary)
    if ours is not None:
        return reference(ours, export_dir=export_dir)
    kind = f"{type(vocabulary).__module__}.{type(vocabulary).__qualname__}"
    size = int(getattr(vocabulary, "vocab_size", 0) or 0)
    eos_id = vocabulary.eos_id
    return VocabularyRef(
        kind="foreign",
        digest=sha256_of({"class": kind, "size": size, "eos_id": eos_id, "extra_ids": vocabulary.extra_ids}),
        size=size,
        eos_id=-1 if eos_id is None else int(eos_id),
        extra_ids=int(vocabulary.extra_ids or 0),
    )


def vocabulary_file(task: Any) -> str | None:
    """The local SentencePiece model that a task's ids depend on, if any."""
    path = getattr(task.output_features["inputs"].vocabulary, "sentencepiece_model_file", None)
    return str(user_path(path)) if path and Path(path).is_file() else None


def examples(task: Any, split: str, *, lengths: Lengths) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields a task's examples as SeqIO makes them, numbered, uncut.

    Raises:
      UserError: The task repeats itself without end, or its source or preprocessors fail.
    """
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


def _untrimmed(preprocessor: Callable) -> Callable:
    """SeqIO's `append_eos_after_trim` without its trimming; any other preprocessor as it is."""
    preprocessors = lazy.import_seqio().preprocessors
    if preprocessor is not preprocessors.append_eos_after_trim:
        return preprocessor

    def append_eos(dataset: Any, output_features: Any) -> Any:
        return preprocessors.append_eos_after_trim(dataset, output_features=output_features, sequence_length=None)

    return append_eos


def _raw_dataset(source: Any, split: str) -> Any:
    """A source's rows in order: seeded, unless it takes no seed (a `dataset_fn` of two arguments)."""
    try:
        return source.get_dataset(split=split, shuffle=False, seed=SEED)
    except ValueError as error:
        if "seed" not in str(error):
            raise
        return source.get_dataset(split=split, shuffle=False)


def identity(task: Any, split: str, *, module_digests: Sequence[str]) -> Mapping[str, Any]:
    """What decides a plain SeqIO task's bytes, as far as can be told without running it.

    Functions are known by name and by the files of the modules that were named; what a function reads by itself is not
    seen.
    """
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


def source_files(source: Any, split: str) -> tuple[str, ...]:
    """The local files, and the patterns of files, that a SeqIO source reads."""
    patterns = getattr(source, "_split_to_filepattern", {}).get(split, ())
    listed = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    found = [str(pattern) for pattern in listed if "*" in str(pattern)] if listed else []
    found += [str(path) for path in source.list_shards(split)] if listed else []
    return tuple(str(user_path(path)) for path in found if "://" not in path)


def source_digests(source: Any, split: str) -> list[str]:
    """What tells one content of a source's files from another, without their places."""
    paths = [Path(path) for path in source_files(source, split) if Path(path).is_file()]
    return [f"{path.name} {sha256_of_file(path)}" for path in paths]


def evaluation_of(task: Any) -> tuple[Evaluation, tuple[str, ...], str | None]:
    """Returns (evaluation, metrics, postprocessor) for the manifest: the task's own when they are this package's."""
    functions = [*task.metric_fns, *([task.postprocessor] if task.postprocessor else [])]
    names = tuple(getattr(_unwrapped(function), "__name__", "") for function in task.metric_fns)
    are_ours = all(_module(function).startswith(EVALUATION_MODULES) for function in functions)
    if names and are_ours and all(name in METRICS for name in names):
        return "generate", names, _unwrapped(task.postprocessor).__name__ if task.postprocessor else None
    return "foreign", DEFAULT_METRICS, None


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _module(function: Any) -> str:
    return str(getattr(_unwrapped(function), "__module__", "")) + "."


def _function(function: Any) -> str:
    """A preprocessor by its qualified name, with the settings of a partial.

    >>> _function(functools.partial(max, 3, key=None))
    'builtins.max 3 key=None'
    """
    if isinstance(function, functools.partial):
        settings = [*map(_described, function.args), *(f"{k}={_described(v)}" for k, v in function.keywords.items())]
        return " ".join([_function(function.func), *settings])
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"


def _described(value: Any) -> str:
    """A value in words without addresses, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
