"""The SeqIO task of a templated task: a data source of texts, preprocessors, features, metrics. Imports TensorFlow.

Imported when a task is registered; building one reads nothing.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from flan_jax.evaluation.metrics import METRICS
from flan_jax.evaluation.postprocess import postprocessor
from flan_jax.tasks import rendering
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.vocabularies import to_seqio
from flan_jax.vocab import Vocabulary


class RenderedSource(seqio.DataSource):
    """The texts of `rendering.iter_rendered`, in its order, as a `tf.data.Dataset`."""

    def __init__(self, task: TemplatedTask, *, vocabulary: Vocabulary):
        super().__init__(splits=task.source.splits)
        self._task, self._count_tokens = task, vocabulary.count
        self._counts: dict[str, int] = {}

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: SeqIO shards the examples instead."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns one shard."""
        return [split]

    def num_input_examples(self, split: str) -> int:
        """Returns the number of examples of a split; counted once, on first use."""
        if split not in self._counts:
            self._counts[split] = rendering.num_examples(self._task, split, count_tokens=self._count_tokens)
        return self._counts[split]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """Returns the texts; shuffling is left to `seqio.Task`, which shuffles examples in a buffer."""
        del shuffle, seed, sequence_length, use_cached, num_epochs
        self._task.source.require_split(
            split
        )  # Checked here: TensorFlow wraps errors that are raised inside the generator.
        signature = {"inputs": tf.TensorSpec((), tf.string), "targets": tf.TensorSpec((), tf.string)}
        if self._task.references is not None:
            signature["references"] = tf.TensorSpec((None,), tf.string)
        dataset = tf.data.Dataset.from_generator(lambda: self._texts(split), output_signature=signature)
        return dataset.shard(shard_info.num_shards, shard_info.index) if shard_info else dataset

    def _texts(self, split: str) -> Iterator[dict[str, Any]]:
        for _, rendered, *_ in rendering.iter_rendered(self._task, split, count_tokens=self._count_tokens):
            texts: dict[str, Any] = {"inputs": rendered.inputs, "targets": rendered.targets}
            if self._task.references is not None:
                texts["references"] = list(rendered.references)
            yield texts


def make_task(task: TemplatedTask, *, vocabulary: Vocabulary) -> seqio.Task:
    """Adds a task to `seqio.TaskRegistry`: texts are tokenized, truncated, ended, and saved as `*_pretokenized`."""
    inputs, targets = (
        seqio.Feature(vocabulary=to_seqio(vocabulary), add_eos=add_eos) for add_eos in (task.ends_inputs, True)
    )
    return seqio.TaskRegistry.add(
        task.name,
        source=RenderedSource(task, vocabulary=vocabulary),
        # Truncates before it adds the end of sequence, which is last in exports too.
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
        output_features={"inputs": inputs, "targets": targets},
        postprocess_fn=_postprocess_fn(task),
        # SeqIO gives metrics only targets and predictions; those that need more of a row run in `evaluation`.
        metric_fns=[_metric_fn(n) for n in task.metrics if METRICS[n].kind == "generate" and not METRICS[n].needs],
    )


def _postprocess_fn(task: TemplatedTask) -> Callable[..., Any]:
    process = postprocessor(task.postprocessor)

    def postprocess(decoded: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
        if not is_target:
            return process(decoded)
        given = [tf.compat.as_text(text) for text in (example or {}).get("references", ())]
        return [process(text) for text in given or [decoded]]

    return postprocess


@functools.cache
def _metric_fn(name: str) -> Callable[..., dict[str, float]]:
    # SeqIO distinguishes kinds of metrics by the names of their arguments.
    def metric(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
        return METRICS[name].fn(targets, predictions)

    metric.__name__ = name
    return metric
