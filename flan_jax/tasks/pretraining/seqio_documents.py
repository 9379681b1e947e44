"""The SeqIO task of a pretraining task: a data source of texts and a preprocessor that makes ids. Imports TensorFlow.

Imported when a task is registered; building one reads nothing.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from flan_jax.errors import UserError
from flan_jax.tasks.pretraining import task as pretrain
from flan_jax.tasks.vocabularies import to_seqio
from flan_jax.vocab import Vocabulary


class DocumentSource(seqio.DataSource):
    """The texts of `task.documents`, in their order, as a `tf.data.Dataset`."""

    def __init__(self, task: pretrain.PretrainingTask):
        super().__init__(splits=task.source.splits)
        self._task = task

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: SeqIO shards the examples instead."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns one shard."""
        return [split]

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
        """Returns the documents; shuffling is left to `seqio.Task`, which shuffles examples in a buffer."""
        del shuffle, seed, sequence_length, use_cached, num_epochs
        # Checked here: TensorFlow wraps errors that are raised inside the generator.
        self._task.source.require_split(split)
        dataset = tf.data.Dataset.from_generator(
            lambda: ({"text": text, "split": split} for text in pretrain.documents(self._task, split)),
            output_signature={"text": tf.TensorSpec((), tf.string), "split": tf.TensorSpec((), tf.string)},
        )
        return dataset.shard(shard_info.num_shards, shard_info.index) if shard_info else dataset


def make_task(task: pretrain.PretrainingTask, *, vocabulary: Vocabulary) -> seqio.Task:
    """Adds a task to `seqio.TaskRegistry`: documents become ids of inputs and targets, ended, within their lengths."""

    def corrupt(dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None) -> tf.data.Dataset:
        if sequence_length is None:
            raise UserError(
                f"Task {task.name!r} needs a sequence_length of inputs and targets: it splits documents to that length."
            )
        # Here too, for its checks: TensorFlow wraps errors that are raised inside the generator.
        pretrain.corrupter(task, "", vocabulary=vocabulary, lengths=sequence_length)
        ids = tf.TensorSpec((None,), tf.int32)
        return tf.data.Dataset.from_generator(
            lambda: _examples(dataset, task, vocabulary=vocabulary, lengths=sequence_length),
            output_signature={"inputs": ids, "targets": ids},
        )

    feature = seqio.Feature(vocabulary=to_seqio(vocabulary), add_eos=True)
    return seqio.TaskRegistry.add(
        task.name,
        source=DocumentSource(task),
        preprocessors=[corrupt],
        output_features={"inputs": feature, "targets": feature},
        metric_fns=[],
    )


def _examples(
    dataset: tf.data.Dataset, task: pretrain.PretrainingTask, *, vocabulary: Vocabulary, lengths: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    documents = dataset.as_numpy_iterator()
    first = next(documents, None)
    if first is None:
        return
    # SeqIO does not pass the split to a preprocessor, so that each document carries it.
    split = first["split"].decode()
    corrupter = pretrain.corrupter(task, split, vocabulary=vocabulary, lengths=lengths)
    texts = (row["text"].decode() for row in itertools.chain([first], documents))
    for segment in corrupter.segments(texts):
        if len(segment.tokens) > 1:
            inputs, targets = corrupter.example(segment)
            yield {"inputs": inputs, "targets": targets}
