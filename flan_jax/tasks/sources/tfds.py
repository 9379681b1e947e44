"""Rows of datasets that TensorFlow Datasets has prepared on disk. Nothing is downloaded."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import sha256_of
from flan_jax.names import nearest
from flan_jax.paths import user_path
from flan_jax.tasks import lazy
from flan_jax.tasks.sources.rows import BadRow, OnBadRow, Record, Source, plain_record

_tfds_data_dir: str | None = None


@dataclass(frozen=True, kw_only=True, init=False)
class TfdsSource(Source):
    """A dataset that TensorFlow Datasets has prepared on disk. Nothing is downloaded.

    Args:
      name: In TFDS's spelling, "glue/rte:2.0.0"; without a version the newest on disk.
      splits: For each split its expression, {"train": "train[:90%]", "validation": "train[90%:]"}.
    """

    name: str
    expressions: Mapping[str, str]

    def __init__(self, *, name: str, splits: Mapping[str, str], on_bad_row: OnBadRow = "error"):
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "expressions", dict(splits))
        object.__setattr__(self, "on_bad_row", on_bad_row)
        self.__post_init__()

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return tuple(self.expressions)

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the rows with `str` texts and Python's own numbers and lists. Places are "name split: row N"."""
        builder, tfds = self._builder(), lazy.import_tfds()
        in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        dataset = builder.as_dataset(split=self._expression(split, builder), shuffle_files=False, read_config=in_order)
        for index, row in enumerate(tfds.as_numpy(dataset)):
            yield plain_record(row, place=f"{self.describe(split)}: row {index}")

    def revision(self, split: str) -> str:
        """Returns a SHA-256 over the dataset's full name, its version, the split's expression and its size."""
        return sha256_of([self._builder().info.full_name, self.expressions[split], self.num_rows(split)])

    def num_rows(self, split: str) -> int | None:
        """Returns the number in the dataset's metadata."""
        builder = self._builder()
        count: int = builder.info.splits[self._expression(split, builder)].num_examples
        return count

    def unavailable(self, split: str) -> str | None:
        """Returns why the dataset cannot be read; None if it is prepared."""
        self.require_split(split)
        try:
            self._builder()
        except MissingFileError as error:
            return str(error)
        return None

    def looked_for(self, split: str) -> tuple[str, ...]:
        """Returns the folder where TensorFlow Datasets prepares the dataset."""
        self.require_split(split)
        data_dir = _tfds_data_dir or lazy.import_tfds().core.constants.DATA_DIR
        return (os.path.join(_normalized(data_dir), self.name.partition("/")[0].partition(":")[0]),)

    def describe(self, split: str) -> str:
        """Returns the dataset's name with the split's expression."""
        return f"{self.name} {self.expressions[split]}"

    def window(self, split: str, *, sizes: Mapping[str, int]) -> str:
        """Returns the expression that is passed to TFDS; a kind of source may adapt it to the rows on disk.

        Args:
          split: One of `splits`.
          sizes: Rows of each of the dataset's own splits.
        """
        del sizes
        return self.expressions[split]

    def _expression(self, split: str, builder: Any) -> str:
        self.require_split(split)
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        expression = self.window(split, sizes=sizes)
        try:
            builder.info.splits[expression]
        except (KeyError, ValueError) as error:
            known = list(builder.info.splits)
            raise UserError(
                f"{self.name} has no split {expression!r} (requested as {split!r})."
                f"{nearest(expression.partition('[')[0], known)} On disk: {', '.join(known) or 'none'}."
            ) from error
        return expression

    def _builder(self) -> Any:
        tfds = lazy.import_tfds()
        data_dir = _tfds_data_dir or tfds.core.constants.DATA_DIR
        try:
            builder = tfds.builder(self.name, data_dir=_tfds_data_dir)
        except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
            on_disk = [p.name for p in Path(data_dir).iterdir()] if Path(data_dir).is_dir() else []
            raise MissingFileError(
                f"TensorFlow Datasets has no {self.name!r}, and it is not in {data_dir}."
                f"{nearest(self.name.partition('/')[0].partition(':')[0], on_disk)} Set --tfds_data_dir."
            ) from error
        if not Path(builder.data_dir).is_dir() and "://" not in str(builder.data_dir):
            raise MissingFileError(
                f"The dataset {self.name!r} is not prepared: there is no {builder.data_dir}. Set --tfds_data_dir, or "
                f"prepare it: tfds build {self.name} --data_dir={data_dir}."
            )
        return builder


def set_tfds_data_dir(data_dir: str | None) -> None:
    """Sets the folder of TFDS datasets, for `TfdsSource` and for SeqIO's own sources; None for TFDS's default."""
    global _tfds_data_dir
    _tfds_data_dir = None if data_dir is None else _normalized(data_dir)
    lazy.import_seqio().utils.set_tfds_data_dir_override(_tfds_data_dir)


def _normalized(data_dir: str) -> str:
    """Returns a local path with one spelling; TensorFlow Datasets reads buckets itself."""
    return data_dir if "://" in data_dir else str(user_path(data_dir))
