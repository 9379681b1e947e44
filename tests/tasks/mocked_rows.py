"""Synthetic rows in the declared features of a TFDS builder: the shape that `TfdsSource` gives, without data or a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ITEMS = 4  # In every sequence whose length is not declared.


def declared_features(name: str, *, data_dir: Path) -> tuple[Any, str]:
    """Returns the features that TFDS's code declares for a dataset, and the full name of the version that it has.

    Where the code has no longer the version asked for, it is the code's own that answers.

    Args:
      name: as TFDS spells it, "glue/rte:2.0.0".
      data_dir: an empty folder, so that nothing prepared on this machine answers.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except AssertionError:  # TFDS's way of saying that it has other versions only.
        builder = tfds.builder(name.partition(":")[0], data_dir=data_dir)
    return builder.info.features, builder.info.full_name


def mocked_rows(features: Any, *, count: int, given: Mapping[str, Sequence[Any]] | None = None) -> list[dict[str, Any]]:
    """Makes rows of the declared shape.

    Texts are words and differ from one another, in a row and between rows; classes come in turn, so do true and false;
    integers count rows, or positions in a sequence; a sequence has `ITEMS` items.

    Args:
      features: of a builder, or of one feature that is a mapping.
      count: how many rows.
      given: for a field of the row the values that it takes in turn, where the shape alone does not say what is
        possible: `{"label": (0, 1)}` of an int32.
    """
    given = given or {}
    rows = []
    for index in range(count):
        row = {name: _value(feature, (name,), index) for name, feature in features.items()}
        unknown = sorted(set(given) - set(row))
        assert not unknown, f"given {unknown}, and the row has {list(row)}"
        rows.append({**row, **{name: values[index % len(values)] for name, values in given.items()}})
    return rows


def _value(feature: Any, path: tuple[str, ...], number: int) -> Any:
    """One value; `number` counts the rows, and inside a sequence its positions."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: _value(inner, (*path, name), number) for name, inner in feature.items()}
    if isinstance(feature, tfds.features.Dataset):
        return [_value(feature.feature, (*path, str(number)), position) for position in range(ITEMS)]
    if isinstance(feature, tfds.features.Sequence):
        return _sequence(feature.feature, (*path, str(number)))
    if isinstance(feature, tfds.features.ClassLabel):
        return number % feature.num_classes
    if feature.np_dtype is np.object_ or np.dtype(feature.np_dtype).kind in "OSU":
        return _text(path, number)
    kind = np.dtype(feature.np_dtype).kind
    assert kind in "biuf" and not feature.shape, f"no mocked value for {feature} at {'/'.join(path)}"
    return {"b": number % 2 == 0, "f": 0.5 * number}.get(kind, number)


def _sequence(feature: Any, path: tuple[str, ...]) -> Any:
    """TFDS turns a sequence of mappings inside out: a mapping of lists."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: _sequence(inner, (*path, name)) for name, inner in feature.items()}
    return [_value(feature, path, position) for position in range(ITEMS)]


def _text(path: tuple[str, ...], number: int) -> str:
    """Words that say where they stand, and so stand nowhere else: "choices 12 text 3" for the row 12."""
    return " ".join((*path, str(number)))
